"""One training run, from settings to record: the same on a CPU, a GPU, or many of them.

`train` makes everything ready and writes the record, `_loop` takes steps and measures epochs, `_take_step` learns. What
they stand on: `engine` (devices, precision, processes, stopping), `state` (saved and restored), `progress`.
"""

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn import functional

from hdm.data import PersonData, hold_out, load_persons, with_label_noise
from hdm.data.batches import WorkerDied, steps_per_epoch
from hdm.data.crops import Crop, PersonCrops
from hdm.errors import Diverged, InputError, Stopped
from hdm.models import PoseNetwork
from hdm.protocols import mpii_truth
from hdm.records import RUNS, now, provenance, read_run, write_run
from hdm.train.checkpoint import only_here, write_tensors
from hdm.train.config import TrainConfig
from hdm.train.engine import StopRequest, engine_released, everywhere, mean_over, start_engine, stop_requests
from hdm.train.follow import LATE, EpochWatch, consistency_section, read_maps
from hdm.train.optimizer import learning_rate
from hdm.train.progress import Clock, Progress, epoch_line, peak_memory_mb, progress_bar, show_progress
from hdm.train.reading import RESTARTS, Log, make_train_crops, make_val_crops, note_unreadable, steady_batches
from hdm.train.run import CHECKPOINTS, Run, finished_run, recorded_run, run_folder
from hdm.train.state import Training, restore, save, start_training, state_to_go_on_from, tidy_up, write_weights
from hdm.train.validation import headline, mean_pose_error_px, scores, validate

# What is told of each epoch: settings, epoch, network, loss.
AfterEpoch = Callable[[TrainConfig, int, PoseNetwork, nn.Module], None]


def train(
    config: TrainConfig,
    *,
    profile: str = "local",
    runs: Path | str = RUNS,
    checkpoints: Path | str = CHECKPOINTS,
    reuse: bool = False,
    resume: str | Path = "auto",
    log: Log = print,
    progress: bool | None = None,
    tensorboard: Path | str | None = None,
    after_epoch: AfterEpoch | None = None,
) -> Run:
    """Trains a network as `config` says, validates it after every epoch, and writes a run record.

    Stopped at any moment, even by `kill -9`, and called again with the same config, it goes on from the last saved
    state and ends with the same numbers as if it had not been stopped.
    reuse: return the newest record of the same settings and data, where there is one, instead of training.
    resume: `auto` goes on from the run's newest sound state; `never` starts over; a path goes on from that state, or
        from the newest one in that folder.
    log: is given one line per epoch. progress: show a bar; None does so where a person looks on.
    tensorboard: a folder for TensorBoard's files: loss, gradient norm and learning rate of each step, and the epochs.
    after_epoch: called in the main process after each epoch, and before the first as epoch 0, with the config, the
        epoch, the network as it was validated and its loss, both in evaluation mode: `hdm.train.Film` is one. It sees
        only the epochs that this call trains.
    Raises InputError for bad data, bad settings, a network that diverges, a state of other settings, and a run that
    another process is training; Stopped, after saving, on Ctrl-C and SIGTERM.
    """
    cv2.setNumThreads(0)  # OpenCV's threads and torch's get in each other's way
    # With a cache the pictures themselves need not be here.
    train_data, val_data = (load_persons(config.data, part, check_images=not config.cache) for part in ("train", "val"))
    _check_skeletons(train_data, val_data, config)
    data_sha256 = train_data.sha256 + val_data.sha256
    if config.held_out:
        train_data, val_data = hold_out(train_data, config.held_out)
    train_data, val_data = train_data.head(config.train_limit), val_data.head(config.val_limit)
    if val_data.kind == "mpii" and not config.held_out:
        mpii_truth(val_data)  # missing or damaged, it is told before the training, not after it
    train_data = with_label_noise(train_data, config.label_noise)
    key = config.key(data_sha256)
    if reuse and (found := recorded_run(key, profile, runs)):
        log(f"{config.loss}: record {found.name} of these settings is there; not trained again")
        return finished_run(found, checkpoints)

    engine = start_engine(config, tensorboard)
    if config.follow and engine.num_processes > 1:
        raise InputError("a run that is followed needs all persons in one process: start one, or set follow to false")
    log = log if engine.is_main_process else _silent
    folder = run_folder(checkpoints, profile, config.loss, key)
    alone = only_here(folder) if engine.is_main_process else contextlib.nullcontext()
    with engine_released(), alone, stop_requests() as stop:
        if reuse and (found := recorded_run(key, profile, runs)):  # another process finished it while this one waited
            return finished_run(found, checkpoints)
        source = provenance()  # of the code that is loaded now, whatever happens to the files while it runs
        run_id = _new_id(Path(runs) / profile, config.loss, key)
        mean_pose_error = mean_pose_error_px(train_data, val_data, config)
        run = Progress(run_id, config.as_dict(), data_sha256, mean_pose_error)
        t = start_training(config, engine, folder, run, train_data.skeleton)
        train_crops = make_train_crops(train_data, config, t.learner.loss)
        val_crops = make_val_crops(val_data, config)
        steps = config.epochs * steps_per_epoch(len(train_crops), config.batch_size, config.drop_last)
        if state := state_to_go_on_from(t, resume, log):
            restore(t, state)
            log(f"{config.loss}: goes on after step {t.run.step} of {steps}")
            if (written := Path(runs) / profile / t.run.run_id).exists():
                tidy_up(t)  # it was killed when nothing but this was left to do
                return finished_run(written, checkpoints)
        t.run.sessions.append({"started": now(), "commit": source["commit"], "dirty": source["dirty"]})
        if tensorboard is not None:
            engine.init_trackers(t.run.run_id)

        _loop(t, train_crops, val_crops, steps, stop, log, progress, after_epoch)

        record = {
            "run_id": t.run.run_id,
            "key": key,
            "profile": profile,
            "started": t.run.sessions[0]["started"],
            "ended": now(),
            "seconds": float(sum(row["seconds"] for row in t.run.history)),
            **source,
            "sessions": t.run.sessions,
            "settings": t.run.settings,
            "data": _data_section(config, train_data, val_data),
        }
        record["hardware"] |= {"device": engine.device.type, "processes": engine.num_processes}
        return _finish(t, val_crops, record, Path(runs))


def _loop(
    t: Training,
    train_crops: PersonCrops,
    val_crops: PersonCrops,
    steps: int,
    stop: StopRequest,
    log: Log,
    progress: bool | None,
    after_epoch: AfterEpoch | None,
) -> None:
    """Takes steps to the end of the last epoch, and measures each epoch; epoch 0 is the untrained network."""
    config, engine, per_epoch = t.config, t.engine, steps // t.config.epochs
    t.wrapped.train()
    coming = steady_batches(t, train_crops, stop, log)
    saved = time.monotonic()
    with progress_bar(steps, t.run.step, progress if engine.is_main_process else False) as bar:
        while len(t.run.history) <= config.epochs:
            if t.run.step == per_epoch * len(t.run.history):
                with _interruptible(t, stop):
                    row = _measure(t, val_crops, log)
                _enter(t, row)
                saved = time.monotonic()
                log(epoch_line(row, config.loss, config.epochs, headline(t.run.results)))
                if after_epoch is not None and engine.is_main_process:
                    after_epoch(config, row["epoch"], t.network.eval(), t.learner.loss.eval())
                    t.wrapped.train()
                continue
            clock = time.perf_counter()
            with _interruptible(t, stop):
                batch = next(coming)
            wait = time.perf_counter() - clock
            note_unreadable(t, batch.unreadable, len(batch.crops.image), log)
            _take_step(t, batch.crops, steps)
            t.run.step += 1
            t.run.clock.add(time.perf_counter() - clock, wait, len(batch.crops.image) * engine.num_processes)
            show_progress(bar, t.run, config.epochs, engine.device)
            due = time.monotonic() - saved > 60 * config.save_minutes
            signal, must_save = everywhere(engine, stop.signal, due)
            if signal:
                _save_and_stop(t, int(signal))
            if must_save and t.run.step < per_epoch * len(t.run.history):  # else the epoch's end saves it anyway
                save(t)
                saved = time.monotonic()


def _take_step(t: Training, crops: Crop, steps: int) -> None:
    """One step of the optimiser on a batch; of several processes each has its share of it.

    The gradient is that of the mean over the batch as a whole, sum(w l) / sum(w): each part's mean counts by its share
    of the weight, whatever the number of parts and processes.
    """
    config, engine, learner = t.config, t.engine, t.learner
    warm = t.run.step < round(config.warm_start * steps)
    t.run.objective = "cross_entropy" if warm else config.loss
    t.run.lr = learning_rate(t.run.step, steps, config)
    objective = learner.objective(warm)
    images, joints, visible = crops.image, crops.joints, crops.visible
    sums = torch.stack([mean_over(objective, visible), torch.tensor(float(len(images)))])
    if engine.num_processes > 1:
        sums = engine.reduce(sums.to(engine.device), "sum")
    whole, persons = sums.tolist()
    if whole == 0:  # no joint of the batch is visible: nothing can be learnt
        return
    count = min(config.accumulate, math.ceil(persons / engine.num_processes))  # some process has a person in each part
    if not config.sync_batch_norm:
        images, joints, visible = _at_least(count, images, joints, visible)

    for group in t.optimizer.param_groups:
        group["lr"] = t.run.lr
    t.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=engine.device)
    parts = list(zip(*(values.tensor_split(count) for values in (images, joints, visible)), strict=True))
    for number, part in enumerate(parts, start=1):
        share = float(mean_over(objective, part[2])) / whole
        last = number == len(parts)
        with contextlib.nullcontext() if last else engine.no_sync(t.wrapped):
            try:
                value = t.wrapped(*(values.to(engine.device, non_blocking=True) for values in part), warm)
            except Diverged as error:
                raise _diverged(t, part, str(error)) from error
            if not torch.isfinite(value.detach()):
                raise _diverged(t, part, f"the loss {t.run.objective} is not finite: lower the learning rate")
            engine.backward(value * (share * engine.num_processes))
        loss += value.detach() * share
    norm = engine.clip_grad_norm_(learner.parameters(), config.clip or math.inf)
    if engine.scaler is None and not torch.isfinite(norm):  # a scaler skips such a step
        raise _diverged(t, (images, joints, visible), "the gradient is not finite: lower the learning rate")
    t.optimizer.step()
    if t.average is not None:
        t.average.update_parameters(learner.model)
    same = torch.stack([torch.full_like(loss, whole), norm.nan_to_num(posinf=0.0)])  # in every process
    t.totals += torch.cat([(loss * whole).view(1), same / engine.num_processes])
    engine.log({"loss": loss, "gradient norm": norm, "lr": t.run.lr}, step=t.run.step + 1)


def _at_least(rows: int, images: Tensor, joints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images, joints and visible of a batch; where it has fewer than `rows` persons (the share of one process can be
    empty) black images without a visible joint are put after them, as batch norm has no average over nothing."""
    missing = max(0, rows - len(images))
    if not missing:
        return images, joints, visible
    ends = (0,) * 7 + (missing,)
    return functional.pad(images, ends), functional.pad(joints, ends[2:]), functional.pad(visible, ends[4:])


def _measure(t: Training, crops: PersonCrops, log: Log) -> dict[str, Any]:
    """Validates the network and returns the epoch's row for the history."""
    clock = time.perf_counter()
    for attempt in range(RESTARTS + 1):
        try:
            watch = EpochWatch(t.learner.loss, t.config) if t.config.follow else None
            found = validate(t.network, crops, t.learner.loss, t.config, t.engine, watch)
            break
        except WorkerDied as death:
            if attempt == RESTARTS:
                raise InputError(str(death)) from death
            log(f"{t.config.loss}: {death}; the validation is started again")
            t.run.worker_restarts += 1
    if watch is not None:
        t.followed.append(watch.result())
    t.wrapped.train()
    t.run.results = scores(found, crops.data, t.config)
    seconds = time.perf_counter() - clock
    totals = t.engine.reduce(t.totals, "sum").tolist()
    epoch, main = len(t.run.history), headline(t.run.results)
    untrained = epoch == 0
    return {
        "epoch": epoch,
        "objective": t.run.objective,
        "train_loss": totals[0] / totals[1] if totals[1] else math.nan,
        "val_loss": found.loss,
        "error_px": found.error_px,
        main: t.run.results[main],
        "lr": t.run.lr,
        "grad_norm": math.nan if untrained else totals[2] * epoch / t.run.step,
        "seconds": seconds + t.run.clock.busy,
        "train_seconds": t.run.clock.busy,
        "val_seconds": seconds,
        "data_wait": t.run.clock.data_wait,
        "images_per_second": t.run.clock.images_per_second,
        "memory_mb": peak_memory_mb(t.engine.device),
        "unreadable": sum(t.run.unreadable.values()),
    }


def _enter(t: Training, row: dict[str, Any]) -> None:
    """Ends an epoch: enters its row, keeps its weights if they are the best so far, and saves the state."""
    t.run.history.append(row)
    t.run.clock = Clock()
    t.totals = torch.zeros_like(t.totals)
    score = row[headline(t.run.results)]
    previous = t.run.best
    better = row["epoch"] > 0 and not (previous and previous["score"] >= score)
    if t.config.keep == "best" and better and t.engine.is_main_process:
        weights = write_weights(t)
        t.run.best = {"epoch": row["epoch"], "score": score, "results": t.run.results, "weights": weights.name}
    save(t)
    if previous and t.run.best["weights"] != previous["weights"]:
        (t.folder / previous["weights"]).unlink(missing_ok=True)  # only now, as the old state still named it
    t.engine.log({name: value for name, value in row.items() if isinstance(value, float)}, step=t.run.step)


def _finish(t: Training, crops: PersonCrops, record: dict[str, Any], runs: Path) -> Run:
    """Writes weights and record; then the states are needed no longer."""
    result: list[Any] = [None]
    readings = None
    if t.config.follow:
        readings, maps = read_maps(t.network, crops, t.learner.loss, t.config)
        run = (t.followed, t.run.history, t.config.loss)
        record |= {"consistency": consistency_section(*run), "late_consistency": consistency_section(*run, after=LATE)}
        record["maps"] = maps
    if t.engine.is_main_process:
        best, main = t.run.best, headline(t.run.results)
        weights = t.folder / best["weights"] if best else write_weights(t)
        if not weights.exists():  # an older state, taken for a damaged one, names weights that were superseded
            raise InputError(f"the weights of the best epoch, {weights}, are gone: train with resume never")
        record |= {
            "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
            "selection": {
                "keep": t.config.keep,
                "epoch": best["epoch"] if best else t.config.epochs,
                "by": main if best else None,
            },
            "faults": {"unreadable": t.run.unreadable, "worker_restarts": t.run.worker_restarts},
            "results": {
                **(best["results"] if best else t.run.results),
                "untrained_error_px": t.run.history[0]["error_px"],
                "mean_pose_error_px": t.run.mean_pose_error_px,
            },
        }
        epochs = pd.DataFrame(t.run.history)
        written = write_run(runs, record, epochs, readings)
        tidy_up(t)
        result = [Run(read_run(written), epochs, written, weights)]
    if t.engine.num_processes > 1:
        broadcast_object_list(result)  # other machines may not see the folder
    t.engine.end_training()
    return result[0]


def _check_skeletons(train_data: PersonData, val_data: PersonData, config: TrainConfig) -> None:
    """Raises InputError where the two parts have different joints, or no halves for half-body views."""
    ours, theirs = train_data.skeleton, val_data.skeleton
    if ours.names != theirs.names:
        raise InputError(
            f"{train_data.annotation_file} has {ours.joints} joints of {ours.name!r}, {val_data.annotation_file.name} "
            f"{theirs.joints} of {theirs.name!r}: both need the same, in the same order"
        )
    if config.half_body and not ours.upper_body:
        raise InputError(f"setting half_body shows half a body, and skeleton {ours.name!r} has no halves: set it to 0")


def _data_section(config: TrainConfig, train_data: PersonData, val_data: PersonData) -> dict[str, Any]:
    return {
        "source": config.as_dict()["data"],
        "skeleton": val_data.skeleton.name,
        "train_persons": len(train_data.persons),
        "val_persons": len(val_data.persons),
        "train_sha256": train_data.sha256,
        "val_sha256": val_data.sha256,
        "boxes": val_data.boxes,
        "validated_on": "val part" if not config.held_out else f"{config.held_out:.0%} of the train part's pictures",
    }


def _diverged(t: Training, crops: tuple[Tensor, ...], reason: str) -> Diverged:
    """What to raise where a training went wrong; the batch is saved, to be looked at."""
    step = t.run.step + 1
    tensors = dict(zip(("images", "joints", "visible"), crops, strict=True))
    path = write_tensors(t.folder, f"diverged-{step:09d}", tensors, {"reason": reason, "settings": t.run.settings})
    return Diverged(f"step {step}: {reason}; the batch is kept in {path}, the last good state beside it")


@contextlib.contextmanager
def _interruptible(t: Training, stop: StopRequest) -> Iterator[None]:
    """Within, nothing changes that a state holds, so that a signal need not wait for the end."""
    try:
        with stop.breaking_off(t.engine.num_processes == 1):
            yield
    except KeyboardInterrupt:
        _save_and_stop(t, stop.signal)


def _save_and_stop(t: Training, signal: int) -> None:
    save(t)
    raise Stopped(
        f"stopped after step {t.run.step}; the state is saved, and the same command goes on from there", signal or 2
    )


def _new_id(folder: Path, loss: str, key: str) -> str:
    """A name for the record that nobody has: the time of its start, and what it is."""
    name = f"{now().replace(':', '').replace('-', '')[:15]}-{loss}-{key}"
    number = 1
    while (folder / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return name if number == 1 else f"{name}-{number}"


def _silent(line: str) -> None:
    """Processes other than the main one say nothing."""
