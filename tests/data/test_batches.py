"""Which persons each step shows, and that processes reading ahead change nothing but the time."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.stats
import torch
import torch.utils.data._utils
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from hdm.data import Batch, Person, PersonData, WorkerDied, epoch_order, load_persons, steps_per_epoch
from hdm.data import train_batches as train
from hdm.data import val_batches as val
from hdm.data.augment import Augmentation
from hdm.data.batches import BLOCK, ORDERS
from hdm.data.crops import Crop, PersonCrops
from hdm.data.skeletons import COCO
from hdm.errors import InputError

SIZE = (48, 32)  # rows, columns
PERSONS = 22

each_order = pytest.mark.parametrize("order", ORDERS)


@pytest.fixture(scope="module")
def crops(small_data: str) -> PersonCrops:
    data = load_persons(small_data, "train").head(PERSONS)
    assert len(data.persons) == PERSONS
    return PersonCrops(data, SIZE, augmentation=Augmentation(half_body=0.3), seed=3)


def crowd(images: int) -> PersonData:
    """Persons without pictures, 1 to 6 of them in an image, those of an image at scattered places of the data set."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.repeat(np.arange(images) * 7 + 5, rng.integers(1, 7, images))).tolist()
    joints, visible = np.zeros((17, 2)), np.ones(17, np.float32)
    persons = tuple(
        Person(number, image, Path(f"{image}.jpg"), (0.0, 0.0, 9.0, 9.0), joints, visible)
        for number, image in enumerate(ids)
    )
    return PersonData("coco:made", "train", Path("made.json"), COCO, persons, {}, "")


def images_of(data: PersonData, persons: np.ndarray) -> set[int]:
    return {data.persons[index].image_id for index in persons}


def same(first: Crop, second: Crop) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert [batch.step for batch in found] == [batch.step for batch in expected]
    assert all(same(a.crops, b.crops) for a, b in zip(found, expected, strict=True))
    assert [batch.unreadable for batch in found] == [batch.unreadable for batch in expected]


# --- which persons each step shows ---


@pytest.mark.parametrize(
    ("persons", "batch_size", "all_steps", "whole_steps"),
    [(10, 4, 3, 2), (8, 4, 2, 2), (3, 4, 1, 1), (4, 4, 1, 1), (5, 4, 2, 1), (1, 1, 1, 1), (0, 4, 0, 0)],
)
def test_number_of_steps(persons: int, batch_size: int, all_steps: int, whole_steps: int) -> None:
    assert steps_per_epoch(persons, batch_size) == all_steps
    assert steps_per_epoch(persons, batch_size, drop_last=True) == whole_steps


@each_order
@pytest.mark.parametrize("batch_size", [1, 7, 32, 256, 300, 100_000])
def test_every_person_comes_once(order: str, batch_size: int) -> None:
    data = crowd(300)
    steps = epoch_order(data, batch_size, seed=1, epoch=1, order=order)
    assert len(steps) == steps_per_epoch(len(data.persons), batch_size)
    assert {len(step) for step in steps[:-1]} <= {batch_size}
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(data.persons)))


@each_order
def test_an_incomplete_last_step_can_be_left_out(order: str) -> None:
    data = crowd(300)
    kept = [
        np.concatenate(epoch_order(data, 50, seed=1, epoch=epoch, order=order, drop_last=True)) for epoch in range(9)
    ]
    rest = len(data.persons) % 50
    assert rest > 0
    for persons in kept:
        assert len(set(persons.tolist())) == len(persons) == len(data.persons) - rest
    missing = Counter(index for persons in kept for index in set(range(len(data.persons))) - set(persons.tolist()))
    assert max(missing.values()) < 5  # not the same ones every time
    assert len(epoch_order(data, 5000, seed=1, epoch=1, order=order, drop_last=True)[0]) == len(data.persons)


@each_order
def test_the_order_depends_on_seed_and_epoch_alone(order: str) -> None:
    data = crowd(200)

    def persons(seed: int, epoch: int) -> list[int]:
        np.random.standard_normal(3)  # what else is drawn does not matter
        return np.concatenate(epoch_order(data, 16, seed=seed, epoch=epoch, order=order)).tolist()

    assert persons(3, 1) == persons(3, 1)
    for other in (persons(3, 2), persons(4, 1)):
        same_places = np.mean(np.array(persons(3, 1)) == other)
        assert same_places < 0.02  # by chance 1 in 700


@pytest.mark.parametrize("batch_size", [8, 32, 200, 400])
def test_the_persons_of_an_image_are_read_together(batch_size: int) -> None:
    """In blocks of whole steps; only the image at a border between two blocks is in both."""
    data = crowd(1000)
    steps = epoch_order(data, batch_size, seed=1, epoch=1)
    together = max(1, BLOCK // batch_size)
    blocks = [np.concatenate(steps[first : first + together]) for first in range(0, len(steps), together)]
    times = Counter(image for block in blocks for image in images_of(data, block))
    assert len(times) == 1000 and max(times.values()) <= 2
    assert sum(count > 1 for count in times.values()) <= len(blocks) - 1
    plain = epoch_order(data, batch_size, seed=1, epoch=1, order="persons")
    assert sum(len(images_of(data, step)) for step in plain) > 2 * len(times)  # what the other order would decode


def test_images_meet_others_in_each_epoch() -> None:
    """Of the images that share a block, few share one in the next epoch too: as many as chance would have it."""
    data = crowd(1000)

    def blocks(epoch: int) -> list[set[int]]:
        steps = epoch_order(data, 32, seed=1, epoch=epoch)
        return [images_of(data, np.concatenate(steps[first : first + 8])) for first in range(0, len(steps), 8)]

    first, second = blocks(1)[:-1], blocks(2)[:-1]  # the last ones are small
    again = np.array([[len(a & b) / len(a) for b in second] for a in first])
    assert again.mean() == pytest.approx(BLOCK / len(data.persons), rel=0.1)
    assert again.max() < 0.25


def test_persons_are_shuffled_within_blocks() -> None:
    """A step of 32 shows as many images as 32 persons drawn from its block of 256 should."""
    data = crowd(1000)
    steps = epoch_order(data, 32, seed=1, epoch=1)
    expected, found = [], []
    for first in range(0, len(steps) - 8, 8):
        block = np.concatenate(steps[first : first + 8])
        sizes = np.array(list(Counter(data.persons[index].image_id for index in block).values()))
        expected.append((1 - scipy.stats.hypergeom.pmf(0, len(block), sizes, 32)).sum())
        found.extend(len(images_of(data, step)) for step in steps[first : first + 8])
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.5)  # unshuffled it would be 10


def test_a_large_data_set_is_put_in_order_fast() -> None:
    data = crowd(10_000)
    data = replace(data, persons=(data.persons * 5)[:150_000])
    assert len(data.persons) == 150_000
    clock = time.process_time()
    epoch_order(data, 128, seed=0, epoch=1)
    assert time.process_time() - clock < 0.5  # some 0.02 s on a machine that does nothing else


# --- batches ---


@each_order
def test_batches_are_the_crops_of_the_order(crops: PersonCrops, order: str) -> None:
    batches = list(train(crops, 4, epochs=2, order=order))
    assert [batch.step for batch in batches] == list(range(12))
    expected = [
        crops.read(step.tolist(), epoch)[0]
        for epoch in (1, 2)
        for step in epoch_order(crops.data, 4, seed=3, epoch=epoch, order=order)
    ]
    assert all(same(batch.crops, crop) and not batch.unreadable for batch, crop in zip(batches, expected, strict=True))


def test_a_step_is_a_view_of_its_block(crops: PersonCrops) -> None:
    """Nothing is copied, and images lie in memory as networks like them."""
    batches = list(train(crops, 4, epochs=1))
    assert len({batch.crops.image.untyped_storage().data_ptr() for batch in batches}) == 1
    assert all(batch.crops.image.is_contiguous(memory_format=torch.channels_last) for batch in batches)


@each_order
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(crops: PersonCrops, order: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdm.data.batches.BLOCK", 8)  # several blocks for each worker
    settings = {"epochs": 3, "order": order, "drop_last": True}
    alone, helped = (list(train(crops, 4, workers=count, **settings)) for count in (0, workers))
    assert len(alone) == 15
    assert_same(helped, alone)
    for first, second in zip(val(crops, 5), val(crops, 5, workers=workers), strict=True):
        assert same(first, second)


@pytest.mark.parametrize("block", [4, 8, 12, 256])
def test_a_training_goes_on_at_any_step(crops: PersonCrops, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdm.data.batches.BLOCK", block)
    whole = list(train(crops, 4, epochs=2))
    for first_step in range(14):
        assert_same(list(train(crops, 4, epochs=2, first_step=first_step)), whole[first_step:])


def test_a_training_goes_on_with_other_workers(crops: PersonCrops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdm.data.batches.BLOCK", 12)
    assert_same(list(train(crops, 4, epochs=2, first_step=7, workers=2)), list(train(crops, 4, epochs=2))[7:])


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("processes", [2, 3, 5])
def test_processes_share_each_step(crops: PersonCrops, processes: int, drop_last: bool) -> None:
    """Row i of a step goes to process i modulo n; with five processes and steps of four, one process has none."""
    whole = list(train(crops, 4, epochs=2, drop_last=drop_last))
    shares = [
        list(train(crops, 4, epochs=2, drop_last=drop_last, share=(process, processes))) for process in range(processes)
    ]
    for step, batch in enumerate(whole):
        for process, share in enumerate(shares):
            assert share[step].step == step
            assert same(share[step].crops, Crop(*(value[process::processes] for value in batch.crops)))
    assert (len(shares[-1][0].crops.index) == 0) == (processes == 5)


def test_processes_share_the_validation(crops: PersonCrops) -> None:
    everything, _ = crops.read(range(PERSONS))
    for process in range(3):
        batches = list(val(crops, 5, share=(process, 3)))
        assert [len(batch.index) for batch in batches] == ([5, 3] if process == 0 else [5, 2])
        together = Crop(*(torch.cat(values) for values in zip(*batches, strict=True)))
        assert same(together, Crop(*(value[process::3] for value in everything)))
    assert list(val(PersonCrops(crops.data.head(1), SIZE), 5, share=(1, 2))) == []


@each_order
def test_fewer_persons_than_a_batch(crops: PersonCrops, order: str) -> None:
    few = PersonCrops(crops.data.head(3), SIZE)
    for drop_last in (False, True):
        batches = list(train(few, 8, epochs=2, order=order, drop_last=drop_last))
        assert [sorted(batch.crops.index.tolist()) for batch in batches] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_draws_nothing_from_the_trainings_generator(crops: PersonCrops, workers: int) -> None:
    before = torch.get_rng_state()
    next(train(crops, 4, epochs=1, workers=workers))
    next(val(crops, 4, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_picture_is_decoded_once_in_an_epoch(crops: PersonCrops, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, decode = [], cv2.imdecode

    def counted(*arguments):
        calls.append(1)
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", counted)
    pictures = len({person.image_path for person in crops.data.persons})
    assert pictures < PERSONS
    list(train(crops, 4, epochs=3))
    assert len(calls) == 3 * pictures


def test_settings_that_make_no_sense_are_refused_at_once(crops: PersonCrops) -> None:
    for settings, words in (
        ({"batch_size": 0}, "batch size 0 must be at least 1"),
        ({"batch_size": 4, "order": "sorted"}, "unknown order 'sorted': choose one of images, persons"),
        ({"batch_size": 4, "share": (2, 2)}, r"share \(2, 2\) must be \(r, n\)"),
        ({"batch_size": 4, "workers": -1}, "workers -1 must be 0 or more"),
    ):
        with pytest.raises(InputError, match=words):
            train(crops, epochs=1, **settings)
        if "order" not in settings:
            with pytest.raises(InputError, match=words):
                val(crops, **settings)
    with pytest.raises(InputError, match=r"synthetic:.*train. has no person to train on"):
        train(PersonCrops(crops.data.head(0), SIZE), 4, epochs=1)
    assert list(val(PersonCrops(crops.data.head(0), SIZE), 4)) == []


# --- pictures that can't be read, and workers that die ---


@pytest.fixture
def damaged(crops: PersonCrops, tmp_path: Path) -> tuple[PersonCrops, set[int]]:
    """Crops of which some persons' pictures are not there, and these persons."""
    persons, gone = list(crops.data.persons), {2, 3, 11, 20}
    for index in gone:
        persons[index] = replace(persons[index], image_path=tmp_path / f"gone{index}.jpg")
    return PersonCrops(replace(crops.data, persons=tuple(persons)), SIZE, seed=3), gone


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_stops_with_its_sentence(
    damaged: tuple[PersonCrops, set[int]], workers: int
) -> None:
    for batches in (train(damaged[0], 4, epochs=1, workers=workers), val(damaged[0], 4, workers=workers)):
        with pytest.raises(InputError) as raised:
            list(batches)
        words = str(raised.value)
        assert "gone" in words and words.startswith("image ") and words.endswith("fetch or generate the data again")
        assert "\n" not in words


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_persons_that_cannot_be_read_are_left_out_and_named(
    damaged: tuple[PersonCrops, set[int]], batch_size: int, workers: int
) -> None:
    crops, gone = damaged
    batches = list(train(crops, batch_size, epochs=2, workers=workers, skip_unreadable=True))
    steps = [step.tolist() for epoch in (1, 2) for step in epoch_order(crops.data, batch_size, seed=3, epoch=epoch)]
    for batch, step in zip(batches, steps, strict=True):
        assert batch.crops.index.tolist() == [index for index in step if index not in gone]
        assert same(batch.crops, crops.read(batch.crops.index.tolist(), 1)[0])
        missing = [index for index in step if index in gone]
        assert len(batch.unreadable) == len(missing)
        assert all(
            f"gone{index}.jpg" == missed.file and missed.file in missed.reason
            for index, missed in zip(missing, batch.unreadable, strict=True)
        )
    assert sum(len(batch.unreadable) for batch in batches) == 8
    assert any(len(batch.crops.index) == 0 for batch in batches) == (batch_size == 1)


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process, where no other loader has set a handler yet; dead workers are looked for twice a second."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.5,))
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    yield
    signal.signal(signal.SIGCHLD, handler)


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc")
@pytest.mark.parametrize(("workers", "another"), [(1, False), (2, False), (1, True)])
def test_a_killed_worker_is_noticed(
    crops: PersonCrops, workers: int, another: bool, quick_checks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the batches that are there already still come, and in no other line of the program; also where another
    loader of torch's, which sets a handler for ended processes, ran before."""
    monkeypatch.setattr("hdm.data.batches.BLOCK", 4)
    if another:
        list(DataLoader([0, 1], num_workers=1))
        assert signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL
    before = children()
    batches = train(crops, 4, epochs=1000, workers=workers)
    assert next(batches).step == 0
    started = children() - before
    assert len(started) == workers
    os.kill(min(started), signal.SIGKILL)
    time.sleep(0.2)  # torch's own handler would raise here
    step = 0
    with pytest.raises(WorkerDied, match="fewer workers, or give the machine or container more memory") as raised:
        for batch in batches:
            step = batch.step
    assert f"a worker process was gone when step {step + 1} was due (DataLoader worker" in str(raised.value)
    assert step < 20 and "\n" not in str(raised.value)


def test_other_errors_in_a_worker_stay_what_they_are(crops: PersonCrops) -> None:
    """A person of another skeleton, which is the program's fault and no user's."""
    person = replace(crops.data.persons[0], joints=np.zeros((5, 2)), visible=np.ones(5, np.float32))
    wrong = PersonCrops(replace(crops.data, persons=(crops.data.persons[0], person)), SIZE)
    with pytest.raises(Exception, match="Caught .* in DataLoader worker process 0") as raised:
        list(train(wrong, 2, epochs=1, workers=1))
    assert not isinstance(raised.value, (InputError, WorkerDied))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_that_are_not_forked(crops: PersonCrops, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows, and on Linux from Python 3.14 on."""
    alone = list(train(crops, 4, epochs=1))
    monkeypatch.setattr("hdm.data.batches.DataLoader", partial(DataLoader, multiprocessing_context=start))
    assert_same(list(train(crops, 4, epochs=1, workers=1)), alone)
