"""Pictures of a file, a folder and a video, and the boxes that go with them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from hdm.data.frames import Boxes, frames_per_second, read_frames
from hdm.errors import InputError


def test_a_picture_and_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    red = np.zeros((6, 9, 3), np.uint8)
    red[..., 2] = 200  # as OpenCV has it
    for name in ("b.png", "a.JPG", "c.png"):
        cv2.imwrite(str(tmp_path / name), red)
    frames = list(read_frames(tmp_path))
    assert [frame.name for frame in frames] == ["a.JPG", "b.png", "c.png"]
    (frame,) = read_frames(tmp_path / "b.png")
    assert frame.name == "b.png" and frame.pixels.shape == (6, 9, 3) and frame.pixels[0, 0].tolist() == [200, 0, 0]


def test_frames_of_a_video_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (32, 24))
    for level in (10, 90, 170, 250):
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()
    frames = list(read_frames(path))
    assert [frame.name for frame in frames] == [0, 1, 2, 3]
    assert [frame.pixels.mean() for frame in frames] == pytest.approx([10, 90, 170, 250], abs=4)
    assert frames_per_second(path) == 30


def test_what_is_no_picture_and_no_video(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("text")
    with pytest.raises(InputError, match="film.mp4 has no frame that can be read"):
        list(read_frames(tmp_path / "film.mp4"))
    with pytest.raises(InputError, match="video .*none.mp4 is not there"):
        list(read_frames(tmp_path / "none.mp4"))
    with pytest.raises(InputError, match="holds no picture"):
        list(read_frames(tmp_path))
    with pytest.raises(InputError, match="none.jpg can't be read"):
        list(read_frames(tmp_path / "none.jpg"))


def test_boxes_by_name_number_and_frame(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    ids = [139, "street.jpg", "yard", "000007", 3]
    path.write_text(json.dumps([{"image_id": name, "bbox": [1, 2, 3, 4 + k]} for k, name in enumerate(ids)]))
    boxes = Boxes(path)
    assert boxes.of("000000000139.jpg") == [(1, 2, 3, 4)]
    assert boxes.of("street.jpg") == [(1, 2, 3, 5)] and boxes.of("street.png") == []
    assert boxes.of("yard.png") == [(1, 2, 3, 6)] and boxes.of("000007.png") == [(1, 2, 3, 7)]
    assert boxes.of(3) == [(1, 2, 3, 8)] and boxes.of(4) == []


def test_weak_boxes_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"image_id": 1, "bbox": [1, 2, 3, 4], "score": score} for score in (0.2, 0.5, 0.9)]))
    assert len(Boxes(path, least_score=0.5).of("1.jpg")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "is no list of boxes"),
        ([], "is no list of boxes"),
        ([{"image_id": 1}], "box 0 in .*bbox"),
        ([{"image_id": 1, "bbox": [1, 2, 3]}], "has no area"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 0]}], "has no area"),
    ],
)
def test_files_that_hold_no_boxes(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        Boxes(path)
