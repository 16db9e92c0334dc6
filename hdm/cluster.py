"""A study on a Ray cluster: each run a task, on whichever node has room, begun again elsewhere where a node is lost.

What is where:
- The driver, the process that calls `run_on_ray`, writes every record into its own `runs` as soon as a run is finished,
  whole or not at all. Nodes can be lost and the driver stopped at any moment without losing a finished run; started
  again, it trains only what has no record.
- A task keeps its states in the folder `checkpoints` of its node. On a disk that all nodes share, a run whose node was
  lost goes on elsewhere from its last state; without one it begins anew there, and its weights travel to the driver.
- Every node needs this version of `hdm` (on this machine the working copy is found) and the data under the same path;
  generated data is made by each node. Paths that are not absolute count from the driver's folder where a node has it.

Needs the extra `cluster`. With several machines: `ray start --head` on the first, `ray start --address=FIRST:6379` on
the others, and then `run_on_ray(study, address="auto")` on any of them.
"""

import contextlib
import os
import re
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hdm.data import prepare_data
from hdm.errors import InputError
from hdm.files import write_whole
from hdm.records import RUNS, write_run
from hdm.study import Study, finished_runs, in_order, keys, plan
from hdm.train import CHECKPOINTS, Run, TrainConfig, finished_run, is_running, run_folder, train

# How long a task waits for the process of a lost node to let go of a run, and a stopped driver for states to be saved.
PATIENCE_S = 60.0
ANSWER_S = 10.0  # how long a cluster may take to answer


@dataclass(frozen=True)
class Task:
    """What a node has to know to train one run.

    key: of the run by the driver's data. place: the folder of its states. mark: a file that the driver has put into
    `checkpoints`; a node that sees it shares the disk. here: the driver's folder. threads: of torch.
    """

    name: str
    config: TrainConfig
    key: str
    study: str
    synthetic: dict[str, Any] | None
    checkpoints: Path
    place: Path
    mark: Path
    here: Path
    threads: int


@dataclass(frozen=True)
class Delivery:
    """What comes back: record and epochs, where it was trained, and the weights where the driver can't see them.

    weights_file: below `checkpoints`.
    """

    record: dict[str, Any]
    epochs: pd.DataFrame
    node: str
    weights_file: Path
    weights: bytes | None


def run_on_ray(
    study: Study,
    *,
    address: str | None = None,
    gpus_per_run: float = 0,
    cpus_per_run: float = 1,
    retries: int = 3,
    runs: Path | str = RUNS,
    checkpoints: Path | str = CHECKPOINTS,
    reuse: bool = True,
    log: Callable[[str], None] = print,
) -> dict[str, Run]:
    """Trains the runs of a study as tasks on a Ray cluster, as many at once as it has room for; returns them by name.

    address: None: the cluster that runs on this machine, or else one that is started on its processors for this call;
        `auto`: only the former; `local`: only the latter; `ray://HOST:10001`: one elsewhere.
    gpus_per_run: 0 for the CPU, 1, or a share such as 0.5 to put two runs on one GPU.
    cpus_per_run: processors, and threads of torch, of a run.
    retries: how often a run is begun again whose worker or node was lost, -1 without end. A run that fails by itself
        is not begun again.
    reuse: a run with a record of the same settings and data is not trained again.
    log: is given a line for each finished run; the lines of its epochs are in Ray's log of the worker.
    Raises InputError where Ray or the cluster is not there, where no node could ever take a run and, at the end, where
    runs failed, all others having their records. Ctrl-C stops all runs, with their states saved.
    """
    if gpus_per_run < 0 or cpus_per_run <= 0 or retries < -1:
        raise InputError(
            f"gpus_per_run {gpus_per_run} must be 0 or more, cpus_per_run {cpus_per_run} positive, "
            f"and retries {retries} -1 or more"
        )
    checkpoints = Path(checkpoints).absolute()
    table = plan(study, runs, checkpoints)
    finished = finished_runs(table, checkpoints, log) if reuse else {}
    failures: dict[str, str] = {}
    waiting = [name for name in study.runs if name not in finished]
    if not waiting:
        return in_order(study, finished, failures)

    ray = _ray()
    key = dict(zip(table["name"], table["key"], strict=True))
    with _connection(address), _mark(checkpoints) as mark:
        _check_room(gpus_per_run, cpus_per_run)
        remote = ray.remote(num_gpus=gpus_per_run, num_cpus=cpus_per_run, max_retries=retries, retry_exceptions=False)(
            train_there
        )
        tasks = {}
        for name in waiting:
            task = Task(
                name=name,
                config=study.runs[name],
                key=key[name],
                study=study.name,
                synthetic=study.synthetic,
                checkpoints=checkpoints,
                place=run_folder(checkpoints, study.name, study.runs[name].loss, key[name]),
                mark=mark,
                here=Path.cwd(),
                threads=max(1, int(cpus_per_run)),
            )
            tasks[remote.remote(task)] = name
        with _stopped_together(tasks):
            while tasks:
                ready, _ = ray.wait(list(tasks), num_returns=1)
                name = tasks.pop(ready[0])
                outcome = _outcome(ready[0], retries, log)
                if isinstance(outcome, Delivery):
                    finished[name] = keep(outcome, runs, checkpoints)
                    text = _summary(outcome)
                else:
                    failures[name] = outcome
                    text = f"failed: {outcome}"
                log(f"[{len(finished) + len(failures)}/{len(study.runs)}] {name}  {text}")
    return in_order(study, finished, failures)


# --- on a node


def train_there(task: Task) -> Delivery | str:
    """Trains one run, in a process of its own on some node; where that fails with an InputError, its sentence.

    The record is written to a folder of no duration: only the driver knows where records are kept.
    """
    import ray

    node = ray.util.get_node_ip_address()
    torch.set_num_threads(task.threads)
    if task.here.is_dir():
        os.chdir(task.here)
    try:
        if task.synthetic is not None:
            prepare_data({"data": task.config.data, "synthetic": task.synthetic}, progress=False)
        if keys({task.name: task.config})[task.name] != task.key:
            raise InputError(f"{task.config.data} on node {node} is not what it is on the driver: copy it there anew")
        # The process of a lost node takes a moment to notice, and two must not train the same run.
        end = time.monotonic() + PATIENCE_S
        while is_running(task.place) and time.monotonic() < end:
            time.sleep(0.5)
        with tempfile.TemporaryDirectory() as records:
            run = train(task.config, profile=task.study, runs=records, checkpoints=task.checkpoints)
            weights = None if task.mark.exists() else run.checkpoint.read_bytes()
    except InputError as error:
        return str(error)
    return Delivery(run.record, run.epochs, node, run.checkpoint.relative_to(task.checkpoints), weights)


# --- at the driver


def _outcome(ready: Any, retries: int, log: Callable[[str], None]) -> Delivery | str:
    """What a task came to: a delivery, or why there is none."""
    ray = _ray()
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:  # not the user's mistake: the whole trace is wanted
        log(str(error))
        return f"{type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.RayError as error:
        return f"its worker was lost more often than {retries} times: {str(error).strip().partition(chr(10))[0]}"


def keep(delivery: Delivery, runs: Path | str, checkpoints: Path) -> Run:
    """Writes what came back to the driver's own folders."""
    if delivery.weights is not None:
        write_whole(checkpoints / delivery.weights_file, delivery.weights)
    return finished_run(write_run(runs, delivery.record, delivery.epochs), checkpoints)


def _summary(delivery: Delivery) -> str:
    record = delivery.record
    return f"error {record['results']['error_px']:.1f} px  {record['seconds'] / 60:.1f} min  on {delivery.node}"


@contextlib.contextmanager
def _mark(checkpoints: Path) -> Iterator[Path]:
    """A file by which a node sees that it shares the driver's disk."""
    mark = checkpoints / f".driver-{uuid.uuid4().hex}"
    write_whole(mark, b"")
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


@contextlib.contextmanager
def _connection(address: str | None) -> Iterator[None]:
    """Ray for the time of a study; a connection that is there already is used and left as it is."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    try:
        if host := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address or ""):
            # Ray itself would try for minutes.
            socket.create_connection((host[1], int(host[2])), timeout=ANSWER_S).close()
        ray.init(address, log_to_driver=False, include_dashboard=False, logging_level="warning")
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise InputError(
            f"there is no Ray cluster at {address!r} ({str(error).strip().partition(chr(10))[0]}): "
            "start one with `ray start --head`, or give no address to use this machine alone"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_room(gpus: float, cpus: float) -> None:
    """Raises InputError where no node, even if it had nothing else to do, could take a run: Ray would wait forever."""
    offers = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
    if not any(offer.get("GPU", 0) >= gpus and offer.get("CPU", 0) >= cpus for offer in offers):
        nodes = "; ".join(f"{offer.get('CPU', 0):g} CPUs and {offer.get('GPU', 0):g} GPUs" for offer in offers)
        raise InputError(f"no node has {cpus:g} CPUs and {gpus:g} GPUs for a run, only {nodes}: ask for less per run")


@contextlib.contextmanager
def _stopped_together(tasks: dict[Any, str]) -> Iterator[None]:
    """Where the driver is stopped, tells the tasks so, and gives them time to save their states."""
    ray = _ray()
    try:
        yield
    except BaseException:
        for task in tasks:
            ray.cancel(task)
        if tasks:
            ray.wait(list(tasks), num_returns=len(tasks), timeout=PATIENCE_S)
        raise


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed: install the extra, pip install 'hdm[cluster]'") from None
    return ray
