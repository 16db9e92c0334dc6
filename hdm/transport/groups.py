"""Pixels, or groups of pixels, as the suppliers of the transport problem.

Far from the dot the costs to its four demanders differ by nearly the same all over a block of pixels, so that a block
may ship as one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

LARGE, SMALL = 8, 4  # pixels along the blocks of each size
DIVIDED = 8  # blocks of each size that are divided
UNGROUPED = 512  # pixels of a map up to which none are grouped


class Suppliers(NamedTuple):
    """Pixels, or groups of pixels, of P problems: mass, where they lie, and how far their pixels spread.

    x, y: centre of mass, in pixels from the first demander. spread: variance of the pixels' places along one axis,
    weighted with their mass, in squared pixels; 0 for a single pixel.
    """

    mass: Float[Tensor, "P N"]
    x: Float[Tensor, "P N"]
    y: Float[Tensor, "P N"]
    spread: Float[Tensor, "P N"]


def every_pixel(suppliers: Float[Tensor, "P H W"], corner: Float[Tensor, "P 2"]) -> Suppliers:
    """Each pixel as a supplier of its own."""
    x, y = _grid(suppliers.shape[1], suppliers.shape[2], 1, corner)
    mass = suppliers.flatten(1)
    return Suppliers(mass, x - corner[:, :1], y - corner[:, 1:], torch.zeros_like(mass))


def grouped(suppliers: Float[Tensor, "P H W"], corner: Float[Tensor, "P 2"]) -> Suppliers:
    """Blocks of 8 x 8 pixels, but the 8 for which that would be worst, which are blocks of 4 x 4, but the 8 of these
    for which that would be worst, which are pixels.

    By how much the differences of the costs vary over a block falls with its distance, and it counts with its mass: the
    blocks of largest mass / (distance^2 + (side - 1)^2) are divided. A small map is not grouped.
    """
    height, width = suppliers.shape[-2:]
    if height * width <= UNGROUPED:
        return every_pixel(suppliers, corner)
    if height % LARGE or width % LARGE:
        suppliers = pad(suppliers, (0, -width % LARGE, 0, -height % LARGE))
    x, y = _grid(suppliers.shape[1] // LARGE, suppliers.shape[2] // LARGE, LARGE, corner)
    large_x, large_y = x - corner[:, :1], y - corner[:, 1:]
    large, divided = _divided(_moments(suppliers, LARGE), large_x, large_y, LARGE)

    blocks = _stacked(suppliers, divided, LARGE)
    small_x, small_y = _within(divided, large_x, large_y, LARGE, SMALL)
    small, divided = _divided(_moments(blocks, SMALL), small_x, small_y, SMALL)

    pixels = _stacked(blocks, divided, SMALL).flatten(1)
    x, y = _within(divided, small_x, small_y, SMALL, 1)

    mass, first_x, first_y, second = torch.cat([large, small], 2).unbind(1)
    divisor = mass.clamp(min=torch.finfo(mass.dtype).tiny)
    mean_x, mean_y = first_x / divisor, first_y / divisor
    spread = (second / divisor - mean_x.square() - mean_y.square()).clamp(min=0) / 2
    return Suppliers(
        torch.cat([pixels, mass], 1),
        torch.cat([x, torch.cat([large_x, small_x], 1) + mean_x], 1),
        torch.cat([y, torch.cat([large_y, small_y], 1) + mean_y], 1),
        torch.cat([torch.zeros_like(pixels), spread], 1),
    )


def _moments(suppliers: Float[Tensor, "P H W"], side: int) -> Float[Tensor, "P 4 N"]:
    """Sums of s, s x, s y and s (x^2 + y^2) over each block of side x side pixels, in pixels from the block's first.

    As one matrix product over bands of `side` rows, which is faster than a convolution.
    """
    height, width = suppliers.shape[1:]
    rows, columns = height // side, width // side
    inside = _count(side, suppliers)
    x, y = inside.repeat(columns), inside.unsqueeze(1)
    kernels = torch.stack([torch.ones_like(x + y), x.expand(side, -1), y.expand(-1, width), x.square() + y.square()], 2)
    block = _count(columns, suppliers)
    own = (block.repeat_interleave(side).unsqueeze(1) == block).to(suppliers.dtype)  # (W, w)
    weights = kernels.view(-1, 4, 1) * own.repeat(side, 1).unsqueeze(1)
    moments = suppliers.reshape(-1, side * width) @ weights.flatten(1)
    return moments.view(-1, rows, 4, columns).transpose(1, 2).flatten(2)


def _divided(
    moments: Float[Tensor, "P 4 N"], x: Float[Tensor, "P N"], y: Float[Tensor, "P N"], side: int
) -> tuple[Float[Tensor, "P 4 N"], Int[Tensor, "P n"]]:
    """The moments of the blocks that stay, those of the others being 0, and which are the others.

    x, y: first pixels of the blocks of side x side pixels, from the first demander.
    """
    middle = side / 2 - 1  # of a block, from the middle between the demanders
    distance = (x + middle).square() + (y + middle).square()
    worst = (moments[:, 0] / (distance + (side - 1) ** 2)).topk(DIVIDED, 1, sorted=False).indices
    return moments * torch.ones_like(distance).scatter(1, worst, 0.0).unsqueeze(1), worst


def _stacked(suppliers: Float[Tensor, "P H W"], blocks: Int[Tensor, "P n"], side: int) -> Float[Tensor, "P h side"]:
    """These blocks of side x side pixels, one below the other."""
    height, columns = suppliers.shape[1], suppliers.shape[2] // side
    first = (blocks // columns * (side * columns) + blocks % columns).unsqueeze(2)  # of the pieces of rows
    piece = first + torch.arange(side, device=blocks.device) * columns
    start = torch.arange(len(blocks), device=blocks.device).view(-1, 1, 1) * (height * columns)
    return suppliers.reshape(-1, side).index_select(0, (start + piece).flatten()).view(len(blocks), -1, side)


def _within(
    blocks: Int[Tensor, "P n"], x: Float[Tensor, "P N"], y: Float[Tensor, "P N"], side: int, step: int
) -> tuple[Float[Tensor, "P m"], Float[Tensor, "P m"]]:
    """First pixels of the parts, step x step pixels each, of these blocks of side x side pixels; ordered as `_stacked`.

    x, y: first pixels of all blocks.
    """
    aside, below = _grid(side // step, side // step, step, x)
    within_x, within_y = x.gather(1, blocks).unsqueeze(2) + aside, y.gather(1, blocks).unsqueeze(2) + below
    return within_x.flatten(1), within_y.flatten(1)


def _grid(rows: int, columns: int, step: int, like: Tensor) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """x and y of points `step` apart, row by row."""
    return (_count(columns, like) * step).repeat(rows), (_count(rows, like) * step).repeat_interleave(columns)


def _count(length: int, like: Tensor) -> Float[Tensor, "N"]:
    return torch.arange(length, dtype=like.dtype, device=like.device)
