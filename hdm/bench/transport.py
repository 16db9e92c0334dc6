"""`hdm bench transport`: what the transport loss costs beside other losses and other solvers, and how exact it is.

Every entry of the table is one way from the network's output to its gradient, forward and backward, on the same logits
and joints: checks, softmax and targets included. One entry more is a whole training step, to show what share of it the
loss takes.
"""

from collections.abc import Callable, Sequence
from copy import copy
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from hdm.bench.peers import OUTSIDE_TORCH, installed_peers
from hdm.bench.timing import peak_memory_mb, time_in_turn
from hdm.errors import InputError
from hdm.inference import choose_device
from hdm.losses import CrossEntropy, GaussianMSE, HDMLoss
from hdm.models import build_model
from hdm.records import BENCHMARKS, now, provenance, write_benchmark

BASELINE = "Gaussian MSE"
STEP = "a training step of ResNet-50"

# Name in the table, loss, and the cost whose exact value it should have (none: it is another quantity).
LOSSES: list[tuple[str, nn.Module, str | None]] = [
    (BASELINE, GaussianMSE(), None),
    ("cross-entropy, four demanders", CrossEntropy(), None),
    ("HDM, nearest", HDMLoss(demanders="nearest"), None),
    ("HDM, dot", HDMLoss(demanders="dot"), None),
    ("HDM, subpixel, exact", HDMLoss(), "l2"),
    ("HDM, subpixel, exact, squared cost", HDMLoss(cost="l2_squared"), "l2_squared"),
    ("HDM, subpixel, Sinkhorn, blur 1 px", HDMLoss(solver="sinkhorn", blur=1.0), "l2"),
]


def bench_transport(
    sizes: Sequence[tuple[int, int]] = ((64, 48), (96, 72), (128, 128)),
    batches: Sequence[int] = (1, 8, 32, 256),
    *,
    joints: int = 17,
    rounds: int = 15,
    limit_s: float = 20.0,
    threads: int = 2,
    device: str = "auto",
    seed: int = 0,
    directory: Path | str = BENCHMARKS,
) -> tuple[Path, pd.DataFrame]:
    """Times all losses and solvers; returns the folder of the record and its table.

    sizes: (H, W) of the maps. batches: images, each with `joints` maps. rounds: how often each runs (its median is
    kept). limit_s: seconds that one entry may take; what would take longer, going by the next smaller batch, is not
    run, nor is what does not fit into a GPU's memory. threads: of the CPU. The training step is SimpleBaseline's with
    Gaussian MSE and Adam on crops of four times the maps' sides, where these are multiples of 8. Raises InputError for
    a CUDA device that is not there and for numbers below 1.

    Columns: height, width, batch, joints, method, ms (median), fastest_ms, ratio (median over rounds, to Gaussian MSE
    in the same round), fastest_ratio (of the two fastest), error (largest relative difference from the exact distance
    in float64, which may be as small as 0.05 px), memory_mb (torch's peak beyond the logits; none for libraries that
    compute outside of torch), maps_mb (one tensor of the size of the logits), rounds.
    """
    if min(*batches, joints, rounds, threads, *(length for size in sizes for length in size)) < 1:
        raise InputError("sizes, batches, joints, rounds and threads must be at least 1")
    where = choose_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows: list[dict[str, Any]] = []
        with tqdm(total=len(sizes) * len(batches), desc="transport", unit="size") as progress:
            for size in sizes:
                slow: dict[str, float] = {}  # ms per map of what ran last
                for batch in sorted(batches):
                    rows += _one_size(size, batch, joints, rounds, limit_s, where, seed, slow)
                    progress.update()
    finally:
        torch.set_num_threads(before)
    table = pd.DataFrame(rows)
    record = {
        "benchmark": "transport",
        "started": now(),
        **provenance(),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "settings": {"joints": joints, "rounds": rounds, "limit_s": limit_s, "threads": threads, "seed": seed},
    }
    return write_benchmark(directory, record, table), table


def speed_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is printed: ms, ratio to Gaussian MSE (in the median, and of the fastest), error, and memory as a
    multiple of the maps' own.
    """
    return pd.DataFrame(
        {
            "map": table["height"].astype(str) + "x" + table["width"].astype(str),
            "batch": table["batch"].astype(str) + " x " + table["joints"].astype(str),
            "method": table["method"],
            "ms": table["ms"].map("{:.1f}".format),
            "times MSE": table["ratio"].map("{:.1f}".format),
            "at best": table["fastest_ratio"].map("{:.1f}".format),
            "error": table["error"].map(lambda error: "" if pd.isna(error) else f"{error:.0e}"),
            "memory": [
                "" if pd.isna(share) else f"{share:.1f} maps" for share in table["memory_mb"] / table["maps_mb"]
            ],
        }
    )


def example_heatmaps(
    batch: int, joints: int, size: tuple[int, int], seed: int = 0
) -> tuple[Float[Tensor, "B K H W"], Float[Tensor, "B K 2"]]:
    """Logits and dot annotations as a training run sees them: a third each of noise, broad peaks and sharp ones.

    Peaks lie about two pixels from the dot; the dots lie anywhere on the map.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    dots = torch.rand(batch, joints, 2, generator=generator) * torch.tensor([width - 1, height - 1])
    peaks = dots + 2 * torch.randn(batch, joints, 2, generator=generator)
    x, y = torch.arange(width) - peaks[..., :1], torch.arange(height) - peaks[..., 1:]
    squared = x.square().unsqueeze(-2) + y.square().unsqueeze(-1)
    stage = torch.arange(batch * joints).view(batch, joints, 1, 1) % 3
    peak = torch.where(stage == 1, 8 * torch.exp(-squared / 32), 20 * torch.exp(-squared / 4)) * (stage > 0)
    return torch.randn(batch, joints, *size, generator=generator) + peak, dots


def _one_size(
    size: tuple[int, int],
    batch: int,
    joints: int,
    rounds: int,
    limit_s: float,
    device: torch.device,
    seed: int,
    slow: dict[str, float],
) -> list[dict[str, Any]]:
    """The table's rows for maps of one size and a batch."""
    heatmaps, dots = (tensor.to(device) for tensor in example_heatmaps(batch, joints, size, seed))
    logits, visible = heatmaps.requires_grad_(), torch.ones(batch, joints, device=device)
    maps = batch * joints

    def run(loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def call() -> Tensor:
            logits.grad = None
            return loss()

        return call

    calls = {name: run(partial(_step, loss, logits, dots, visible)) for name, loss, _ in LOSSES}
    values_of = {name: partial(_values, loss, logits, dots) for name, loss, _ in LOSSES}
    calls |= {name: run(partial(solver, logits, dots)) for name, solver in installed_peers().items()}
    if not any(length % 8 for length in size):
        calls[STEP] = _training_step(batch, joints, size, dots, visible)
    calls = {
        name: call for name, call in calls.items() if name == BASELINE or slow.get(name, 0.0) * maps <= 1000 * limit_s
    }
    costs = {name: cost for name, _, cost in LOSSES} | dict.fromkeys(installed_peers(), "l2") | {STEP: None}

    exact = {cost: _exact(logits.detach(), dots, cost) for cost in ("l2", "l2_squared")}
    errors, memory = {}, {}
    for name, call in list(calls.items()):
        try:
            memory[name] = float("nan") if name in OUTSIDE_TORCH else peak_memory_mb(call, device)
            if cost := costs[name]:
                values, truth = values_of.get(name, call)().flatten().double(), exact[cost]
                errors[name] = float(((values - truth).abs() / truth.clamp(min=0.05)).max())
        except torch.cuda.OutOfMemoryError:
            del calls[name]
            torch.cuda.empty_cache()
    times = time_in_turn(calls, rounds, device, limit_s)
    slow |= {name: min(times[name]) / maps for name in calls}
    slow |= dict.fromkeys(set(costs) - set(calls), float("inf"))
    return [
        {
            "height": size[0],
            "width": size[1],
            "batch": batch,
            "joints": joints,
            "method": name,
            "ms": float(pd.Series(values).median()),
            "fastest_ms": min(values),
            "ratio": float(pd.Series([a / b for a, b in zip(values, times[BASELINE], strict=False)]).median()),
            "fastest_ratio": min(values) / min(times[BASELINE]),
            "error": errors.get(name),
            "memory_mb": memory[name],
            "maps_mb": logits.numel() * logits.element_size() / 1e6,
            "rounds": len(values),
        }
        for name, values in times.items()
    ]


def _step(loss: nn.Module, logits: Tensor, dots: Tensor, visible: Tensor) -> Tensor:
    """Forward and backward."""
    value = loss(logits, dots, visible)
    value.backward()
    return value


def _training_step(
    batch: int, joints: int, size: tuple[int, int], dots: Tensor, visible: Tensor
) -> Callable[[], Tensor]:
    """Forward, backward and update of a network whose maps are of this size. Built when it is called first."""

    @cache
    def build() -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
        torch.manual_seed(0)
        network = build_model("resnet50", joints=joints).to(dots.device)
        images = torch.randn(batch, 3, 4 * size[0], 4 * size[1], device=dots.device)
        return network, torch.optim.Adam(network.parameters()), images

    def call() -> Tensor:
        network, optimizer, images = build()
        optimizer.zero_grad()
        value = _step(GaussianMSE(), network(images), dots, visible)
        optimizer.step()
        return value

    return call


@torch.no_grad()
def _values(loss: nn.Module, logits: Tensor, dots: Tensor) -> Float[Tensor, "B K"]:
    """The loss of each map."""
    each = copy(loss)
    each.reduction = "none"  # type: ignore[assignment]
    return each(logits, dots, torch.ones_like(dots[..., 0]))


def _exact(logits: Tensor, dots: Tensor, cost: str) -> Float[Tensor, "P"]:
    """The distances in float64, some maps at a time."""
    loss = HDMLoss(cost=cost, reduction="none")
    few = max(1, 2**20 // logits[0].numel())
    parts = zip(logits.double().split(few), dots.double().split(few), strict=True)
    return torch.cat([loss(z, q, torch.ones_like(q[..., 0])).flatten() for z, q in parts])
