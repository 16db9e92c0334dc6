"""Runs small enough for a test: a tiny network on crops of 64 x 32 pixels, and one thread, so that numbers repeat."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hdm.train import Run, TrainConfig, train


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
        quiet = {"runs": root / "runs", "checkpoints": root / "checkpoints", "log": lambda line: None}
        return train(config, **quiet | options)

    return start


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
