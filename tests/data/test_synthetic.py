"""The generated data set on disk: layout, repeatability, refusals, and runs that stop half-way."""

import errno
import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import coco as pycoco

from hdm.data import synthetic
from hdm.data.skeletons import COCO
from hdm.data.synthetic import make_synthetic
from hdm.errors import InputError

IMAGES = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("data") / "figures", images=IMAGES, seed=4, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_layout_is_cocos(root: Path):
    assert set(contents(root)) == {
        *(f"train2017/{number:012d}.jpg" for number in range(1, 6)),
        "val2017/000000000006.jpg",
        "annotations/person_keypoints_train2017.json",
        "annotations/person_keypoints_val2017.json",
    }
    assert [path.name for path in root.parent.iterdir()] == ["figures"]


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_pycocotools_reads_it(root: Path, split: str):
    data = pycoco.COCO(str(root / "annotations" / f"person_keypoints_{split}.json"))
    category = data.loadCats(data.getCatIds(catNms=["person"]))[0]
    assert category["id"] == 1
    assert tuple(category["keypoints"]) == COCO.names
    assert {tuple(edge) for edge in category["skeleton"]} == {(a + 1, b + 1) for a, b in COCO.edges}
    assert data.dataset["info"]["seed"] == 4 and data.dataset["info"]["images"] == IMAGES
    licences = {licence["id"] for licence in data.dataset["licenses"]}
    for image in data.loadImgs(data.getImgIds()):
        picture = cv2.imread(str(root / split / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        assert image["license"] in licences
        annotations = data.loadAnns(data.getAnnIds(imgIds=[image["id"]], catIds=[1], iscrowd=False))
        assert annotations
        for annotation in annotations:
            assert len(annotation["keypoints"]) == 51
            assert data.annToMask(annotation).sum() == annotation["area"]


def test_ids_and_pictures_are_unique_across_the_parts(root: Path):
    parts = [json.loads(path.read_text()) for path in sorted((root / "annotations").iterdir())]
    images = [image["id"] for part in parts for image in part["images"]]
    annotations = [annotation["id"] for part in parts for annotation in part["annotations"]]
    assert sorted(images) == list(range(1, IMAGES + 1))
    assert sorted(annotations) == list(range(1, len(annotations) + 1))
    pictures = [data for name, data in contents(root).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == IMAGES


@pytest.mark.parametrize(("images", "validation"), [(2, 1), (3, 1), (9, 2), (10, 2), (1000, 200)])
def test_a_fifth_is_for_validation(images: int, validation: int):
    parts = [synthetic._split(index, images) for index in range(images)]
    assert parts.count("val2017") == validation and parts == sorted(parts)


def test_the_jpeg_shows_the_picture_that_was_rendered(root: Path):
    picture, _ = synthetic.render(4, 5)
    stored = cv2.imread(str(root / "val2017" / "000000000006.jpg"))[..., ::-1]
    assert np.abs(stored.astype(int) - picture).mean() < 6  # noise is all that JPEG loses


def test_one_seed_gives_the_same_bytes_with_one_process_and_with_two(root: Path, tmp_path: Path):
    make_synthetic(tmp_path / "two", images=IMAGES, seed=4, processes=2, progress=False)
    assert contents(tmp_path / "two") == contents(root)


def test_another_seed_gives_other_pictures(root: Path, tmp_path: Path):
    make_synthetic(tmp_path / "other", images=2, seed=5, progress=False)
    assert not set(contents(tmp_path / "other").values()) & set(contents(root).values())


def test_a_finished_data_set_is_left_alone(root: Path):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert make_synthetic(str(root), images=IMAGES, seed=4, progress=False) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_empty_directory_is_filled_and_parents_are_made(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        make_synthetic(place, images=2, progress=False)
        assert len(contents(place)) == 4
    assert contents(tmp_path / "empty") == contents(tmp_path / "a" / "b" / "c")


def test_the_bar_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_synthetic(tmp_path / "loud", images=2)
    printed = capsys.readouterr()
    assert printed.out == "" and "2/2" in printed.err
    make_synthetic(tmp_path / "quiet", images=2, progress=False)
    assert capsys.readouterr() == ("", "")


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"images": 1}, {"images": -3}, {"images": True}, {"images": 4, "seed": -1},
                                      {"images": 4, "processes": 0}])  # fmt: skip
def test_numbers_out_of_range_are_refused(tmp_path: Path, settings: dict):
    with pytest.raises(InputError, match="whole number"):
        make_synthetic(tmp_path / "data", progress=False, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [2.5, "10", None, float("nan"), np.float64(4)])
def test_what_is_no_whole_number_is_refused(value: object):
    with pytest.raises(InputError, match=r"images is .*: give a whole number, 2 or more"):
        synthetic._whole(value, "images", 2)


def test_numpys_whole_numbers_are_taken():
    assert type(synthetic._whole(np.int64(7), "images", 2)) is int


@pytest.mark.parametrize("settings", [{"images": 7, "seed": 4}, {"images": IMAGES, "seed": 5}])
def test_another_data_set_is_not_overwritten(root: Path, settings: dict):
    before = contents(root)
    with pytest.raises(InputError, match=r"figures holds another data set .*'seed': 4.*delete that one first"):
        make_synthetic(root, progress=False, **settings)
    assert contents(root) == before


def test_another_version_of_the_drawing_is_another_data_set(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    with pytest.raises(InputError, match="another data set"):
        make_synthetic(root, images=IMAGES, seed=4, progress=False)


@pytest.mark.parametrize("name", ["notes.txt", "annotations/person_keypoints_val2017.json"])
def test_foreign_files_are_not_touched(tmp_path: Path, name: str):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("[1, 2")
    with pytest.raises(InputError, match="holds other files: name a directory that is empty"):
        make_synthetic(tmp_path, images=2, progress=False)
    assert contents(tmp_path) == {name: b"[1, 2"}


def test_a_file_in_the_place_of_the_directory_is_not_touched(tmp_path: Path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match="taken"):
        make_synthetic(tmp_path / "taken", images=2, progress=False)
    with pytest.raises(InputError, match="Not a directory"):
        make_synthetic(tmp_path / "taken" / "below", images=2, progress=False)
    assert contents(tmp_path) == {"taken": b"mine"}


def test_a_data_set_that_lost_pictures_is_reported(tmp_path: Path):
    make_synthetic(tmp_path / "data", images=3, progress=False)
    (tmp_path / "data" / "train2017" / "000000000001.jpg").unlink()
    with pytest.raises(InputError, match="2 of its 3 images left: delete it"):
        make_synthetic(tmp_path / "data", images=3, progress=False)


# --- runs that stop half-way -----------------------------------------------------------------------------------------


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = synthetic.render

    def interrupted(seed: int, index: int):
        if index == 2:
            raise KeyboardInterrupt
        return real(seed, index)

    monkeypatch.setattr(synthetic, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path / "data", images=4, progress=False)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    make_synthetic(tmp_path / "data", images=4, progress=False)
    assert len(contents(tmp_path / "data")) == 6


def test_until_the_last_moment_the_place_itself_stays_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also a killed run, which cleans nothing up, leaves nothing that passes as finished."""
    seen = []
    real = synthetic._write_annotations

    def watched(workshop: Path, *others):
        real(workshop, *others)
        seen.append(((tmp_path / "data").exists(), len(contents(workshop))))

    monkeypatch.setattr(synthetic, "_write_annotations", watched)
    make_synthetic(tmp_path / "data", images=2, progress=False)
    assert seen == [(False, 4)]


def test_a_full_disk_is_reported_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"data: No space left on device; make room there or name another"):
        make_synthetic(tmp_path / "data", images=2, progress=False)
    assert not list(tmp_path.iterdir())


def test_someone_elses_finished_data_set_is_taken_for_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = synthetic._write_annotations

    def overtaken(workshop: Path, *others):
        real(workshop, *others)
        monkeypatch.undo()
        make_synthetic(tmp_path / "data", images=2, progress=False)

    monkeypatch.setattr(synthetic, "_write_annotations", overtaken)
    make_synthetic(tmp_path / "data", images=2, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert len(contents(tmp_path / "data")) == 4


def test_a_rendering_process_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def dying(*settings):
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")
        yield

    monkeypatch.setattr(synthetic, "_render_all", dying)
    with pytest.raises(InputError, match=r"a rendering process died .*or with processes=1"):
        make_synthetic(tmp_path / "data", images=2, progress=False)
    assert not list(tmp_path.iterdir())
