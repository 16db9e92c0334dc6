"""mmpose's input pipeline, timed by the python of an environment that has mmpose: the peer of `hdm bench pipeline`.

Run as a script it imports nothing of `hdm`. It takes one JSON object a line on standard input and gives one a line on
standard output; what the libraries print goes to standard error:

    {"annotation_file", "images", "input_size": [rows, columns], "batch_size", "seed"}   ->  {"persons", "versions",
        "pipeline"}                                                                                      the first line
    {"workers", "images"}                                                   ->  {"images_per_s", "cpu_ms"}
    {"stages": number of persons}                                           ->  {name of a transform: ms per person}

The transforms, with their settings, are those of mmpose's own configuration of HRNet-W32 for COCO; persons come from
its `CocoDataset`, batches from torch's DataLoader with mmengine's collation and seeding of workers, as mmengine's
`Runner` builds it. mmpose's workers draw the target heatmaps as well.
"""

import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

CONFIG = ".mim/configs/body_2d_keypoint/topdown_heatmap/coco/td-hm_hrnet-w32_8xb64-210e_coco-{}x{}.py"
PACKAGES = ("mmpose", "mmengine", "mmcv", "mmcv-lite", "torch", "numpy", "opencv-python-headless", "opencv-python")


def measure(sizes: Iterable[int], before: int, images: int) -> tuple[float, float]:
    """Images per second and CPU milliseconds per image of a stream of batches, of which `sizes` gives the images each.

    The clock starts when the first `before` images have come, by when worker processes are at work, and stops when
    `images` more have. The stream is read to its end: CPU time is that of this process and of all its children that
    have ended, over all images. With worker processes the stream should go on after the clock has stopped, or else the
    last of them would be seen waiting for each other.
    """
    start, seen = _cpu_seconds(), 0
    marks: list[tuple[int, float]] = []  # images seen, and when: first at `before`, then `images` later
    for size in sizes:
        seen += size
        if len(marks) < 2 and seen >= (marks[0][0] + images if marks else before):
            marks.append((seen, time.perf_counter()))
    (first, began), (last, ended) = marks
    return (last - first) / (ended - began), 1e3 * (_cpu_seconds() - start) / seen


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _dataset(setup: dict[str, Any]) -> Any:
    """mmpose's CocoDataset with the transforms of its own configuration."""
    import mmpose.datasets  # type: ignore[import-not-found]
    from mmengine.config import Config  # type: ignore[import-not-found]
    from mmengine.registry import init_default_scope  # type: ignore[import-not-found]

    path = Path(mmpose.__file__).parent / CONFIG.format(*setup["input_size"])
    if not path.is_file():
        sys.exit(f"mmpose has no configuration {path}")
    init_default_scope("mmpose")
    dataset = mmpose.datasets.CocoDataset(
        ann_file=setup["annotation_file"],
        data_prefix={"img": setup["images"]},
        data_mode="topdown",
        pipeline=Config.fromfile(path).train_pipeline,
    )
    if not len(dataset):
        sys.exit(f"mmpose finds no person in {setup['annotation_file']}")
    return dataset


def _time_stream(dataset: Any, setup: dict[str, Any], workers: int, images: int) -> dict[str, float]:
    """One measurement: batches of shuffled persons, epoch after epoch."""
    import torch
    from mmengine.dataset import pseudo_collate, worker_init_fn  # type: ignore[import-not-found]
    from torch.utils.data import DataLoader

    around = 4 * setup["batch_size"] * max(1, workers)  # before the clock starts and after it has stopped
    generator = torch.Generator().manual_seed(setup["seed"])
    order: list[int] = []
    while len(order) < images + 2 * around:
        order += torch.randperm(len(dataset), generator=generator).tolist()
    loader = DataLoader(
        dataset,
        batch_size=setup["batch_size"],
        sampler=order[: images + 2 * around],
        num_workers=workers,
        collate_fn=pseudo_collate,
        worker_init_fn=partial(worker_init_fn, num_workers=workers, rank=0, seed=setup["seed"]),
    )
    rate, cpu_ms = measure((len(batch["inputs"]) for batch in loader), around, images)
    return {"images_per_s": rate, "cpu_ms": cpu_ms}


def _time_stages(dataset: Any, count: int) -> dict[str, float]:
    """CPU milliseconds per person in this process of each transform, and of what the data set does before them."""
    transforms = [(type(transform).__name__, transform) for transform in dataset.pipeline.transforms]
    steps = [("get_data_info", dataset.get_data_info), *transforms]
    seconds = {name: 0.0 for name, _ in steps}
    for index in range(count):
        state = index % len(dataset)
        for name, step in steps:
            begin = time.process_time()
            state = step(state)
            seconds[name] += time.process_time() - begin
    return {name: 1e3 * total / count for name, total in seconds.items()}


def _versions() -> dict[str, str]:
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def main() -> None:
    """Answers the requests on standard input, one after the other."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    setup = json.loads(sys.stdin.readline())
    dataset = _dataset(setup)
    import cv2
    import torch

    cv2.setNumThreads(0)  # as mmpose's default_runtime.py does
    torch.set_num_threads(1)
    pipeline = [repr(transform) for transform in dataset.pipeline.transforms]
    print(json.dumps({"persons": len(dataset), "versions": _versions(), "pipeline": pipeline}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        if "stages" in request:
            answer = _time_stages(dataset, request["stages"])
        else:
            answer = _time_stream(dataset, setup, request["workers"], request["images"])
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
