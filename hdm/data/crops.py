"""Person crops: what the network sees and where its joints are."""

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from hdm.data.augment import Augmentation, View, draw_half_body, draw_view
from hdm.data.persons import Person, PersonData
from hdm.errors import InputError
from hdm.pixels import STRIDE, apply_affine, box_affine, check_convention, crop_to_heatmap, inside


class Crop(NamedTuple):
    """One person, ready for the network; a batch of them has the leading axis B.

    image: uint8 RGB. joints: heatmap pixels. visible: 1 for a labelled joint on the heatmap, else 0.
    affine: image pixels -> crop pixels. index: the person's place in the data set.
    """

    image: UInt8[Tensor, "*B 3 h w"]
    joints: Float[Tensor, "*B K 2"]
    visible: Float[Tensor, "*B K"]
    affine: Float[Tensor, "*B 2 3"]
    index: Tensor | int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class PersonCrops(Dataset):
    """The crops of a part of a data set, augmented where `augmentation` is given.

    input_size: (rows, columns) of a crop, multiples of 4. convention: see `hdm.pixels`.
    margin: how far outside of the heatmap, in its pixels, a joint still counts as visible.
    The view of a person depends on (seed, epoch, index) alone: not on workers, batch size or what was drawn before.
    """

    def __init__(
        self,
        data: PersonData,
        input_size: tuple[int, int],
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        convention: str = "half_pixel",
        margin: float = 0.0,
    ) -> None:
        rows, columns = input_size
        if rows < 4 or columns < 4 or rows % STRIDE or columns % STRIDE:
            raise InputError(f"input size {rows} x {columns} must be positive multiples of {STRIDE} pixels")
        check_convention(convention)
        self.data, self.input_size, self.augmentation, self.seed = data, input_size, augmentation, seed
        self.convention, self.margin = convention, margin
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.data.persons)

    def __getitem__(self, index: int) -> Crop:
        person = self.data.persons[index]
        image = read_image(person)
        crop = self._crop(image, person, self._view(person, index))
        if self.augmentation and not crop.visible.any():  # a view that turned every joint out teaches nothing
            crop = self._crop(image, person, View())
        return crop._replace(index=index)

    def _view(self, person: Person, index: int) -> View:
        if self.augmentation is None:
            return View()
        rng = np.random.default_rng((self.seed, self.epoch, index))
        view = draw_view(self.augmentation, rng)
        half = draw_half_body(self.augmentation, rng, person.joints, person.visible, self.data.skeleton.upper_body)
        return replace(view, box=half)

    def _crop(self, image: UInt8[ndarray, "rows columns 3"], person: Person, view: View) -> Crop:
        order = self.data.skeleton.flip_order
        return crop_person(image, person, self.input_size, view, order, convention=self.convention, margin=self.margin)


def crop_person(
    image: UInt8[ndarray, "rows columns 3"],
    person: Person,
    input_size: tuple[int, int],
    view: View,
    flip_order: list[int],
    *,
    convention: str = "half_pixel",
    margin: float = 0.0,
) -> Crop:
    """The crop of one person under a view, with its joints in heatmap pixels; `index` is left at -1."""
    rows, columns = input_size
    affine = box_affine(
        view.box or person.box,
        input_size,
        convention=convention,
        scale=view.scale,
        rotation=view.rotation,
        mirror=view.mirror,
    )
    pixels = cv2.warpAffine(image, affine, (columns, rows), flags=cv2.INTER_LINEAR)
    joints, visible = apply_affine(affine, person.joints), person.visible
    if view.mirror:
        joints, visible = joints[flip_order], visible[flip_order]
    joints = crop_to_heatmap(joints, convention=convention, input_size=input_size)
    visible = visible * inside(joints, columns // STRIDE, rows // STRIDE, margin)
    return Crop(
        image=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        joints=torch.from_numpy(joints.astype(np.float32)),
        visible=torch.from_numpy(visible.astype(np.float32)),
        affine=torch.from_numpy(affine),
        index=-1,
    )


def read_image(person: Person) -> UInt8[ndarray, "rows columns 3"]:
    """The picture in RGB. Raises InputError where the file is missing, not an image, cut short or empty."""
    path = person.image_path
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"image {path} can't be read ({error.strerror}): fetch or generate the data again") from error
    # As the official code does: annotations are in the stored pixels, whatever turn the file's EXIF entry asks for.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    # OpenCV fills the missing part of a truncated JPEG with grey and says nothing, so look for the end marker.
    cut_short = raw[:2] == b"\xff\xd8" and b"\xff\xd9" not in raw[-1024:]
    image = None if cut_short or not raw else cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
    if image is None or image.size == 0:
        reason = "is cut short" if cut_short else "is not an image"
        raise InputError(f"image {path} {reason} ({len(raw)} bytes): fetch or generate it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
