"""What views can show: nothing that any view shows is left out, and not much is kept beside."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from hdm.data import Person
from hdm.data.augment import Augmentation, View, draw_half_body
from hdm.data.crops import show_person
from hdm.data.outlines import blocks_of, outlines, region_of
from hdm.data.pictures import reduced_affine, reduction_for, shown_region
from hdm.data.skeletons import COCO
from hdm.pixels import PADDING

SIZE = (96, 64)  # rows, columns
PICTURE = (700, 900)
PLAIN = Augmentation(0.0, 0.0, 0.0)
STRONG = Augmentation(rotation=90.0, scale=0.4, flip=0.5, half_body=0.5)


def person_of(box: tuple[float, float, float, float], path: Path = Path("none.jpg")) -> Person:
    x, y, width, height = box
    joints = np.random.default_rng(3).uniform((x, y), (x + width, y + height), (17, 2))
    return Person(1, 1, path, box, joints, np.ones(17, np.float32))


def zoomed(zoom: float) -> Person:
    """A person whose plain crop has `zoom` crop pixels per picture pixel, in the middle of the picture."""
    width, height = 64 / PADDING / zoom, 96 / PADDING / zoom
    return person_of((450 - width / 2, 350 - height / 2, width, height))


@pytest.mark.parametrize("convention", ["half_pixel", "hrnet", "udp"])
@pytest.mark.parametrize("augmentation", [PLAIN, Augmentation(0.0, 0.3, 0.5), STRONG])
def test_every_view_lies_within(convention: str, augmentation: Augmentation) -> None:
    """Persons of all sizes, at the border of the picture and beyond it too."""
    rng = np.random.default_rng(5)
    used: set[int] = set()
    for _ in range(40):
        width, height = rng.uniform(4, 600, 2).tolist()
        person = person_of((float(rng.uniform(-100, 950)), float(rng.uniform(-100, 750)), width, height))
        found = outlines(person, SIZE, augmentation, COCO, convention=convention)
        for _ in range(10):
            turn = float(rng.uniform(-180, 180)) if augmentation.rotation else 0.0
            scale = 1 + augmentation.scale * float(rng.choice([-1.0, 1.0, rng.uniform(-1, 1)]))
            half = draw_half_body(augmentation, rng, person.joints, person.visible, COCO.upper_body)
            view = View(turn, scale, bool(augmentation.flip and rng.random() < 0.5), half)
            affine = show_person(person, SIZE, view, COCO.flip_order, convention=convention).affine
            n = reduction_for(affine)
            used.add(n)
            size = -(-PICTURE[0] // n), -(-PICTURE[1] // n)
            assert region_of(found[n], n, size).holds(shown_region(reduced_affine(affine, n), SIZE, size))
    assert used == {1, 2, 4, 8}


def test_a_plain_view_takes_what_it_shows_and_a_turned_one_the_circle_around() -> None:
    """At zoom 1 the crop of 64 x 96 pixels shows as many; at scale 1.3 the half diagonal between its outermost pixel
    centres is 1.3 hypot(31.5, 47.5) = 74.1 pixels."""
    (plain,) = outlines(zoomed(1.0), SIZE, PLAIN, COCO, reduced=False).values()
    np.testing.assert_allclose(plain, [449.5 - 31.5, 349.5 - 47.5, 449.5 + 31.5, 349.5 + 47.5], atol=0.02)
    (turned,) = outlines(zoomed(1.0), SIZE, Augmentation(40.0, 0.3), COCO, reduced=False).values()
    reach = 1.3 * np.hypot(31.5, 47.5)
    np.testing.assert_allclose(turned, [449.5 - reach, 349.5 - reach, 449.5 + reach, 349.5 + reach], atol=0.02)
    # One pixel more than the outermost ones at either side, which bilinear sampling may touch.
    region = region_of(plain, 1, PICTURE)
    assert (region.x1 - region.x0, region.y1 - region.y0) == pytest.approx((64 + 2, 96 + 2), abs=2)


@pytest.mark.parametrize(
    ("zoom", "scale", "steps"),
    [(1.2, 0.3, [1]), (0.6, 0.0, [1]), (0.6, 0.3, [1, 2]), (0.45, 0.05, [2]), (0.3, 0.3, [2, 4]), (0.02, 0.3, [8])],
)
def test_only_the_reductions_that_a_scale_can_ask_for(zoom: float, scale: float, steps: list[int]) -> None:
    augmentation = Augmentation(40.0, scale)
    assert sorted(outlines(zoomed(zoom), SIZE, augmentation, COCO)) == steps
    assert sorted(outlines(zoomed(zoom), SIZE, augmentation, COCO, reduced=False)) == [1]


def test_a_reduction_is_kept_no_further_than_it_is_used() -> None:
    """At zoom 0.6 scales from 1.2 on take the picture at a half, so at its full size scale 1.2 is the largest."""
    found = outlines(zoomed(0.6), SIZE, Augmentation(0.0, 0.3), COCO)
    half_widths = {n: (found[n][2] - found[n][0]) / 2 for n in found}
    assert half_widths[1] == pytest.approx(1.2 * 31.5 / 0.6, abs=0.05)
    assert half_widths[2] == pytest.approx(1.3 * 31.5 / 0.6, abs=0.05)


def test_both_halves_of_a_person_are_kept() -> None:
    """Arms far to the left and legs far to the right of a box that holds neither."""
    person = zoomed(1.0)
    upper = np.isin(np.arange(17), COCO.upper_body)
    person.joints[upper] = np.random.default_rng(1).uniform((50, 300), (80, 350), (int(upper.sum()), 2))
    person.joints[~upper] = np.random.default_rng(2).uniform((800, 300), (830, 350), (int((~upper).sum()), 2))
    (without,) = outlines(person, SIZE, Augmentation(0.0, 0.0), COCO, reduced=False).values()
    (within,) = outlines(person, SIZE, Augmentation(0.0, 0.0, half_body=0.01), COCO, reduced=False).values()
    assert without[0] > 400 and without[2] < 500
    assert within[0] < 60 and within[2] > 820


def test_persons_close_together_share_their_pixels(tmp_path: Path) -> None:
    path = tmp_path / "three.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (200, 600, 3)).astype(np.uint8))
    boxes = [(20.0, 20.0, 40.0, 60.0), (24.0, 22.0, 40.0, 60.0), (400.0, 20.0, 40.0, 60.0)]
    persons = {10 + number: person_of(box, path) for number, box in enumerate(boxes)}
    blocks = blocks_of(path, persons, SIZE, PLAIN, COCO)
    assert sorted(block.persons for block in blocks) == [[10, 11], [12]]
    apart = sum(blocks_of(path, {n: p}, SIZE, PLAIN, COCO)[0].pixels.size for n, p in persons.items())
    assert sum(block.pixels.size for block in blocks) < 0.8 * apart
    for block in blocks:
        np.testing.assert_array_equal(block.pixels, block.region.cut(cv2.imread(str(path))))
