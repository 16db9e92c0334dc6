"""Loading MPII: the constants of its protocol, one by one, and what is said about files that are wrong."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hdm.data import MPII, PersonCrops, load_persons
from hdm.errors import InputError
from hdm.pixels import apply_affine, box_affine, crop_to_heatmap, heatmap_to_crop, invert_affine


def person(image: str, **other) -> dict:
    return {
        "image": image,
        "center": [101.0, 71.0],
        "scale": 0.5,
        "joints": [[10.0 + k, 20.0 + 2 * k] for k in range(15)] + [[-1, -1]],
        "joints_vis": [1] * 15 + [0],
        **other,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three persons in two pictures."""
    root = tmp_path / "mpii"
    (root / "annot").mkdir(parents=True)
    (root / "images").mkdir()
    people = [person("b.jpg"), person("a.jpg", scale=1.25), person("b.jpg", center=[50, 60])]
    for name in ("train", "valid"):
        (root / "annot" / f"{name}.json").write_text(json.dumps(people))
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(root / "images" / name), np.full((120, 200, 3), 128, np.uint8))
    return root


def test_pixels_are_counted_from_zero(folder: Path) -> None:
    first = load_persons(f"mpii:{folder}", "train").persons[0]
    np.testing.assert_array_equal(first.joints[3], [13 - 1, 26 - 1])
    np.testing.assert_array_equal(first.visible, [1] * 15 + [0])


def test_the_centre_is_moved_down_and_the_side_is_200_pixels_per_unit_of_scale(folder: Path) -> None:
    """centre (101 - 1, 71 + 15 * 0.5 - 1), side 0.5 * 200 between outermost pixel centres, enlarged by 1.25."""
    first = load_persons(f"mpii:{folder}", "val").persons[0]
    x, y, width, height = first.box
    assert (x + (width - 1) / 2, y + (height - 1) / 2) == (100, 77.5)
    assert (width, height) == (101, 101)
    affine = box_affine(first.box, (256, 256), convention="hrnet")
    np.testing.assert_allclose(apply_affine(affine, np.array([100, 77.5])), [128, 128])
    corner = np.array([100 - 1.25 * 50, 77.5 - 1.25 * 50])
    np.testing.assert_allclose(apply_affine(affine, corner), [0, 0], atol=1e-9)


def test_persons_of_one_picture_share_its_id_and_keep_the_order_of_the_file(folder: Path) -> None:
    data = load_persons(f"mpii:{folder}", "val")
    assert [p.annotation_id for p in data.persons] == [0, 1, 2]
    assert [p.image_id for p in data.persons] == [0, 1, 0]
    assert data.images == {0: folder / "images" / "b.jpg", 1: folder / "images" / "a.jpg"}
    assert (data.kind, data.boxes, data.skeleton) == ("mpii", "given centre and scale", MPII)
    crop = PersonCrops(data, (64, 64))[1]
    assert crop.image.shape == (3, 64, 64) and crop.joints.shape == (16, 2)


def spoil(change: Callable[[list], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "annot" / "valid.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda folder: (folder / "annot" / "valid.json").unlink(), "valid.json can't be read"),
    "cut short": (lambda folder: (folder / "annot" / "valid.json").write_text("[{"), "valid.json is not valid JSON"),
    "COCO's": (lambda folder: (folder / "annot" / "valid.json").write_text("{}"), "is no list of persons"),
    "nobody": (spoil(lambda content: content.clear()), "is no list of persons"),
    "no image": (lambda folder: (folder / "images" / "a.jpg").unlink(), "a.jpg is missing"),
    "no centre": (spoil(lambda content: content[1].pop("center")), "person 1 in .* has no 'center'"),
    "entry of another kind": (spoil(lambda content: content.append(7)), "person 3 in .* has no 'image'"),
    "17 joints": (spoil(lambda content: content[0]["joints"].append([1, 1])), r"person 0 .* \(17, 2\), not \(16, 2\)"),
    "words": (spoil(lambda content: content[0].update(scale="large")), "person 0 .* scale that is not made of numbers"),
    "no size": (spoil(lambda content: content[2].update(scale=0)), "person 2 .* scale 0"),
    "centre not a number": (spoil(lambda content: content[2].update(center=[math.nan, 3])), "person 2 .*centre"),
    "joint not a number": (
        spoil(lambda content: content[0]["joints"][4].__setitem__(0, math.nan)),
        "person 0 .* labelled joint with NaN",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(folder: Path, fault: str) -> None:
    change, words = FAULTS[fault]
    change(folder)
    with pytest.raises(InputError, match=words) as raised:
        load_persons(f"mpii:{folder}", "val")
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds annot/ and images/"):
        load_persons(f"mpii:{tmp_path / 'none'}", "val")


# --- the real annotations of the sample ---


@pytest.mark.parametrize(("part", "persons"), [pytest.param("train", 22_246, marks=pytest.mark.slow), ("val", 2_958)])
def test_counts_of_the_sample(sample_data: Path, part: str, persons: int) -> None:
    data = load_persons(f"mpii:{sample_data / 'mpii_mini'}", part, check_images=False)
    assert len(data.persons) == persons


def test_photographs_that_are_not_there_are_named(sample_data: Path) -> None:
    """The sample has five of the pictures."""
    with pytest.raises(InputError, match=r"image .*\.jpg is missing: it is listed in .*valid\.json"):
        load_persons(f"mpii:{sample_data / 'mpii_mini'}", "val")


@pytest.mark.parametrize("convention", ["half_pixel", "hrnet", "udp"])
def test_every_person_of_the_sample_goes_to_the_heatmap_and_back(sample_data: Path, convention: str) -> None:
    size = (256, 192)
    for p in load_persons(f"mpii:{sample_data / 'mpii_mini'}", "val", check_images=False).persons:
        affine = box_affine(p.box, size, convention=convention)
        heatmap = crop_to_heatmap(apply_affine(affine, p.joints), convention=convention, input_size=size)
        crop = heatmap_to_crop(heatmap.astype(np.float32), convention=convention, input_size=size)
        assert np.abs(apply_affine(invert_affine(affine), crop) - p.joints)[p.visible > 0].max() < 1e-3
