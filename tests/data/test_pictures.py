"""Pictures at reduced sizes and in parts: the same things at the same places of a crop."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from hdm.data.pictures import (
    REDUCTIONS,
    Region,
    block_means,
    read_picture,
    reduced_affine,
    reduction_for,
    shown_region,
    warp_into,
)
from hdm.errors import InputError
from hdm.pixels import CONVENTIONS, apply_affine, box_affine, invert_affine

SIZE = (96, 64)  # rows, columns of a crop
ROWS, COLUMNS = 203, 317  # of a picture; no multiples of 2

each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
each_format = pytest.mark.parametrize("name", ["picture.jpg", "picture.png"])


def write(path: Path, picture: np.ndarray) -> Path:
    """Blue first, with as little loss as the format allows."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    assert cv2.imwrite(str(path), picture, settings if path.suffix == ".jpg" else [])
    return path


def smooth(rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Waves of at least 180 pixels, another one in each channel."""
    y, x = np.mgrid[:rows, :columns]
    waves = [np.sin(x / 30 + 1), np.cos(y / 35), np.sin((x + y) / 45)]
    return (128 + 100 * np.stack(waves, -1)).round().astype(np.uint8)


def noise(rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def affines(count: int, largest: float = 400.0) -> list[np.ndarray]:
    """Of random boxes in and around a picture, turned, mirrored, in every convention."""
    rng = np.random.default_rng(4)
    found = []
    for number in range(count):
        box = (*rng.uniform(-60, (COLUMNS, ROWS)), *rng.uniform(5, largest, 2))
        how = {"rotation": rng.uniform(-180, 180) * (number % 4 > 0), "mirror": bool(number % 2)}
        found.append(box_affine(box, SIZE, convention=CONVENTIONS[number % 3], **how))
    return found


def crop_of(picture: np.ndarray, affine: np.ndarray, region: Region | None = None) -> np.ndarray:
    """The crop, red first, of a region of a picture, by default of all of it."""
    region = region or Region(0, 0, picture.shape[1], picture.shape[0])
    crop = np.full((*SIZE, 3), 55, np.uint8)
    warp_into(crop, region.cut(picture), affine, region)
    return crop


# --- reduced sizes ---


@each_format
@each_reduction
def test_a_reduced_picture_has_the_means_of_blocks(tmp_path: Path, name: str, reduction: int) -> None:
    path = write(tmp_path / name, smooth())
    reduced = read_picture(path, reduction).astype(float)
    assert reduced.shape == (-(-ROWS // reduction), -(-COLUMNS // reduction), 3)
    rows, columns = ROWS // reduction, COLUMNS // reduction  # whole blocks
    whole = smooth()[: rows * reduction, : columns * reduction].astype(float)
    means = whole.reshape(rows, reduction, columns, reduction, 3).mean((1, 3))
    difference = np.abs(reduced[:rows, :columns] - means)
    # JPEG rounds colours, so that single pixels of the full size are off by 4; half a pixel of it means 1 on average.
    assert difference.max() <= 4 and difference.mean() < 0.75


def test_means_of_blocks_by_hand() -> None:
    """The last column of blocks has one column of pixels, which counts twice."""
    picture = np.repeat(np.array([[0, 10, 100], [20, 30, 50]], np.uint8)[..., None], 3, axis=-1)
    assert block_means(picture, 2)[..., 1].tolist() == [[15, 75]]
    assert np.array_equal(block_means(picture, 1), picture)


@each_format
def test_a_disc_lies_at_the_same_place_of_the_crop_at_every_size(tmp_path: Path, name: str) -> None:
    """A bright disc on black: the centroid of its light in the crop, to a tenth of a pixel."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    centre = np.array([171.3, 96.8])
    disc = np.clip(24.5 - np.hypot(x - centre[0], y - centre[1]), 0, 1) * 250
    path = write(tmp_path / name, np.repeat(disc.round().astype(np.uint8)[..., None], 3, axis=-1))
    for mirror in (False, True):
        affine = box_affine((120.0, 30.0, 100.0, 140.0), SIZE, rotation=25.0, mirror=mirror)
        expected = apply_affine(affine, centre)
        for reduction in REDUCTIONS:
            light = crop_of(read_picture(path, reduction), reduced_affine(affine, reduction))[..., 1].astype(float)
            rows, columns = np.indices(SIZE)
            found = np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()
            assert np.abs(found - expected).max() < 0.1, (reduction, mirror)


@each_reduction
def test_a_point_of_the_reduced_picture_goes_where_its_block_goes(reduction: int) -> None:
    block = np.array([4.0, 7.0])  # pixel (4, 7) of the reduced picture stands for this block's centre
    centre = block * reduction + (reduction - 1) / 2
    for affine in affines(10):
        np.testing.assert_allclose(apply_affine(reduced_affine(affine, reduction), block), apply_affine(affine, centre))


def test_a_reduced_picture_never_has_fewer_pixels_than_the_crop() -> None:
    """Neighbours in the crop are at least one pixel of the reduced picture apart, and less than two."""
    used = set()
    for affine in affines(400, largest=900.0):
        reduction = reduction_for(affine)
        used.add(reduction)
        steps = np.linalg.inv(affine[:, :2]) / reduction  # reduced pixels for a step in x and in y
        least = np.hypot(steps[0], steps[1]).min()
        assert reduction == 1 or least >= 1 - 1e-2  # udp: rows and columns of crops differ by 1/100 in size
        assert reduction == 8 or least < 2
    assert used == set(REDUCTIONS)


def test_the_reduction_is_used_as_soon_as_it_may_be() -> None:
    at = {0.5: 2, 0.5001: 1, 0.25: 4, 0.2501: 2, 0.125: 8, 0.1251: 4, 1.0: 1, 3.0: 1, 0.01: 8}
    for zoom, reduction in at.items():
        assert reduction_for(np.array([[0.0, -zoom, 3.0], [zoom, 0.0, 5.0]])) == reduction


# --- regions ---


def test_a_region_gives_the_crop_that_the_whole_picture_gives() -> None:
    picture, smaller = noise(), 0
    for affine in affines(120):
        region = shown_region(affine, SIZE, picture.shape[:2])
        whole, part = crop_of(picture, affine), crop_of(picture, affine, region)
        # Another origin of the coordinates moves samples by OpenCV's rounding, 1/32 pixel at most, in some places.
        differs = np.abs(whole.astype(int) - part.astype(int))
        assert differs.max() <= 16 and np.mean(differs > 1) < 0.01
        smaller += region.cut(picture).size < picture.size / 2
    assert smaller > 20


def test_a_region_is_no_larger_than_needed() -> None:
    """A crop of the picture's own scale: columns 20 to 83 and rows 30 to 125, and two pixels more for interpolation."""
    affine = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, -30.0]])
    assert shown_region(affine, SIZE, (ROWS, COLUMNS)) == Region(19, 29, 85, 127)
    assert shown_region(affine, SIZE, (100, 50)) == Region(19, 29, 50, 100)


def test_a_region_holds_every_pixel_that_is_looked_at() -> None:
    for affine in affines(60):
        region = shown_region(affine, SIZE, (ROWS, COLUMNS))
        corners = np.array([[x, y] for x in (0, SIZE[1] - 1) for y in (0, SIZE[0] - 1)], float)
        seen = apply_affine(invert_affine(affine), corners)
        low, high = np.floor(seen).min(0), np.floor(seen).max(0) + 1
        low, high = np.maximum(low, 0), np.minimum(high, (COLUMNS - 1, ROWS - 1))
        if (low <= high).all():
            assert region.holds(Region(*low.astype(int).tolist(), *(high + 1).astype(int).tolist()))


@pytest.mark.parametrize("x", [-400.0, -150.0, 500.0])
@pytest.mark.parametrize("y", [-400.0, 0.0, 400.0])
def test_a_crop_beside_the_picture_is_black(x: float, y: float) -> None:
    picture = np.full((ROWS, COLUMNS, 3), 255, np.uint8)
    affine = box_affine((x, y, 60.0, 80.0), SIZE)
    region = shown_region(affine, SIZE, picture.shape[:2])
    assert region.cut(picture).size >= 3
    assert not crop_of(picture, affine, region).any()


def test_a_crop_over_the_border_is_black_outside() -> None:
    """The picture's scale; 20 columns to the left of the picture and 10 rows above it."""
    affine = np.array([[1.0, 0.0, 20.0], [0.0, 1.0, 10.0]])
    picture = noise()
    crop = crop_of(picture, affine, shown_region(affine, SIZE, picture.shape[:2]))
    assert not crop[:10].any() and not crop[:, :20].any()
    np.testing.assert_array_equal(crop[10:, 20:], picture[:86, :44, ::-1])


def test_which_regions_hold_others() -> None:
    outer = Region(2, 3, 10, 20)
    assert outer.holds(outer) and outer.holds(Region(3, 4, 9, 19))
    for x0, y0, x1, y1 in ((1, 3, 10, 20), (2, 2, 10, 20), (2, 3, 11, 20), (2, 3, 10, 21)):
        assert not outer.holds(Region(x0, y0, x1, y1))


# --- sampling ---


def test_crops_are_those_of_opencv_with_red_first() -> None:
    picture = smooth()
    for affine in affines(30):
        expected = cv2.warpAffine(picture, affine, SIZE[::-1], flags=cv2.INTER_LINEAR)[..., ::-1]
        assert np.abs(crop_of(picture, affine).astype(int) - expected).max() <= 1


def test_red_green_and_blue_stay_what_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "red.png", np.full((40, 40, 3), (10, 20, 200), np.uint8))  # OpenCV writes blue first
    picture = read_picture(path)
    crop = crop_of(picture, box_affine((10.0, 5.0, 15.0, 22.5), SIZE))
    np.testing.assert_array_equal(crop, np.full((*SIZE, 3), (200, 20, 10)))


@each_reduction
def test_the_turn_that_a_camera_wrote_is_ignored_at_every_size(tmp_path: Path, reduction: int) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    plain = write(tmp_path / "a.jpg", smooth()).read_bytes()
    (tmp_path / "a.jpg").write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    assert read_picture(tmp_path / "a.jpg", reduction).shape[:2] == (-(-ROWS // reduction), -(-COLUMNS // reduction))


@each_reduction
def test_a_picture_cut_short_is_refused_at_every_size(tmp_path: Path, reduction: int) -> None:
    path = write(tmp_path / "a.jpg", noise())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="a.jpg is cut short .3000 bytes.: fetch or generate it again"):
        read_picture(path, reduction)


def test_real_photographs_reduced(sample_data: Path) -> None:
    """Whole blocks of the first pictures, against the decoder's own reduction: alike on average to two levels."""
    paths = sorted((sample_data / "coco_mini" / "train2017").glob("*.jpg"))[:12]
    assert len(paths) == 12
    for path in paths:
        full = read_picture(path)
        for reduction in (2, 4, 8):
            rows, columns = (length // reduction for length in full.shape[:2])
            reduced = read_picture(path, reduction)[:rows, :columns].astype(float)
            assert np.abs(reduced - block_means(full, reduction)[:rows, :columns]).mean() < 2
