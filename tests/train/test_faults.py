"""What can go wrong while a run works: full disks, broken pictures, dead processes, numbers that are none, damage."""

import math
import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from disks import fill_disk, room_again
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from hdm.data import epoch_order, load_persons
from hdm.data.augment import Augmentation
from hdm.data.crops import PersonCrops
from hdm.errors import Diverged, InputError, Stopped
from hdm.losses import GaussianMSE
from hdm.records import read_runs
from hdm.train import Run, TrainConfig, saved_states, trained_network
from hdm.train.checkpoint import read_state, read_tensors, write_state
from hdm.train.reading import RESTARTS

Tiny = Callable[..., TrainConfig]
Start = Callable[..., Run]
AtCall = Callable[..., AbstractContextManager[None]]
SameEnd = Callable[[Run, Run], None]

OFTEN = 1e-9  # minutes: the state is saved after every step


def the_folder(root: Path) -> Path:
    """Where the one run below a folder has its states."""
    (folder,) = (root / "checkpoints").glob("*/*")
    return folder


def steps_saved(root: Path) -> list[int]:
    return [read_state(path)["run"]["step"] for path in saved_states(the_folder(root))]


# --- a full disk ---


@pytest.mark.parametrize(
    ("settings", "target", "call", "room", "words", "step"),
    [
        ({}, "hdm.train.state.write_state", 1, 0, "state-000000000.* can't be written", None),
        ({}, "hdm.train.state.write_state", 2, 50_000, "state-000000001.* can't be written .*: free space", 0),
        ({}, "hdm.train.state.write_tensors", 1, 50_000, "weights-.* can't be written", 4),
        ({"keep": "best"}, "hdm.train.state.write_tensors", 1, 50_000, "weights-.* can't be written", 1),
        ({}, "hdm.train.loop.write_run", 1, 100, "run record .* can't be written", 4),
    ],
    ids=["first state", "second state", "weights", "best weights", "record"],
)
def test_a_full_disk(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, tmp_path: Path,
    settings: dict, target: str, call: int, room: int, words: str, step: int | None,
) -> None:  # fmt: skip
    """The run ends with a sentence and nothing is left half written; with room again, it goes on after `step`."""
    config = tiny(save_minutes=OFTEN, **settings)
    with room_again(), at_call(target, call, partial(fill_disk, room)), pytest.raises(InputError, match=words):
        run(config, "full")
    assert len(read_runs(tmp_path / "full" / "runs")) == 0
    assert list((tmp_path / "full").rglob("*.partial")) == []
    assert next(iter(steps_saved(tmp_path / "full")), None) == step
    lines: list[str] = []
    finished = run(config, "full", log=lines.append)
    if step is not None:
        assert f"goes on after step {step} of 4" in lines[0]
    same_end(finished, run(config, "whole"))


# --- pictures that can't be read ---


def damaged_copy(data: str, copy: Path, part: str, number: int) -> tuple[str, Path]:
    """A copy of the data in which a part's picture is cut short, and that picture."""
    shutil.copytree(data.partition(":")[2], copy)
    image = load_persons(f"synthetic:{copy}", part).persons[number].image_path
    image.write_bytes(image.read_bytes()[:5000])
    return f"synthetic:{copy}", image


def first_step_of(image: Path, config: TrainConfig) -> int:
    """The step, from 1, that first shows a person of the picture."""
    data = load_persons(config.data, "train").head(config.train_limit)
    steps = [
        step
        for epoch in range(1, config.epochs + 1)
        for step in epoch_order(data, config.batch_size, seed=0, epoch=epoch, drop_last=True)
    ]
    return next(n for n, step in enumerate(steps, 1) if any(data.persons[i].image_path == image for i in step))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_is_cut_short_stops_the_run_by_name(
    tiny: Tiny, run: Start, same_end: SameEnd, small_data: str, tmp_path: Path, workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Once the picture is mended, the run goes on from its last state."""
    monkeypatch.setattr("hdm.data.batches.BLOCK", 4)
    data, image = damaged_copy(small_data, tmp_path / "damaged", "train", 9)
    config = tiny(data=data, batch_size=4, workers=workers, save_minutes=OFTEN)
    step = first_step_of(image, config)
    assert step > 1
    with pytest.raises(InputError, match=f"{image.name} is cut short"):
        run(config, "stopped")
    assert steps_saved(tmp_path / "stopped")[0] == step - 1
    shutil.copy(Path(small_data.partition(":")[2]) / image.parent.name / image.name, image)
    same_end(run(config, "stopped"), run(config, "whole"))


@pytest.mark.parametrize("fault", ["cut short", "missing", "something else"])
def test_pictures_can_be_skipped(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, small_data: str, tmp_path: Path, fault: str
) -> None:
    data, image = damaged_copy(small_data, tmp_path / "damaged", "train", 1)
    config = tiny(data=data, batch_size=5, epochs=3, skip_unreadable=True, drop_last=False)
    persons = sum(person.image_path == image for person in load_persons(data, "train").head(16).persons)
    assert persons == 2
    if fault == "something else":
        image.write_text("a page that says not found")
    lines: list[str] = []
    vanish = at_call("hdm.train.loop.steady_batches", 1, image.unlink if fault == "missing" else lambda: None)
    with vanish:
        result = run(config, "skips", log=lines.append)
    assert result.record["faults"]["unreadable"] == {image.name: 3 * persons}
    assert result.epochs["unreadable"].tolist() == [0, 2, 4, 6]
    (told,) = (line for line in lines if "skipped" in line)
    assert image.name in told
    assert str(tmp_path) not in (result.folder / "run.json").read_text()
    assert read_runs(result.folder.parents[1])["faults_unreadable"].tolist() == [6]
    if fault == "missing":
        return  # now it would be missed at the start

    same_end(run(TrainConfig(**vars(config) | {"workers": 2}), "workers"), result)
    with (
        at_call("torch.optim.Adam.step", 6, lambda: signal.raise_signal(signal.SIGINT)),
        pytest.raises(Stopped),
    ):
        run(config, "stopped")
    continued = run(config, "stopped")
    same_end(continued, result)
    assert continued.record["faults"] == result.record["faults"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_of_the_validation_part_is_never_skipped(
    tiny: Tiny, run: Start, small_data: str, tmp_path: Path, workers: int
) -> None:
    data, image = damaged_copy(small_data, tmp_path / "damaged", "val", 2)
    with pytest.raises(InputError, match=f"{image.name} is cut short"):
        run(tiny(data=data, skip_unreadable=True, workers=workers))


def test_a_batch_of_which_no_picture_can_be_read(tiny: Tiny, run: Start, small_data: str, tmp_path: Path) -> None:
    """That is a drive that is gone, and no picture to skip."""
    copy = shutil.copytree(small_data.partition(":")[2], tmp_path / "copy")
    for image in (copy / "train2017").glob("*.jpg"):
        image.write_bytes(b"")
    with pytest.raises(InputError, match=r"no picture of a whole batch can be read; the first: .*jpg is not an image"):
        run(tiny(data=f"synthetic:{copy}", skip_unreadable=True))


# --- processes that read pictures, and die ---


@pytest.fixture
def quick_to_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead process is noticed after a moment, not after five seconds."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def kill_a_reader() -> None:
    readers = {child.pid for child in multiprocessing.active_children()}
    (victim, *_) = (child for child in psutil.Process().children() if child.pid in readers)
    victim.kill()


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("torch.optim.Adam.step", 3),
        ("hdm.inference.decode", 8),
        ("torch.multiprocessing.reductions.rebuild_storage_fd", 1),  # a block is announced, but not there yet
        ("torch.multiprocessing.reductions.rebuild_storage_fd", 50),
    ],
    ids=["training", "validation", "a block of validation", "a block of training"],
)
def test_a_killed_reader_is_replaced(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, seen_data: str, quick_to_notice: None,
    monkeypatch: pytest.MonkeyPatch, target: str, call: int,
) -> None:  # fmt: skip
    """Numbers are those of an undisturbed run, and the record tells of it."""
    monkeypatch.setattr("hdm.data.batches.BLOCK", 2)
    config = tiny(data=seen_data, batch_size=2, workers=1, val_limit=12)
    lines: list[str] = []
    with at_call(target, call, kill_a_reader):
        disturbed = run(config, "disturbed", log=lines.append)
    (told,) = (line for line in lines if "a worker process was gone" in line)
    assert "started again" in told
    assert disturbed.record["faults"]["worker_restarts"] == 1
    same_end(disturbed, run(config, "whole"))


@pytest.mark.parametrize("training", [True, False])
def test_readers_that_die_again_and_again(
    tiny: Tiny, run: Start, quick_to_notice: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    read, here = PersonCrops.read, os.getpid()

    def read_or_die(crops: PersonCrops, *arguments, **options) -> object:
        if os.getpid() != here and (crops.augmentation is not None) == training:
            os._exit(1)
        return read(crops, *arguments, **options)

    monkeypatch.setattr(PersonCrops, "read", read_or_die)
    lines: list[str] = []
    with pytest.raises(InputError, match="a worker process was gone .*: run again with fewer workers, or give"):
        run(tiny(workers=2), log=lines.append)
    assert len([line for line in lines if "started again" in line]) == RESTARTS
    assert run(tiny(workers=0)).record["results"]  # without them it works, and goes on from where it was


# --- numbers that are none ---


def test_a_network_that_diverges_is_stopped_and_its_last_good_state_stays(
    tiny: Tiny, run: Start, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match="lower the learning rate.*; the batch is kept in .*, the last good") as stop:
        run(tiny(lr=1e30, warm_up=0.0))
    assert len(read_runs(tmp_path / "runs")) == 0
    folder = the_folder(tmp_path)
    state = read_state(saved_states(folder)[0])
    assert state["run"]["history"][-1]["epoch"] == 0
    assert all(bool(value.isfinite().all()) for value in state["model"].values())

    (kept,) = folder.glob("diverged-*.safetensors")
    assert str(kept) in str(stop.value)
    tensors, notes = read_tensors(kept)
    step = int(kept.name.split("-")[1])
    assert str(stop.value).startswith(f"step {step}: ") and 1 <= step <= 2
    assert notes["reason"] in str(stop.value) and notes["settings"]["lr"] == 1e30
    data = load_persons(tiny().data, "train").head(16)
    persons = epoch_order(data, 8, seed=0, epoch=1, drop_last=True)[step - 1]
    crops = PersonCrops(data, (64, 32), augmentation=Augmentation(), reduced=True)
    expected, _ = crops.read(persons.tolist(), 1)
    for name, value in zip(("images", "joints", "visible"), expected, strict=False):
        assert torch.equal(tensors[name], value)


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(
    tiny: Tiny, run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is finite where its gradient is not, as that of a root at zero."""
    forward = GaussianMSE.forward

    def with_root(loss: GaussianMSE, heatmaps: Tensor, joints: Tensor, visible: Tensor) -> Tensor:
        return forward(loss, heatmaps, joints, visible) + (heatmaps * 0).sum().sqrt()

    monkeypatch.setattr(GaussianMSE, "forward", with_root)
    with pytest.raises(
        Diverged, match="step 1: the gradient is not finite: lower the learning rate; the batch is kept"
    ):
        run(tiny(save_minutes=OFTEN))
    assert steps_saved(tmp_path) == [0]


def test_weights_that_are_not_numbers_are_noticed(tiny: Tiny, run: Start, at_call: AtCall, tmp_path: Path) -> None:
    with at_call("torch.optim.Adam.step", 1, partial(signal.raise_signal, signal.SIGINT)), pytest.raises(Stopped):
        run(tiny())
    folder = the_folder(tmp_path)
    state = read_state(saved_states(folder)[0])
    state["model"]["final_layer.bias"][3] = math.nan
    write_state(folder, 9, state)
    with pytest.raises(Diverged, match="heatmaps hold NaN"):
        run(tiny())
    assert len(read_runs(tmp_path / "runs")) == 0


# --- states that were damaged since ---

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut short": lambda whole: whole[:-1],
    "a bit": lambda whole: whole[:999_999] + bytes([whole[999_999] ^ 16]) + whole[1_000_000:],
    "a pickle": lambda whole: pickle.dumps({"step": 3}),
}


def test_a_damaged_state_gives_way_to_the_one_before(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, tmp_path: Path
) -> None:
    config = tiny(batch_size=4, save_minutes=OFTEN, ema=0.5, keep="best")
    with at_call("torch.optim.Adam.step", 5, partial(signal.raise_signal, signal.SIGTERM)), pytest.raises(Stopped):
        run(config, "stopped")
    whole = run(config, "whole")
    for damage, spoil in DAMAGE.items():
        shutil.copytree(tmp_path / "stopped", tmp_path / damage)
        newest, before = saved_states(the_folder(tmp_path / damage))
        sound = before.read_bytes()
        for path in (newest, before):
            path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(InputError, match="no state in .* is sound: delete it to start over"):
            run(config, damage)
        assert len(read_runs(tmp_path / damage / "runs")) == 0

        before.write_bytes(sound)
        lines: list[str] = []
        continued = run(config, damage, log=lines.append)
        assert newest.name in lines[0] and "is damaged" in lines[0] and "the one before it is taken" in lines[0]
        assert "goes on after step 4 of 8" in lines[1]
        same_end(continued, whole)


def test_damaged_weights_are_named_and_can_be_made_again(tiny: Tiny, run: Start, same_end: SameEnd) -> None:
    first = run(tiny(epochs=1))
    first.checkpoint.write_bytes(first.checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=f"checkpoint .*{first.checkpoint.name} is damaged"):
        trained_network(first)
    same_end(run(tiny(epochs=1)), run(tiny(epochs=1), "other"))


# --- memory ---


@pytest.mark.slow
def test_memory_does_not_grow(tiny: Tiny, run: Start) -> None:
    """Resident memory after 5 and after 20 epochs; a state alone has some 5 MB, and each epoch saves two."""
    process, used = psutil.Process(), []
    run(tiny(epochs=20, save_minutes=OFTEN, ema=0.9), log=lambda line: used.append(process.memory_info().rss / 1e6))
    assert len(used) == 21
    assert used[20] - used[5] < 15
