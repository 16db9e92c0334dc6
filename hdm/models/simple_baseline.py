"""SimpleBaseline (Xiao, Wu, Wei, ECCV 2018): a backbone for classification, three transposed convolutions, heatmaps."""

import math
from collections.abc import Mapping

import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from hdm.models.network import MEAN, STD, PoseNetwork
from hdm.models.weights import load_imagenet
from hdm.pixels import STRIDE

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
# The last stage of a ResNet that a backbone of each stride keeps.
LAST_STAGES = {8: "layer2", 16: "layer3", 32: "layer4"}


class SimpleBaseline(PoseNetwork):
    """Backbone of stride 32, then three times (4 x 4 transposed convolution of stride 2, batch norm, ReLU), then 1 x 1.

    Input (B, 3, h, w) with sides divisible by the stride, output (B, K, h/4, w/4) (at another heatmap_stride than 4
    accordingly): one raw heatmap per joint.
    trunk: the backbone as modules that run one after another. Their names begin the names of its tensors: with the
        children of a torchvision ResNet, all tensors are called as in `pose_resnet` of the official repositories.
    channels, stride: how many features the trunk makes, and crop pixels per feature pixel: 32, 16 or 8.
    heatmap_stride: crop pixels per heatmap pixel, 4 as in the paper, or a power of two up to `stride`.
        Deviation from the paper: elsewhere there are more or fewer transposed convolutions, log2(stride /
        heatmap_stride) of them.
    Head initialised as in the official repository: weights N(0, 0.001), biases 0, batch norm at identity.
        Deviation: without ImageNet weights, the HRNet repository's `pose_resnet` draws every convolution of the
        backbone from N(0, 0.001) too; here the backbone starts as its own library starts it.
    colour, mean, std: see `PoseNetwork`.
    """

    def __init__(
        self,
        trunk: Mapping[str, nn.Module],
        channels: int,
        joints: int,
        *,
        stride: int = 32,
        heatmap_stride: int = STRIDE,
        head_channels: int = 256,
        colour: str = "rgb",
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
    ) -> None:
        super().__init__(colour=colour, mean=mean, std=std)
        self.trunk = tuple(trunk)
        for name, module in trunk.items():
            self.add_module(name, module)
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(stride / heatmap_stride))):
            layers += [
                nn.ConvTranspose2d(channels, head_channels, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(head_channels),
                nn.ReLU(inplace=True),
            ]
            channels = head_channels
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(channels, joints, 1)
        for module in (*self.deconv_layers, self.final_layer):
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
        nn.init.zeros_(self.final_layer.bias)  # type: ignore[arg-type]

    def features(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C H W"]:
        """The backbone's output, C channels at its stride."""
        for name in self.trunk:
            images = getattr(self, name)(images)
        return images

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B K H W"]:
        return self.final_layer(self.deconv_layers(self.features(images)))


def resnet_trunk(name: str, *, pretrained: bool, stride: int) -> tuple[dict[str, nn.Module], int]:
    """The children of a torchvision ResNet, in their order, up to its last stage of a stride, and how many features
    come out. torchvision's blocks have the names of the official ones, and their stride in the same convolution."""
    resnet = getattr(torchvision.models, name)(weights=None)
    if pretrained:
        load_imagenet(resnet, name)
    trunk = {}
    for child, module in resnet.named_children():
        trunk[child] = module
        if child == LAST_STAGES[stride]:
            break
    return trunk, resnet.fc.in_features * stride // 32  # each stage halves the pixels and doubles these
