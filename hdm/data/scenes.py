"""One picture of the generated data set: a place, people in it, what stands in their way, and their annotation.

Every number of the annotation is known from the drawing: joints to a hundredth of a pixel, the visible part of each
person to the pixel. Joints carry COCO's flags: 2, visible; 1, in the picture but hidden by the own body, by another
person or by an object; 0, outside of the picture, and then x = y = 0.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from numpy.random import Generator, SeedSequence, default_rng
from pycocotools import mask as mask_utils

from hdm.data.canvas import NOBODY, Bar, Canvas, Colour, draw_colour
from hdm.data.people import Person, sample_person

# Depths in pixels: people stand in rows one behind the other, the scenery behind and objects before them all.
ROW, SCENERY, OBJECT = 1_000.0, -50_000.0, 50_000.0
# Hue, saturation and value of walls, floors and what hangs on them.
MUTED = ((0.0, 1.0), (0.0, 0.25), (0.2, 0.85))


def render(seed: int, index: int) -> tuple[UInt8[ndarray, "H W 3"], list[dict]]:
    """Picture number `index` of a seed, as red, green and blue, and its people as COCO annotations without ids.

    The random numbers come from SeedSequence((seed, index)), so that a picture depends on nothing but these two.
    """
    rng = default_rng(SeedSequence((seed, index)))
    width, height = int(rng.integers(288, 353)), int(rng.integers(224, 289))
    background = _background(rng, width, height)
    red, green, blue = background.mean(axis=(0, 1)).tolist()
    backdrop = (red, green, blue)
    lx, ly, lz = rng.uniform(-0.7, 0.7), rng.uniform(-0.9, -0.1), rng.uniform(0.6, 1.0)
    norm = math.hypot(lx, ly, lz)
    canvas = Canvas(background, (lx / norm, ly / norm, lz / norm), ambient=rng.uniform(0.4, 0.65))

    _draw_scenery(canvas, rng)
    people = _place_people(rng, width, height, backdrop)
    for owner, person in enumerate(people, start=NOBODY + 1):
        for bar in person.bars:
            canvas.draw(bar, owner)
    if rng.random() < 0.2:
        _draw_obstacle(canvas, rng, people[rng.integers(len(people))], backdrop)

    annotations = (annotate(canvas, person, owner) for owner, person in enumerate(people, start=NOBODY + 1))
    return _photograph(canvas.picture(), rng), [annotation for annotation in annotations if annotation is not None]


def annotate(canvas: Canvas, person: Person, owner: int) -> dict | None:
    """The COCO annotation of a drawn person, without its ids; None where less than a tenth of the body shows.

    A joint is visible where the nearest surface at its place is the person's own and lies no farther in front of the
    joint than the joint's own flesh and clothes do. `bbox` holds the whole body as far as it is in the picture, also
    what is hidden, so that a crop of it shows every annotated joint; `area` and `segmentation` are of the visible part.
    """
    body, shown = canvas.body(owner), canvas.shown(owner)
    if shown.sum() <= 0.1 * body.sum():
        return None
    points = np.round(person.joints[:, :2], 2)
    inside = np.all((points >= 0) & (points <= [canvas.width - 1, canvas.height - 1]), axis=1)
    points = np.where(inside[:, None], points, 0.0)
    column, row = np.rint(points).astype(int).T
    surface, surface_owner = canvas.surface(points)
    own = (surface_owner == owner) & shown[row, column]
    visible = inside & own & (surface <= person.joints[:, 2] + person.cover)
    flags = inside.astype(int) + visible

    rows, columns = np.nonzero(body)
    extent = np.concatenate([np.column_stack([columns, rows]), np.floor(points[inside]), np.ceil(points[inside])])
    low, high = extent.min(axis=0), extent.max(axis=0)
    outline = mask_utils.encode(np.asfortranarray(shown, np.uint8))
    return {
        "category_id": 1,
        "bbox": [*low.tolist(), *(high - low + 1).tolist()],
        "area": float(mask_utils.area(outline)),
        "iscrowd": 0,
        "keypoints": [value for (x, y), v in zip(points.tolist(), flags.tolist(), strict=True) for value in (x, y, v)],
        "num_keypoints": int(inside.sum()),
        "segmentation": {"size": outline["size"], "counts": outline["counts"].decode("ascii")},
    }


def _background(rng: Generator, width: int, height: int) -> Float[ndarray, "H W 3"]:
    """A wall and a floor with clouds over both."""
    # Made at half the size: it is out of focus anyway.
    rows, columns = height // 2, width // 2
    y, x = np.linspace(-1, 1, rows, dtype=np.float32)[:, None], np.linspace(-1, 1, columns, dtype=np.float32)
    horizon = rng.uniform(-0.4, 0.8) + rng.uniform(-0.2, 0.2) * x
    floor = np.clip((y - horizon) * rows / 2, 0, 1)[..., None]
    colour = (1 - floor) * _surface(rng, x, y) + floor * _surface(rng, x, y)
    for cell in (32, 10, 3):
        coarse = rng.normal(size=(rows // cell + 2, columns // cell + 2, 3)).astype(np.float32)
        coarse = 0.8 * coarse.mean(axis=2, keepdims=True) + 0.2 * coarse
        colour += rng.uniform(0, 0.06) * cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.clip(cv2.resize(colour, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)


def _surface(rng: Generator, x: Float[ndarray, "W"], y: Float[ndarray, "H 1"]) -> Float[ndarray, "H W 3"]:
    """A muted colour that fades into one like it, striped or not; x and y run from -1 to 1 across the picture."""
    angle = rng.uniform(0, 2 * math.pi)
    fade = 0.35 * (math.cos(angle) * x + math.sin(angle) * y)
    if rng.random() < 0.4:
        heading, number = rng.uniform(0, math.pi), rng.uniform(20, 120)
        wave = np.sin((math.cos(heading) * x + math.sin(heading) * y) * number)
        fade += rng.uniform(0.2, 0.6) * (np.sign(wave) if rng.random() < 0.5 else wave)
    change = rng.uniform(-0.12, 0.12, 3).astype(np.float32)
    return np.array(draw_colour(rng, *MUTED), np.float32) + fade[..., None] * change


def _draw_scenery(canvas: Canvas, rng: Generator) -> None:
    """Shapes on the wall and a few loose limb-like bars, all behind the people."""
    shapes, sticks = rng.integers(1, 6), rng.integers(0, 3)
    for level in range(shapes + sticks):
        start = np.append(rng.uniform(0, [canvas.width, canvas.height]), SCENERY + level)
        angle, length = rng.uniform(0, math.pi), rng.uniform(10, 70)
        end = start + length * np.array([math.cos(angle), math.sin(angle), 0])
        if level < shapes:
            widths, cap = (rng.uniform(5, 45), rng.uniform(5, 45)), float(rng.choice([0.5, 30.0]))
            canvas.draw(Bar(start, end, widths, (cap, cap), draw_colour(rng, *MUTED), thickness=0.0))
        else:
            radii = (rng.uniform(3, 9), rng.uniform(3, 9))
            canvas.draw(Bar(start, end, radii, radii, draw_colour(rng, (0.0, 1.0), (0.2, 0.8), (0.3, 0.9))))


def _place_people(rng: Generator, width: int, height: int, backdrop: Colour) -> list[Person]:
    """One to three people, the largest nearest, whose boxes have at most a sixth of their union in common."""
    people: list[Person] = []
    boxes: list[ndarray] = []  # (x0, y0, x1, y1)
    heights = np.exp(rng.uniform(math.log(70), math.log(230), size=rng.choice([1, 2, 3], p=[0.62, 0.28, 0.1])))
    for rank, scale in enumerate(np.sort(heights)[::-1].tolist()):
        person = sample_person(rng, backdrop)
        joints = person.joints[:, :2] * scale
        low, high = joints.min(axis=0), joints.max(axis=0)
        room = np.array([width, height]) - (high - low)
        # A quarter may reach over the border, by up to about a third.
        margin = -0.35 * (high - low) if rng.random() < 0.25 else np.minimum(0.07 * scale, room / 2)
        for _ in range(10):
            corner = rng.uniform(np.minimum(margin, room - margin), np.maximum(margin, room - margin))
            box = np.concatenate([corner, corner + high - low])
            if all(_overlap(box, other) < 1 / 6 for other in boxes):
                people.append(person.placed(scale, np.append(corner - low, -ROW * rank)))
                boxes.append(box)
                break
    return people


def _overlap(first: Float[ndarray, "4"], second: Float[ndarray, "4"]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    common = np.prod(np.maximum(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0))
    areas = np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])
    return float(common / (areas - common))


def _draw_obstacle(canvas: Canvas, rng: Generator, person: Person, backdrop: Colour) -> None:
    """A post, a plank or a box in front of some part of a person, small enough to leave most of a body in view."""
    low, high = person.joints[:, :2].min(axis=0), person.joints[:, :2].max(axis=0)
    size = float(max(high - low))
    half_width, half_length, angle = {
        "post": (rng.uniform(0.02, 0.05) * size, 2.0 * canvas.height, rng.normal(0, 4)),
        "plank": (rng.uniform(0.02, 0.06) * size, rng.uniform(0.3, 0.8) * size, rng.uniform(0, 180)),
        "box": (rng.uniform(0.07, 0.14) * size, rng.uniform(0.05, 0.12) * size, rng.uniform(0, 180)),
    }[rng.choice(["post", "plank", "box"])]
    centre = np.append(rng.uniform(low, high), OBJECT)
    along = half_length * np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle)), 0])
    cap = float(rng.choice([0.5, 0.5 * half_width]))
    colour = draw_colour(rng, (0.0, 1.0), (0.1, 0.8), (0.2, 0.9), backdrop)
    stripes = (rng.uniform(0, 0.3), int(rng.integers(3, 12)))
    canvas.draw(Bar(centre - along, centre + along, (half_width, half_width), (cap, cap), colour, 0.5, stripes))


def _photograph(colour: Float[ndarray, "H W 3"], rng: Generator) -> UInt8[ndarray, "H W 3"]:
    """What a camera makes of it: light that falls off across the picture, a tint, contrast, a little blur and noise."""
    height, width = colour.shape[:2]
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    fall = 1 + rng.uniform(-0.2, 0.2) * x + rng.uniform(-0.2, 0.2) * y - rng.uniform(0, 0.15) * (x * x + y * y)
    tint = (rng.uniform(0.92, 1.08, size=3) * rng.uniform(0.75, 1.15)).astype(np.float32)
    colour = cv2.pow(np.clip(colour * fall[..., None] * tint, 0, 1), rng.uniform(0.8, 1.25))
    if rng.random() < 0.3:
        colour = cv2.GaussianBlur(colour, (0, 0), rng.uniform(0.4, 1.0))
    colour = colour + rng.uniform(0.0, 0.03) * rng.standard_normal(colour.shape, dtype=np.float32)
    return np.rint(255 * np.clip(colour, 0, 1)).astype(np.uint8)
