"""Runs small enough for a test: a tiny network on crops of 64 x 32 pixels, and one thread, so that numbers repeat."""

import functools
import multiprocessing
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import pytest
import torch

from hdm.records import read_epochs
from hdm.train import Run, TrainConfig, train
from hdm.train.checkpoint import read_tensors

# Columns of the epochs that are not the same twice.
TIMES = ["seconds", "train_seconds", "val_seconds", "data_wait", "images_per_second", "memory_mb"]


@pytest.fixture(autouse=True)
def _numbers_repeat(one_thread: None) -> None:
    """With several threads sums differ in their last digits."""


@pytest.fixture
def tiny(small_data: str) -> Callable[..., TrainConfig]:
    """Settings of a tiny run: two steps in each of two epochs, on 16 persons, validated on 4."""

    def config(**settings) -> TrainConfig:
        defaults = {
            "data": small_data,
            "model": "timm:test_resnet",
            "head_channels": 8,
            "input_size": (64, 32),
            "loss": "gaussian_mse",
            "epochs": 2,
            "batch_size": 8,
            "train_limit": 16,
            "val_limit": 4,
            "device": "cpu",
        }
        return TrainConfig(**defaults | settings)

    return config


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """`train` with records and checkpoints below the test's folder, and with nothing printed."""

    def start(config: TrainConfig, place: str = "", **options) -> Run:
        root = tmp_path / place
        quiet = {
            "runs": root / "runs",
            "checkpoints": root / "checkpoints",
            "log": lambda line: None,
            "progress": False,
        }
        return train(config, **quiet | options)

    return start


@pytest.fixture
def fork(run: Callable[..., Run]) -> Iterator[Callable[..., BaseProcess]]:
    """`run` in a process of its own, which is killed at the end of the test if it still works."""
    if torch.cuda.is_available():
        pytest.skip("torch cannot train in a forked process where there is a GPU")
    context = multiprocessing.get_context("fork")
    children: list[BaseProcess] = []

    def start(*arguments, **options) -> BaseProcess:
        children.append(context.Process(target=run, args=arguments, kwargs=options))
        children[-1].start()
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.join()


@pytest.fixture
def at_call() -> Callable[..., AbstractContextManager[None]]:
    """`with at_call("torch.optim.Adam.step", 3, action)`: just before the third call of it, the action happens."""

    @contextmanager
    def arrange(target: str, number: int, action: Callable[[], object]) -> Iterator[None]:
        place, _, name = target.rpartition(".")
        owner, calls = pkgutil.resolve_name(place), 0
        original = getattr(owner, name)

        @functools.wraps(original)
        def counted(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                action()
            return original(*arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, counted)
            yield

    return arrange


@pytest.fixture(scope="session")
def same_end() -> Callable[[Run, Run], None]:
    """Fails unless two runs came to the same numbers to the last bit: weights, results, and epochs but for times."""

    def check(first: Run, second: Run) -> None:
        one, other = (read_tensors(result.checkpoint)[0] for result in (first, second))
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
        results = [pd.Series(result.record["results"]) for result in (first, second)]
        pd.testing.assert_series_equal(*results, check_exact=True)
        in_memory = list(first.epochs) == list(second.epochs)  # else one was read from its record, in six digits
        epochs = [result.epochs if in_memory else read_epochs(result.folder) for result in (first, second)]
        pd.testing.assert_frame_equal(*(table.drop(columns=TIMES) for table in epochs), check_exact=True)

    return check


@pytest.fixture(scope="session")
def seen_data(small_data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`small_data` with its training part in the place of the validation part too."""
    root = tmp_path_factory.mktemp("seen") / "data"
    shutil.copytree(small_data.partition(":")[2], root)
    shutil.rmtree(root / "val2017")
    shutil.copytree(root / "train2017", root / "val2017")
    annotations = root / "annotations" / "person_keypoints_train2017.json"
    shutil.copy(annotations, annotations.with_name("person_keypoints_val2017.json"))
    return f"synthetic:{root}"
