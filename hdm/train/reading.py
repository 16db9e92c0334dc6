"""What the loop is fed with: crops as the config wants them, from files or a cache, in batches that go on."""

from collections.abc import Callable, Iterator

from torch import nn

from hdm.data import PersonData
from hdm.data.augment import Augmentation
from hdm.data.batches import Batch, WorkerDied, train_batches
from hdm.data.cache import CropCache, open_cache
from hdm.data.crops import PersonCrops, Unreadable
from hdm.errors import InputError
from hdm.train.config import TrainConfig
from hdm.train.engine import StopRequest
from hdm.train.state import Training

Log = Callable[[str], None]
RESTARTS = 3  # how often in a row the processes that read images may die


def make_train_crops(data: PersonData, config: TrainConfig, loss: nn.Module) -> PersonCrops:
    """The training part's crops, with the views of the config."""
    augmentation = Augmentation(config.rotation, config.scale, config.flip, config.half_body)
    return PersonCrops(
        data,
        config.input_size,
        augmentation=augmentation,
        seed=config.seed,
        convention=config.convention,
        heatmap_stride=config.heatmap_stride,
        margin=getattr(loss, "margin", 0.0),  # only a loss that draws targets can make use of joints outside
        reduced=config.reduced,
        cache=_cache(data, config, augmentation),
    )


def make_val_crops(data: PersonData, config: TrainConfig) -> PersonCrops:
    """The validation part's crops, as they are."""
    return PersonCrops(
        data,
        config.input_size,
        convention=config.convention,
        heatmap_stride=config.heatmap_stride,
        reduced=config.reduced,
        cache=_cache(data, config, None),
    )


def _cache(data: PersonData, config: TrainConfig, augmentation: Augmentation | None) -> CropCache | None:
    if config.cache is None:
        return None
    return open_cache(
        config.cache,
        data,
        config.input_size,
        augmentation=augmentation,
        convention=config.convention,
        reduced=config.reduced,
    )


def steady_batches(t: Training, crops: PersonCrops, stop: StopRequest, log: Log) -> Iterator[Batch]:
    """The batches from the step at hand on; processes that read and die are started again."""
    config, deaths = t.config, 0
    while True:
        try:
            for batch in train_batches(
                crops,
                config.batch_size,
                epochs=config.epochs,
                first_step=t.run.step,
                order=config.order,
                drop_last=config.drop_last,
                share=(t.engine.process_index, t.engine.num_processes),
                workers=config.workers,
                skip_unreadable=config.skip_unreadable,
                pin=t.engine.device.type == "cuda",
            ):
                deaths = 0
                yield batch
            return
        except WorkerDied as death:
            deaths += 1
            if stop.signal:  # whoever stops the run may have stopped these first
                raise KeyboardInterrupt from death
            if deaths > RESTARTS:
                raise InputError(str(death)) from death
            log(f"{config.loss}: {death}; they are started again")
            t.run.worker_restarts += 1


def note_unreadable(t: Training, missing: list[Unreadable], shown: int, log: Log) -> None:
    """Counts persons that were left out by their picture's file, and names each file the first time.

    Raises InputError where nobody of a batch is left: it is the drive, then, and not a picture.
    """
    if missing and not shown:
        raise InputError(f"no picture of a whole batch can be read; the first: {missing[0].reason}")
    for file, reason in missing:
        if file not in t.run.unreadable:
            log(f"{t.config.loss}: skipped: {reason}")
        t.run.unreadable[file] = t.run.unreadable.get(file, 0) + 1
