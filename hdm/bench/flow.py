"""`hdm bench flow`: does the located error fall with the loss where no network is in the way?

A trained network's raw output on held-out persons is taken once. From there on these heatmaps are themselves the
unknown, and each descends the loss that the run was trained with (`hdm.evaluate.gradient_flow`). An error that rises on
this way does so because of the loss and the decoder, not because joints share weights, steps are noisy, or a network
cannot paint the map that the loss asks for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from tqdm import tqdm

from hdm.bench.printing import as_texts
from hdm.data import Crop, PersonCrops, PersonData, hold_out, load_persons
from hdm.decode import decode
from hdm.errors import InputError
from hdm.evaluate import consistency, gradient_flow
from hdm.evaluate.consistency import ROUNDING
from hdm.inference import choose_device, predict_crops
from hdm.pixels import heatmap_to_crop
from hdm.records import BENCHMARKS, RUNS, find_run, now, provenance, write_benchmark
from hdm.train import CHECKPOINTS, finished_run, trained_network
from hdm.train.config import LATER_SETTINGS

DECODERS = ("local", "argmax")  # the same for all losses
TOGETHER = 32  # persons whose maps descend at once, which bounds the memory


@dataclass(frozen=True)
class Start:
    """Where a run's maps begin: its raw output z on the N persons of whom a joint counts, and how to read it.

    run, name: run id, and name of the loss; the loss itself is made with `reduction="none"`.
    spread: how far the maps are from flat, median over maps of std_i(z_i).
    joints: in heatmap pixels. convention, input_size, stride (of the heatmaps): of the crops.
    """

    run: str
    name: str
    loss: nn.Module
    raw: Float[Tensor, "N K H W"]
    spread: float
    joints: Float[Tensor, "N K 2"]
    visible: Float[Tensor, "N K"]
    convention: str
    input_size: tuple[int, int]
    stride: int


def bench_flow(
    which: Sequence[Path | str],
    source: str,
    *,
    persons: int = 64,
    steps: int = 200,
    rate: float = 0.01,
    every: int = 5,
    device: str = "auto",
    runs: Path | str = RUNS,
    checkpoints: Path | str = CHECKPOINTS,
    directory: Path | str = BENCHMARKS,
) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    """Lets the maps of trained runs descend, and writes a record; its folder, the record, and its table.

    which: run ids, keys or folders (`hdm.records.find_run`), whose weights are in `checkpoints`.
    source: the data set that they were trained on, `coco:DIR`, `mpii:DIR` or `synthetic:DIR`. A run's persons are the
        first `persons` of the val part, or of the share of the train part that it held out.
    steps: of the descent; loss and error are looked at after each `every` of them.
    rate: root mean square by which the first steps change a map, as a share of how far the run's raw maps are from
        flat: r = rate * median over maps of std_i(z_i). So it means the same for losses whose raw maps are of
        different size; what it came to is in the record.

    The loss is the run's own with its settings, also for a run with a warm start. The descent is in float64, so that a
    rise of the error is none of rounding. Without a flip test, and in the run's crops and pixel convention.

    Columns, a row for each run, decoder (`local` and `argmax`, of `loss.maps(z)`) and step looked at: run, loss,
    decoder, step, mean_loss, error_px (mean distance to the joint, in crop pixels), worse (share of joints whose error
    is larger than at the start), still (share of joints whose loss has not fallen since the look before by more than
    rounding). The record's `flows` hold, for each run and decoder, the counted persons and joints, the r of the first
    steps, and what `hdm.evaluate.consistency` says of the way, each look being one of its checkpoints.

    A map is still at its target, but also where no step helps any more: with all mass of a softmax on a wrong pixel,
    where the gradient vanishes, and on a kink of an exact transport cost, where it need not point downhill. So a high
    loss with many still joints at the end is a descent that got stuck, not one that needs more steps.

    Raises InputError for an unknown run, weights that are not on this machine, a loss that reads joints without
    heatmaps, another data set than the run's, fewer persons than asked for, maps that are flat, and settings below
    their least value.
    """
    if persons < 2:
        raise InputError(f"persons {persons} must be 2 or more: their spread says what of a rise is chance")
    if not 1 <= every <= steps:
        raise InputError(f"every {every} must be from 1 to the number of steps, {steps}: there are two looks or more")
    if not rate > 0:
        raise InputError(f"rate {rate} must be positive: it is the share of a map that the first steps change")
    where = choose_device(device)
    folders = dict.fromkeys(find_run(runs, one) for one in which)
    # All that may be refused comes before the first descent, which takes long.
    starts = [_start(folder, source, persons, checkpoints, where) for folder in folders]
    flows, rows = [], []
    for start in starts:
        size = rate * start.spread
        losses, errors = _descend(start, steps, size, every)
        counts = ~np.isnan(losses[0])
        falls = -np.diff(losses[:, counts], axis=0, prepend=np.inf)
        still = (falls <= ROUNDING * losses[0, counts]).mean(1)
        label = {"run": start.run, "loss": start.name}
        for decoder in DECODERS:
            error = errors[decoder]
            measured = {
                "step": np.arange(len(losses)) * every,
                "mean_loss": losses[:, counts].mean(1),
                "error_px": error[:, counts].mean(1),
                "worse": (error > error[0])[:, counts].mean(1),
                "still": still,
            }
            rows.append(pd.DataFrame({**label, "decoder": decoder, **measured}))
            number = {"persons": len(counts), "joints": int(counts.sum()), "rate": size}
            flows.append({**label, "decoder": decoder, **number, **asdict(consistency(losses, error))})
    table = pd.concat(rows, ignore_index=True)
    kind, _, place = source.partition(":")
    record = {
        "benchmark": "flow",
        "started": now(),
        **provenance(),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "settings": {"persons": persons, "steps": steps, "rate": rate, "every": every},
        "data": {"source": f"{kind}:{Path(place).name}"},
        "runs": [start.run for start in starts],
        "flows": flows,
    }
    return write_benchmark(directory, record, table), record, table


def flow_table(record: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """One line for each run and decoder, from a record of this benchmark and its table.

    Loss and pixel error from start to end, the shares of joints that end worse and that are still in the end, and of
    `consistency` what it says of single joints, and the excess.
    """
    lines = []
    for flow in record["flows"]:
        curve = table[(table["run"] == flow["run"]) & (table["decoder"] == flow["decoder"])]
        ends = {f"{name} {end}": curve[name].iloc[at] for name in ("mean_loss", "error_px")
                for end, at in (("start", 0), ("end", -1))}  # fmt: skip
        lines.append({**flow, **ends, **curve[["worse", "still"]].iloc[-1]})
    summary = pd.DataFrame(lines)
    columns = {
        "loss at start": ("mean_loss start", "{:.3g}"),
        "at the end": ("mean_loss end", "{:.3g}"),
        "px at start": ("error_px start", "{:.2f}"),
        "px at the end": ("error_px end", "{:.2f}"),
        "worse": ("worse", "{:.1%}"),
        "still": ("still", "{:.1%}"),
        "joint tau": ("joint_kendall", "{:.2f}"),
        "joint discordant": ("joint_discordant", "{:.1%}"),
        "excess px": ("excess_px", "{:.3f}"),
    }
    return pd.DataFrame({name: summary[name] for name in ("run", "loss", "decoder")} | as_texts(summary, columns))


def _start(folder: Path, source: str, persons: int, checkpoints: Path | str, device: torch.device) -> Start:
    """The raw maps of a run. Raises InputError where it has none, or cannot be run here."""
    run = finished_run(folder, checkpoints)
    name, settings = run.record["run_id"], LATER_SETTINGS | run.record["settings"]
    model, loss = trained_network(run)
    if hasattr(loss, "joints") or not hasattr(loss, "maps"):
        raise InputError(
            f"run {name} was trained with {settings['loss']}, which has no heatmaps to descend: leave it out"
        )
    data = _validated_on(source, run.record, settings["held_out"])
    if len(data.persons) < persons:
        raise InputError(
            f"{source} has {len(data.persons)} persons to validate run {name}, fewer than {persons}: ask for fewer"
        )
    rows, columns = settings["input_size"]
    size, convention = (rows, columns), settings["convention"]
    stride = settings["heatmap_stride"]
    crops = PersonCrops(
        data.head(persons), size, convention=convention, heatmap_stride=stride, reduced=settings["reduced"]
    )
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def watch(raw: Tensor, maps: Tensor, batch: Crop) -> None:
        seen.append((raw, batch.joints.to(raw.device), batch.visible.to(raw.device)))

    predict_crops(model.to(device), crops, loss.to(device), watch=watch, progress=True)
    raw, joints, visible = map(torch.cat, zip(*seen, strict=True))
    shown = visible.any(-1)
    if shown.sum() < 2:
        raise InputError(f"of {persons} persons of {source} fewer than 2 show a joint in their crop: ask for more")
    raw, joints, visible = raw[shown].double(), joints[shown].double(), visible[shown].double()
    spread = float(raw.std((-2, -1), correction=0).median())
    if not spread > 0:
        raise InputError(f"raw maps of run {name} are flat, so that no step is small beside them: leave it out")
    loss.reduction = "none"  # type: ignore[assignment]
    return Start(name, settings["loss"], loss, raw, spread, joints, visible, convention, size, stride)


def _validated_on(source: str, record: dict[str, Any], held_out: float) -> PersonData:
    """The persons that a run did not train on. Raises InputError where `source` is not what it was trained with."""
    part = "train" if held_out else "val"
    data = load_persons(source, part)
    if data.sha256 != record["data"][f"{part}_sha256"]:
        raise InputError(
            f"{source} is not the data set of run {record['run_id']}, {record['data']['source']}: its {part} part has "
            "other annotations; give the folder that it was trained on"
        )
    return hold_out(data, held_out)[1] if held_out else data


def _descend(
    start: Start, steps: int, rate: float, every: int
) -> tuple[Float[ndarray, "C N K"], dict[str, Float[ndarray, "C N K"]]]:
    """Loss, and error in crop pixels by each decoder, of all persons; NaN where a joint does not count."""
    columns = (values.split(TOGETHER) for values in (start.raw, start.joints, start.visible))
    batches = list(zip(*columns, strict=True))
    parts = [
        _descend_together(start, raw, joints, visible, steps, rate, every)
        for raw, joints, visible in tqdm(batches, f"{start.name} descends", unit="batch", leave=False)
    ]
    losses = np.concatenate([losses for losses, _ in parts], 1)
    return losses, {decoder: np.concatenate([errors[decoder] for _, errors in parts], 1) for decoder in DECODERS}


def _descend_together(
    start: Start,
    raw: Float[Tensor, "B K H W"],
    joints: Float[Tensor, "B K 2"],
    visible: Float[Tensor, "B K"],
    steps: int,
    rate: float,
    every: int,
) -> tuple[Float[ndarray, "C B K"], dict[str, Float[ndarray, "C B K"]]]:
    found: dict[str, list[Tensor]] = {decoder: [] for decoder in DECODERS}

    def read(z: Tensor) -> Tensor:
        """By all decoders, since the way does not depend on how it is looked at; gives the first one's joints."""
        maps = start.loss.maps(z)  # type: ignore[operator]
        for decoder in DECODERS:
            found[decoder].append(decode(maps, decoder)[0])
        return found[DECODERS[0]][-1]

    def to_crop(points: Tensor) -> Tensor:
        return heatmap_to_crop(points, start.stride, convention=start.convention, input_size=start.input_size)

    flow = gradient_flow(start.loss, raw, joints, visible, decoder=read, steps=steps, rate=rate, every=every)
    errors = {
        decoder: (to_crop(torch.stack(points)) - to_crop(joints)).norm(dim=-1).where(visible > 0, torch.nan)
        for decoder, points in found.items()
    }
    return flow.losses, {decoder: values.cpu().numpy() for decoder, values in errors.items()}
