"""Person crops: what the network sees and where its joints are."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from hdm.data.augment import Augmentation, View, draw_half_body, draw_view
from hdm.data.persons import Person, PersonData
from hdm.data.pictures import read_picture, reduced_affine, reduction_for, shown_region, warp_into
from hdm.errors import InputError
from hdm.pixels import STRIDE, apply_affine, box_affine, check_convention, crop_to_heatmap, inside


class Crop(NamedTuple):
    """One person, ready for the network; a batch of them has the leading axis B.

    image: uint8 RGB; its bytes lie in the order (h, w, 3), which is torch's `channels_last`.
    joints: heatmap pixels. visible: 1 for a labelled joint on the heatmap, else 0.
    affine: image pixels -> crop pixels. index: the person's place in the data set.
    """

    image: UInt8[Tensor, "*B 3 h w"]
    joints: Float[Tensor, "*B K 2"]
    visible: Float[Tensor, "*B K"]
    affine: Float[Tensor, "*B 2 3"]
    index: Tensor | int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class Unreadable(NamedTuple):
    """A picture that can't be read: its file's name, without the folder, and a sentence on it."""

    file: str
    reason: str


class Shown(NamedTuple):
    """How a crop shows its person: the affine (image pixels -> crop pixels), joints in heatmap pixels, visible ones."""

    affine: Float[ndarray, "2 3"]
    joints: Float[ndarray, "K 2"]
    visible: Float[ndarray, "K"]


@runtime_checkable
class Cache(Protocol):
    """Parts of pictures at hand without their files: `hdm.data.cache.CropCache`."""

    def draw(self, index: int, crop: UInt8[ndarray, "h w 3"], affine: Float[ndarray, "2 3"], reduction: int) -> bool:
        """Fills a person's crop; False where it does not hold all that the crop shows."""


class PersonCrops(Dataset):
    """The crops of a part of a data set, augmented where `augmentation` is given.

    input_size: (rows, columns) of a crop, multiples of `heatmap_stride`, the crop pixels per heatmap pixel.
    convention: see `hdm.pixels`.
    margin: how far outside of the heatmap, in its pixels, a joint still counts as visible.
    reduced: decode large persons' pictures at a reduced size (`hdm.data.pictures.reduction_for`), which is faster and
        smooths what the official code would sample with gaps; False does as the official code.
    cache: parts of pictures to use before the image files.
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
        heatmap_stride: int = STRIDE,
        margin: float = 0.0,
        reduced: bool = False,
        cache: Cache | None = None,
    ) -> None:
        rows, columns = input_size
        if min(rows, columns) < 1 or rows % heatmap_stride or columns % heatmap_stride:
            raise InputError(f"input size {rows} x {columns} must be positive multiples of {heatmap_stride} pixels")
        check_convention(convention)
        self.data, self.input_size, self.augmentation, self.seed = data, input_size, augmentation, seed
        self.convention, self.heatmap_stride = convention, heatmap_stride
        self.margin, self.reduced, self.cache = margin, reduced, cache
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.data.persons)

    def __getitem__(self, index: int) -> Crop:
        crops, _ = self.read([index], self.epoch)
        return Crop(crops.image[0], crops.joints[0], crops.visible[0], crops.affine[0], index)

    def read(
        self, indices: Sequence[int], epoch: int = 0, *, skip_unreadable: bool = False
    ) -> tuple[Crop, list[Unreadable]]:
        """A batch of the persons `indices` as they are shown in an epoch; each picture is decoded once,
        or once for each reduction that its crops ask for.

        skip_unreadable: leave out the persons of pictures that can't be read, and give the reasons, one for each of
        these persons, instead of raising InputError.
        """
        shown = [self.show(index, epoch) for index in indices]
        pixels = np.empty((len(indices), *self.input_size, 3), np.uint8)
        reasons = self._draw(pixels, indices, shown, skip_unreadable)
        good = [row for row in range(len(indices)) if row not in reasons]
        kept = [shown[row] for row in good]
        joints = self.data.skeleton.joints
        crops = Crop(
            image=torch.from_numpy(pixels[good] if reasons else pixels).permute(0, 3, 1, 2),
            joints=_stack([view.joints for view in kept], (joints, 2), np.float32),
            visible=_stack([view.visible for view in kept], (joints,), np.float32),
            affine=_stack([view.affine for view in kept], (2, 3), np.float64),
            index=torch.tensor([int(indices[row]) for row in good], dtype=torch.int64),
        )
        return crops, [reasons[row] for row in sorted(reasons)]

    def show(self, index: int, epoch: int = 0) -> Shown:
        """How a person is shown in an epoch; a view that would turn every joint out, which teaches nothing, gives way
        to the plain one."""
        person, views = self.data.persons[index], [View()]
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, epoch, index))
            view = draw_view(self.augmentation, rng)
            half = draw_half_body(self.augmentation, rng, person.joints, person.visible, self.data.skeleton.upper_body)
            views = [replace(view, box=half), View()]
        for view in views:
            shown = show_person(
                person,
                self.input_size,
                view,
                self.data.skeleton.flip_order,
                convention=self.convention,
                heatmap_stride=self.heatmap_stride,
                margin=self.margin,
            )
            if shown.visible.any():
                break
        return shown

    def _draw(
        self, pixels: UInt8[ndarray, "B h w 3"], indices: Sequence[int], shown: list[Shown], skip_unreadable: bool
    ) -> dict[int, Unreadable]:
        """Fills the rows of `pixels`, from the cache or from files; returns why which rows could not be filled."""
        files: dict[tuple[Path, int], list[int]] = defaultdict(list)
        for row, (index, view) in enumerate(zip(indices, shown, strict=True)):
            reduction = reduction_for(view.affine) if self.reduced else 1
            if self.cache is None or not self.cache.draw(index, pixels[row], view.affine, reduction):
                files[self.data.persons[index].image_path, reduction].append(row)
        reasons: dict[int, Unreadable] = {}
        for (path, reduction), rows in files.items():
            try:
                picture = read_picture(path, reduction)
            except InputError as error:
                if not skip_unreadable:
                    raise
                reasons |= dict.fromkeys(rows, Unreadable(path.name, str(error)))
                continue
            for row in rows:
                affine = reduced_affine(shown[row].affine, reduction)
                region = shown_region(affine, self.input_size, picture.shape[:2])
                warp_into(pixels[row], region.cut(picture), affine, region)
        return reasons


def show_person(
    person: Person,
    input_size: tuple[int, int],
    view: View,
    flip_order: list[int],
    *,
    convention: str = "half_pixel",
    heatmap_stride: int = STRIDE,
    margin: float = 0.0,
) -> Shown:
    """Where a view puts the crop of a person, and the person's joints in the heatmap."""
    rows, columns = input_size
    affine = box_affine(
        view.box or person.box,
        input_size,
        convention=convention,
        scale=view.scale,
        rotation=view.rotation,
        mirror=view.mirror,
    )
    joints, visible = apply_affine(affine, person.joints), person.visible
    if view.mirror:
        joints, visible = joints[flip_order], visible[flip_order]
    joints = crop_to_heatmap(joints, heatmap_stride, convention=convention, input_size=input_size)
    return Shown(affine, joints, visible * inside(joints, columns // heatmap_stride, rows // heatmap_stride, margin))


def read_image(person: Person) -> UInt8[ndarray, "rows columns 3"]:
    """A person's picture in RGB. Raises InputError as `hdm.data.pictures.read_picture` does."""
    return np.ascontiguousarray(read_picture(person.image_path)[..., ::-1])


def _stack(arrays: list[ndarray], shape: tuple[int, ...], dtype: type) -> Tensor:
    """Arrays as one tensor; of the right shape where there is none of them."""
    return torch.from_numpy(np.array(arrays, dtype).reshape(-1, *shape))
