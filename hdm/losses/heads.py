"""What losses with a head of their own share: a map of one fixed size goes in, through linear layers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hdm.errors import InputError
from hdm.losses.batch import full_precision


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """(H, W) as two whole numbers, from a list or tuple. Raises InputError for anything else."""
    whole = [side for side in size if isinstance(side, int) and side > 0]
    if len(whole) != 2 or len(size) != 2:
        raise InputError(f"size {size!r} must be (H, W), the rows and columns of the heatmaps")
    return whole[0], whole[1]


def flat_maps(heatmaps: Float[Tensor, "B K H W"], size: tuple[int, int]) -> Float[Tensor, "B K H*W"]:
    """The maps as vectors in full precision. Raises InputError where they are not of the size that the head takes."""
    if heatmaps.shape[-2:] != size:
        rows, columns = heatmaps.shape[-2:]
        raise InputError(
            f"heatmaps have {rows} rows and {columns} columns, but this loss was made for {size[0]} and {size[1]}: "
            f"give it size=({rows}, {columns})"
        )
    return full_precision(heatmaps).flatten(-2)


def linear(layer: nn.Linear, x: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch M"]:
    """What the layer makes of x, in the precision of x, under autocast too."""
    with torch.autocast(x.device.type, enabled=False):
        return functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
