"""A finished run: its record, its epochs, its network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from hdm.errors import InputError
from hdm.losses import make_loss
from hdm.models import PoseNetwork, build_model
from hdm.pixels import STRIDE
from hdm.records import read_epochs, read_run, read_runs
from hdm.train.checkpoint import read_tensors

CHECKPOINTS = Path("data/checkpoints")
LOSS = "loss."  # before the names of a loss's own tensors in a file of weights


@dataclass(frozen=True)
class Run:
    """A finished run: its record as written, its epochs, the folder of both, and the trained network's weights."""

    record: dict[str, Any]
    epochs: pd.DataFrame
    folder: Path
    checkpoint: Path


def run_folder(checkpoints: Path | str, profile: str, loss: str, key: str) -> Path:
    """Where states and weights of a run are."""
    return Path(checkpoints) / profile / f"{loss}-{key}"


def finished_run(folder: Path | str, checkpoints: Path | str = CHECKPOINTS) -> Run:
    """The run whose record is in `folder`. Raises InputError where the record can't be read."""
    record = read_run(folder)
    place = run_folder(checkpoints, record["profile"], record["settings"]["loss"], record["key"])
    weights = (record.get("weights") or {}).get("file") or "last.pt"  # a name that records of schema 1 do not tell
    return Run(record, read_epochs(folder), Path(folder), place / weights)


def recorded_run(key: str, profile: str, runs: Path | str) -> Path | None:
    """The folder of the newest record with this key, if there is one."""
    table = read_runs(runs, profile)
    same = table[table["key"] == key] if len(table) else table
    return Path(same["folder"].iloc[-1]) if len(same) else None


def trained_network(run: Run) -> tuple[PoseNetwork, nn.Module]:
    """The network of a finished run, ready for use, and its loss, whose `maps` turn raw output into maps to decode
    (and whose `joints`, where it has them, give the joints at once).

    Raises InputError where the weights are not on this machine: records are kept in the repository, weights are not.
    """
    tensors, _ = read_weights(run)
    return network_of(tensors, run.record["settings"])


def read_weights(run: Run) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a finished run, and what is noted with them: settings, step, skeleton.

    Raises InputError where they are not on this machine.
    """
    if not run.checkpoint.exists():
        raise InputError(f"weights {run.checkpoint} of run {run.record['run_id']} are not there: train it again")
    if run.checkpoint.suffix == ".pt":
        raise InputError(f"weights {run.checkpoint} were written by an earlier version: train it again")
    return read_tensors(run.checkpoint)


def network_of(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> tuple[PoseNetwork, nn.Module]:
    """The network and the loss that weights belong to, from a run's settings."""
    model = build_model(
        settings["model"],
        joints=len(tensors["final_layer.bias"]),
        head_channels=settings["head_channels"],
        backbone_stride=settings["backbone_stride"],
        heatmap_stride=settings.get("heatmap_stride", STRIDE),
        colour=settings.get("colour", "rgb"),
    )
    model.load_state_dict({name: value for name, value in tensors.items() if not name.startswith(LOSS)})
    loss = make_loss(settings["loss"], **settings["loss_settings"])
    own = {name.removeprefix(LOSS): value for name, value in tensors.items() if name.startswith(LOSS)}
    loss.load_state_dict(own)
    return model.eval(), loss.eval()
