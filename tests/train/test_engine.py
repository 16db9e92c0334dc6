"""Several processes, precisions, launchers: the same run on whatever it stands on. Processes are real, with gloo."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, distributed, nn
from torch.multiprocessing import ProcessContext, start_processes

from hdm.data import load_persons
from hdm.data.crops import Crop, PersonCrops
from hdm.errors import InputError, Stopped
from hdm.losses import make_loss
from hdm.models import build_model
from hdm.records import read_runs
from hdm.train import Run, TrainConfig, finished_run, loop, saved_states, train, trained_network
from hdm.train.engine import SyncedBatchNorm, mean_over, start_engine, sync_batch_norm
from hdm.train.validation import scores, validate

Tiny = Callable[..., TrainConfig]
Start = Callable[..., Run]
Work = Callable[[int], Any]

several = pytest.mark.skipif(torch.cuda.is_available(), reason="torch can't train in a forked process beside a GPU")
MEASURED_TIMES = ["seconds", "train_seconds", "val_seconds", "data_wait", "images_per_second", "memory_mb"]


# --- how the tests start processes ---


def start_together(processes: int, work: Work, place: Path) -> ProcessContext:
    """`work(rank)` in so many processes of one group; what each returns, or raises to stop, goes into `place`."""
    place.mkdir(parents=True)
    return start_processes(_join_and_work, (processes, work, place), processes, join=False, start_method="fork")


def _join_and_work(rank: int, processes: int, work: Work, place: Path) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    os.environ |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)  # what a test before this one has left in the parent
    store = distributed.FileStore(str(place / "meeting"), processes)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    try:
        result = work(rank)
    except Stopped as stop:
        result = stop.signal, str(stop)
    (place / f"{rank}.pickle").write_bytes(pickle.dumps(result))
    if distributed.is_initialized():  # a training ends with the group's end
        distributed.destroy_process_group()


def results_of(context: ProcessContext, place: Path) -> list[Any]:
    """What every process returned, in their order; fails as soon as one fails."""
    while not context.join():
        pass
    return [pickle.loads((place / f"{rank}.pickle").read_bytes()) for rank in range(len(context.pids()))]


def together(processes: int, work: Work, place: Path) -> list[Any]:
    return results_of(start_together(processes, work, place), place)


def quiet(place: Path, **options) -> dict[str, Any]:
    return {"runs": place / "runs", "checkpoints": place / "checkpoints", "log": lambda line: None} | options


def assert_identical(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """All that an epoch measures, to the last bit; times and memory differ."""
    pd.testing.assert_frame_equal(
        first.drop(columns=MEASURED_TIMES), second.drop(columns=MEASURED_TIMES), check_exact=True
    )


# --- the same losses, step by step ---


@pytest.fixture(scope="session")
def uneven_data(small_data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`small_data` with only two joints labelled of every second person."""
    root = tmp_path_factory.mktemp("uneven") / "data"
    shutil.copytree(small_data.partition(":")[2], root)
    path = root / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"][::2]:
        labelled = [place for place in range(17) if annotation["keypoints"][3 * place + 2]]
        for place in labelled[2:]:
            annotation["keypoints"][3 * place + 2] = 0
    path.write_text(json.dumps(content))
    return f"synthetic:{root}"


def watched_steps(config: TrainConfig, place: Path) -> list[tuple[float, float, float]]:
    """Of every step of a run: this process's sum of w l, and of w, over its own persons; and the gradient's norm."""
    steps: list[tuple[float, float, float]] = []
    take_step = loop._take_step

    def watch(t: Any, crops: Crop, count: int) -> None:
        before = t.totals.clone()
        take_step(t, crops, count)
        change = (t.totals - before).tolist()
        steps.append((change[0], float(mean_over(t.learner.loss, crops.visible)), change[2]))

    loop._take_step = watch
    try:
        train(config, **quiet(place))
    finally:
        loop._take_step = take_step
    return steps


def whole_batch(shares: list[list[tuple[float, float, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient norm of every step, from the sums of all processes."""
    value, weight, norm = np.array(shares).sum(0).T
    return value / weight, norm


LIKE_ONE: dict[str, dict[str, Any]] = {
    "gaussian_mse": {"loss": "gaussian_mse"},
    "gaussian_mse over all": {"loss": "gaussian_mse", "loss_settings": {"divide_by": "all"}},
    "hdm": {"loss": "hdm"},
    "in two parts": {"loss": "gaussian_mse", "accumulate": 2, "clip": 1e-3, "batch_size": 4, "train_limit": 20},
}


@several
@pytest.mark.slow
@pytest.mark.parametrize("case", LIKE_ONE)
def test_two_processes_take_the_steps_of_one(tiny: Tiny, uneven_data: str, tmp_path: Path, case: str) -> None:
    """50 steps, each with half of the persons in each process: losses agree within 1e-4 of their size.

    The small learning rate keeps it from being chaos: at 1e-3 the last digits of float32 grow to percents on the way.
    """
    shared = {"epochs": 10, "train_limit": 30, "val_limit": 2, "batch_size": 6, "lr": 5e-5}
    config = tiny(data=uneven_data, sync_batch_norm=True, **shared | LIKE_ONE[case])
    one, one_norm = whole_batch([watched_steps(config, tmp_path / "one")])
    shares = together(2, lambda rank: watched_steps(config, tmp_path / "two"), tmp_path / "work")
    two, two_norm = whole_batch(shares)
    assert len(one) == len(two) == 50
    np.testing.assert_allclose(two, one, rtol=1e-4)
    np.testing.assert_allclose(two_norm, one_norm, rtol=0.05)  # of HDM it jumps where maps are flat
    if case in ("gaussian_mse", "hdm"):
        own = np.array([[value / weight for value, weight, _ in share] for share in shares])
        assert np.median(np.abs(own.mean(0) / one - 1)) > 1e-3  # the average of the two means is another number


@several
@pytest.mark.parametrize(("processes", "loss"), [(2, "simcc"), pytest.param(3, "gaussian_mse", marks=pytest.mark.slow)])
def test_a_last_batch_with_fewer_persons_than_processes(tiny: Tiny, tmp_path: Path, processes: int, loss: str) -> None:
    """17 persons in steps of 8: the third step of an epoch has one. `simcc` has weights of its own, which the
    processes without a person must take part with."""
    settings = {"loss_settings": {"size": [16, 8]}} if loss == "simcc" else {}
    config = tiny(loss=loss, epochs=3, train_limit=17, val_limit=2, drop_last=False, sync_batch_norm=True, **settings)
    one, _ = whole_batch([watched_steps(config, tmp_path / "one")])
    shares = together(processes, lambda rank: watched_steps(config, tmp_path / "several"), tmp_path / "work")
    assert len(one) == 9
    assert [weight for _, weight, _ in shares[1]][2::3] == [0.0] * 3
    np.testing.assert_allclose(whole_batch(shares)[0], one, rtol=1e-4)


# --- who does what ---


@several
def test_the_main_process_writes_and_all_have_the_run(tiny: Tiny, tmp_path: Path) -> None:
    """Each process is told a place of its own; only the main one's exists afterwards."""
    config = tiny(epochs=1, val_limit=5, keep="best")
    lines: list[str] = []

    def work(rank: int) -> tuple[Run, list[str]]:
        return train(config, **quiet(tmp_path / f"rank{rank}", log=lines.append)), lines

    (main, said), (other, silence) = together(2, work, tmp_path / "work")
    assert len(read_runs(tmp_path / "rank0" / "runs")) == 1
    assert not (tmp_path / "rank1").exists()
    assert main.record["hardware"]["processes"] == 2
    assert other.record == main.record
    assert (other.folder, other.checkpoint) == (main.folder, main.checkpoint)
    pd.testing.assert_frame_equal(other.epochs, main.epochs)
    assert len(said) == 2 and not silence
    trained_network(main)


@several
@pytest.mark.parametrize("persons", [5, 1])
def test_every_person_is_validated_once_and_in_order(tiny: Tiny, tmp_path: Path, persons: int) -> None:
    config = tiny(val_limit=persons, batch_size=2, loss="hdm")
    data = load_persons(config.data, "val").head(persons)
    crops = PersonCrops(data, config.input_size)

    def work(rank: int) -> Any:
        torch.manual_seed(0)
        model = build_model(config.model, head_channels=8)
        nn.init.normal_(model.get_parameter("final_layer.weight"), std=100.0)  # another answer for each person
        return validate(model, crops, make_loss("hdm"), config, start_engine(config))

    (one,) = together(1, work, tmp_path / "one")
    assert persons == 1 or one.predicted.flatten(1).std(0).mean() > 0
    torch.testing.assert_close(one.joints, 4 * torch.stack([crop.joints for crop in crops]) + 1.5)
    for found in together(2, work, tmp_path / "two"):
        assert torch.equal(found.joints, one.joints)
        torch.testing.assert_close(found.predicted, one.predicted, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.image_joints, one.image_joints, rtol=1e-4)
        assert found.loss == pytest.approx(one.loss, rel=1e-5)
        for name, value in scores(one, data, config).items():
            assert scores(found, data, config)[name] == pytest.approx(value, rel=1e-4, nan_ok=True), name


# --- stopped and continued ---


@several
@pytest.mark.slow
def test_two_killed_processes_go_on_as_if_nothing_had_happened(tiny: Tiny, tmp_path: Path) -> None:
    """Killed together in the middle of an epoch, without a chance to tidy up."""
    config = tiny(epochs=3, train_limit=24, loss="hdm", ema=0.9, sync_batch_norm=True, save_minutes=1e-6)

    def work(place: str) -> Work:
        return lambda rank: train(config, **quiet(tmp_path / place)).epochs

    context = start_together(2, work("killed"), tmp_path / "first")
    (folder,) = wait_for(lambda: list((tmp_path / "killed" / "checkpoints").glob("*/*")))
    wait_for(lambda: [path for path in saved_states(folder) if path.name >= "state-000000004"])
    for process in context.processes:
        process.kill()
    for process in context.processes:
        process.join()
    assert [process.exitcode for process in context.processes] == [-signal.SIGKILL] * 2
    assert len(read_runs(tmp_path / "killed" / "runs")) == 0

    continued, _ = together(2, work("killed"), tmp_path / "second")
    whole, _ = together(2, work("whole"), tmp_path / "third")
    assert_identical(continued, whole)
    table = read_runs(tmp_path / "killed" / "runs")
    assert len(table["sessions"].iloc[0]) == 2


def wait_for(look: Callable[[], list[Path]], seconds: float = 60.0) -> list[Path]:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


@several
@pytest.mark.slow
def test_a_signal_to_one_process_stops_both(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(epochs=3, train_limit=24, save_minutes=1000.0)

    def work(place: str, stop_at: int) -> Work:
        def start(rank: int) -> Any:
            take_step = loop._take_step

            def stop_in(t: Any, crops: Crop, steps: int) -> None:
                if t.run.step == stop_at and rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                take_step(t, crops, steps)

            loop._take_step = stop_in
            return train(config, **quiet(tmp_path / place))

        return start

    stopped = together(2, work("stopped", stop_at=4), tmp_path / "first")
    words = "stopped after step 5; the state is saved, and the same command goes on from there"
    assert stopped == [(signal.SIGTERM, words)] * 2
    continued, _ = together(2, work("stopped", stop_at=-1), tmp_path / "second")
    whole, _ = together(2, work("whole", stop_at=-1), tmp_path / "third")
    assert_identical(continued.epochs, whole.epochs)


# --- batch norm over processes ---


@several
@pytest.mark.parametrize("split", [(3, 3), (5, 1), (6, 0)])
def test_synced_batch_norm_is_batch_norm_of_the_whole_batch(tmp_path: Path, split: tuple[int, int]) -> None:
    x, weights = 3 * torch.randn(6, 4, 5, 3) + 2, torch.randn(6, 4, 5, 3)
    scale, shift = torch.rand(4) + 0.5, torch.randn(4)

    def run(norm: nn.BatchNorm2d, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
        norm.weight.data.copy_(scale)
        norm.bias.data.copy_(shift)
        x = x.clone().requires_grad_()
        y = norm(x)
        (y.square() * weights).sum().backward()
        assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        gradients = {"input": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
        return {"output": y.detach(), **gradients, **{name: value.clone() for name, value in norm.named_buffers()}}

    def work(rank: int) -> dict[str, Tensor]:
        return run(SyncedBatchNorm(4), x.split(split)[rank], weights.split(split)[rank])

    whole = run(nn.BatchNorm2d(4), x, weights)
    shares = together(2, work, tmp_path / "work")
    for name in ("output", "input"):  # rows of the batch
        torch.testing.assert_close(torch.cat([share[name] for share in shares]), whole[name], rtol=1e-5, atol=1e-5)
    for name in ("weight", "bias"):  # summed over processes by whoever averages gradients
        torch.testing.assert_close(sum(share[name] for share in shares), whole[name], rtol=1e-5, atol=1e-5)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for share in shares:
            torch.testing.assert_close(share[name], whole[name], rtol=1e-5, atol=1e-5)


def test_synced_batch_norm_takes_weights_and_names_as_they_are() -> None:
    torch.manual_seed(1)
    plain, synced = (build_model("timm:test_resnet", head_channels=8).eval() for _ in range(2))
    synced.load_state_dict(plain.state_dict())
    sync_batch_norm(synced, torch.device("cpu"))
    assert any(isinstance(module, SyncedBatchNorm) for module in synced.modules())
    assert list(synced.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(synced(images), plain(images))


# --- launched as users launch it ---

LAUNCHERS: dict[str, list[str]] = {
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1",
                   "--mixed_precision=no", "--dynamo_backend=no"],
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
}  # fmt: skip


def launched(launcher: str, config: TrainConfig, place: Path) -> list[str]:
    """A command line that trains with two processes."""
    settings = {name: value for name, value in config.as_dict().items() if value is not None and name != "data"}
    changes = [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
    where = [f"--runs={place / 'runs'}", f"--checkpoints={place / 'checkpoints'}"]
    return [sys.executable, "-m", *LAUNCHERS[launcher], "-m", "hdm.cli", "train", config.data, *changes, *where]


def surroundings() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_command_behind_a_launcher(tiny: Tiny, tmp_path: Path, launcher: str) -> None:
    command = launched(launcher, tiny(sync_batch_norm=True), tmp_path)
    done = subprocess.run(command, env=surroundings(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = read_runs(tmp_path / "runs")
    assert table["hardware_processes"].tolist() == [2]
    lines = done.stdout.splitlines()
    assert sum("epoch 2/2" in line for line in lines) == 1
    assert sum(line.startswith("record ") for line in lines) == 1, done.stdout


@pytest.mark.slow
def test_a_launcher_that_is_stopped_stops_its_processes(tiny: Tiny, tmp_path: Path) -> None:
    """`torchrun` hands SIGTERM on; both processes save and leave, and the same command goes on."""
    config = tiny(epochs=20, save_minutes=1000.0)
    command = launched("torchrun", config, tmp_path)
    process = subprocess.Popen(command, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "epoch 1/20" not in process.stdout.readline():
        assert process.poll() is None
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "the state is saved" in errors
    assert len(read_runs(tmp_path / "runs")) == 0
    (state, *_) = saved_states(next((tmp_path / "checkpoints").glob("*/*")))
    done = subprocess.run(command, env=surroundings(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"goes on after step {int(state.name.split('-')[1])} of 40" in done.stdout
    assert len(read_runs(tmp_path / "runs")["sessions"].iloc[0]) == 2


NOTEBOOK = """
import json
from accelerate import notebook_launcher
from hdm.train import TrainConfig, train
config = TrainConfig.from_dict(json.loads({settings!r}))
notebook_launcher(train, (config,), num_processes=2, use_port="{port}")
"""


@pytest.mark.slow
def test_two_processes_from_a_notebook(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a real kernel; the first cell of a notebook, as Accelerate wants no device in use before."""
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    config = tiny()
    code = NOTEBOOK.format(settings=json.dumps({**config.as_dict(), "data": config.data}), port=free_port())
    for name, value in surroundings().items():
        monkeypatch.setenv(name, value)
    notebook = new_notebook(cells=[new_code_cell(code)])
    NotebookClient(
        notebook, kernel_name="python3", timeout=100, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    table = read_runs(tmp_path / "data" / "runs")
    assert table["hardware_processes"].tolist() == [2]
    assert "epoch 2/2" in str(notebook.cells[0].outputs)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# --- precision and devices ---


def test_bfloat16_trains_with_a_loss_in_float32_and_leaves_nothing_behind(tiny: Tiny, run: Start) -> None:
    """64 x 64, because on CPUs with AMX, bf16 convolutions of stride 2 are wrong where their output is one pixel wide
    (pytorch/pytorch, issue 169688)."""
    seen: list[torch.dtype] = []
    inner: list[torch.dtype] = []
    take_step = loop._take_step

    def watch(t: Any, crops: Crop, steps: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            plain = t.learner.loss.forward
            patch.setattr(
                t.learner.loss, "forward", lambda maps, *rest: (seen.append(maps.dtype), plain(maps, *rest))[1]
            )
            handle = t.learner.model.register_forward_hook(lambda *call: inner.append(call[-1].dtype))
            take_step(t, crops, steps)
            handle.remove()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_take_step", watch)
        before = run(tiny(input_size=(64, 64), loss="hdm"), "before").epochs
        assert set(inner) == {torch.float32}
        inner.clear()
        half = run(tiny(input_size=(64, 64), loss="hdm", precision="bfloat16"), "half").epochs
        assert set(inner) == {torch.bfloat16}
        assert set(seen) == {torch.float32}
    after = run(tiny(input_size=(64, 64), loss="hdm"), "after").epochs
    assert_identical(after, before)
    assert half["train_loss"][1:].to_numpy() == pytest.approx(after["train_loss"][1:].to_numpy(), rel=0.05)
    assert half["train_loss"].iloc[1] != after["train_loss"].iloc[1]


def test_float16_needs_a_gpu(tiny: Tiny, run: Start) -> None:
    with pytest.raises(InputError, match="precision float16 needs a GPU: use bfloat16 or float32 on a CPU"):
        run(tiny(precision="float16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="device is cuda, but torch sees no GPU: use auto or cpu"):
        start_engine(tiny(device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_on_a_gpu_too(tiny: Tiny, run: Start, precision: str) -> None:
    settings = {"device": "cuda", "loss": "hdm", "input_size": (64, 64)}
    half, full = (run(tiny(precision=name, **settings), name).epochs for name in (precision, "float32"))
    assert half["train_loss"][1:].to_numpy() == pytest.approx(full["train_loss"][1:].to_numpy(), rel=0.05)


COMPILED = """
import json, sys, torch
from hdm.train import TrainConfig, train
torch.set_num_threads(1)
train(TrainConfig.from_dict(json.loads(sys.argv[1])), runs=sys.argv[2], checkpoints=sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_network_learns_the_same_and_loads_as_any_other(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    """In a process of its own, as shapes are not checked in compiled code."""
    config = tiny(epochs=1, compile=True, sync_batch_norm=True, ema=0.5)
    settings = json.dumps({**config.as_dict(), "data": config.data})
    places = [str(tmp_path / "runs"), str(tmp_path / "checkpoints")]
    done = subprocess.run([sys.executable, "-c", COMPILED, settings, *places], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = read_runs(tmp_path / "runs")["folder"]
    compiled = finished_run(folder, tmp_path / "checkpoints")
    plain = run(replace(config, compile=False), "plain")
    assert compiled.epochs["train_loss"].iloc[1] == pytest.approx(plain.epochs["train_loss"].iloc[1], rel=1e-3)
    model, loss = trained_network(compiled)
    crops = PersonCrops(load_persons(config.data, "val").head(config.val_limit), config.input_size)
    assert validate(model, crops, loss, config).loss == pytest.approx(compiled.epochs["val_loss"].iloc[1], rel=1e-3)


# --- TensorBoard ---


def test_tensorboard_shows_every_step(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(tiny(train_limit=24), tensorboard=tmp_path / "board")
    (file,) = (tmp_path / "board").rglob("events.*")
    events = EventAccumulator(str(file.parent))
    events.Reload()
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert len(events.Scalars("gradient norm")) == len(events.Scalars("lr")) - 3 == 6
    epochs = events.Scalars("train_loss")
    assert [event.value for event in epochs][1:] == pytest.approx(result.epochs["train_loss"][1:].to_list())
    assert min(e.value for e in losses[:3]) <= result.epochs["train_loss"][1] <= max(e.value for e in losses[:3])


def test_tensorboard_that_is_not_installed(
    tiny: Tiny, run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    with pytest.raises(InputError, match="TensorBoard is not installed: pip install"):
        run(tiny(), tensorboard=tmp_path / "board")
