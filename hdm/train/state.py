"""What a training works with while it runs, how that is saved, and how it goes on from there."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hdm.data.skeletons import Skeleton
from hdm.errors import InputError
from hdm.losses import CrossEntropy, make_loss
from hdm.models import PoseNetwork, build_model
from hdm.train.checkpoint import newest_state, read_state, saved_states, step_of, write_state, write_tensors
from hdm.train.config import PLACE_SETTINGS, TrainConfig
from hdm.train.engine import Learner, sync_batch_norm
from hdm.train.optimizer import make_optimizer
from hdm.train.progress import Progress
from hdm.train.run import LOSS


@dataclass
class Training:
    """Network, losses, optimiser and progress of a run.

    folder: of its states and weights. wrapped: the learner as Accelerate runs it. average: of the weights, where the
    config asks for one. totals: of the epoch at hand, sums over its steps of loss times weight, of weight, and of the
    gradient's norm; of several processes each has its share. skeleton: of the data, kept with the weights.
    followed: losses and errors (2, N, K) of each epoch, of a run that is followed.
    """

    config: TrainConfig
    engine: Accelerator
    folder: Path
    run: Progress
    learner: Learner
    wrapped: nn.Module
    optimizer: AcceleratedOptimizer
    average: AveragedModel | None
    totals: Tensor
    skeleton: Skeleton
    followed: list[Tensor] = field(default_factory=list)

    @property
    def network(self) -> PoseNetwork:
        """What is validated and kept."""
        return self.learner.model if self.average is None else self.average.module  # type: ignore[return-value]


def start_training(
    config: TrainConfig, engine: Accelerator, folder: Path, run: Progress, skeleton: Skeleton
) -> Training:
    """A run before its first step: weights drawn from the config's seed."""
    torch.manual_seed(config.seed)
    model = build_model(
        config.model,
        joints=skeleton.joints,
        pretrained=config.pretrained,
        head_channels=config.head_channels,
        backbone_stride=config.backbone_stride,
        heatmap_stride=config.heatmap_stride,
        colour=config.colour,
    ).to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.sync_batch_norm and engine.num_processes > 1:
        sync_batch_norm(model, engine.device)
    loss = make_loss(config.loss, **config.loss_settings)
    warm_loss = CrossEntropy(temperature=config.loss_settings.get("temperature", 1.0))
    learner = Learner(model, loss, warm_loss).to(engine.device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    if config.compile:
        model.compile()
    wrapped, optimizer = engine.prepare(learner, make_optimizer(model, loss, config))
    if engine.num_processes > 1:
        torch.manual_seed(config.seed * 100_003 + engine.process_index)  # no process drops out what another does
    totals = torch.zeros(3, dtype=torch.float64, device=engine.device)
    return Training(config, engine, folder, run, learner, wrapped, optimizer, average, totals, skeleton)


def save(t: Training) -> None:
    """Writes the state at the end of a step. Every process must call it; the main one writes."""
    t.totals = t.engine.reduce(t.totals, "sum")
    if not t.engine.is_main_process:
        t.totals = torch.zeros_like(t.totals)
    random = {"cpu": torch.get_rng_state()}
    if t.engine.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(t.engine.device)
    everyones = gather_object([(random, t.run.unreadable, t.run.worker_restarts)])
    t.run.unreadable, t.run.worker_restarts = {}, 0
    if t.engine.is_main_process:
        for _, unreadable, restarts in everyones:
            t.run.worker_restarts += restarts
            for file, count in unreadable.items():
                t.run.unreadable[file] = t.run.unreadable.get(file, 0) + count
        state = {
            "model": t.learner.model.state_dict(),
            "loss": t.learner.loss.state_dict(),
            "average": None if t.average is None else t.average.state_dict(),
            "optimizer": t.optimizer.state_dict(),
            "scaler": None if t.engine.scaler is None else t.engine.scaler.state_dict(),
            "totals": t.totals,
            "followed": t.followed,
            "random": [each[0] for each in everyones],
            "run": dataclasses.asdict(t.run),
        }
        write_state(t.folder, t.run.step, state)
    t.engine.wait_for_everyone()


def state_to_go_on_from(t: Training, resume: str | Path, log: Callable[[str], None]) -> dict[str, Any] | None:
    """The state that `resume` (see `hdm.train.train`) asks for, or None for a run from the start.

    Raises InputError for a state that is not there or was made with other settings or data, with the difference.
    """
    if resume == "never":
        if t.engine.is_main_process:
            tidy_up(t)
        t.engine.wait_for_everyone()
        return None
    place = t.folder if resume == "auto" else Path(resume)
    if place.is_file():
        state: dict[str, Any] | None = read_state(place)
    else:
        state = newest_state(place, log)
    if state is None and resume != "auto":
        raise InputError(f"there is no state to resume from in {place}: give a state-*.safetensors or its folder")
    if state is not None:
        _check_same_run(state["run"], t.run, place)
        if resume != "auto" and t.engine.is_main_process:
            tidy_up(t, after=state["run"]["step"])  # or they would be taken for newer ones than those to come
    return state


def _check_same_run(saved: dict[str, Any], run: Progress, place: Path) -> None:
    """Refuses a state of another run: its numbers would be of neither."""
    names = dict.fromkeys([*saved["settings"], *run.settings])
    changes = [
        f"{name} {saved['settings'].get(name)!r} -> {run.settings.get(name)!r}"
        for name in names
        if name not in PLACE_SETTINGS and saved["settings"].get(name) != run.settings.get(name)
    ]
    if saved["data_sha256"] != run.data_sha256:
        changes.append("other annotation files")
    if changes:
        raise InputError(
            f"the state in {place} is of another run ({'; '.join(changes)}): resume with its settings, or train anew"
        )


def restore(t: Training, state: dict[str, Any]) -> None:
    """Puts everything to where it was when the state was saved."""
    t.learner.model.load_state_dict(state["model"])
    t.learner.loss.load_state_dict(state["loss"])
    if t.average is not None:
        t.average.load_state_dict(state["average"])
    t.optimizer.load_state_dict(state["optimizer"])
    _as_parameters_lie(t.optimizer)
    if t.engine.scaler is not None:
        t.engine.scaler.load_state_dict(state["scaler"])
    if t.engine.is_main_process:
        t.totals = state["totals"].to(t.engine.device)
    t.followed = list(state.get("followed", []))
    if len(state["random"]) == t.engine.num_processes:
        random = state["random"][t.engine.process_index]
        torch.set_rng_state(random["cpu"])
        if t.engine.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], t.engine.device)
    t.run = Progress.from_dict({**state["run"], "settings": t.run.settings})


def _as_parameters_lie(optimizer: AcceleratedOptimizer) -> None:
    """Lays the optimiser's moments out in memory as its parameters are (channels last), as before they were saved."""
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


def write_weights(t: Training) -> Path:
    """Writes the network's weights, and those of the loss if it has any, with the settings and the skeleton inside."""
    tensors = dict(t.network.state_dict())
    tensors |= {LOSS + name: value for name, value in t.learner.loss.state_dict().items()}
    # And no time, so that equal weights have equal names.
    notes = {"settings": t.run.settings, "step": t.run.step, "skeleton": dataclasses.asdict(t.skeleton)}
    return write_tensors(t.folder, "weights", tensors, notes)


def tidy_up(t: Training, after: int = -1) -> None:
    """Deletes the states of a run that is at its end, or those of later steps than `after`."""
    for path in saved_states(t.folder):
        if step_of(path) > after:
            path.unlink(missing_ok=True)
