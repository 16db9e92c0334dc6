"""Runs in processes of their own: really killed, really interrupted, and with the numbers that they have alone."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from hdm.errors import InputError, Stopped
from hdm.jobs import trained
from hdm.records import read_runs
from hdm.study import Study, plan, read_study, run_study
from hdm.train import Run, TrainConfig, train

TINY = {
    "model": "timm:test_resnet",
    "head_channels": 8,
    "input_size": [64, 32],
    "loss": "gaussian_mse",
    "epochs": 2,
    "batch_size": 8,
    "train_limit": 16,
    "val_limit": 4,
    "device": "cpu",
}
LONG = 100_000  # epochs: such a run is at work until it is stopped

Tiny = Callable[..., TrainConfig]
Command = Callable[[], subprocess.Popen]


@pytest.fixture
def tiny(small_data: str, one_thread: None) -> Tiny:
    return lambda **settings: TrainConfig.from_dict({"data": small_data, **TINY, **settings})


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    return {"runs": tmp_path / "runs", "checkpoints": tmp_path / "checkpoints"}


def quiet(line: str) -> None:
    pass


def workers(of: int | None = None) -> list[psutil.Process]:
    """The processes that train, of this process or another one."""
    children = psutil.Process(of).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def wait_until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 90
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def assert_same_numbers(first: Run, second: Run) -> None:
    for name in ("train_loss", "val_loss", "error_px"):
        pd.testing.assert_series_equal(first.epochs[name], second.epochs[name], rtol=1e-4)


def test_in_this_process_runs_come_one_after_the_other(tiny: Tiny, places: dict[str, Any]) -> None:
    begun: list[str] = []
    runs = {"wild": tiny(lr=1e30), "tame": tiny()}

    def coming() -> Iterator[tuple[str, TrainConfig]]:
        for name, config in runs.items():
            begun.append(name)
            yield name, config

    outcomes = trained(coming(), log=quiet, **places)
    name, failure = next(outcomes)
    assert (name, begun) == ("wild", ["wild"])
    assert isinstance(failure, InputError) and "learning rate" in str(failure)
    name, run = next(outcomes)
    assert name == "tame" and isinstance(run, Run)
    assert next(outcomes, None) is None
    assert workers() == []


def test_processes_that_are_killed_at_once(tiny: Tiny, places: dict[str, Any]) -> None:
    """Before they are ready to train; this takes no time."""

    def coming() -> Iterator[tuple[str, TrainConfig]]:
        for seed in (0, 1):
            yield f"seed={seed}", tiny(seed=seed)
        assert len(multiprocessing.active_children()) == 2
        for process in multiprocessing.active_children():
            process.kill()

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    outcomes = dict(trained(coming(), jobs=3, log=quiet, **places))
    assert sorted(outcomes) == ["seed=0", "seed=1"]
    assert all("was ended by signal 9 (Killed)" in str(outcome) for outcome in outcomes.values())
    assert multiprocessing.active_children() == []
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_that_finds_nothing_to_save(tiny: Tiny, places: dict[str, Any], number: signal.Signals) -> None:
    """It comes while processes are being made: these are killed, and no other one is asked for."""

    def coming() -> Iterator[tuple[str, TrainConfig]]:
        yield "first", tiny()
        signal.raise_signal(number)
        yield "second", tiny(seed=1)
        raise AssertionError("a third one is asked for")

    lines: list[str] = []
    with pytest.raises(Stopped, match="the same command goes on from there") as caught:
        list(trained(coming(), jobs=3, log=lines.append, **places))
    assert caught.value.signal == number
    assert lines == ["stopping: 2 runs save their states"]
    assert multiprocessing.active_children() == []


def test_an_error_leaves_no_process_behind(tiny: Tiny, places: dict[str, Any]) -> None:
    def coming() -> Iterator[tuple[str, TrainConfig]]:
        yield "first", tiny()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(trained(coming(), jobs=2, log=quiet, **places))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_process_fails_its_run_alone(tiny: Tiny, places: dict[str, Any], tmp_path: Path) -> None:
    study = Study("several", {"main: doomed": tiny(epochs=LONG, seed=1), "main: hdm": tiny(loss="hdm")})
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith("main: doomed: ") and "epoch 1/" in line:
            holder = next((places["checkpoints"] / "several").glob("gaussian_mse-*/.holder"))
            victim = int(holder.read_text().split()[0])
            assert victim in [child.pid for child in workers()]
            os.kill(victim, signal.SIGKILL)

    with pytest.raises(InputError, match=r"1 of 2 runs .* failed, 1 have .*: main: doomed \(.* by signal 9 \(Killed\)"):
        run_study(study, jobs=2, log=log, **places)
    assert lines[:2] == ["[1/2] main: doomed", "[2/2] main: hdm"]
    assert sum(line.startswith("main: hdm: hdm: epoch ") for line in lines) == 3, lines
    assert plan(study, **places)["state"].tolist() == ["cut", "done"]
    assert workers() == []
    alone = train(study.runs["main: hdm"], runs=tmp_path / "alone", checkpoints=tmp_path / "alone", log=quiet)
    again = run_study(Study("several", {"main: hdm": study.runs["main: hdm"]}), jobs=2, log=quiet, **places)
    assert again["main: hdm"].record["key"] == alone.record["key"]
    assert_same_numbers(again["main: hdm"], alone)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_more_runs_than_processes(tiny: Tiny, places: dict[str, Any]) -> None:
    """Three runs, two at once, one of which diverges; the others are not trained again."""
    study = Study("three", {"wild": tiny(lr=1e30), "mse": tiny(), "hdm": tiny(loss="hdm")})
    counts: list[int] = []
    with pytest.raises(InputError, match=r"1 of 3 runs of study three failed, 2 have .*: wild \(.*learning rate"):
        run_study(study, jobs=2, log=lambda line: counts.append(len(workers())), **places)
    assert max(counts) == 2
    assert plan(study, **places)["state"].tolist() == ["cut", "done", "done"]
    sound = Study("three", {name: study.runs[name] for name in ("mse", "hdm")})
    assert list(run_study(sound, jobs=2, log=quiet, **places)) == ["mse", "hdm"]
    assert len(read_runs(places["runs"])) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_not_read_to_its_end_leaves_nothing_behind(tiny: Tiny, places: dict[str, Any]) -> None:
    """A log that stops everything, as the stop button of a notebook may at any moment: the processes save and end."""

    def stop(line: str) -> None:
        if "long: gaussian_mse: epoch 1/" in line:
            raise KeyboardInterrupt

    study = Study("two", {"long": tiny(epochs=LONG), "longer": tiny(epochs=LONG, seed=1)})
    with pytest.raises(KeyboardInterrupt) as caught:
        run_study(study, jobs=2, log=stop, **places)
    assert not isinstance(caught.value, Stopped)
    assert workers() == []
    assert plan(study, **places)["state"][0] == "cut"


# --- the command


@pytest.fixture
def command(small_data: str, places: dict[str, Any], tmp_path: Path) -> Iterator[Command]:
    """`hdm study FILE --jobs 2` on a study of four long runs, in a process group of its own as from a shell."""
    text = {"data": small_data, "train": {**TINY, "epochs": LONG}, "grid": {"seed": [0, 1, 2, 3]}}
    (tmp_path / "long.yml").write_text(yaml.safe_dump(text))
    started: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        words = ["study", str(tmp_path / "long.yml"), "--jobs", "2"]
        words += [word for name, place in places.items() for word in (f"--{name}", str(place))]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        line = [sys.executable, "-m", "hdm.cli", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(line, env=environment, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def both_at_work(process: subprocess.Popen) -> None:
    """Waits until two runs have told of an epoch."""
    assert process.stdout is not None
    heard: set[str] = set()
    while len(heard) < 2:
        line = process.stdout.readline()
        assert line, process.communicate()
        if "epoch 2/" in line:
            heard.add(line.partition(":")[0])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_stop_stops_all(command: Command, places: dict[str, Any], tmp_path: Path, number: int, group: bool) -> None:
    """Ctrl-C, which a terminal sends to every process of the group, and SIGTERM to the command alone."""
    process = command()
    both_at_work(process)
    children = workers(process.pid)
    assert len(children) == 2
    (os.killpg if group else os.kill)(process.pid, number)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert error.strip().splitlines() == [
        "hdm study: stopped; what was at work has its state saved, and the same command goes on from there"
    ]
    assert [line.partition(": ")[2][:18] for line in output.splitlines() if "stopped after step" in line] == [
        "stopped after step"
    ] * 2
    assert not any(child.is_running() for child in children)
    assert plan(read_study(tmp_path / "long.yml"), **places)["state"].tolist() == ["cut", "cut", "new", "new"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stop_before_anything_is_ready(command: Command) -> None:
    """Ctrl-C while the processes still load what they need: one line, no traceback of theirs."""
    process = command()
    wait_until(lambda: len(workers(process.pid)) == 2, "no process was started")
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(error.strip().splitlines()) == 1, error


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_whose_command_was_killed_end_by_themselves(
    command: Command, places: dict[str, Any], tmp_path: Path
) -> None:
    process = command()
    both_at_work(process)
    children = workers(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(child.is_running() for child in children), "they go on")
    study = read_study(tmp_path / "long.yml")
    assert plan(study, **places)["state"].tolist() == ["cut", "cut", "new", "new"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_command_trains_is_passed_over(
    command: Command, tiny: Tiny, places: dict[str, Any], tmp_path: Path
) -> None:
    """Beside it another process takes what is left of the same study."""
    both_at_work(command())
    long = read_study(tmp_path / "long.yml")
    study = Study("long", {"seed=0": long.runs["seed=0"], "seed=1": long.runs["seed=1"], "short": tiny()})
    lines: list[str] = []
    assert list(run_study(study, log=lines.append, **places)) == ["short"]
    assert plan(study, **places)["state"].tolist() == ["running", "running", "done"]
    assert lines[:3] == [
        "seed=0 is trained by another process: passed over",
        "seed=1 is trained by another process: passed over",
        "[3/3] short",
    ]
    assert lines[-1] == "2 of 3 runs are not finished, but left to others: seed=0, seed=1"
