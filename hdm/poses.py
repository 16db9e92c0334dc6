"""A picture in, people with joints out: `from hdm import predict`.

    from hdm import predict
    poses = predict("street.jpg", "data/runs/cpu/20261126T...-hdm-1a2b3c4d", boxes=[(40, 20, 120, 300)])
    poses                 # draws itself in a notebook
    poses.joints          # (N, K, 2), in pixels of the picture

A network reads one person at a time, so somebody has to say where persons are: `boxes`, from a detector or drawn by
hand. Without them the whole picture is taken for one person's box.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.colors import to_rgb
from numpy import ndarray
from torch import Tensor
from tqdm import tqdm

from hdm.assess import Trained, load_network
from hdm.data.crops import Crop
from hdm.data.frames import Boxes, frames_per_second, is_video, read_frames
from hdm.data.persons import Person, PersonData, check_box
from hdm.data.pictures import block_means, read_picture, reduced_affine, shown_region, warp_into
from hdm.data.skeletons import Skeleton
from hdm.errors import InputError
from hdm.figures import COLOURS
from hdm.files import write_whole
from hdm.inference import choose_device, predict_crops

LEAST_SCORE = 0.2  # of a joint that is drawn, as the official code counts joints


@dataclass(frozen=True)
class Poses:
    """The people in one picture: N of them, with K joints each.

    picture: red first. boxes: (x, y, width, height) in pixels, as COCO gives them. joints: in pixels of the picture,
    pixel centres at whole numbers. scores: of the joints, as the decoder gives them, the mass around a peak or its
    height. skeleton: names and limbs. heatmaps: as the decoder saw them, where they were asked for.
    """

    picture: UInt8[ndarray, "rows columns 3"]
    boxes: Float[ndarray, "N 4"]
    joints: Float[ndarray, "N K 2"]
    scores: Float[ndarray, "N K"]
    skeleton: Skeleton
    heatmaps: Float[Tensor, "N K H W"] | None = None

    def __len__(self) -> int:
        return len(self.joints)

    def draw(self, least_score: float = LEAST_SCORE) -> UInt8[ndarray, "rows columns 3"]:
        """The picture with limbs and joints drawn into it: orange is a person's left, dark blue its right.

        least_score: joints below, and limbs that end in one, are left out.
        """
        picture = np.ascontiguousarray(self.picture.copy())
        thickness = max(1, round(min(picture.shape[:2]) / 160))
        for joints, scores in zip(self.joints, self.scores, strict=True):
            # OpenCV counts in sixteenths of a pixel, so that lines do not jump between pixels.
            places = np.rint(np.clip(joints, -1e4, 1e4) * 16).astype(int)
            for first, second in self.skeleton.edges:
                if min(scores[first], scores[second]) >= least_score:
                    colour = self._colour(first, second)
                    cv2.line(picture, places[first], places[second], colour, thickness, cv2.LINE_AA, 4)
            for k in np.flatnonzero(scores >= least_score).tolist():
                cv2.circle(picture, places[k], 24 * thickness, (255, 255, 255), -1, cv2.LINE_AA, 4)
                cv2.circle(picture, places[k], 16 * thickness, self._colour(k, k), -1, cv2.LINE_AA, 4)
        return picture

    def _colour(self, first: int, second: int) -> tuple[int, ...]:
        sides = {self.skeleton.names[k].partition("_")[0] for k in (first, second)}
        (side,) = sides if len(sides) == 1 and sides <= {"left", "right"} else ("middle",)
        return tuple(round(255 * part) for part in to_rgb(COLOURS[side]))

    def coco_results(self, image_id: int | str) -> list[dict[str, Any]]:
        """The people as entries of a results file of the COCO keypoint task; a person's score is the mean of its
        joints' scores."""
        return [
            {
                "image_id": image_id,
                "category_id": self.skeleton.categories[0],
                "keypoints": np.column_stack([joints, scores]).round(3).ravel().tolist(),
                "score": round(float(scores.mean()), 5),
                "bbox": [round(float(side), 3) for side in box],
            }
            for box, joints, scores in zip(self.boxes, self.joints, self.scores, strict=True)
        ]

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return cv2.imencode(".png", cv2.cvtColor(self.draw(), cv2.COLOR_RGB2BGR))[1].tobytes()

    def __repr__(self) -> str:
        rows, columns = self.picture.shape[:2]
        return f"Poses({len(self)} x {self.skeleton.joints} joints in a picture of {columns} x {rows} pixels)"


def predict(
    picture: Path | str | UInt8[ndarray, "rows columns 3"],
    network: Trained | Path | str,
    *,
    boxes: Sequence[Sequence[float]] | Float[ndarray, "N 4"] | None = None,
    flip_test: bool = False,
    heatmaps: bool = False,
    batch_size: int = 32,
    device: str = "auto",
) -> Poses:
    """The joints of the people in a picture.

    picture: a file, or pixels, red first. network: a run record's folder, a weights file of this project, or what
        `hdm.assess.official_network` makes of an official checkpoint.
    boxes: (x, y, width, height) in pixels, one for each person; by default the whole picture.
    flip_test: average with the mirror image's maps, twice the work. heatmaps: keep the maps. batch_size: persons per
        pass. device: `auto`, `cpu` or `cuda`.
    Raises InputError for a picture that can't be read, boxes without an area, weights that are not here, a network of
    a skeleton without mirror images for a flip test, and heatmaps of a network that has none.
    """
    trained = network if isinstance(network, Trained) else load_network(network)
    pixels = picture if isinstance(picture, ndarray) else read_picture(Path(picture))[..., ::-1]
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise InputError(
            f"a picture of shape {pixels.shape} and type {pixels.dtype} is none: give (rows, columns, 3) of uint8"
        )
    skeleton = trained.skeleton
    if flip_test and trained.trained_on is None and not skeleton.flip_pairs:
        raise InputError("a flip test needs to know which joints change places in a mirror: switch flip_test off")
    places = _checked([(0, 0, pixels.shape[1], pixels.shape[0])] if boxes is None else boxes)
    if heatmaps and hasattr(trained.loss, "joints"):
        raise InputError("this network's loss reads joints without heatmaps: leave heatmaps out")
    if not len(places):
        none = np.zeros((0, skeleton.joints, 2))
        return Poses(pixels, places, none, none[..., 0], skeleton)

    where = choose_device(device)
    at_hand = _AtHand(np.ascontiguousarray(pixels[..., ::-1]), trained.input_size)
    maps: list[Tensor] = []

    def keep(raw: Tensor, read: Tensor, batch: Crop) -> None:
        maps.append(read.float().cpu())

    found = predict_crops(
        trained.model.to(where),
        trained.crops(_people(places, skeleton), at_hand),
        trained.loss.to(where),
        decoder=trained.decoder,
        flip_test=flip_test,
        batch_size=batch_size,
        watch=keep if heatmaps else None,
    )
    shown = torch.cat(maps) if heatmaps else None
    return Poses(pixels, places, found.image_joints, found.scores.double().numpy(), skeleton, shown)


def predict_all(
    source: Path | str,
    network: Trained,
    out: Path | str,
    *,
    boxes: Path | str | None = None,
    least_box_score: float = 0.0,
    least_score: float = LEAST_SCORE,
    heatmaps: bool = False,
    **options: Any,
) -> tuple[int, int]:
    """`predict` on a picture, all of a folder, or a video; returns how many pictures and people there were.

    Writes into the folder `out`: each picture with limbs drawn into it (a video as one .mp4), `results.json` in the
    format of the COCO keypoint task, whose image ids are the numbers that file names are, or else the names, or the
    frames' numbers; and, where heatmaps are asked for, `NAME.npz` with `heatmaps` (N, K, H, W), `boxes` and `joints`.
    boxes: a file, see `hdm.data.frames.Boxes`; a picture that it does not name has nobody in it.
    Raises InputError as `predict`, `read_frames` and `Boxes` do, and where nothing can be written.
    """
    source, out = Path(source), Path(out)
    known = None if boxes is None else Boxes(Path(boxes), least_box_score)
    results: list[dict[str, Any]] = []
    pictures = people = 0
    with _Drawn(source, out) as drawn:
        for frame in tqdm(read_frames(source), "pictures", unit="picture", disable=None):
            given = None if known is None else known.of(frame.name)
            poses = predict(frame.pixels, network, boxes=given, heatmaps=heatmaps, **options)
            name = Path(str(frame.name)).stem
            results += poses.coco_results(int(name) if name.isdecimal() else str(frame.name))
            drawn.add(name, poses.draw(least_score))
            if poses.heatmaps is not None:
                content = io.BytesIO()
                maps = poses.heatmaps.half().numpy()
                np.savez_compressed(content, heatmaps=maps, boxes=poses.boxes, joints=poses.joints)
                write_whole(out / f"{name}.npz", content.getvalue())
            pictures, people = pictures + 1, people + len(poses)
    write_whole(out / "results.json", json.dumps(results).encode())
    return pictures, people


class _Drawn:
    """Where drawn pictures go: a file for each, or one video."""

    def __init__(self, source: Path, out: Path) -> None:
        self.source, self.out = source, out
        self.video: cv2.VideoWriter | None = None

    def __enter__(self) -> "_Drawn":
        return self

    def __exit__(self, *_: object) -> None:
        if self.video is not None:
            self.video.release()

    def add(self, name: str, picture: UInt8[ndarray, "rows columns 3"]) -> None:
        pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if not is_video(self.source):
            write_whole(self.out / f"{name}.png", cv2.imencode(".png", pixels)[1].tobytes())
            return
        if self.video is None:
            self.out.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            path, rate = self.out / f"{self.source.stem}.mp4", frames_per_second(self.source)
            if path.resolve() == self.source.resolve():
                raise InputError(f"{path} would be written over: give another folder for the results")
            self.video = cv2.VideoWriter(str(path), code, rate, (pixels.shape[1], pixels.shape[0]))
        self.video.write(pixels)


@dataclass(frozen=True)
class _AtHand:
    """A picture in memory, in the place of a crop cache."""

    pixels: UInt8[ndarray, "rows columns 3"]  # blue first
    input_size: tuple[int, int]

    def draw(self, index: int, crop: UInt8[ndarray, "h w 3"], affine: Float[ndarray, "2 3"], reduction: int) -> bool:
        pixels = self.pixels if reduction == 1 else block_means(self.pixels, reduction)
        affine = reduced_affine(affine, reduction)
        region = shown_region(affine, self.input_size, pixels.shape[:2])
        warp_into(crop, region.cut(pixels), affine, region)
        return True


def _checked(boxes: Sequence[Sequence[float]] | Float[ndarray, "N 4"]) -> Float[ndarray, "N 4"]:
    try:
        places = np.asarray(boxes, np.float64).reshape(-1, 4) if len(boxes) else np.zeros((0, 4))
    except (TypeError, ValueError):
        raise InputError(f"boxes {boxes!r} are none: give x, y, width, height of each in pixels") from None
    for box in places:
        check_box(box, f"box {box.tolist()}")
    return places


def _people(boxes: Float[ndarray, "N 4"], skeleton: Skeleton) -> PersonData:
    """Persons of whom nothing is known but their boxes."""
    joints, visible = np.zeros((skeleton.joints, 2)), np.zeros(skeleton.joints, np.float32)
    persons = tuple(
        Person(number, 0, Path(), (float(x), float(y), float(width), float(height)), joints, visible)
        for number, (x, y, width, height) in enumerate(boxes)
    )
    return PersonData("picture:", "val", Path(), skeleton, persons, skipped={}, sha256="", boxes="given")
