"""What every test shares. `hdm` is not imported here: the shape checks of jaxtyping must be in place before it is."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # also for the commands that tests start

import jaxtyping
import numpy as np
import pytest
import scipy.io
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


# Which of COCO's joints, averaged, stand in for each of MPII's in `small_mpii`.
MPII_FROM_COCO = (
    *([16], [14], [12], [11], [13], [15], [11, 12], [5, 6], [5, 6], [0]),
    *([10], [8], [6], [5], [7], [9]),
)


@pytest.fixture(scope="session")
def small_mpii(small_data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`mpii:DIR`: the persons of `small_data` that show every joint, in MPII's layout, counted from 1."""
    from hdm.data import load_persons

    root = tmp_path_factory.mktemp("mpii") / "data"
    (root / "annot").mkdir(parents=True)
    (root / "images").mkdir()
    for part, name in (("train", "train"), ("val", "valid")):
        people, truth = [], []
        for person in load_persons(small_data, part).persons:
            if person.visible.all():
                joints = np.stack([person.joints[indices].mean(0) for indices in MPII_FROM_COCO]) + 1
                x, y, width, height = person.box
                image = f"{part}_{person.image_path.name}"
                shutil.copy(person.image_path, root / "images" / image)
                scale = max(width, height) / 200
                centre = [x + width / 2 + 1, y + height / 2 + 1 - 15 * scale]
                entry = {"image": image, "center": centre, "scale": scale}
                people.append(entry | {"joints": joints.tolist(), "joints_vis": [1] * 16})
                truth.append(joints)
        (root / "annot" / f"{name}.json").write_text(json.dumps(people))
    count = len(truth)
    right, left = ["rank", "rkne", "rhip"], ["lhip", "lkne", "lank"]
    arms = ["rwri", "relb", "rsho", "lsho", "lelb", "lwri"]
    names = np.array([[*right, *left, "pelv", "thor", "neck", "head", *arms]], dtype=object)
    boxes = np.zeros((2, 2, count))
    boxes[1] = 12.0  # head boxes of 12 x 12 pixels
    content = {
        "jnt_missing": np.zeros((16, count), np.uint8),
        "pos_gt_src": np.stack(truth, -1),
        "headboxes_src": boxes,
        "dataset_joints": names,
    }
    scipy.io.savemat(root / "annot" / "gt_valid.mat", content)
    return f"mpii:{root}"
