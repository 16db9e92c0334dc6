"""`hdm bench step`: where the time of a training step goes, and what loss, decoding, metrics and waiting are of it.

A step is the real one: network and loss as `hdm.train.engine.Learner`, prepared by Accelerate, and Adam. Its phases are
told apart by marks that hooks set while it runs:

    start | forward: network | loss, forward and backward | backward: network | optimizer | end

Decoders and metrics run in turn with the steps of the reference: the last of the models in the first precision. With a
data set there are real trainings too, each in a process of its own, which tell how long they waited for data and how
their memory grows.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hdm.bench.printing import as_texts
from hdm.bench.timing import peak_memory_mb, time_in_turn
from hdm.bench.transport import example_heatmaps
from hdm.data import PersonCrops, PersonData, load_persons
from hdm.data.batches import val_batches
from hdm.decode import DECODERS, decode, joint_scores
from hdm.errors import InputError
from hdm.evaluate import coco_ap, coco_results, localisation_error, pck
from hdm.inference import choose_device, predict_crops
from hdm.losses import CrossEntropy, make_loss
from hdm.models import PoseNetwork, build_model
from hdm.pixels import STRIDE
from hdm.records import BENCHMARKS, now, provenance, write_benchmark
from hdm.train import TrainConfig, train
from hdm.train.engine import Learner, start_engine
from hdm.train.optimizer import make_optimizer
from hdm.train.validation import scores

JOINTS = 17
PHASES = ("forward", "loss", "backward", "optimizer")
HEADS = ("simcc", "rle")  # losses that must be told the size of the maps
DECODER_OF = {"gaussian_mse": "quarter"}  # what a loss's maps are read with; all others: `local`
LIMIT_S = 120.0  # that one entry may take in all rounds, see `time_in_turn`
WORKERS = (0, 2)  # of the real trainings
EPOCHS = 2  # of these; the last one counts
SMALL = (64, 64)  # crops of the run whose memory is watched

Row = dict[str, Any]


def bench_step(
    models: Sequence[str] = ("resnet18", "resnet50"),
    sizes: Sequence[tuple[int, int]] = ((256, 192),),
    losses: Sequence[str] = ("gaussian_mse", "hdm"),
    precisions: Sequence[str] = ("float32", "bfloat16"),
    *,
    batch_size: int = 8,
    rounds: int = 5,
    data: str | None = None,
    persons: int = 48,
    val_persons: int = 200,
    memory_epochs: int = 20,
    device: str = "auto",
    seed: int = 0,
    directory: Path | str = BENCHMARKS,
) -> tuple[Path, pd.DataFrame]:
    """Times training steps and what goes with them, and writes a record; returns its folder and table.

    sizes: (rows, columns) of the crops in pixels, which hold noise. rounds: how often each runs, the medians are kept.
    data: `coco:DIR` or `synthetic:DIR`, for the rows that need one. persons, val_persons: at most so many are trained
        on and validated. memory_epochs: length of the run whose memory is watched.

    Rows of each `kind`, with `ms` (median milliseconds for a batch) and what else is in the columns:
    `step`        forward_ms, loss_ms (the loss alone, forward and backward, from the network's output to the gradient
                  of it), backward_ms, optimizer_ms, images_per_s, memory_mb (torch's peak beyond weights and moments),
                  loss_share (loss_ms of ms, the median over rounds).
    `decoding`    each decoder; share_of_step: of a step of the reference with the first loss, in the same round.
    `metric`      pixel error and PCK of a batch; a batch's part of the OKS-AP of the validated persons (data).
    `together`    a loss, its decoder and all metrics; share_of_step: of the step with that loss.
    `training`    (data) the last epoch of a run of the first model with the last loss: workers, data_wait (share of its
                  time in which it waited for data), images_per_s, memory_mb (peak of the process).
    `validation`  (data) of all validated persons by the first model: the network, reading joints, and all scores;
                  share_of_forward: of the network's time.
    `memory`      (data) epoch and memory_mb (peak of the process) of a run on small crops.

    The networks are untrained and their maps flat; decoders read maps as trained networks paint them.
    Raises InputError for numbers below 1, unknown names, a device or precision that is not there, and data that is not
    there, or in another layout than COCO's.
    """
    lists = (models, sizes, losses, precisions)
    if min(batch_size, rounds, persons, val_persons, memory_epochs, *map(len, lists)) < 1:
        raise InputError("give at least one model, size, loss and precision, and numbers of at least 1")
    if data is not None and data.partition(":")[0] not in ("coco", "synthetic"):
        raise InputError(f"hdm bench step reads COCO's layout, not {data!r}: give coco:DIR or synthetic:DIR")
    where, started = choose_device(device), now()
    val = None if data is None else load_persons(data, "val").head(val_persons)
    settings = {"data": data or "synthetic:none", "batch_size": batch_size, "device": device, "seed": seed}
    configs = [
        [_config(settings, model, size, loss, precision) for loss in losses]
        for size in sizes
        for precision in precisions
        for model in models
    ]
    with torch.device("meta"):  # no numbers, only names: an unknown model is told before the first is timed
        for model in models:
            build_model(model)
    rows: list[Row] = []
    trainings = [] if data is None else _trainings(configs[0][-1], persons, memory_epochs)
    with tqdm(total=len(configs) * len(losses) * (rounds + 3) + len(trainings), desc="step", unit="step") as bar:
        for group in configs:
            reference = (group[0].model, group[0].precision) == (models[-1], precisions[0])
            rows += _one_network(group, rounds, where, val if reference else None, reference, bar.update)
        if val is not None:
            rows += _validation(configs[0][-1], val, rounds, where)
        for kind, config in trainings:
            rows += _real_run(kind, config)
            bar.update()
    table = pd.DataFrame(rows)
    record = {
        "benchmark": "step",
        "started": started,
        **provenance(),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "settings": {
            "batch_size": batch_size,
            "rounds": rounds,
            "seed": seed,
            "persons": persons,
            "threads": torch.get_num_threads(),
        },
        "data": None if val is None else {"source": configs[0][0].as_dict()["data"], "sha256": val.sha256},
    }
    return write_benchmark(directory, record, table), table


def step_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is printed, blank where a column says nothing about a row; of the memory the first and the last
    epoch and one in five between."""
    if "epoch" in table:
        table = table[table["epoch"].isna() | (table["epoch"] % 5 <= 1) & (table["epoch"] != 0)]
    columns = {
        "workers": ("workers", "{:.0f}"),
        "epoch": ("epoch", "{:.0f}"),
        **{f"{phase} ms": (f"{phase}_ms", "{:.1f}") for phase in PHASES},
        "ms": ("ms", "{:.1f}"),
        "images/s": ("images_per_s", "{:.1f}"),
        "MB": ("memory_mb", "{:.0f}"),
        "loss share": ("loss_share", "{:.2%}"),
        "of a step": ("share_of_step", "{:.2%}"),
        "of forward": ("share_of_forward", "{:.2%}"),
        "waits": ("data_wait", "{:.1%}"),
    }
    texts = as_texts(table, columns)
    names = {name: table[name].fillna("") for name in ("kind", "what", "model", "size", "loss", "precision")}
    return pd.DataFrame({**names, **texts})


def _config(settings: Row, model: str, size: tuple[int, int], loss: str, precision: str, **others: Any) -> TrainConfig:
    head = {"loss_settings": {"size": [side // STRIDE for side in size]}} if loss in HEADS else {}
    what = {"model": model, "input_size": size, "loss": loss, "precision": precision}
    return TrainConfig(**settings | what | head | others)


def _about(config: TrainConfig) -> Row:
    """The columns that say what ran."""
    size = "x".join(map(str, config.input_size))
    return {"model": config.model, "size": size, "precision": config.precision, "batch": config.batch_size}


# --- steps


def _one_network(
    group: Sequence[TrainConfig],
    rounds: int,
    device: torch.device,
    val: PersonData | None,
    reference: bool,
    done: Callable[[], object],
) -> Iterator[Row]:
    """The rows of a network's steps with each loss (the configs of a group differ in nothing else) and, beside those of
    the reference, of decoders and metrics."""
    first, about = group[0], _about(group[0])
    steps, memory = {}, {}
    for config in group:
        steps[config.loss] = Step(config, device, done)
        steps[config.loss]()  # makes Adam's moments, which are no part of the memory of a step
        memory[config.loss] = peak_memory_mb(steps[config.loss], device)
    others = _readings(first, device, val) if reference else {}
    calls: dict[str, Callable[[], object]] = {f"step {loss}": step for loss, step in steps.items()}
    times = time_in_turn(calls | {what: call for what, (_, call) in others.items()}, rounds, device, LIMIT_S)
    phases = {}
    for loss, step in steps.items():
        whole = times[f"step {loss}"]
        phases[loss] = step.phases()[-len(whole) :]
        parts = {f"{name}_ms": statistics.median(one[name] for one in phases[loss]) for name in PHASES}
        ms = statistics.median(whole)
        share = statistics.median(one["loss"] / ms for one, ms in zip(phases[loss], whole, strict=True))
        speed = {"images_per_s": 1e3 * first.batch_size / ms, "memory_mb": memory[loss], "loss_share": share}
        yield {"kind": "step", "loss": loss, **about, **parts, "ms": ms, **speed, "rounds": len(whole)}
    if not reference:
        return
    beside = {what: [part * ms for ms in times[what]] for what, (part, _) in others.items()}
    for what, values in beside.items():
        share = _median_ratio(values, times[f"step {first.loss}"])
        kind = "decoding" if what in DECODERS else "metric"
        yield {"kind": kind, "what": what, **about, "ms": statistics.median(values), "share_of_step": share}
    for loss in steps:
        decoder = DECODER_OF.get(loss, "local")
        used = [values for what, values in beside.items() if what == decoder or what not in DECODERS]
        sums = [one["loss"] + sum(more) for one, *more in zip(phases[loss], *used, strict=False)]
        share = _median_ratio(sums, times[f"step {loss}"])
        row = {"kind": "together", "what": f"loss, {decoder}, metrics", "loss": loss, **about}
        yield row | {"ms": statistics.median(sums), "share_of_step": share}


def _median_ratio(some: Sequence[float], others: Sequence[float]) -> float:
    """Of what was measured in the same round."""
    return statistics.median(a / b for a, b in zip(some, others, strict=False))


class Step:
    """A training step on noise, as often as it is called; it remembers when its phases began.

    done: called after each.
    """

    def __init__(self, config: TrainConfig, device: torch.device, done: Callable[[], object]) -> None:
        torch.manual_seed(config.seed)
        engine = start_engine(config)
        model = build_model(config.model, joints=JOINTS).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss = make_loss(config.loss, **config.loss_settings)
        learner = Learner(model, loss, CrossEntropy()).to(device)
        self.learner, self.optimizer = engine.prepare(learner, make_optimizer(model, loss, config))
        self.engine, self.device, self.done = engine, device, done
        rows, columns = config.input_size
        joints = example_heatmaps(config.batch_size, JOINTS, (rows // STRIDE, columns // STRIDE), config.seed)[1]
        images = torch.randint(0, 256, (config.batch_size, 3, rows, columns), dtype=torch.uint8)
        self.batch = tuple(values.to(device) for values in (images, joints, torch.ones(joints.shape[:2])))
        self.marks: list[list[Any]] = []  # of each step, at its start and at the end of every phase
        model.register_forward_hook(self._forward_ends)

    def _mark(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks[-1].append(event)
        else:
            self.marks[-1].append(time.perf_counter())

    def _forward_ends(self, module: nn.Module, inputs: Any, maps: Tensor) -> None:
        self._mark()
        maps.register_hook(self._loss_ends)

    def _loss_ends(self, gradient: Tensor) -> None:
        self._mark()

    def __call__(self) -> Tensor:
        """The loss."""
        self.marks.append([])
        self._mark()
        value = self.learner(*self.batch, False)
        self.engine.backward(value)
        self._mark()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._mark()
        self.done()
        return value.detach()

    def phases(self) -> list[dict[str, float]]:
        """Milliseconds of each phase of every step so far."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

        def between(start: Any, end: Any) -> float:
            return start.elapsed_time(end) if self.device.type == "cuda" else 1e3 * (end - start)

        return [
            {name: between(*pair) for name, pair in zip(PHASES, zip(marks, marks[1:], strict=False), strict=True)}
            for marks in self.marks
        ]


def _readings(
    config: TrainConfig, device: torch.device, val: PersonData | None
) -> dict[str, tuple[float, Callable[[], object]]]:
    """Decoders and metrics: what share of a call's time falls on one batch, and the call."""
    size = config.input_size[0] // STRIDE, config.input_size[1] // STRIDE
    logits, joints = (values.to(device) for values in example_heatmaps(config.batch_size, JOINTS, size, config.seed))
    maps, visible = logits.flatten(-2).softmax(-1).view_as(logits), torch.ones_like(joints[..., 0])
    found, boxes = decode(maps, "local")[0], visible[:, 0] * size[0]
    calls: dict[str, tuple[float, Callable[[], object]]] = {
        method: (1.0, partial(decode, maps, method)) for method in DECODERS
    }
    calls["pixel error"] = 1.0, lambda: float(localisation_error(found, joints, visible))
    calls["PCK"] = 1.0, lambda: [pck(found, joints, visible, boxes, threshold) for threshold in (0.05, 0.1, 0.2)]
    if val is not None:
        ids = [person.image_id for person in val.persons]
        points = np.stack([person.joints for person in val.persons])
        few, certain = sorted(set(ids)), np.ones(points.shape[:2])
        share = config.batch_size / len(ids)
        calls[f"OKS-AP of {len(ids)} persons"] = (
            share,
            lambda: coco_ap(val.annotation_file, coco_results(ids, points, certain), few),
        )
    return calls


# --- with a data set


def _validation(config: TrainConfig, val: PersonData, rounds: int, device: torch.device) -> Iterator[Row]:
    """Three rows: the network over all persons, its maps read, and all scores; images are in memory."""
    model: PoseNetwork = build_model(config.model, joints=JOINTS).to(device).eval()
    loss = make_loss(config.loss, **config.loss_settings)
    crops = PersonCrops(val, config.input_size)
    images = [batch.image.to(device) for batch in val_batches(crops, config.batch_size)]
    decoder = DECODER_OF.get(config.loss, "local")
    found = predict_crops(model, crops, loss, decoder=decoder, batch_size=config.batch_size)
    raw: list[Tensor] = []

    @torch.no_grad()
    def forward() -> None:
        raw[:] = [model(model.prepare(batch)) for batch in images]

    @torch.no_grad()
    def read() -> None:
        for batch in raw:
            if hasattr(loss, "joints"):
                loss.joints(batch)  # type: ignore[operator]
                continue
            maps = loss.maps(batch)  # type: ignore[operator]
            decode(maps, decoder)
            joint_scores(maps, "max"), joint_scores(maps, "mass")

    calls = {"network": forward, decoder: read, "scores": lambda: scores(found, val, config)}
    times = time_in_turn(calls, rounds, device, LIMIT_S)
    for what, values in times.items():
        row = {"kind": "validation", "what": what, "loss": config.loss, **_about(config), "precision": "float32"}
        share = {"ms": statistics.median(values), "share_of_forward": _median_ratio(values, times["network"])}
        yield row | share | {"persons": len(crops), "rounds": len(values)}


def _trainings(config: TrainConfig, persons: int, memory_epochs: int) -> list[tuple[str, TrainConfig]]:
    """The real runs, and the kind of their rows."""
    usual = replace(config, train_limit=persons, val_limit=config.batch_size, epochs=EPOCHS)
    settings = {name: getattr(usual, name) for name in ("data", "batch_size", "device", "seed", "val_limit")}
    length = {"epochs": memory_epochs, "train_limit": 2 * config.batch_size, "head_channels": 32}
    small = _config(settings, config.model, SMALL, config.loss, config.precision, **length)
    return [*(("training", replace(usual, workers=workers)) for workers in WORKERS), ("memory", small)]


def _real_run(kind: str, config: TrainConfig) -> Iterator[Row]:
    """The rows of a run in a process of its own, whose memory nobody else has used."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        epochs = pool.submit(_epochs_of, config).result()
    about = {"kind": kind, "loss": config.loss, **_about(config)}
    if kind == "memory":
        yield from ({**about, "epoch": row.epoch, "memory_mb": row.memory_mb} for row in epochs.itertuples())
    else:
        last = epochs.iloc[-1]
        speed = {"data_wait": last["data_wait"], "images_per_s": last["images_per_second"]}
        yield about | speed | {"workers": config.workers, "memory_mb": last["memory_mb"]}


def _epochs_of(config: TrainConfig) -> pd.DataFrame:
    """Trains; what is written is thrown away."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        run = train(config, runs=folder / "runs", checkpoints=folder / "weights", log=lambda line: None, progress=False)
        return run.epochs
