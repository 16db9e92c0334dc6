"""Pictures to look at, one after another: of a file, a folder or a video, and the boxes that go with them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from hdm.data.persons import check_box, check_fields, numbers, read_json
from hdm.data.pictures import read_picture
from hdm.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEOS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm")

Box = tuple[float, float, float, float]


class Frame(NamedTuple):
    """A picture, red first, and what it is called: its file's name, or its number in a video, from 0."""

    name: str | int
    pixels: UInt8[ndarray, "rows columns 3"]


def is_video(source: Path) -> bool:
    """By its ending."""
    return source.suffix.lower() in VIDEOS


def read_frames(source: Path) -> Iterator[Frame]:
    """The picture of a file, those of a folder in the order of their names, or the frames of a video.

    Raises InputError for what is not there or can't be read, and for a folder or a video without pictures.
    """
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in PICTURES)
        if not files:
            raise InputError(f"folder {source} holds no picture: give one with files in {', '.join(PICTURES)}")
        for path in files:
            yield Frame(path.name, read_picture(path)[..., ::-1])
    elif is_video(source):
        yield from _frames_of_video(source)
    else:
        yield Frame(source.name, read_picture(source)[..., ::-1])


def frames_per_second(video: Path) -> float:
    """As the file says; 25 where it does not."""
    return cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS) or 25.0


def _frames_of_video(path: Path) -> Iterator[Frame]:
    if not path.exists():
        raise InputError(f"video {path} is not there")
    capture, number = cv2.VideoCapture(str(path)), 0
    while True:
        there, pixels = capture.read()
        if not there:
            break
        yield Frame(number, pixels[..., ::-1])
        number += 1
    if number == 0:
        raise InputError(f"video {path} has no frame that can be read: is it a video, and whole?")


class Boxes:
    """Persons' boxes by picture, from detection results in COCO's format: a list of {"image_id", "bbox", ...}.

    An image id is a picture's file name, the same without its ending, the number in that (000000000139.jpg has 139), or
    a frame's number. Raises InputError for a file that is no such list, and boxes without an area.
    """

    def __init__(self, path: Path, least_score: float = 0.0) -> None:
        content, _ = read_json(path, "box file")
        if not isinstance(content, list) or not content:
            raise InputError(f"box file {path} is no list of boxes: give detection results in COCO's format")
        self.boxes: dict[str, list[Box]] = {}
        for number, entry in enumerate(content):
            where = f"box {number} in {path}"
            check_fields(entry, ("image_id", "bbox"), where, "detection results in COCO's format")
            box = numbers(entry, "bbox", where)
            check_box(box, f"{where} is {entry['bbox']}, which")
            if float(entry.get("score", 1.0)) >= least_score:
                x, y, width, height = box.tolist()
                self.boxes.setdefault(str(entry["image_id"]), []).append((x, y, width, height))

    def of(self, name: str | int) -> list[Box]:
        """The boxes of a picture; none where the file has none for it."""
        stem = Path(str(name)).stem
        names = [str(name), stem]
        if re.fullmatch(r"\d+", stem):
            names.append(str(int(stem)))
        return next((self.boxes[each] for each in names if each in self.boxes), [])
