"""A run that is killed or stopped at any moment goes on as if nothing had happened: numbers are the same to the bit."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from torch import nn

import hdm.records
import hdm.train.loop
import hdm.train.state
from hdm.errors import InputError, Stopped
from hdm.records import read_runs
from hdm.train import Run, TrainConfig, is_running, recorded_run, saved_states
from hdm.train.checkpoint import read_state
from hdm.train.engine import SAME_REQUEST_S

Tiny = Callable[..., TrainConfig]
Start = Callable[..., Run]
Fork = Callable[..., BaseProcess]
AtCall = Callable[..., AbstractContextManager[None]]
SameEnd = Callable[[Run, Run], None]

OFTEN = 1e-9  # minutes: the state is saved after every step
HEAD = {"loss": "simcc", "loss_settings": {"size": (16, 8)}, "lr": 0.01}


@pytest.fixture(autouse=True)
def _random_numbers_and_blocks_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks drop out a part of their features, and an epoch is read in several blocks."""
    build_model = hdm.train.state.build_model

    def with_dropout(*arguments, **options) -> nn.Module:
        model = build_model(*arguments, **options)
        model.final_layer.register_forward_pre_hook(
            lambda layer, inputs: (nn.functional.dropout(inputs[0], 0.3, layer.training),)
        )
        return model

    monkeypatch.setattr(hdm.train.state, "build_model", with_dropout)
    monkeypatch.setattr("hdm.data.batches.BLOCK", 12)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def the_folder(root: Path) -> Path:
    """Where the one run below a folder has its states."""
    (folder,) = (root / "checkpoints").glob("*/*")
    return folder


def steps_saved(root: Path) -> list[int]:
    """After how many steps the states of the one run below a folder were saved, newest first."""
    return [read_state(path)["run"]["step"] for path in saved_states(the_folder(root))]


def assert_one_of_each(root: Path) -> None:
    """One record, one file of weights, and nothing left over from writing or from states."""
    assert len(read_runs(root / "runs")) == 1
    names = {path.name.partition("-")[0] for path in the_folder(root).iterdir()}
    assert names == {"weights", ".lock", ".holder"}
    assert len(list(the_folder(root).glob("weights-*"))) == 1


# --- killed without a chance to tidy up ---


def test_the_dropout_of_these_tests_draws_random_numbers(tiny: Tiny, run: Start) -> None:
    first = run(tiny(epochs=1), "first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "dropout", lambda values, share, training: values)
        second = run(tiny(epochs=1), "second")
    assert first.epochs["train_loss"][1] != second.epochs["train_loss"][1]


@pytest.mark.parametrize(
    ("settings", "kills"),
    [
        ({"epochs": 20}, 20),
        pytest.param(  # 7 steps, 2 persons left out
            {"epochs": 5, "workers": 2, "batch_size": 4, "train_limit": None}, 5, marks=pytest.mark.slow
        ),
        pytest.param(
            {"epochs": 8, "workers": 1, "batch_size": 5, "drop_last": False, "ema": 0.9, "keep": "best", **HEAD},
            6,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"epochs": 12, "loss": "hdm", "warm_start": 0.4, "accumulate": 3, "clip": 0.1, "order": "persons"},
            6,
            marks=pytest.mark.slow,
        ),
    ],  # fmt: skip
    ids=["plain", "workers", "average, best and head", "warm start, parts and clip"],
)
def test_killed_at_arbitrary_moments(
    tiny: Tiny, run: Start, fork: Fork, same_end: SameEnd, tmp_path: Path, settings: dict, kills: int
) -> None:
    """Half of the moments are counted from the start of the process, half from the step at which it goes on."""
    config, draw = tiny(save_minutes=OFTEN, **settings), random.Random(1)
    context = multiprocessing.get_context("fork")
    for number in range(kills):
        receiver, sender = context.Pipe(duplex=False)
        child = fork(config, "killed", log=sender.send)
        if number % 2 == 0:
            receiver.recv()
        child.join(draw.uniform(0.0, 0.15))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    assert len(read_runs(tmp_path / "killed" / "runs")) == 0
    step = steps_saved(tmp_path / "killed")[0]
    lines: list[str] = []
    continued = run(tiny(**settings), "killed", log=lines.append)
    assert f"goes on after step {step} of " in lines[0]
    same_end(continued, run(tiny(**settings), "whole"))
    assert 2 <= len(continued.record["sessions"]) <= kills + 1
    assert_one_of_each(tmp_path / "killed")


# (what is about to happen, for which time in that process) when the process is killed
MOMENTS = [
    ("hdm.train.state.build_model", 1),
    ("hdm.inference.val_batches", 1),  # the validation of epoch 0
    ("hdm.train.state.write_state", 1),
    ("torch.optim.Adam.step", 2),
    ("hdm.files.os.replace", 2),  # a state is written, but not in its place
    ("hdm.train.checkpoint.saved_states", 3),  # in its place, but older ones are not deleted
    ("hdm.inference.val_batches", 1),
    ("hdm.train.loop.Clock", 1),  # an epoch is entered, but not saved
    ("hdm.train.loop.save", 3),
    ("hdm.train.loop.write_run", 1),  # the weights are written, the record is not
    ("hdm.records.os.fsync", 1),
    ("hdm.records.os.rename", 1),
    ("hdm.train.loop.tidy_up", 1),  # the record is written, the states are still there
]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="last"),
        pytest.param({"ema": 0.9, "keep": "best", **HEAD}, id="best", marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_delicate_moment(
    tiny: Tiny, run: Start, fork: Fork, at_call: AtCall, same_end: SameEnd, tmp_path: Path, settings: dict
) -> None:
    config = tiny(epochs=4, save_minutes=OFTEN, **settings)
    for target, number in MOMENTS:
        with at_call(target, number, die):
            child = fork(config, "killed")
            child.join()
        assert child.exitcode == -signal.SIGKILL, target
    (written,) = read_runs(tmp_path / "killed" / "runs")["folder"]
    assert steps_saved(tmp_path / "killed") == [8, 7]
    continued = run(config, "killed")
    assert continued.folder == Path(written)
    same_end(continued, run(tiny(epochs=4, **settings), "whole"))
    assert_one_of_each(tmp_path / "killed")


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_killed_in_the_middle_of_a_write(
    tiny: Tiny, run: Start, fork: Fork, at_call: AtCall, same_end: SameEnd, tmp_path: Path, share: float
) -> None:
    """The operating system ends the process when its file has grown to a part of its size."""
    config = tiny(save_minutes=OFTEN)

    def limit(size: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), resource.RLIM_INFINITY))

    whole = run(config, "whole")
    record = (whole.folder / "run.json").stat().st_size
    weights = whole.checkpoint.stat().st_size
    moments = [
        ("hdm.train.state.write_state", 1, 2 * weights),
        ("hdm.train.state.write_state", 4, 2 * weights),
        ("hdm.train.loop.write_weights", 1, weights),
        ("hdm.train.loop.write_run", 1, record),
    ]
    for target, number, size in moments:
        with at_call(target, number, lambda size=size: limit(size)):
            child = fork(config, "killed")
            child.join()
        assert child.exitcode == -signal.SIGXFSZ, target
        unfinished = list((tmp_path / "killed").rglob(".*.partial"))
        assert [path.stat().st_size for path in unfinished if path.is_file()] in ([int(share * size)], [])
        assert unfinished
    same_end(run(config, "killed"), whole)
    assert_one_of_each(tmp_path / "killed")


def test_a_killed_run_with_workers_can_go_on_at_once(
    tiny: Tiny, run: Start, fork: Fork, at_call: AtCall, same_end: SameEnd, tmp_path: Path
) -> None:
    """Processes that read pictures live on for some seconds; they must not hold the run's lock."""
    config = tiny(workers=2)
    with at_call("torch.optim.Adam.step", 2, die):
        child = fork(config, "killed")
        child.join()
    assert not is_running(the_folder(tmp_path / "killed"))
    same_end(run(config, "killed"), run(config, "whole"))


# --- stopped by a signal ---


@pytest.mark.parametrize(
    ("number", "target", "call", "step"),
    [
        (signal.SIGTERM, "hdm.train.loop.start_training", 1, 0),
        (signal.SIGINT, "hdm.inference.decode", 1, 0),  # a validation is broken off
        (signal.SIGTERM, "torch.optim.Adam.step", 2, 2),  # a step is finished first
        (signal.SIGINT, "hdm.train.loop.Clock", 2, 3),  # so is the end of an epoch
        (signal.SIGTERM, "hdm.train.state.write_state", 2, 3),  # and a state that is being written
        (signal.SIGINT, "hdm.data.crops.PersonCrops.read", 2, 0),
        (signal.SIGTERM, "hdm.inference.decode", 3, 6),
    ],
)
def test_a_signal_stops_a_run_at_its_step(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, tmp_path: Path,
    number: signal.Signals, target: str, call: int, step: int,
) -> None:  # fmt: skip
    config = tiny(batch_size=5, val_limit=3, lr=0.01)  # 3 steps in each of 2 epochs
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with (
        at_call(target, call, lambda: os.kill(os.getpid(), number)),
        pytest.raises(Stopped, match=f"stopped after step {step}; the state is saved") as stop,
    ):
        run(config, "stopped")
    assert stop.value.signal == number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert steps_saved(tmp_path / "stopped")[0] == step
    lines: list[str] = []
    continued = run(config, "stopped", log=lines.append)
    assert f"goes on after step {step} of 6" in lines[0]
    same_end(continued, run(config, "whole"))
    assert len(continued.record["sessions"]) == 2


def test_a_second_signal_breaks_off_at_once(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, tmp_path: Path
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(SAME_REQUEST_S)
        signal.raise_signal(signal.SIGINT)

    with at_call("torch.optim.Adam.step", 3, twice), pytest.raises(KeyboardInterrupt) as stop:
        run(tiny(), "stopped")
    assert not isinstance(stop.value, Stopped)
    assert steps_saved(tmp_path / "stopped") == [2, 0]
    same_end(run(tiny(), "stopped"), run(tiny(), "whole"))


def test_a_signal_and_its_echo_are_one_request(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, tmp_path: Path
) -> None:
    """As from `timeout`, which signals a study and its runs, after which the study tells its runs once more."""

    def echo() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    in_a_view = at_call("hdm.data.crops.PersonCrops.read", 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    in_its_state = at_call("hdm.train.state.write_state", 2, echo)
    with in_a_view, in_its_state, pytest.raises(Stopped, match="the state is saved"):
        run(tiny(), "stopped")
    same_end(run(tiny(), "stopped"), run(tiny(), "whole"))


def test_a_signal_that_comes_too_late_is_for_whatever_comes_next(
    tiny: Tiny, run: Start, at_call: AtCall, tmp_path: Path
) -> None:
    """The run finishes, but the program that would start another one hears of it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    with (
        at_call("hdm.train.loop.write_run", 1, lambda: signal.raise_signal(signal.SIGINT)),
        pytest.raises(KeyboardInterrupt) as stop,
    ):
        run(tiny())
    assert not isinstance(stop.value, Stopped)
    assert len(read_runs(tmp_path / "runs")) == 1


@pytest.mark.slow
def test_the_command_is_stopped_by_signals(
    tiny: Tiny, run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the command knows nothing of what this file's fixtures change
    config = tiny(epochs=200, workers=1)
    settings = {name: value for name, value in config.as_dict().items() if name != "data"}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    children = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        root = tmp_path / number.name
        places = ["--runs", str(root / "runs"), "--checkpoints", str(root / "checkpoints")]
        command = [sys.executable, "-m", "hdm.cli", "train", config.data, *words, *places]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children[number] = subprocess.Popen(command, env=environment, **pipes)
    stopped = {}
    for number, child in children.items():
        assert child.stdout is not None
        while "epoch 2/200" not in (line := child.stdout.readline()):
            assert line, child.communicate()
        child.send_signal(number)
        _, error = child.communicate(timeout=60)
        assert child.returncode == 128 + number
        step = int(error.partition("stopped after step ")[2].partition(";")[0])
        assert len([line for line in error.splitlines() if line.startswith("hdm train: stopped after step ")]) == 1
        assert steps_saved(tmp_path / number.name)[0] == step >= 4
        stopped[number] = step
    # Nobody wants to wait for 200 epochs: the states of both processes say whether they came to the same.
    first, second = (
        read_state(saved_states(the_folder(tmp_path / number.name))[0]) for number in (signal.SIGTERM, signal.SIGINT)
    )
    shorter = min(len(state["run"]["history"]) for state in (first, second))
    for name in ("train_loss", "val_loss", "error_px", "grad_norm"):
        columns = [[row[name] for row in state["run"]["history"][1:shorter]] for state in (first, second)]
        assert columns[0] == columns[1]
    folder = the_folder(tmp_path / "SIGTERM")
    lines: list[str] = []

    def enough(line: str) -> None:
        lines.append(line)
        if "epoch" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, "SIGTERM", log=enough)
    assert f"goes on after step {stopped[signal.SIGTERM]} of 400" in lines[0]
    assert read_state(saved_states(folder)[0])["run"]["step"] >= stopped[signal.SIGTERM]


KERNEL = """
import json, torch
from hdm.train import TrainConfig, train
torch.set_num_threads(1)
config = TrainConfig.from_dict(json.loads({settings!r}))
train(config, runs={runs!r}, checkpoints={checkpoints!r}, progress=False)
"""


@pytest.mark.slow
def test_the_stop_button_of_a_notebook(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(epochs=1000)
    settings = json.dumps({**config.as_dict(), "data": config.data})
    places = {name: str(tmp_path / name) for name in ("runs", "checkpoints")}
    manager = KernelManager()
    manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute(KERNEL.format(settings=settings, **places))
        pressed = False
        while True:
            message = client.get_iopub_msg(timeout=60)
            content = message["content"]
            if not pressed and "epoch 2/1000" in content.get("text", ""):
                manager.interrupt_kernel()
                pressed = True
            if message["msg_type"] == "error":
                break
        assert content["ename"] == "Stopped"
        assert "the state is saved" in content["evalue"]
        # The kernel lives on, and the cell can be run again once it is idle.
        while client.get_iopub_msg(timeout=60)["content"].get("execution_state") != "idle":
            pass
        client.execute(KERNEL.format(settings=settings, **places))
        while "goes on after step" not in (text := client.get_iopub_msg(timeout=60)["content"].get("text", "")):
            pass
    finally:
        manager.shutdown_kernel(now=True)
    step = int(content["evalue"].split("step ")[1].partition(";")[0])
    assert f"goes on after step {step} of 2000" in text


# --- a run that is resumed ---


@pytest.fixture
def stopped(tiny: Tiny, run: Start, at_call: AtCall, tmp_path: Path) -> Iterator[Path]:
    """The folder of a run's states after 2 and 3 of 4 steps."""
    with (
        at_call("torch.optim.Adam.step", 3, lambda: signal.raise_signal(signal.SIGTERM)),
        pytest.raises(Stopped),
    ):
        run(tiny(), "stopped")
    assert steps_saved(tmp_path / "stopped") == [3, 2]
    yield the_folder(tmp_path / "stopped")


@pytest.mark.parametrize("settings", [{"device": "auto", "save_minutes": OFTEN}, {"workers": 2, "save_minutes": 99.0}])
def test_where_and_how_fast_a_run_goes_may_change(
    tiny: Tiny, run: Start, same_end: SameEnd, stopped: Path, settings: dict
) -> None:
    lines: list[str] = []
    continued = run(tiny(**settings), "stopped", log=lines.append)
    assert "goes on after step 3 of 4" in lines[0]
    same_end(continued, run(tiny(), "whole"))
    for name, value in settings.items():
        assert continued.record["settings"][name] == value


def test_a_run_goes_on_from_a_state_elsewhere(
    tiny: Tiny, run: Start, same_end: SameEnd, stopped: Path, tmp_path: Path
) -> None:
    whole = run(tiny(), "whole")
    elsewhere = shutil.copytree(stopped, tmp_path / "elsewhere")
    for name, place, step in (("a", elsewhere, 3), ("b", saved_states(elsewhere)[1], 2)):
        lines: list[str] = []
        same_end(run(tiny(), name, resume=place, log=lines.append), whole)
        assert f"goes on after step {step} of 4" in lines[0]
    assert len(saved_states(elsewhere)) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 0.01}, r"is of another run \(lr 0.001 -> 0.01\): resume with its settings, or train anew"),
        ({"epochs": 3, "loss": "hdm"}, r"\(loss 'gaussian_mse' -> 'hdm'; epochs 2 -> 3\)"),
    ],
)
def test_a_state_of_other_settings_is_refused(
    tiny: Tiny, run: Start, stopped: Path, tmp_path: Path, settings: dict, words: str
) -> None:
    for place in (stopped, saved_states(stopped)[0]):
        with pytest.raises(InputError, match=words):
            run(tiny(**settings), "other", resume=place)
    assert len(saved_states(stopped)) == 2
    assert len(read_runs(tmp_path / "other" / "runs")) == 0


def test_a_state_of_other_data_is_refused(
    tiny: Tiny, run: Start, stopped: Path, small_data: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(small_data.partition(":")[2], tmp_path / "copy" / "data")
    with (copy / "annotations" / "person_keypoints_train2017.json").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match=r"is of another run \(other annotation files\)"):
        run(tiny(data=f"synthetic:{copy}"), "other", resume=stopped)


def test_a_run_starts_over(tiny: Tiny, run: Start, same_end: SameEnd, stopped: Path) -> None:
    lines: list[str] = []
    again = run(tiny(), "stopped", resume="never", log=lines.append)
    assert not any("goes on" in line for line in lines) and len(lines) == 3
    assert len(again.record["sessions"]) == 1
    same_end(again, run(tiny(), "whole"))


@pytest.mark.parametrize("place", ["empty", "nowhere", "state-000000001-00000000.safetensors"])
def test_a_place_without_a_state(tiny: Tiny, run: Start, tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"there is no state to resume from in .*{place}: give a state-"):
        run(tiny(), resume=tmp_path / place)


def test_a_finished_run_leaves_no_state(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    run(tiny(save_minutes=OFTEN))
    assert_one_of_each(tmp_path)


# --- two at a time ---


def test_a_run_has_one_process_at_a_time(tiny: Tiny, run: Start, fork: Fork, same_end: SameEnd, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    wait, _keep = context.Pipe(duplex=False)

    def pause(line: str) -> None:
        sender.send(line)
        if "epoch 1/2" in line:
            wait.recv()

    child = fork(tiny(), log=pause)
    while "epoch 1/2" not in receiver.recv():
        pass
    (folder,) = (tmp_path / "checkpoints").glob("*/*")
    assert is_running(folder)
    for resume in ("auto", "never", folder):
        words = rf"another process \({child.pid} on {socket.gethostname()}\) trains this run in .*: wait for it"
        with pytest.raises(InputError, match=words):
            run(tiny(), resume=resume)
    assert len(saved_states(folder)) == 2  # "never" has deleted nothing
    other = run(tiny(seed=1))  # another run beside it
    assert child.is_alive()
    child.kill()
    child.join()
    assert not is_running(folder)
    same_end(run(tiny()), run(tiny(), "whole"))
    same_end(other, run(tiny(seed=1), "other"))
    assert read_runs(tmp_path / "runs")["seed"].tolist() == [0, 1]


def test_runs_side_by_side(tiny: Tiny, run: Start, fork: Fork, same_end: SameEnd, tmp_path: Path) -> None:
    configs = [tiny(seed=seed, save_minutes=OFTEN) for seed in range(3)]
    children = [fork(config, "shared") for config in configs[1:]]
    run(configs[0], "shared")
    for child in children:
        child.join()
        assert child.exitcode == 0
    records = read_runs(tmp_path / "shared" / "runs")
    assert sorted(records["seed"]) == [0, 1, 2] and records["run_id"].nunique() == 3
    for config in configs:
        again = run(config, "shared", reuse=True)
        assert again.record["settings"]["seed"] == config.seed
        same_end(again, run(config, f"alone {config.seed}"))


# --- a clock that jumps ---


def test_a_clock_that_jumps(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day back in the first epoch, a year forth in the second, and back again when the run goes on."""
    whole = run(tiny(), "whole")
    real, offset = time.time, 0.0

    def jump(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    def now() -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time()))

    monkeypatch.setattr(time, "time", lambda: real() + offset)
    monkeypatch.setattr(hdm.records, "now", now)
    monkeypatch.setattr(hdm.train.loop, "now", now)
    day, config = 86_400.0, tiny(save_minutes=1 / 60)

    def forth_and_stop() -> None:
        jump(366 * day)
        signal.raise_signal(signal.SIGTERM)

    with (
        at_call("hdm.train.loop.learning_rate", 2, lambda: jump(-day)),
        at_call("torch.optim.Adam.step", 3, forth_and_stop),
        pytest.raises(Stopped),
    ):
        run(config, "jumps")
    assert steps_saved(tmp_path / "jumps") == [3, 2]
    jump(-367 * day)
    continued = run(config, "jumps")
    same_end(continued, whole)
    durations = continued.epochs[["seconds", "train_seconds", "val_seconds"]].drop(index=0)
    assert ((durations > 0) & (durations < 60)).all(axis=None)
    assert 0 < continued.record["seconds"] < 60
    started, ended = (continued.record[name] for name in ("started", "ended"))
    assert ended < started  # what the clock said
    assert continued.record["sessions"][0]["started"] == started
    assert recorded_run(continued.record["key"], "local", tmp_path / "jumps" / "runs") == continued.folder
    assert run(config, "jumps", reuse=True).folder == continued.folder
