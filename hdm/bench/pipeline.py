"""`hdm bench pipeline`: how many person crops per second the input pipeline gives, and beside mmpose's.

Everything runs in turn, round after round, on the same persons. The image files are in memory by the time that counts,
so that a slow drive is no part of it. What is compared is images per second with the same number of worker processes,
and the CPU time that one image takes in all processes together, which other work on the machine disturbs less.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any, cast

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hdm.bench import mmpose_pipeline
from hdm.bench.mmpose_pipeline import measure
from hdm.bench.printing import as_texts
from hdm.bench.stages import AUGMENTATION, STAGE_PERSONS, stage_times
from hdm.data import PersonCrops, PersonData, load_persons
from hdm.data.batches import train_batches
from hdm.data.cache import make_cache, open_cache
from hdm.data.persons import read_json
from hdm.errors import InputError
from hdm.inference import choose_device
from hdm.records import BENCHMARKS, now, provenance, write_benchmark

PEER = "mmpose"
SIMULATED = ("JPEG files", "crop cache")  # what feeds a simulated step

Figures = dict[str, float]  # of one measurement, by the names of the table's columns
Run = Callable[[int], Figures]  # a measurement with so many workers
Way = tuple[PersonCrops, str]  # of reading: crops, and the order of persons
Ask = Callable[..., dict[str, Any]]  # see `mmpose_peer`


def bench_pipeline(
    data: str,
    *,
    input_size: tuple[int, int] = (256, 192),
    persons: int = 2000,
    workers: Sequence[int] = (0, 1, 2, 4),
    batch_size: int = 32,
    rounds: int = 3,
    peer: Path | None = None,
    assume_step_ms: float | None = None,
    cached: bool = True,
    device: str = "auto",
    seed: int = 0,
    directory: Path | str = BENCHMARKS,
) -> tuple[Path, pd.DataFrame]:
    """Times the input pipeline on the train part of `data` (COCO's layout) and writes a record; its folder and table.

    input_size: (rows, columns) of a crop. persons: at most so many, of randomly chosen images. workers: numbers of
    processes that read; 0 reads in the main process. rounds: how often each is measured, the medians are kept.
    peer: the python of an environment with mmpose, whose own pipeline runs beside ours on the same persons.
    assume_step_ms: stands in for a GPU that takes so long for a step of `batch_size` images: a consumer that sleeps.
    cached: measure the crop cache too; it is made in a temporary folder. device: where the stages that need one run.

    Columns: source; workers; images_per_s; images_per_s_per_core (over the smaller of workers and cores); ms (CPU
    milliseconds per image of all processes; of a stage, in one thread); times_mmpose and times_mmpose_cpu
    (median over rounds of the ratio in the same round with as many workers, by images per second and by CPU time);
    spread (largest less smallest images_per_s, over their median); wait_share (of a simulated step's time that was
    spent waiting for data). Both pipelines draw half bodies with probability 0.3; ours turns and scales as the official
    recipe for ResNets does, mmpose's as its own configuration says. mmpose's workers draw the target heatmaps too,
    which ours leaves to the loss on the device; the stages say what that costs.

    Raises InputError for numbers that are too small, another layout, data that is not there, and a peer that does not
    start or has no mmpose.
    """
    if persons < batch_size or min(batch_size, rounds) < 1 or min(workers, default=-1) < 0 or (assume_step_ms or 0) < 0:
        raise InputError(
            f"persons must be at least the batch size ({persons} and {batch_size} were given), rounds at least 1, "
            "workers at least 0 and a step at least 0 ms"
        )
    if data.partition(":")[0] not in ("coco", "synthetic"):
        raise InputError(f"hdm bench pipeline reads COCO's layout, not {data!r}: give coco:DIR or synthetic:DIR")
    where, whole = choose_device(device), load_persons(data, "train")
    started, their_facts = now(), None
    with tempfile.TemporaryDirectory() as temporary, _one_thread(), ExitStack() as open_till_the_end:
        chosen = _choose(whole, persons, seed, Path(temporary) / "data")
        if len(chosen.persons) < batch_size:
            raise InputError(f"{data} has {len(chosen.persons)} persons: give a batch size that is no larger")
        if peer is not None:
            setup = _peer_setup(chosen, input_size, batch_size, seed)
            ask, their_facts = open_till_the_end.enter_context(mmpose_peer(peer, setup))
        pipelines, cache_facts = _pipelines(chosen, input_size, seed, Path(temporary) / "cache" if cached else None)
        stages = stage_times(chosen, input_size, batch_size, rounds, where, seed)
        runs: dict[str, Run] = {name: partial(_measure_ours, *way, batch_size) for name, way in pipelines.items()}
        if assume_step_ms is not None:
            for name in filter(pipelines.get, SIMULATED):
                source = f"simulated step of {assume_step_ms:g} ms, {name}"
                runs[source] = partial(_measure_steps, *pipelines[name], batch_size, assume_step_ms)
        if peer is not None:
            runs[PEER] = partial(_measure_peer, ask, len(chosen.persons))
            stages |= {f"mmpose {name}": ms for name, ms in ask({"stages": STAGE_PERSONS}).items()}
        figures = _in_turn(runs, workers, rounds)
    table = pd.DataFrame([*_rows(figures), *({"source": f"stage: {name}", "ms": ms} for name, ms in stages.items())])
    record = {
        "benchmark": "pipeline",
        "started": started,
        **provenance(),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "settings": {
            "input_size": list(input_size),
            "persons": len(chosen.persons),
            "images": len({person.image_path for person in chosen.persons}),
            "workers": list(workers),
            "batch_size": batch_size,
            "rounds": rounds,
            "assume_step_ms": assume_step_ms,
            "augmentation": asdict(AUGMENTATION),
            "cores": cores(),
            "threads": 1,
            "seed": seed,
        },
        "data": {"sha256": whole.sha256},
        "cache": cache_facts,
        "peer": their_facts,
    }
    return write_benchmark(directory, record, table), table


def pipeline_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is printed, blank where a column says nothing about a row."""
    columns = {
        "workers": ("workers", "{:.0f}"),
        "images/s": ("images_per_s", "{:.0f}"),
        "per core": ("images_per_s_per_core", "{:.0f}"),
        "spread": ("spread", "{:.0%}"),
        "ms": ("ms", "{:.3f}"),
        "times mmpose": ("times_mmpose", "{:.1f}"),
        "by CPU time": ("times_mmpose_cpu", "{:.1f}"),
        "waits": ("wait_share", "{:.0%}"),
    }
    texts = as_texts(table, columns)
    return pd.DataFrame({"source": table["source"], **texts})


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_turn(runs: dict[str, Run], workers: Sequence[int], rounds: int) -> dict[tuple[str, int], list[Figures]]:
    """The figures of every run with every number of workers, in each round, by (source, workers)."""
    figures: dict[tuple[str, int], list[Figures]] = {(name, count): [] for name in runs for count in workers}
    with tqdm(total=rounds * len(figures), desc="pipeline", unit="run") as progress:
        for _ in range(rounds):
            for count in workers:
                for name, run in runs.items():
                    figures[name, count].append(run(count))
                    progress.update()
    return figures


def _rows(figures: dict[tuple[str, int], list[Figures]]) -> Iterator[dict[str, Any]]:
    """The rows of the table, with ratios to mmpose where it ran."""
    for (source, workers), ours in figures.items():
        rates = [one["images_per_s"] for one in ours]
        row: dict[str, Any] = {"source": source, "workers": workers, "images_per_s": statistics.median(rates)}
        row["images_per_s_per_core"] = row["images_per_s"] / min(max(workers, 1), cores())
        row["spread"] = (max(rates) - min(rates)) / row["images_per_s"]
        row |= {name: statistics.median(one[name] for one in ours) for name in ("ms", "wait_share") if name in ours[0]}
        if "ms" in row and (theirs := figures.get((PEER, workers))):
            pairs = list(zip(ours, theirs, strict=True))
            row["times_mmpose"] = statistics.median(a["images_per_s"] / b["images_per_s"] for a, b in pairs)
            row["times_mmpose_cpu"] = statistics.median(b["ms"] / a["ms"] for a, b in pairs)
        yield row


# --- what runs


@contextmanager
def _one_thread() -> Iterator[None]:
    """Neither torch nor OpenCV shares out one image among threads, as in a worker process."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _choose(data: PersonData, persons: int, seed: int, root: Path) -> PersonData:
    """At most so many persons, of randomly chosen images, as a data set of its own in COCO's layout: our loader, the
    cache and mmpose read the same annotation file, and the same pictures through a link."""
    by_image: dict[int, list[int]] = defaultdict(list)
    for person in data.persons:
        by_image[person.image_id].append(person.annotation_id)
    order = np.random.default_rng(seed).permutation(list(by_image)).tolist()
    chosen = set([annotation for image in order for annotation in by_image[image]][:persons])
    content, _ = read_json(data.annotation_file)
    annotations = [annotation for annotation in content["annotations"] if annotation["id"] in chosen]
    used = {annotation["image_id"] for annotation in annotations}
    images = [image for image in content["images"] if image["id"] in used]
    (root / "annotations").mkdir(parents=True)
    file = root / "annotations" / "person_keypoints_train2017.json"
    file.write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    (root / "train2017").symlink_to(data.persons[0].image_path.parent.resolve())
    return load_persons(f"coco:{root}", "train")


def _pipelines(
    data: PersonData, input_size: tuple[int, int], seed: int, cache_folder: Path | None
) -> tuple[dict[str, Way], dict[str, Any] | None]:
    """The ways of reading that are compared, by the name that the table gives them, and what the cache took."""
    crops = partial(PersonCrops, data, input_size, augmentation=AUGMENTATION, seed=seed)
    ways = {
        "JPEG files": (crops(reduced=True), "images"),
        "JPEG files, full-size decoding": (crops(reduced=False), "images"),
        "JPEG files, persons shuffled": (crops(reduced=True), "persons"),
    }
    if cache_folder is None:
        return ways, None
    made = make_cache(
        data.source, cache_folder, input_size, augmentation=AUGMENTATION, parts=("train",), progress=False
    )[0]
    cache = open_cache(cache_folder, data, input_size, augmentation=AUGMENTATION)
    ways["crop cache"] = crops(reduced=True, cache=cache), "images"
    return ways, {"bytes": made.bytes, "jpeg_bytes": made.jpeg_bytes, "seconds": made.seconds}


def _sizes(crops: PersonCrops, order: str, batch_size: int, workers: int, epochs: int) -> Iterator[int]:
    """The number of images of each batch of some epochs."""
    for batch in train_batches(crops, batch_size, epochs=epochs, order=order, workers=workers):
        yield len(batch.crops.image)


def _measure_ours(crops: PersonCrops, order: str, batch_size: int, workers: int) -> Figures:
    """Two epochs by the clock, between one before and, with workers, one after; batches come in blocks, and an epoch is
    a whole number of blocks."""
    persons = len(crops)
    rate, ms = measure(_sizes(crops, order, batch_size, workers, 4 if workers else 3), persons, 2 * persons)
    return {"images_per_s": rate, "ms": ms}


def _measure_steps(crops: PersonCrops, order: str, batch_size: int, step_ms: float, workers: int) -> Figures:
    """A consumer that takes `step_ms` for each batch, over one epoch after an uncounted one."""
    return simulate_steps(_sizes(crops, order, batch_size, workers, 2), step_ms, len(crops))


def _measure_peer(ask: Ask, images: int, workers: int) -> Figures:
    answer = ask({"workers": workers, "images": images}, "images_per_s", "cpu_ms")
    return {"images_per_s": answer["images_per_s"], "ms": answer["cpu_ms"]}


def simulate_steps(sizes: Iterable[int], step_ms: float, before: int) -> Figures:
    """Takes batches, of which `sizes` gives the images each, and sleeps `step_ms` after each as if a GPU were at work.

    Returns images_per_s and wait_share, the share of the time spent waiting for a batch; both count from the end of the
    step at which `before` images had been seen.
    """
    seen = counted = 0
    waited = total = 0.0
    asked = time.perf_counter()
    for size in sizes:
        arrived = time.perf_counter()
        time.sleep(step_ms / 1e3)
        done = time.perf_counter()
        if seen >= before:
            counted, waited, total = counted + size, waited + arrived - asked, total + done - asked
        seen, asked = seen + size, done
    return {"images_per_s": counted / total, "wait_share": waited / total}


# --- mmpose in its own environment


def _peer_setup(data: PersonData, input_size: tuple[int, int], batch_size: int, seed: int) -> dict[str, Any]:
    """What `hdm.bench.mmpose_pipeline` is told first."""
    files = {"annotation_file": str(data.annotation_file), "images": str(data.persons[0].image_path.parent)}
    return files | {"input_size": input_size, "batch_size": batch_size, "seed": seed}


@contextmanager
def mmpose_peer(python: Path, setup: dict[str, Any]) -> Iterator[tuple[Ask, dict[str, Any]]]:
    """`hdm.bench.mmpose_pipeline` at work under another python: a function that asks it something and gives its answer
    (which must have the names that follow), and its first answer.

    Raises InputError where it can't be started, ends, or does not answer as it should.
    """
    give = "give the python of an environment that has mmpose, and an input size of mmpose's own, such as 256x192"
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen(
                [str(python), mmpose_pipeline.__file__], stdin=PIPE, stdout=PIPE, stderr=errors, text=True
            )
        except OSError as error:
            raise InputError(f"--peer {python} can't be started ({error.strerror}): {give}") from error

        questions, answers = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)

        def ask(request: dict[str, Any], *names: str) -> dict[str, Any]:
            try:
                questions.write(json.dumps(request) + "\n")
                questions.flush()
                answer = json.loads(answers.readline())
            except (OSError, ValueError):
                answer = None
            if not isinstance(answer, dict) or not set(names) <= set(answer):
                with suppress(subprocess.TimeoutExpired):  # it may be about to end, with a status of its own
                    process.wait(2)
                process.kill()
                status = process.wait()
                errors.seek(0)
                said = (errors.read().strip().splitlines() or ["it says nothing"])[-1]
                raise InputError(f"--peer {python} gives no measurement (exit status {status}; {said}): {give}")
            return answer

        try:
            yield ask, ask(setup, "persons", "versions")
        finally:
            process.kill()
            process.wait()
            answers.close()
            with suppress(OSError):  # it may not have read all questions
                questions.close()
