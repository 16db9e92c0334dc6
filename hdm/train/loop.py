"""One training run, from settings to record."""

import datetime
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from hdm.data import load_persons
from hdm.data.augment import Augmentation
from hdm.data.crops import PersonCrops
from hdm.errors import InputError
from hdm.inference import choose_device
from hdm.losses import CrossEntropy, make_loss
from hdm.models import PoseNetwork, build_model
from hdm.protocols import mpii_truth
from hdm.records import RUNS, provenance, read_epochs, read_run, read_runs, write_run
from hdm.train.checkpoint import load_checkpoint, save_checkpoint
from hdm.train.config import TrainConfig
from hdm.train.validation import mean_pose_error_px, scores, validate

CHECKPOINTS = Path("data/checkpoints")


@dataclass(frozen=True)
class Run:
    """A finished run: its record as written, its epochs, the folder of both, and the trained network's checkpoint."""

    record: dict[str, Any]
    epochs: pd.DataFrame
    folder: Path
    checkpoint: Path


def train(
    config: TrainConfig,
    *,
    profile: str = "local",
    runs: Path | str = RUNS,
    checkpoints: Path | str = CHECKPOINTS,
    reuse: bool = False,
    log: Callable[[str], None] = print,
) -> Run:
    """Trains a network as `config` says, validates it after every epoch, and writes a run record.

    Stopped at any moment and called again with the same config, it goes on after the last complete epoch and ends as if
    it had not been stopped.
    reuse: return the newest record of the same settings and data, where there is one, instead of training.
    log: is given one line per epoch. Raises InputError for bad data, bad settings and a network that diverges.
    """
    cv2.setNumThreads(0)  # OpenCV's threads and torch's get in each other's way
    train_data = load_persons(config.data, "train").head(config.train_limit)
    val_data = load_persons(config.data, "val").head(config.val_limit)
    if val_data.kind == "mpii":
        mpii_truth(val_data)  # missing or damaged, it is told before the training, not after it
    key = config.key(train_data.sha256 + val_data.sha256)
    folder = Path(checkpoints) / profile / f"{config.loss}-{key}"
    if reuse and (found := _find_run(key, profile, runs)):
        log(f"{config.loss}: record {found.name} of these settings is there; not trained again")
        return Run(read_run(found), read_epochs(found), found, folder / "last.pt")

    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    model = build_model(
        config.model,
        joints=train_data.skeleton.joints,
        pretrained=config.pretrained,
        head_channels=config.head_channels,
        backbone_stride=config.backbone_stride,
        colour=config.colour,
    ).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss, warm_loss = (objective.to(device) for objective in _losses(config))
    optimizer = make_optimizer(model, loss, config)
    train_crops = PersonCrops(
        train_data,
        config.input_size,
        augmentation=Augmentation(config.rotation, config.scale, config.flip, config.half_body),
        seed=config.seed,
        convention=config.convention,
        margin=getattr(loss, "margin", 0.0),  # only a loss that draws targets can make use of joints outside
    )
    val_crops = PersonCrops(val_data, config.input_size, convention=config.convention)
    steps_per_epoch = max(1, len(train_crops) // config.batch_size)
    steps = steps_per_epoch * config.epochs

    saved = load_checkpoint(folder / "last.pt")
    if saved is None or saved["finished"]:
        history: list[dict[str, Any]] = []
        sessions: list[dict[str, Any]] = []
        mean_pose_error = mean_pose_error_px(train_data, val_data, config)
    else:
        model.load_state_dict(saved["model"])
        loss.load_state_dict(saved.get("loss", {}))  # older checkpoints hold none
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        history, sessions, mean_pose_error = saved["history"], saved["sessions"], saved["mean_pose_error"]
        log(f"{config.loss}: goes on after epoch {history[-1]['epoch']} of {config.epochs}")
    source = provenance()  # of the code that is loaded now, whatever happens to the files while it runs
    sessions.append({"started": _now(), "commit": source["commit"], "dirty": source["dirty"]})

    for epoch in range(len(history), config.epochs + 1):
        clock = time.perf_counter()
        row: dict[str, Any] = {"epoch": epoch, "objective": "untrained", "train_loss": math.nan, "lr": 0.0}
        if epoch > 0:  # epoch 0 only measures the untrained network
            model.train()
            train_crops.epoch = epoch
            total, visible_total = 0.0, 0.0
            for step, batch in enumerate(_loader(train_crops, config, epoch), start=(epoch - 1) * steps_per_epoch):
                warm = step < round(config.warm_start * steps)
                objective = warm_loss if warm else loss
                lr = learning_rate(step, steps, config)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                joints, visible = batch.joints.to(device), batch.visible.to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
                    heatmaps = model(model.prepare(batch.image.to(device)))
                value = objective(heatmaps, joints, visible)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                optimizer.step()
                weight = float(visible.sum())
                total, visible_total = total + float(value.detach()) * weight, visible_total + weight
                row |= {"objective": "cross_entropy" if warm else config.loss, "lr": lr}
            row["train_loss"] = total / visible_total
        validation = validate(model, val_crops, loss, config)
        row |= {"val_loss": validation.loss, "error_px": validation.error_px, "seconds": time.perf_counter() - clock}
        history.append(row)
        state = {
            "model": model.state_dict(),
            "loss": loss.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        bookkeeping = {
            "history": history,
            "sessions": sessions,
            "mean_pose_error": mean_pose_error,
            "config": config.as_dict(),
        }
        finished = epoch == config.epochs
        if not finished:
            save_checkpoint(folder / "last.pt", {**state, **bookkeeping, "finished": False})
        train_loss = f" {row['train_loss']:.4f}" if epoch > 0 else ""
        log(
            f"{config.loss}: epoch {epoch}/{config.epochs}  {row['objective']}{train_loss}  "
            f"validation {row['val_loss']:.4f}  error {row['error_px']:.2f} px  {row['seconds']:.0f} s"
        )

    epochs = pd.DataFrame(history)
    record = {
        "run_id": f"{_now().replace(':', '').replace('-', '')[:15]}-{config.loss}-{key}",
        "key": key,
        "profile": profile,
        "started": sessions[0]["started"],
        "ended": _now(),
        "seconds": float(epochs["seconds"].sum()),
        **source,
        "sessions": sessions,
        "settings": config.as_dict(),
        "data": {
            "source": config.as_dict()["data"],
            "train_persons": len(train_data.persons),
            "val_persons": len(val_data.persons),
            "train_sha256": train_data.sha256,
            "val_sha256": val_data.sha256,
            "boxes": val_data.boxes,
        },
        "results": {
            **scores(validation, val_data, config),
            "untrained_error_px": history[0]["error_px"],
            "mean_pose_error_px": mean_pose_error,
        },
    }
    record["hardware"]["device"] = str(device)
    written = write_run(runs, record, epochs)
    # Last, so that a run whose record could not be written goes on from its last epoch but one.
    save_checkpoint(folder / "last.pt", {**state, **bookkeeping, "finished": True})
    return Run(read_run(written), epochs, written, folder / "last.pt")


def finished_run(folder: Path | str, checkpoints: Path | str = CHECKPOINTS) -> Run:
    """The run whose record is in `folder`. Raises InputError where the record can't be read."""
    record = read_run(folder)
    weights = Path(checkpoints) / record["profile"] / f"{record['settings']['loss']}-{record['key']}" / "last.pt"
    return Run(record, read_epochs(folder), Path(folder), weights)


def trained_network(run: Run) -> tuple[PoseNetwork, nn.Module]:
    """The network of a finished run, ready for use, and its loss, whose `maps` turn raw output into maps to decode
    (and whose `joints`, where it has them, give the joints at once).

    Raises InputError where the weights are not on this machine: records are kept in the repository, weights are not.
    """
    saved = load_checkpoint(run.checkpoint)
    if saved is None:
        raise InputError(f"weights {run.checkpoint} of run {run.record['run_id']} are not there: train it again")
    settings = run.record["settings"]
    joints = len(saved["model"]["final_layer.bias"])
    model = build_model(
        settings["model"],
        joints=joints,
        head_channels=settings["head_channels"],
        backbone_stride=settings["backbone_stride"],
        colour=settings.get("colour", "rgb"),
    )
    model.load_state_dict(saved["model"])
    loss = make_loss(settings["loss"], **settings["loss_settings"])
    loss.load_state_dict(saved.get("loss", {}))
    return model.eval(), loss.eval()


def make_optimizer(model: nn.Module, loss: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    """Adam over all parameters of the network and of the loss, in one group and without weight decay: the official
    recipes' files ask for 1e-4, but their `get_optimizer` passes it to SGD alone."""
    return torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=config.lr)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The learning rate of a step (from 0): a linear rise over the share `warm_up`, then `cosine` or `step` decay."""
    rise = config.warm_up * steps
    if step < rise:
        return config.lr * (step + 1) / (rise + 1)
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(step >= drop * steps for drop in config.drops)
    return config.lr * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise))) / 2


def _losses(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    """The loss, and cross-entropy on the same temperature for the warm start."""
    temperature = config.loss_settings.get("temperature", 1.0)
    return make_loss(config.loss, **config.loss_settings), CrossEntropy(temperature=temperature)


def _loader(crops: PersonCrops, config: TrainConfig, epoch: int) -> DataLoader:
    """Shuffled batches of an epoch; the order depends on (seed, epoch) alone."""
    order = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    return DataLoader(
        crops,
        config.batch_size,
        shuffle=True,
        generator=order,
        num_workers=config.workers,
        drop_last=len(crops) >= config.batch_size,
    )


def _find_run(key: str, profile: str, runs: Path | str) -> Path | None:
    table = read_runs(runs, profile)
    same = table[table["key"] == key] if len(table) else table
    return Path(same["folder"].iloc[-1]) if len(same) else None


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
