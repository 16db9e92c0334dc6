"""SimpleBaseline (Xiao, Wu, Wei, ECCV 2018): a backbone for classification, three transposed convolutions, heatmaps."""

import math

import torch
import torchvision
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from hdm.errors import InputError
from hdm.models.weights import load_imagenet, timm_backbone

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
# The last stage of a ResNet that a backbone of each stride keeps.
LAST_STAGES = {8: "layer2", 16: "layer3", 32: "layer4"}


class SimpleBaseline(nn.Module):
    """Backbone of stride 32, then three times (4 x 4 transposed convolution of stride 2, batch norm, ReLU), then 1 x 1.

    Input (B, 3, h, w) with sides divisible by the stride, output (B, K, h/4, w/4): one raw heatmap per joint.
    backbone, channels, stride: what makes the features, how many, and crop pixels per feature pixel: 32, 16 or 8.
        Deviation from the paper: below 32 there are two transposed convolutions or one.
    Head initialised as in the official repository: weights N(0, 0.001), biases 0, batch norm at identity.
    mean, std: pixel statistics (0 to 255) that the backbone was trained with; see `prepare`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        joints: int,
        *,
        stride: int = 32,
        head_channels: int = 256,
        mean: tuple[float, ...] = (123.675, 116.28, 103.53),
        std: tuple[float, ...] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(stride)) - 2):
            layers += [
                nn.ConvTranspose2d(channels, head_channels, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(head_channels),
                nn.ReLU(inplace=True),
            ]
            channels = head_channels
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(head_channels, joints, 1)
        for module in (*self.deconv_layers, self.final_layer):
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
        nn.init.zeros_(self.final_layer.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def prepare(self, images: UInt8[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """RGB bytes to the normalised input of the network, the same in training and in use: (image - mean) / std."""
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B K h/4 w/4"]:
        return self.final_layer(self.deconv_layers(self.backbone(images)))


def build_model(
    name: str = "resnet50",
    *,
    joints: int = 17,
    pretrained: bool = False,
    head_channels: int = 256,
    backbone_stride: int = 32,
) -> SimpleBaseline:
    """A SimpleBaseline network.

    name: `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152` (torchvision) or `timm:<name>` (any timm model
        that offers features at `backbone_stride`; extra `timm`).
    joints: K, the number of heatmaps.
    pretrained: ImageNet weights for the backbone. torchvision and timm download theirs; those of
        `timm:tf_efficientnet_lite0` are taken from the extra `weights` where it is installed, without a download.
    head_channels: width of the transposed convolutions; 256 is the paper's.
    backbone_stride: 32, the paper's, or 16 or 8 for a backbone without its last stage or stages. A crop of 64 x 64
        pixels has 2 x 2 features at stride 32, which hardly know where a joint is, and 4 x 4 at stride 16.
    Raises InputError for an unknown name or stride and for weights that can't be had or don't fit.
    """
    if joints < 1 or head_channels < 1:
        raise InputError(f"a model needs at least one joint and one head channel, not {joints} and {head_channels}")
    if backbone_stride not in LAST_STAGES:
        raise InputError(f"backbone_stride is {backbone_stride!r}: choose 8, 16 or 32")
    if name in RESNETS:
        resnet = getattr(torchvision.models, name)(weights=None)
        if pretrained:
            load_imagenet(resnet, name)
        # Named children keep torchvision's and the official names.
        trunk = nn.Sequential()
        for child, module in resnet.named_children():
            trunk.add_module(child, module)
            if child == LAST_STAGES[backbone_stride]:
                break
        channels = resnet.fc.in_features * backbone_stride // 32  # each stage halves the pixels and doubles these
        return SimpleBaseline(trunk, channels, joints, stride=backbone_stride, head_channels=head_channels)
    if name.startswith("timm:"):
        name = name.removeprefix("timm:")
        backbone, channels, mean, std = timm_backbone(name, pretrained=pretrained, stride=backbone_stride)
        return SimpleBaseline(
            backbone, channels, joints, stride=backbone_stride, head_channels=head_channels, mean=mean, std=std
        )
    raise InputError(f"unknown model {name!r}: choose one of {', '.join(RESNETS)} or timm:<name>")
