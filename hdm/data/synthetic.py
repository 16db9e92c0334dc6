"""The generated data set: pictures of jointed figures, in the official directory layout of COCO.

    root/train2017/000000000001.jpg ...          root/annotations/person_keypoints_train2017.json
    root/val2017/000000000009.jpg ...            root/annotations/person_keypoints_val2017.json

Every number in the annotations is known from the drawing: joints to a hundredth of a pixel, the visible part of each
person to the pixel. Joints carry COCO's flags: 2, visible; 1, in the picture but hidden by the own body, by another
person or by an object; 0, outside of the picture, and then x = y = 0.
"""

import colorsys
import json
import math
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from numbers import Integral
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from numpy.random import Generator, SeedSequence, default_rng
from pycocotools import mask as mask_utils
from tqdm import tqdm

from hdm.data.canvas import NOBODY, Bar, Canvas, contrasting
from hdm.data.people import Colour, Person, sample_person
from hdm.data.skeletons import COCO
from hdm.errors import InputError

VERSION = 1  # of the drawing: to be raised whenever one seed no longer gives the same bytes
VAL_SHARE = 0.2
SPLITS = ("train2017", "val2017")
JPEG_QUALITY = 92
# Depths in pixels: people stand in rows one behind the other, the scenery behind and objects before them all.
ROW, SCENERY, OBJECT = 1_000.0, -50_000.0, 50_000.0


# --- one picture -----------------------------------------------------------------------------------------------------


def render(seed: int, index: int) -> tuple[UInt8[ndarray, "H W 3"], list[dict]]:
    """Picture number `index` of a seed, as red, green and blue, and its people as COCO annotations without ids.

    The random numbers come from SeedSequence((seed, index)), so that a picture depends on nothing but these two.
    """
    rng = default_rng(SeedSequence((seed, index)))
    width, height = int(rng.integers(288, 353)), int(rng.integers(224, 289))
    background = _background(rng, width, height)
    backdrop: Colour = tuple(float(value) for value in background.mean(axis=(0, 1)))
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.9, -0.1), rng.uniform(0.6, 1.0)])
    canvas = Canvas(background, tuple(light / np.linalg.norm(light)), ambient=rng.uniform(0.4, 0.65))

    _draw_scenery(canvas, rng)
    people = _place_people(rng, width, height, backdrop)
    for owner, person in enumerate(people, start=NOBODY + 1):
        for bar in person.bars:
            canvas.draw(bar, owner)
    if rng.random() < 0.25:
        _draw_obstacle(canvas, rng, people[rng.integers(len(people))], backdrop)

    annotations = [annotate(canvas, person, owner) for owner, person in enumerate(people, start=NOBODY + 1)]
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
    inside = ((points >= 0) & (points <= [canvas.width - 1, canvas.height - 1])).all(axis=1)
    surface, surface_owner = canvas.surface(points)
    column, row = np.where(inside[:, None], np.rint(points), 0).astype(int).T
    visible = inside & shown[row, column] & (surface_owner == owner) & (surface <= person.joints[:, 2] + person.cover)
    flags = inside.astype(int) + visible
    points = np.where(inside[:, None], points, 0.0)

    rows, columns = np.nonzero(body)
    corners = np.concatenate([np.stack([columns, rows], axis=1), np.floor(points[inside]), np.ceil(points[inside])])
    low, high = corners.min(axis=0), corners.max(axis=0)
    outline = mask_utils.encode(np.asfortranarray(shown, np.uint8))
    return {
        "category_id": 1,
        "bbox": [float(value) for value in (*low, *(high - low + 1))],
        "area": float(mask_utils.area(outline)),
        "iscrowd": 0,
        "keypoints": [value for (x, y), v in zip(points.tolist(), flags.tolist(), strict=True) for value in (x, y, v)],
        "num_keypoints": int(inside.sum()),
        "segmentation": {"size": outline["size"], "counts": outline["counts"].decode("ascii")},
    }


def _muted(rng: Generator) -> Colour:
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.25), rng.uniform(0.2, 0.85))


def _background(rng: Generator, width: int, height: int) -> Float[ndarray, "H W 3"]:
    """A wall and a floor, each fading from one muted colour to another, with stripes on some and clouds over all."""
    # Made at half the size: it is out of focus anyway.
    rows, columns = height // 2, width // 2
    y, x = np.linspace(-1, 1, rows, dtype=np.float32)[:, None], np.linspace(-1, 1, columns, dtype=np.float32)
    colour = np.zeros((rows, columns, 3), np.float32)
    wall = y < rng.uniform(-0.4, 0.8) + rng.uniform(-0.2, 0.2) * x
    for region in (wall, ~wall):
        angle = rng.uniform(0, 2 * math.pi)
        fade = 0.5 + 0.35 * (math.cos(angle) * x + math.sin(angle) * y)
        if rng.random() < 0.4:
            heading, number = rng.uniform(0, math.pi), rng.uniform(20, 120)
            wave = np.sin((math.cos(heading) * x + math.sin(heading) * y) * number)
            fade += rng.uniform(0.1, 0.4) * (np.sign(wave) if rng.random() < 0.5 else wave)
        first = np.array(_muted(rng), np.float32)
        change = rng.uniform(-0.1, 0.1, 3).astype(np.float32)
        colour[region] = first + fade[region][:, None] * change
    for cell in (32, 10, 3):
        coarse = rng.normal(size=(rows // cell + 2, columns // cell + 2, 3)).astype(np.float32)
        coarse = 0.8 * coarse.mean(axis=2, keepdims=True) + 0.2 * coarse
        colour += rng.uniform(0, 0.06) * cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.clip(cv2.resize(colour, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)


def _draw_scenery(canvas: Canvas, rng: Generator) -> None:
    """Flat shapes on the wall and a few loose limb-like bars, all behind the people."""
    size = np.array([canvas.width, canvas.height])
    shapes, sticks = rng.integers(2, 8), rng.integers(0, 3)
    for level in range(shapes + sticks):
        loose = level >= shapes
        start = np.append(rng.uniform(0, size), SCENERY + level)
        angle, length = rng.uniform(0, np.pi), rng.uniform(10, 70)
        end = start + length * np.array([np.cos(angle), np.sin(angle), 0])
        if loose:
            colour = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9))
            radii = tuple(rng.uniform(3, 9, size=2))
            canvas.draw(Bar(start, end, radii, radii, colour))
        else:
            radii, caps = tuple(rng.uniform(5, 45, size=2)), (rng.choice([0.5, 30.0]),) * 2
            canvas.draw(Bar(start, end, radii, caps, _muted(rng), thickness=0.0))


def _place_people(rng: Generator, width: int, height: int, backdrop: Colour) -> list[Person]:
    """One to three people, the largest nearest, at most a quarter of two boxes' union in common."""
    people: list[Person] = []
    boxes: list[Float[ndarray, "4"]] = []
    sizes = np.sort(np.exp(rng.uniform(np.log(70), np.log(230), size=rng.choice([1, 2, 3], p=[0.6, 0.28, 0.12]))))
    for rank, size in enumerate(sizes[::-1]):
        person = sample_person(rng, backdrop)
        joints = person.joints[:, :2] * size
        low, high = joints.min(axis=0), joints.max(axis=0)
        margin = 0.07 * size
        cut = rng.random() < 0.25  # this one may reach over the border
        for _ in range(10):
            room = np.array([width, height]) - (high - low)
            slack = -0.35 * (high - low) if cut else np.minimum(margin, room / 2)
            offset = rng.uniform(np.minimum(slack, room - slack), np.maximum(slack, room - slack)) - low
            box = np.concatenate([low + offset, high + offset])
            if all(_overlap(box, other) < 0.25 for other in boxes):
                people.append(person.placed(size, np.append(offset, -ROW * rank)))
                boxes.append(box)
                break
    return people


def _overlap(first: Float[ndarray, "4"], second: Float[ndarray, "4"]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    common = np.prod(np.maximum(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0))
    areas = np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])
    return float(common / (areas - common))


def _draw_obstacle(canvas: Canvas, rng: Generator, person: Person, backdrop: Colour) -> None:
    """A post, a plank or a box in front of some part of a person; small enough to leave most of a body in view."""
    low, high = person.joints[:, :2].min(axis=0), person.joints[:, :2].max(axis=0)
    size = float(max(high - low))
    centre = np.append(rng.uniform(low, high), OBJECT)
    half_width, half_length, angle = {
        "post": (rng.uniform(0.02, 0.05) * size, 2.0 * canvas.height, rng.normal(0, 4)),
        "plank": (rng.uniform(0.02, 0.06) * size, rng.uniform(0.3, 0.8) * size, rng.uniform(0, 180)),
        "box": (rng.uniform(0.07, 0.14) * size, rng.uniform(0.05, 0.12) * size, rng.uniform(0, 180)),
    }[rng.choice(["post", "plank", "box"])]
    along = half_length * np.array([np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle)), 0])
    colour = contrasting(
        lambda: colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.2, 0.9)), backdrop
    )
    stripes = (rng.uniform(0, 0.3), int(rng.integers(3, 12)))
    caps = (float(rng.choice([0.5, 0.5 * half_width])),) * 2
    canvas.draw(Bar(centre - along, centre + along, (half_width, half_width), caps, colour, 0.5, stripes))


def _photograph(colour: Float[ndarray, "H W 3"], rng: Generator) -> UInt8[ndarray, "H W 3"]:
    """What a camera makes of it: light that falls off across the picture, a tint, contrast, a little blur and noise."""
    height, width = colour.shape[:2]
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    fall = 1 + rng.uniform(-0.2, 0.2) * x + rng.uniform(-0.2, 0.2) * y - rng.uniform(0, 0.15) * (x * x + y * y)
    tint = rng.uniform(0.92, 1.08, size=3) * rng.uniform(0.75, 1.15)
    colour = cv2.pow(np.clip(colour * fall[..., None] * tint.astype(np.float32), 0, 1), rng.uniform(0.8, 1.25))
    if rng.random() < 0.3:
        colour = cv2.GaussianBlur(colour, (0, 0), rng.uniform(0.4, 1.0))
    noise = rng.uniform(0.0, 0.03) * rng.standard_normal(colour.shape, dtype=np.float32)
    return np.rint(255 * np.clip(colour + noise, 0, 1)).astype(np.uint8)


# --- the whole data set ----------------------------------------------------------------------------------------------


def make_synthetic(
    root: Path | str, *, images: int, seed: int = 0, progress: bool = True, processes: int | None = None
) -> Path:
    """Render a data set of jointed figures into a directory in COCO's layout, and return the directory.

    A fifth of the pictures, at least one, is for validation. The files are the same byte for byte for one `images`,
    `seed` and `VERSION`, whatever the number of processes. They are made in a directory beside `root` and moved into
    place when complete; a finished data set of the same three is left as it is.

    images: how many pictures, 2 or more. seed: a whole number, 0 or more. progress: show a bar on stderr.
    processes: how many to render in; by default as many as there are processors, and one for less than 50 pictures. With
        more than one, a script must call this under `if __name__ == "__main__":`, as with all multiprocessing.
    Raises InputError where a number is out of range, where `root` holds anything else, and where it cannot be written.
    """
    images = _whole(images, "images", 2)
    seed = _whole(seed, "seed", 0)
    if processes is None:
        processes = 1 if images < 50 else os.cpu_count() or 1
    processes = min(_whole(processes, "processes", 1), images)
    root = Path(root)
    info = {"description": "jointed figures generated by hdm", "version": str(VERSION), "seed": seed, "images": images}
    if _is_finished(root, info):
        return root

    partial_root = root.with_name(f".{root.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        for split in SPLITS:
            (partial_root / split).mkdir(parents=True)
        (partial_root / "annotations").mkdir()
        rendered = _render_all(partial_root, images, seed, processes)
        _write_annotations(
            partial_root, info, tqdm(rendered, "rendering", images, unit=" images", disable=not progress)
        )
        if root.exists():
            root.rmdir()  # it is empty
        partial_root.rename(root)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"the generated data set cannot be written to {root}: {reason}; free space there or name another directory"
        ) from error
    except BrokenProcessPool as error:
        raise InputError(
            f"a rendering process died before the data set in {root} was complete: call make_synthetic under "
            'if __name__ == "__main__":, or with processes=1'
        ) from error
    finally:
        shutil.rmtree(partial_root, ignore_errors=True)
    return root


def _whole(value: int, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} is {value!r}: give a whole number, {least} or more")
    return int(value)


def _is_finished(root: Path, info: dict) -> bool:
    """True where `root` holds this very data set, False where it is missing or empty, InputError where it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / "annotations" / f"person_keypoints_{SPLITS[1]}.json").read_text())["info"]
        count = sum(1 for split in SPLITS for _ in (root / split).glob("*.jpg"))
    except (OSError, ValueError, KeyError, TypeError):
        found, count = None, 0
    if found != info:
        held = "other files" if found is None else f"another data set ({found})"
        raise InputError(f"{root} holds {held}: name an empty directory, or delete this one first")
    if count != info["images"]:
        raise InputError(
            f"{root} has {count} of its {info['images']} images: delete the directory and generate it anew"
        )
    return True


def _split(index: int, images: int) -> str:
    """The last fifth of the pictures is for validation."""
    return SPLITS[index >= images - max(1, round(VAL_SHARE * images))]


def _render_all(root: Path, images: int, seed: int, processes: int) -> Iterable[tuple[dict, list[dict]]]:
    """Write all pictures; yields the COCO image entry and the annotations of each in order."""
    work = partial(_render_one, root, images, seed)
    if processes == 1:
        yield from map(work, range(images))
        return
    # Spawned processes start from nothing and so work the same on every system, and under any threads of the caller's.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        yield from pool.map(work, range(images), chunksize=max(1, min(16, images // (4 * processes))))


def _render_one(root: Path, images: int, seed: int, index: int) -> tuple[dict, list[dict]]:
    picture, annotations = render(seed, index)
    name = f"{index + 1:012d}.jpg"
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    (root / _split(index, images) / name).write_bytes(jpeg.tobytes())
    height, width = picture.shape[:2]
    return {"id": index + 1, "file_name": name, "width": width, "height": height, "license": 1}, annotations


def _write_annotations(root: Path, info: dict, rendered: Iterable[tuple[dict, list[dict]]]) -> None:
    """One annotation file for each split; the ids of pictures and of people are unique across both."""
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(COCO.names),
        "skeleton": [[first + 1, second + 1] for first, second in COCO.edges],
    }
    license_ = {"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
    files: dict[str, dict] = {
        split: {"info": info, "licenses": [license_], "images": [], "annotations": [], "categories": [category]}
        for split in SPLITS
    }
    number = 0
    for image, annotations in rendered:
        file = files[_split(image["id"] - 1, info["images"])]
        file["images"].append(image)
        for annotation in annotations:
            number += 1
            file["annotations"].append({"id": number, "image_id": image["id"], **annotation})
    for split, file in files.items():
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(file))
