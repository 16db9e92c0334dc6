"""A training that is killed without warning and goes on, beside one that is left alone."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from hdm.errors import InputError
from hdm.train.checkpoint import saved_states, step_of
from hdm.train.config import TrainConfig
from hdm.train.loop import train
from hdm.train.run import Run

# What depends on the machine's mood, and not on the training.
TIMES = ("seconds", "train_seconds", "val_seconds", "data_wait", "images_per_second", "memory_mb")
PATIENCE = 300  # seconds until the process to be killed must have taken its steps


def kill_and_resume(config: TrainConfig, folder: Path | str, *, after_step: int) -> tuple[Run, Run]:
    """Trains twice below `folder`: once undisturbed; and once in a process of its own that is killed (SIGKILL) when a
    state of at least `after_step` steps is on the disk, then resumed here. Returns both runs.

    The state is saved after every step, or nothing would be killed in the middle of an epoch. Raises InputError where
    the process ends by itself before that.
    """
    config, folder = replace(config, save_minutes=1e-9), Path(folder)
    undisturbed = _train(config, folder / "undisturbed")
    # The second process computes with as many threads as this one, or sums would differ in their last digits.
    arguments = (config, folder / "killed", torch.get_num_threads())
    process = multiprocessing.get_context("spawn").Process(target=_train_elsewhere, args=arguments)
    process.start()
    end = time.monotonic() + PATIENCE
    while _newest_step(folder / "killed") < after_step:
        if not process.is_alive() or time.monotonic() > end:
            process.kill()
            raise InputError(f"the process to be killed ended before step {after_step}: give fewer steps")
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return undisturbed, _train(config, folder / "killed")


def difference(first: Run, second: Run) -> pd.DataFrame:
    """Two runs' weights and histories: how many numbers were compared, how many differ, and by how much at most."""
    weights = [load_file(run.checkpoint) for run in (first, second)]
    pairs = [(value.double(), weights[1][name].double()) for name, value in weights[0].items()]
    numbers = {"weights": tuple(torch.cat([pair[side].flatten() for pair in pairs]) for side in (0, 1))}
    columns = [name for name in first.epochs.select_dtypes("number") if name not in TIMES]
    numbers["history"] = tuple(
        torch.tensor(run.epochs[columns].to_numpy(float)).nan_to_num(0.0).flatten() for run in (first, second)
    )
    rows = [(name, len(a), int((a != b).sum()), float((a - b).abs().max())) for name, (a, b) in numbers.items()]
    return pd.DataFrame(rows, columns=["of", "numbers", "differ", "largest difference"])


def _train(config: TrainConfig, folder: Path) -> Run:
    return train(config, runs=folder / "runs", checkpoints=folder / "checkpoints", log=_quiet, progress=False)


def _train_elsewhere(config: TrainConfig, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    _train(config, folder)


def _newest_step(folder: Path) -> int:
    states = [state for place in folder.glob("checkpoints/*/*") for state in saved_states(place)]
    return max((step_of(state) for state in states), default=-1)


def _quiet(line: str) -> None:
    """Nobody reads along."""
