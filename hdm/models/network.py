"""What every pose network here has in common: how it wants its pixels, and how its head's tensors are called."""

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from hdm.errors import InputError

# ImageNet's red, green and blue, 0 to 255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
COLOURS = ("rgb", "bgr")
# What the tensors of a head are called in the official repositories; all others belong to the backbone.
HEAD = ("deconv_layers.", "final_layer.")


class PoseNetwork(nn.Module):
    """A network from prepared crops (B, 3, h, w) to raw heatmaps (B, K, h/4, w/4).

    colour: the order of the channels that it sees, `rgb` or `bgr`.
    mean, std: pixel statistics (0 to 255) of its first, second and third channel; no part of its weights.
    Raises InputError for another colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, colour: str = "rgb", mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> None:
        super().__init__()
        if colour not in COLOURS:
            raise InputError(f"colour is {colour!r}: choose one of {', '.join(COLOURS)}")
        self.colour = colour
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def prepare(self, images: Real[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """RGB to the normalised input of the network, the same in training and in use: (image - mean) / std.

        images: values from 0 to 255, as bytes or of any other type.
        With `bgr` the channels are turned round first, and mean and std are not: blue pixels meet the mean of red. That
        is how the official ResNet recipes work (`COLOR_RGB: false`), and what their checkpoints were trained with.
        """
        if self.colour == "bgr":
            images = images.flip(1)
        return (images.to(self.mean.dtype) - self.mean) / self.std
