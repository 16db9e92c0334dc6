"""Batches of crops: which persons each step shows, and worker processes that read them ahead.

A picture of COCO shows two or three persons, and decoding it takes longer than all else that a crop needs. So the order
`images` keeps the persons of an image close together: images are shuffled, their persons laid in a row, and the row
cut into blocks of whole steps, about 256 persons; within a block the persons are shuffled::

    images, shuffled         7       2    9          4     1 ...
    their persons            a b c   d    e f g h    i j   k ...
    blocks of whole steps    |-------------------|-------------- ...
    shuffled within          f b | d a | h e | c g |  ...          here four steps of two persons

A block is read at once, so that each picture is decoded once, but for the few at a border between blocks. The order
`persons` is a plain shuffle. Either depends on (seed, epoch) alone.
"""

import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from hdm.data.crops import Crop, PersonCrops, Unreadable
from hdm.data.persons import PersonData
from hdm.errors import InputError

ORDERS = ("images", "persons")
BLOCK = 256  # persons that are read together, about
AHEAD = 2  # blocks that each worker process reads ahead


class WorkerDied(RuntimeError):  # noqa: N818  # what happened, not a mistake
    """A worker process is gone: killed, most often because memory or shared memory had run out."""


class Batch(NamedTuple):
    """The persons of a step: its number from 0 over all epochs, the crops, and why which persons are missing."""

    step: int
    crops: Crop
    unreadable: list[Unreadable]


# --- which persons each step shows ---


def steps_per_epoch(persons: int, batch_size: int, drop_last: bool = False) -> int:
    """Number of steps that show `persons` persons once, `batch_size` in each.

    drop_last: without a last step of fewer persons, unless it is the only one.
    """
    whole, rest = divmod(persons, batch_size)
    return whole + (rest > 0 and not (drop_last and whole > 0))


def epoch_order(
    data: PersonData, batch_size: int, *, seed: int, epoch: int, order: str = "images", drop_last: bool = False
) -> list[Int64[ndarray, "_"]]:
    """The persons of each step of an epoch, as places in the data set; see the module's description.

    Every person comes once; with `drop_last` those of an incomplete last step are left out, other ones in each epoch.
    Raises InputError for an unknown order and a batch size below 1.
    """
    _check_order(batch_size, order)
    rng = np.random.default_rng((seed, epoch, 0, 1))  # the views of persons are drawn from (seed, epoch, index)
    if order == "persons":
        persons = rng.permutation(len(data.persons))
    else:
        ids = np.fromiter((person.image_id for person in data.persons), np.int64, len(data.persons))
        distinct, image = np.unique(ids, return_inverse=True)
        place = rng.permutation(len(distinct))
        row = np.argsort(place[image], kind="stable")
        block = np.arange(len(row)) // (_steps_per_block(batch_size) * batch_size)
        persons = row[np.argsort(block + rng.random(len(row)))]
    steps = steps_per_epoch(len(persons), batch_size, drop_last)
    return [persons[step * batch_size : (step + 1) * batch_size] for step in range(steps)]


def _steps_per_block(batch_size: int) -> int:
    return max(1, BLOCK // batch_size)


# --- batches, read ahead ---


def train_batches(
    crops: PersonCrops,
    batch_size: int,
    *,
    epochs: int,
    first_step: int = 0,
    order: str = "images",
    drop_last: bool = False,
    share: tuple[int, int] = (0, 1),
    workers: int = 0,
    skip_unreadable: bool = False,
    pin: bool = False,
) -> Iterator[Batch]:
    """The steps `first_step` to `epochs * n - 1` of a training, n = `steps_per_epoch` of its persons.

    Steps count from 0 over the whole training; epoch e, from 1, holds the steps (e - 1) n to e n - 1, and its persons
    are shown as `crops.read(..., epoch=e)` shows them. What a step holds depends on neither `first_step` nor `workers`.

    batch_size: persons of a step, of all processes together. order, drop_last: see `epoch_order`.
    share: (r, n) gives only rows r, r + n, r + 2n, ... of each step, for process r of n; there may be none of them.
    workers: processes that read ahead, over the borders between epochs too; 0 reads when asked.
    skip_unreadable: leave out persons whose pictures can't be read, and say so in the batch.
    pin: into page-locked memory, from which a GPU copies without waiting.
    Raises InputError for settings that make no sense, at once, and for a picture that can't be read, when the turn
    comes to its block of steps; WorkerDied where a worker process is gone.
    """
    _check_order(batch_size, order)
    _check_share(share, workers)
    if not len(crops):
        raise InputError(f"{crops.data.source} ({crops.data.part}) has no person to train on: give another data set")
    persons_of = partial(epoch_order, crops.data, batch_size, seed=crops.seed, order=order, drop_last=drop_last)
    steps = steps_per_epoch(len(crops), batch_size, drop_last)
    plan = _TrainPlan(persons_of, steps, batch_size, share, first_step)
    reader = _Reader(crops, plan, skip_unreadable)
    return _batches(reader, plan.blocks(epochs), first_step, workers, pin)


def val_batches(
    crops: PersonCrops, batch_size: int, *, share: tuple[int, int] = (0, 1), workers: int = 0, pin: bool = False
) -> Iterator[Crop]:
    """All persons in their order, or rows r, r + n, ... of them for a `share` (r, n); the last batch may be smaller.

    The other settings and errors are those of `train_batches`.
    """
    _check_order(batch_size)
    _check_share(share, workers)
    rows = range(share[0], len(crops), share[1])
    reader = _Reader(crops, partial(_val_block, rows, batch_size), skip_unreadable=False)
    batches = _batches(reader, range(steps_per_epoch(len(rows), batch_size)), 0, workers, pin)
    return (batch.crops for batch in batches)


class _TrainPlan:
    """Block `number` of a training, counted over all epochs: its epoch, and the rows of its steps for this process.

    order: the steps of an `epoch`; those of the last one that was asked for are kept, as each worker process goes
    through the epochs once. steps: of an epoch.
    """

    def __init__(
        self, order: Callable[..., list[ndarray]], steps: int, batch_size: int, share: tuple[int, int], first_step: int
    ) -> None:
        self.order, self.steps, self.share, self.first_step = order, steps, share, first_step
        self.together = _steps_per_block(batch_size)
        self.blocks_per_epoch = -(-steps // self.together)
        self.known: tuple[int, list[ndarray]] = (0, [])

    def blocks(self, epochs: int) -> range:
        """The numbers of the blocks from the one with `first_step` on."""
        before, step = divmod(self.first_step, self.steps)
        return range(before * self.blocks_per_epoch + step // self.together, epochs * self.blocks_per_epoch)

    def __call__(self, number: int) -> tuple[int, list[Sequence[int]]]:
        before, block = divmod(number, self.blocks_per_epoch)
        epoch = before + 1
        if self.known[0] != epoch:
            self.known = epoch, self.order(epoch=epoch)
        first = max(block * self.together, self.first_step - before * self.steps)
        process, processes = self.share
        persons = self.known[1][first : (block + 1) * self.together]
        return epoch, [step[process::processes].tolist() for step in persons]


def _val_block(rows: range, batch_size: int, number: int) -> tuple[int, list[Sequence[int]]]:
    return 0, [rows[number * batch_size : (number + 1) * batch_size]]


class _Block(NamedTuple):
    """Steps that were read together: all crops, how many of them each step has, and why which are missing in each."""

    crops: Crop
    counts: list[int]
    unreadable: list[list[Unreadable]]


class _Reader(Dataset):
    """Blocks of crops by number: what worker processes run. plan: number -> epoch, rows of each step."""

    def __init__(
        self, crops: PersonCrops, plan: Callable[[int], tuple[int, list[Sequence[int]]]], skip_unreadable: bool
    ) -> None:
        self.crops, self.plan, self.skip_unreadable = crops, plan, skip_unreadable

    def __getitem__(self, number: int) -> _Block | InputError:
        epoch, steps = self.plan(number)
        rows = [row for step in steps for row in step]
        try:
            crops, reasons = self.crops.read(rows, epoch, skip_unreadable=self.skip_unreadable)
        except InputError as error:
            return error  # raised on the way from a worker, its sentence would end up in a traceback's text
        kept, reason = set(torch.as_tensor(crops.index).tolist()), iter(reasons)
        counts = [sum(row in kept for row in step) for step in steps]
        missing = [list(islice(reason, len(step) - count)) for step, count in zip(steps, counts, strict=True)]
        return _Block(crops, counts, missing)


def _batches(reader: _Reader, numbers: range, step: int, workers: int, pin: bool) -> Iterator[Batch]:
    """The steps of some blocks, numbered from `step` on, as views of their block's memory."""
    loader = DataLoader(
        reader,
        batch_size=None,  # an item is a block already
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=_prepare_worker,
        pin_memory=pin,
        generator=torch.Generator(),  # else it draws from the one that the training uses
    )
    with _handler_kept():
        blocks = iter(loader)
    try:
        for _ in numbers:
            block = _next(blocks, step, workers)
            if isinstance(block, InputError):
                raise InputError(str(block))  # not `block` itself, which this frame would keep alive, and it this frame
            parts = zip(*(torch.as_tensor(values).split(block.counts) for values in block.crops), strict=True)
            for part, unreadable in zip(parts, block.unreadable, strict=True):
                yield Batch(step, Crop(*part), unreadable)
                step += 1
    finally:
        del blocks  # ends its processes now, and not when the last traceback that holds this frame is forgotten


def _next(blocks: Iterator[_Block | InputError], step: int, workers: int) -> _Block | InputError:
    """The next block. Raises WorkerDied where a worker process is gone."""
    try:
        return next(blocks)
    except (RuntimeError, OSError, EOFError) as error:
        told = re.match("DataLoader worker|Pin memory thread", str(error))
        # A worker takes the memory of blocks that it has announced already with it: the connection to it breaks.
        broken = isinstance(error, ConnectionError | FileNotFoundError | EOFError)
        if told or (workers and broken and "in DataLoader worker process" not in str(error)):
            raise WorkerDied(
                f"a worker process was gone when step {step} was due ({error}): run again with fewer workers, or "
                "give the machine or container more memory and more shared memory (/dev/shm)"
            ) from error
        raise


def _prepare_worker(worker: int) -> None:
    """One thread for each worker process; the training process alone answers to Ctrl-C, and ends its workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Leaves the handler of ended processes as it is, but for torch's own, which another loader may have set before.

    That one raises wherever the training is when a worker dies, in the middle of an optimizer's step too; `next`
    notices as well, after at most five seconds of waiting.
    """
    ended = getattr(signal, "SIGCHLD", None)  # not on Windows
    if ended is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(ended)
    yield
    torchs_own = getattr(handler, "__module__", "") == signal_handling.__name__
    signal.signal(ended, signal.SIG_DFL if torchs_own else handler)


def _check_order(batch_size: int, order: str = ORDERS[0]) -> None:
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} must be at least 1")
    if order not in ORDERS:
        raise InputError(f"unknown order {order!r}: choose one of {', '.join(ORDERS)}")


def _check_share(share: tuple[int, int], workers: int) -> None:
    process, processes = share
    if not 0 <= process < processes:
        raise InputError(f"share {share} must be (r, n) with r from 0 to n - 1: process r of n")
    if workers < 0:
        raise InputError(f"workers {workers} must be 0 or more: the number of processes that read pictures")
