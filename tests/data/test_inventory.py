"""What `check` says of real samples, of complete and of damaged directories."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.io import savemat

from hdm.data import inventory
from hdm.data.inventory import Inventory, Item, check
from hdm.data.manifest import RECORD, write_record
from hdm.errors import InputError


def item(found: Inventory, name: str) -> Item:
    return next(item for item in found.items if item.name == name)


# --- the real samples


def test_the_coco_sample_is_not_the_official_one(sample_data: Path) -> None:
    found = check(sample_data / "coco_mini")
    assert found.kind == "coco" and not found.complete
    val = item(found, "annotations/person_keypoints_val2017.json")
    raw = (sample_data / "coco_mini" / val.name).read_bytes()
    assert val.state == "differs"
    assert "993 persons with keypoints, official 6,352: not the official file" in val.detail
    assert hashlib.sha256(raw).hexdigest()[:12] in val.detail
    train = item(found, "annotations/person_keypoints_train2017.json")
    assert "4,998 persons with keypoints, official 149,813" in train.detail
    assert "375 listed, all there; official 5,000" in item(found, "val2017/").detail
    assert "1,865 files" in item(found, "train2017/").detail


def test_the_mpii_sample_lacks_images_alone(sample_data: Path) -> None:
    found = check(sample_data / "mpii_mini")
    assert found.kind == "mpii" and not found.complete
    states = {item.name: item.state for item in found.items}
    assert {name for name, state in states.items() if state != "ok"} == {"images/"}
    assert "22,246 persons, as official" in item(found, "annot/train.json").detail
    assert "2,958 persons, as official" in item(found, "annot/valid.json").detail
    assert "pos_gt_src (16, 2, 2958), as official" in item(found, "annot/gt_valid.mat").detail
    assert "5 files" in item(found, "images/").detail and ", ...)" in item(found, "images/").detail
    assert len(str(found).splitlines()) < 24


def test_the_mpii_sample_with_a_name_for_each_image_is_complete(sample_data: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_data / "mpii_mini" / "annot", tmp_path / "annot")
    (tmp_path / "images").mkdir()
    listed = [json.loads((tmp_path / "annot" / f"{part}.json").read_text()) for part in ("train", "valid")]
    for name in {person["image"] for persons in listed for person in persons}:
        (tmp_path / "images" / name).touch()
    found = check(tmp_path)
    assert found.complete, str(found)
    assert str(found).splitlines()[0] == f"mpii in {tmp_path}: complete"


# --- small ones with official numbers of their own


def annotation(number: int, **changes) -> dict:
    return {
        "id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 50.0, "keypoints": [5, 5, 2] + 48 * [0],
        **changes,
    }  # fmt: skip


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is complete: 3 persons count in each part, and one of each kind that does not."""
    monkeypatch.setattr(inventory, "COCO_PARTS", {"train2017": (3, 2), "val2017": (3, 2)})
    monkeypatch.setattr(inventory, "DETECTED", 2)
    others = [{"iscrowd": 1}, {"area": 0}, {"keypoints": 51 * [0]}, {"category_id": 2}]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [annotation(k, **(others[k - 3] if k >= 3 else {})) for k in range(7)],
    }
    for part in ("train2017", "val2017"):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/person_keypoints_{part}.json").write_text(json.dumps(content))
        (tmp_path / part).mkdir()
        for image in content["images"]:
            (tmp_path / part / image["file_name"]).write_bytes(b"12345")
    return tmp_path


def test_a_complete_directory(coco: Path) -> None:
    found = check(coco)
    assert found.complete, str(found)
    assert "3 persons with keypoints, as official" in item(found, "annotations/person_keypoints_val2017.json").detail
    assert item(found, "val2017/").detail == "2 files, 10 B; 2 listed, all there"
    assert "optional  person_detection_results/" in str(found)


def test_detections_are_optional_but_must_be_right(coco: Path) -> None:
    path = coco / inventory.DETECTIONS
    path.parent.mkdir()
    boxes = [{"category_id": 1}, {"category_id": 1}, {"category_id": 3}]
    path.write_text(json.dumps(boxes))
    assert check(coco).complete
    path.write_text(json.dumps(boxes[1:]))
    assert not check(coco).complete
    assert "1 person boxes, official 2: not the official file" in item(check(coco), inventory.DETECTIONS).detail


def test_missing_images_are_counted_and_named(coco: Path) -> None:
    for image in ("a.jpg", "b.jpg"):
        (coco / "val2017" / image).unlink()
    (coco / "val2017" / "c.jpg").touch()
    found = check(coco)
    assert not found.complete
    assert item(found, "val2017/") == Item("val2017/", "differs", "1 files, 0 B; 2 listed, 2 missing (a.jpg, b.jpg)")


@pytest.mark.parametrize("name", ["val2017", "train2017", "annotations/person_keypoints_train2017.json"])
def test_what_is_missing(coco: Path, name: str) -> None:
    path = coco / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = check(coco)
    assert not found.complete
    assert [item.name.rstrip("/") for item in found.items if item.state == "missing" and not item.optional] == [name]
    assert f"missing   {name}" in str(found)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not valid JSON"),
        ('{"images": [', "not valid JSON"),
        ("[]", "not the annotation file"),
        ("3", "not the annotation file"),
        ('{"images": [{}], "annotations": []}', "not the annotation file it is called .KeyError.'file_name'"),
        ('{"images": [], "annotations": [{"id": 1}]}', "not the annotation file"),
        ('{"images": null, "annotations": []}', "not the annotation file"),
    ],
)
def test_a_damaged_annotation_file_is_a_line_of_the_report(coco: Path, text: str, words: str) -> None:
    (coco / "annotations/person_keypoints_val2017.json").write_text(text)
    found = check(coco)
    assert not found.complete
    line = item(found, "annotations/person_keypoints_val2017.json")
    assert line.state == "differs" and words.split(" .")[0] in line.detail
    assert item(found, "val2017/").state == "ok"  # as many images as official


def test_mpii_of_another_shape(tmp_path: Path) -> None:
    (tmp_path / "annot").mkdir()
    (tmp_path / "annot/valid.json").write_text(json.dumps([{"image": "a.jpg"}, {"image": "a.jpg"}]))
    savemat(tmp_path / "annot/gt_valid.mat", {"pos_gt_src": np.zeros((16, 2, 3))})
    found = check(tmp_path)
    assert "2 persons, official 2,958: not the official file" in item(found, "annot/valid.json").detail
    truth = item(found, "annot/gt_valid.mat")
    assert truth.state == "differs" and "pos_gt_src (16, 2, 3), official (16, 2, 2958)" in truth.detail
    assert item(found, "annot/train.json").state == item(found, "images/").state == "missing"
    for broken in (b"", b"MATLAB 5.0 MAT-file" + bytes(300)):
        (tmp_path / "annot/gt_valid.mat").write_bytes(broken)
        assert "not a MATLAB file with pos_gt_src" in item(check(tmp_path), "annot/gt_valid.mat").detail


# --- downloads


@pytest.fixture
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    common = {"licence": "made here", "optional": True, "about": 1_000_000}
    right = hashlib.sha256(b"right").hexdigest()
    content = {
        "coco": [{"name": "val2017.zip", "url": "http://a/b", "unpacks": {"val2017": 2}, **common}],
        "mpii": [],
        "weights": [
            {"name": "right.pth", "url": "http://a/r", "sha256_prefix": right[:8], **common},
            {"name": "hand.pth", "page": "https://a.page", "by_hand": "there", **common},
        ],
    }
    path = tmp_path_factory.mktemp("manifest") / "manifest.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_weights_with_a_published_hash(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "right.pth").write_bytes(b"right")
    found = check(tmp_path, manifest=manifest)
    assert found.kind == "weights" and found.complete
    assert item(found, "right.pth").detail.endswith("as published")
    assert item(found, "hand.pth").detail == "not there (to be had by hand: hdm fetch says where)"
    (tmp_path / "right.pth").write_bytes(b"wrong")
    found = check(tmp_path, manifest=manifest)
    assert not found.complete
    assert "but its publisher's begins" in item(found, "right.pth").detail


def test_weights_with_a_recorded_hash_or_none(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "hand.pth").write_bytes(b"by hand")
    assert item(check(tmp_path, manifest=manifest), "hand.pth").detail.endswith("nothing to compare with")
    write_record(tmp_path, {"hand.pth": {"sha256": hashlib.sha256(b"by hand").hexdigest(), "date": "2026-01-02"}})
    assert item(check(tmp_path, manifest=manifest), "hand.pth").detail.endswith("as recorded")
    (tmp_path / "hand.pth").write_bytes(b"by HAND")
    found = check(tmp_path, manifest=manifest)
    assert "but that of 2026-01-02 begins" in item(found, "hand.pth").detail and not found.complete


def test_large_downloads_are_hashed_on_request(tmp_path: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "LARGE", 4)
    (tmp_path / "right.pth").write_bytes(b"wrong")
    assert item(check(tmp_path, manifest=manifest), "right.pth").detail == "5 B, not hashed again (large)"
    assert not check(tmp_path, manifest=manifest, thorough=True).complete


def test_an_unfinished_download_is_shown(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "right.pth.part").write_bytes(bytes(250_000))
    found = check(tmp_path, manifest=manifest)
    assert item(found, "right.pth").detail == "stopped at 250 kB of about 1 MB: fetch again to go on"
    assert not found.complete  # nothing is there


def test_archives_that_were_unpacked_or_kept(coco: Path, manifest: Path) -> None:
    sha256 = hashlib.sha256(b"archive").hexdigest()
    write_record(coco, {"val2017.zip": {"sha256": sha256, "date": "2026-01-02", "unpacked": {"val2017": 2}}})
    found = check(coco, manifest=manifest)
    assert item(found, "val2017.zip").detail == f"unpacked on 2026-01-02, sha256 {sha256[:12]}"
    assert found.complete
    (coco / "val2017.zip").write_bytes(b"archive")
    assert item(check(coco, manifest=manifest), "val2017.zip").detail.endswith("as recorded")
    (coco / "val2017.zip").write_bytes(b"changed")
    assert not check(coco, manifest=manifest).complete


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_record(coco: Path, text: str) -> None:
    (coco / RECORD).write_text(text)
    with pytest.raises(InputError, match=f"{RECORD} can't be read"):
        check(coco)


def test_no_directory_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a directory: give the folder"):
        check(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="holds neither COCO .* nor MPII .* nor known weights"):
        check(tmp_path)
