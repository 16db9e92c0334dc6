"""What every test shares. `hdm` is not imported here: the shape checks of jaxtyping must be in place before it is."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # also for the commands that tests start

import jaxtyping
import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

torch.set_num_threads(min(2, torch.get_num_threads()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small problems: threads that wait for each other cost far more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """As a user meets the package: without jaxtyping's checks, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder with `coco_mini` and `mpii_mini`, real photographs that are not part of the repository."""
    folder = (REPOSITORY / os.environ.get("HDM_SAMPLE_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip("no real sample data: HDM_SAMPLE_DATA (default ../shared/data) names no folder")
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`synthetic:DIR` with 24 generated pictures."""
    from hdm.data import make_synthetic

    root = tmp_path_factory.mktemp("small") / "data"
    return f"synthetic:{make_synthetic(root, images=24, seed=7, progress=False, processes=1)}"
