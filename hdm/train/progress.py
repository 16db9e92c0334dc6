"""How far a run is: what its state remembers beside tensors, and what a person sees meanwhile."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm


@dataclass
class Clock:
    """Of the epoch at hand: seconds that its steps took, seconds of these that the loop waited for data, persons."""

    busy: float = 0.0
    wait: float = 0.0
    persons: int = 0

    def add(self, seconds: float, wait: float, persons: int) -> None:
        """One step more."""
        self.busy += seconds
        self.wait += wait
        self.persons += persons

    @property
    def data_wait(self) -> float:
        """The share of the time in which the loop waited for data."""
        return self.wait / self.busy if self.busy else float("nan")

    @property
    def images_per_second(self) -> float:
        return self.persons / self.busy if self.busy else float("nan")


@dataclass
class Progress:
    """Where a run is; plain values, so that a state can hold them.

    step: steps taken, from the first epoch on. history: a row for each validated epoch, the untrained network's first.
    objective, lr: of the last step. results: of the last validated epoch. best: the epoch with the best `headline`
    (AP or PCKh@0.5), its results and the file of its weights, where the best are kept.
    sessions: when, and at which commit, the run was started and went on. data_sha256: of both annotation files.
    unreadable: how often a picture was skipped, by file. worker_restarts: how often processes that read had died.
    """

    run_id: str
    settings: dict[str, Any]
    data_sha256: str
    mean_pose_error_px: float
    step: int = 0
    objective: str = "untrained"
    lr: float = 0.0
    clock: Clock = field(default_factory=Clock)
    history: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    unreadable: dict[str, int] = field(default_factory=dict)
    worker_restarts: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        """The way back from `dataclasses.asdict`."""
        return cls(**{**values, "clock": Clock(**values["clock"])})


def progress_bar(steps: int, done: int, show: bool | None) -> tqdm:
    """A bar over the steps of the whole run, with the time left.

    show: None shows it where a person looks on, on a terminal or in a notebook.
    """
    show = (sys.stderr.isatty() or _in_notebook()) if show is None else show
    return tqdm(total=steps, initial=done, unit="step", disable=not show, leave=False)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # not imported: no notebook
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def show_progress(bar: tqdm, run: Progress, epochs: int, device: torch.device) -> None:
    """One step more on the bar: speed, share of the time spent waiting for data, memory."""
    if bar.disable:  # not even the memory is looked up, at every step
        return
    bar.set_description(f"epoch {len(run.history)}/{epochs}", refresh=False)
    bar.set_postfix_str(
        f"{run.clock.images_per_second:.0f} images/s, waits {100 * run.clock.data_wait:.1f} %, "
        f"{peak_memory_mb(device) / 1000:.1f} GB",
        refresh=False,
    )
    bar.update()


def epoch_line(row: dict[str, Any], loss: str, epochs: int, headline: str) -> str:
    """What the log says of an epoch."""
    trained = "" if row["epoch"] == 0 else f" {row['train_loss']:.4f}"
    speed = (
        "" if row["epoch"] == 0 else f", {row['images_per_second']:.0f} images/s, waits {100 * row['data_wait']:.1f} %"
    )
    return (
        f"{loss}: epoch {row['epoch']}/{epochs}  {row['objective']}{trained}  validation {row['val_loss']:.4f}  "
        f"error {row['error_px']:.2f} px  {headline} {row[headline]:.3f}  {row['seconds']:.0f} s{speed}"
    )


def peak_memory_mb(device: torch.device) -> float:
    """The most memory so far in MB (10^6 bytes): torch's on a GPU, else that of this process, without its workers'."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:  # Linux; its `ru_maxrss` would start with what the process had that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
