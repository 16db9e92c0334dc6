"""The crop cache: the same crops to the bit, without the image files; never another one's, and never half of one."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from disks import full_disk
from torch.utils.data import DataLoader

from hdm.data import PersonCrops, PersonData, load_persons, with_detections
from hdm.data.augment import Augmentation, View
from hdm.data.cache import CropCache, _aside, check_cache, make_cache, open_cache
from hdm.data.crops import Crop, show_person
from hdm.data.pictures import reduction_for
from hdm.errors import InputError

SIZE = (96, 64)  # rows, columns
STRONG = Augmentation(rotation=40.0, scale=0.4, flip=0.5, half_body=0.5)
FILES = ["train.bin", "train.json", "train.npz"]


@pytest.fixture(scope="module")
def large_data(small_data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`coco:DIR`: five pictures of `small_data` for either part, at four times their size, and persons as large."""
    source, root = Path(small_data.partition(":")[2]), tmp_path_factory.mktemp("large") / "data"
    (root / "annotations").mkdir(parents=True)
    for part in ("train2017", "val2017"):
        (root / part).mkdir()
        content = json.loads((source / "annotations" / f"person_keypoints_{part}.json").read_text())
        content["images"] = content["images"][:5]
        names = {image["id"]: image["file_name"] for image in content["images"]}
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in names]
        for image in content["images"]:
            image["width"], image["height"] = 4 * image["width"], 4 * image["height"]
        for entry in content["annotations"]:
            entry["bbox"] = [4 * value for value in entry["bbox"]]
            x, y, label = np.reshape(entry["keypoints"], (-1, 3)).T
            entry["keypoints"] = np.stack([4 * x, 4 * y, label], 1).ravel().tolist()
        for name in names.values():
            picture = cv2.imread(str(source / part / name))
            cv2.imwrite(str(root / part / name), cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))
        (root / "annotations" / f"person_keypoints_{part}.json").write_text(json.dumps(content))
    return f"coco:{root}"


@pytest.fixture(scope="module")
def made(small_data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of `small_data` with the views of STRONG. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("made") / "cache"
    make_cache(small_data, folder, SIZE, augmentation=STRONG, progress=False)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copied"))


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(cv2, "imdecode", refuse)


def assert_same(first: Crop, second: Crop) -> None:
    for name, value in first._asdict().items():
        assert torch.equal(value, getattr(second, name)), name


def all_of(crops: PersonCrops, epoch: int) -> Crop:
    batch, unreadable = crops.read(range(len(crops)), epoch)
    assert not unreadable
    return batch


def extreme_views() -> list[View]:
    turns = (0.0, 45.0, -80.0, 80.0, 180.0)
    return [View(turn, scale, mirror) for turn in turns for scale in (0.6, 1.0, 1.4) for mirror in (False, True)]


# --- the same crops ---


@pytest.mark.parametrize("reduced", [True, False])
@pytest.mark.parametrize("convention", ["half_pixel", "hrnet", "udp"])
@pytest.mark.parametrize("kind", ["small_data", "large_data", "small_mpii"])
def test_crops_are_those_from_the_files(
    kind: str, convention: str, reduced: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every person in four epochs of strong augmentation and in the plain view, to the bit, and none from the files."""
    source = request.getfixturevalue(kind)
    make_cache(source, tmp_path, SIZE, augmentation=STRONG, convention=convention, reduced=reduced, progress=False)
    for part, views, epochs in (("train", STRONG, 4), ("train", None, 1), ("val", None, 1)):
        data = load_persons(source, part)
        cache = open_cache(tmp_path, data, SIZE, augmentation=views, convention=convention, reduced=reduced)
        from_files = PersonCrops(data, SIZE, augmentation=views, convention=convention, reduced=reduced)
        cached = PersonCrops(data, SIZE, augmentation=views, convention=convention, reduced=reduced, cache=cache)
        for epoch in range(epochs):
            expected = all_of(from_files, epoch)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cv2, "imdecode", None)  # so that decoding fails
                assert_same(all_of(cached, epoch), expected)
        assert expected.image.float().std() > 10


@pytest.mark.parametrize("kind", ["small_data", "large_data"])
def test_extreme_views_are_held(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(kind)
    make_cache(source, tmp_path, SIZE, augmentation=STRONG, parts=("train",), progress=False)
    data = load_persons(source, "train")
    cache, used = open_cache(tmp_path, data, SIZE, augmentation=STRONG), set()
    drawn = np.empty((*SIZE, 3), np.uint8)
    for index, person in enumerate(data.persons):
        for view in extreme_views():
            affine = show_person(person, SIZE, view, data.skeleton.flip_order).affine
            used.add(reduction_for(affine))
            assert cache.draw(index, drawn, affine, reduction_for(affine))
    assert used >= ({2, 4, 8} if kind == "large_data" else {1, 2})


def test_the_first_persons_of_a_part_can_use_the_cache_of_all(made: Path, small_data: str, no_decoding: None) -> None:
    data = load_persons(small_data, "train")
    whole = PersonCrops(data, SIZE, reduced=True, cache=open_cache(made, data, SIZE))
    head = PersonCrops(data.head(5), SIZE, reduced=True, cache=open_cache(made, data.head(5), SIZE))
    assert_same(all_of(head, 0), whole.read(range(5))[0])


def test_the_images_are_not_needed(small_data: str, tmp_path: Path) -> None:
    root = Path(shutil.copytree(small_data.partition(":")[2], tmp_path / "data"))
    weak = Augmentation(rotation=0.0, scale=0.1)
    make_cache(f"synthetic:{root}", tmp_path / "cache", SIZE, augmentation=weak, progress=False)
    expected = all_of(PersonCrops(load_persons(f"synthetic:{root}", "train"), SIZE, augmentation=weak, reduced=True), 2)
    for part in ("train2017", "val2017"):
        shutil.rmtree(root / part)
    data = load_persons(f"synthetic:{root}", "train", check_images=False)
    cache = open_cache(tmp_path / "cache", data, SIZE, augmentation=weak)
    assert_same(all_of(PersonCrops(data, SIZE, augmentation=weak, reduced=True, cache=cache), 2), expected)
    # What is not held would come from the files.
    with pytest.raises(InputError, match=r"image .*\.jpg can't be read"):
        all_of(PersonCrops(data, SIZE, augmentation=Augmentation(), reduced=True, cache=cache), 0)


def test_what_is_not_held_comes_from_the_files(
    small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak, strong = Augmentation(rotation=0.0, scale=0.1), Augmentation(rotation=40.0, scale=0.3)
    make_cache(small_data, tmp_path, SIZE, augmentation=weak, progress=False)
    data = load_persons(small_data, "train")
    cache = open_cache(tmp_path, data, SIZE, augmentation=weak)
    held: list[bool] = []
    draw = CropCache.draw
    monkeypatch.setattr(CropCache, "draw", lambda *arguments: held.append(draw(*arguments)) or held[-1])
    cached = PersonCrops(data, SIZE, augmentation=strong, reduced=True, cache=cache)
    assert_same(all_of(cached, 1), all_of(PersonCrops(data, SIZE, augmentation=strong, reduced=True), 1))
    assert 0 < sum(held) < len(held) == len(data.persons)


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), pytest.param("spawn", 1, marks=pytest.mark.slow)])
def test_worker_processes_share_the_file(
    made: Path, small_data: str, method: str, workers: int, no_decoding: None
) -> None:
    data = load_persons(small_data, "train").head(12)
    cache = open_cache(made, data, SIZE, augmentation=STRONG)
    crops = PersonCrops(data, SIZE, augmentation=STRONG, reduced=True, cache=cache)
    alone = list(DataLoader(crops, 4))
    assert len(pickle.dumps(cache)) < 20_000 + cache.kept.nbytes < cache.size  # the pixels stay where they are
    helped = DataLoader(crops, 4, num_workers=workers, multiprocessing_context=method)
    for first, second in zip(alone, helped, strict=True):
        assert_same(second, first)


@pytest.mark.parametrize("part", ["train", "val"])
def test_real_photographs(sample_data: Path, tmp_path: Path, part: str) -> None:
    """The first 200 persons of a part, in a data set of their own pictures."""
    source, root = sample_data / "coco_mini", tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    folder, name = f"{part}2017", f"person_keypoints_{part}2017.json"
    content = json.loads((source / "annotations" / name).read_text())
    persons = load_persons(f"coco:{source}", part).persons[:200]
    chosen = {person.annotation_id for person in persons}
    content["annotations"] = [entry for entry in content["annotations"] if entry["id"] in chosen]
    (root / "annotations" / name).write_text(json.dumps(content))
    (root / folder).symlink_to(source / folder)
    size, views = (256, 192), Augmentation(half_body=0.3) if part == "train" else None
    (report,) = make_cache(
        f"coco:{root}", tmp_path / "cache", size, augmentation=views, parts=(part,), progress=False, threads=2
    )
    assert report.persons == 200
    assert report.jpeg_bytes == sum(path.stat().st_size for path in {person.image_path for person in persons})
    data = load_persons(f"coco:{root}", part)
    cache = open_cache(tmp_path / "cache", data, size, augmentation=views)
    expected = all_of(PersonCrops(data, size, augmentation=views, reduced=True), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "imdecode", None)
        assert_same(all_of(PersonCrops(data, size, augmentation=views, reduced=True, cache=cache), 3), expected)


# --- refusals ---


def detected(data: PersonData, folder: Path) -> PersonData:
    boxes = [
        {"image_id": person.image_id, "category_id": 1, "bbox": [1.0, 1.0, 20.0, 30.0], "score": 0.9}
        for person in reversed(data.persons)
    ]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return with_detections(data, folder / "boxes.json")


REFUSALS: dict[str, tuple[Callable, dict, str]] = {
    "another annotation file": (lambda data, _: replace(data, sha256="0" * 64), {}, "the annotation file of SHA-256"),
    "a detector's boxes": (detected, {}, "the boxes ground truth, not boxes.json"),
    "other persons": (lambda data, _: replace(data, persons=data.persons[::-1]), {}, "holds other persons"),
    "more persons": (lambda data, _: replace(data, persons=2 * data.persons), {}, "holds other persons"),
    "another size": (lambda data, _: data, {"input_size": (64, 64)}, r"input size \[96, 64\], not \[64, 64\]"),
    "another convention": (lambda data, _: data, {"convention": "udp"}, "the convention half_pixel, not udp"),
    "full-size pictures": (lambda data, _: data, {"reduced": False}, "reduced = True, not False"),
    "larger scales": (lambda data, _: data, {"augmentation": Augmentation(scale=0.5)}, "scale 0.4 and can't serve 0.5"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_cache_made_for_something_else_is_refused(made: Path, small_data: str, tmp_path: Path, case: str) -> None:
    change, settings, words = REFUSALS[case]
    data = change(load_persons(small_data, "train"), tmp_path)
    with pytest.raises(InputError, match=f"{words}.*: make one with `hdm cache synthetic:"):
        open_cache(made, data, **{"input_size": SIZE, "augmentation": STRONG, **settings})


def test_views_that_a_plain_cache_does_not_hold_are_refused(made: Path, small_data: str) -> None:
    """The val part is made for plain views; mirrored ones are always held, and of turned ones every angle or none."""
    data = load_persons(small_data, "val")
    for name, asked in {"rotation": (10.0, 0.0, 0.0, 0.0), "half_body": (0.0, 0.0, 0.0, 0.3)}.items():
        with pytest.raises(InputError, match=f"was made for {name} 0 and can't serve"):
            open_cache(made, data, SIZE, augmentation=Augmentation(*asked))
    open_cache(made, data, SIZE, augmentation=Augmentation(0.0, 0.0, 1.0))
    open_cache(made, load_persons(small_data, "train"), SIZE, augmentation=Augmentation(90.0, 0.1, 1.0, 1.0))


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "no index": ("json", lambda whole: None, "holds no finished cache of the part train: make one"),
    "an index that is no JSON": ("json", lambda whole: whole[:50], r"index .*train.json is damaged"),
    "an index that is a list": ("json", lambda whole: b"[1]", r"index .*train.json is damaged"),
    "an index with a field less": ("json", lambda whole: whole.replace(b'"bytes"', b'"b"'), "is damaged"),
    "an index with words for numbers": ("json", lambda whole: whole.replace(b"0.4", b'"some"'), "is damaged"),
    "an index without a strength": ("json", lambda whole: whole.replace(b'"scale"', b'"size"'), "is damaged"),
    "an index of another release": ("json", lambda whole: whole.replace(b'n": 1', b'n": 9'), "has version 9, not 1"),
    "no pixels": ("bin", lambda whole: None, "train.bin can't be read"),
    "pixels cut short": ("bin", lambda whole: whole[:-1], "train.bin has [0-9]+ bytes, not [0-9]+"),
    "no table": ("npz", lambda whole: None, "train.npz can't be read"),
    "another table": ("npz", lambda whole: whole[:-1] + b"x", "train.npz has other bytes than were written"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_refused_and_made_anew(copied: Path, small_data: str, damage: str) -> None:
    ending, change, words = DAMAGE[damage]
    path, data = copied / f"train.{ending}", load_persons(small_data, "train")
    whole = path.read_bytes()
    changed = change(whole)
    assert changed != whole
    path.unlink() if changed is None else path.write_bytes(changed)
    with pytest.raises(InputError, match=words):
        open_cache(copied, data, SIZE)
    reports = make_cache(small_data, copied, SIZE, augmentation=STRONG, progress=False)
    assert [report.made for report in reports] == [True, False]
    open_cache(copied, data, SIZE)
    assert path.read_bytes() == whole  # as it was: the same bytes in whatever order threads decode
    assert check_cache(copied) == []


def test_a_changed_pixel_is_found(copied: Path) -> None:
    assert check_cache(copied) == []
    with (copied / "val.bin").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    (problem,) = check_cache(copied)
    assert "val.bin has other bytes than were written" in problem


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no finished cache"):
        check_cache(tmp_path)


# --- making it ---


def test_a_finished_cache_stays_as_it_is(copied: Path, small_data: str, no_decoding: None) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in copied.iterdir()}
    reports = make_cache(small_data, copied, SIZE, augmentation=STRONG, progress=False)
    assert [report.made for report in reports] == [False, False]
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in copied.iterdir()} == before
    for part, report in zip(("train", "val"), reports, strict=True):
        assert report.bytes == (copied / f"{part}.bin").stat().st_size
        assert report.persons == len(load_persons(small_data, part).persons)


def test_a_cache_of_something_else_is_not_overwritten(copied: Path, small_data: str) -> None:
    whole = (copied / "train.bin").read_bytes()
    for settings in ({"augmentation": Augmentation()}, {"convention": "hrnet"}, {"reduced": False}):
        with pytest.raises(InputError, match="was made for .*: name another folder, or delete that one first"):
            make_cache(small_data, copied, SIZE, **{"augmentation": STRONG, "progress": False, **settings})
    assert (copied / "train.bin").read_bytes() == whole


def test_an_unreadable_picture_is_named_and_nothing_left(small_data: str, tmp_path: Path) -> None:
    root = Path(shutil.copytree(small_data.partition(":")[2], tmp_path / "data"))
    picture = load_persons(f"synthetic:{root}", "train").persons[-1].image_path
    picture.write_bytes(picture.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"{picture.name} is cut short"):
        make_cache(f"synthetic:{root}", tmp_path / "cache", SIZE, progress=False)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"augmentation": Augmentation(scale=1.0)}, "scale .* is 1.0: give a number from 0 to below 1"),
        ({"augmentation": Augmentation(scale=float("nan"))}, "scale .* is nan: give a number from 0 to below 1"),
        ({"threads": 0}, "threads is 0: give a whole number, 1 or more"),
        ({"input_size": (0, 64)}, "input size 0 x 64 must be positive multiples of 4"),
        ({"convention": "none"}, "unknown pixel convention 'none'"),
        ({"parts": ("test",)}, "unknown part 'test'"),
    ],
)
def test_settings_that_are_none(small_data: str, tmp_path: Path, settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_cache(small_data, tmp_path, **{"input_size": SIZE, "progress": False, **settings})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(small_data: str, tmp_path: Path) -> None:
    no_room = pytest.raises(InputError, match="can't be written to .*: free space or name another folder")
    with full_disk(100_000), no_room:
        make_cache(small_data, tmp_path / "cache", SIZE, progress=False)
    assert list((tmp_path / "cache").iterdir()) == []
    make_cache(small_data, tmp_path / "cache", SIZE, parts=("train",), progress=False)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == FILES


def test_a_folder_that_is_a_file(small_data: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        make_cache(small_data, tmp_path / "cache", SIZE, progress=False)


def test_a_process_killed_in_the_middle(small_data: str, tmp_path: Path) -> None:
    """Its last picture is a pipe that nobody writes into, so that it waits there until killed, the others written.
    What was left of an older cache is gone before the first pixel is written."""
    root, folder = Path(shutil.copytree(small_data.partition(":")[2], tmp_path / "data")), tmp_path / "cache"
    source = f"synthetic:{root}"
    data = load_persons(source, "train")
    last = data.persons[-1].image_path
    content = last.read_bytes()
    last.unlink()
    os.mkfifo(last)
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("rubbish")
    script = f"from hdm.data.cache import make_cache; make_cache({source!r}, {str(folder)!r}, {SIZE}, progress=False)"
    process = subprocess.Popen([sys.executable, "-c", script])
    partial = folder / ".train.bin.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 100_000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in folder.iterdir()] == [partial.name]
    with pytest.raises(InputError, match="holds no finished cache"):
        open_cache(folder, data, SIZE)
    last.unlink()
    last.write_bytes(content)
    make_cache(source, folder, SIZE, parts=("train",), progress=False)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    open_cache(folder, data, SIZE)
    assert check_cache(folder) == []


def test_two_that_write_the_same_file(tmp_path: Path) -> None:
    """The later one finishes; the earlier one is told, and takes nothing away."""
    path = tmp_path / "train.bin"
    with pytest.raises(InputError, match="another process has begun to write"), _aside(path) as first:
        first.write(b"earlier")
        with _aside(path) as second:
            second.write(b"later")
    assert path.read_bytes() == b"later"
    assert list(tmp_path.iterdir()) == [path]
