"""A network by its name."""

from pathlib import Path

from hdm.errors import InputError
from hdm.models.hrnet import HRNet
from hdm.models.network import MEAN, STD, PoseNetwork
from hdm.models.official import load_imagenet_file
from hdm.models.simple_baseline import LAST_STAGES, RESNETS, SimpleBaseline, resnet_trunk
from hdm.models.weights import timm_backbone
from hdm.pixels import STRIDE

HEATMAP_STRIDES = (2, 4, 8)
# Width, and the official file of ImageNet weights.
HRNETS = {"hrnet_w32": (32, "hrnet_w32-36af842e.pth"), "hrnet_w48": (48, "hrnet_w48-8ef0771d.pth")}


def build_model(
    name: str = "resnet50",
    *,
    joints: int = 17,
    pretrained: bool = False,
    head_channels: int = 256,
    backbone_stride: int = 32,
    heatmap_stride: int = STRIDE,
    colour: str = "rgb",
    weights_directory: str | Path = "data/weights",
) -> PoseNetwork:
    """A SimpleBaseline network or an HRNet.

    name: `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152` (SimpleBaseline on torchvision's), `timm:<name>`
        (SimpleBaseline on any timm model that offers features at `backbone_stride`; extra `timm`), `hrnet_w32` or
        `hrnet_w48`.
    joints: K, the number of heatmaps.
    pretrained: ImageNet weights for the backbone. torchvision and timm download theirs; those of
        `timm:tf_efficientnet_lite0` are taken from the extra `weights` where it is installed, without a download;
        HRNet's are the official files in `weights_directory`, where `hdm fetch weights` puts them.
    head_channels: width of SimpleBaseline's transposed convolutions; 256 is the paper's.
    backbone_stride: 32, the paper's, or 16 or 8 for a SimpleBaseline backbone without its last stage or stages. A crop
        of 64 x 64 pixels has 2 x 2 features at stride 32, which hardly know where a joint is, and 4 x 4 at stride 16.
    heatmap_stride: crop pixels per heatmap pixel: 4, the paper's, or for a SimpleBaseline 2 or 8.
    colour: the channels that the network sees, `rgb` or `bgr`, see `PoseNetwork.prepare`. The official recipes have
        `bgr` for ResNets and `rgb` for HRNets.
    Raises InputError for an unknown name, stride or colour, and for weights that can't be had or don't fit.
    """
    if joints < 1 or head_channels < 1:
        raise InputError(f"a model needs at least one joint and one head channel, not {joints} and {head_channels}")
    if backbone_stride not in LAST_STAGES:
        raise InputError(f"backbone_stride is {backbone_stride!r}: choose 8, 16 or 32")
    if heatmap_stride not in HEATMAP_STRIDES:
        raise InputError(f"heatmap_stride is {heatmap_stride!r}: choose 2, 4 or 8")
    if name in HRNETS:
        if (head_channels, backbone_stride, heatmap_stride) != (256, 32, STRIDE):
            raise InputError(
                f"HRNet has no head_channels, backbone_stride or heatmap_stride: leave them out for {name}"
            )
        width, file = HRNETS[name]
        hrnet = HRNet(width, joints, colour=colour)
        if pretrained:
            path = Path(weights_directory) / file
            if not path.exists():
                raise InputError(
                    f"ImageNet weights {path} are not there: run `hdm fetch weights` or set pretrained to false"
                )
            load_imagenet_file(hrnet, path)
        return hrnet
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    if name in RESNETS:
        trunk, channels = resnet_trunk(name, pretrained=pretrained, stride=backbone_stride)
    elif name.startswith("timm:"):
        backbone, channels, mean, std = timm_backbone(
            name.removeprefix("timm:"), pretrained=pretrained, stride=backbone_stride
        )
        trunk = {"backbone": backbone}
    else:
        raise InputError(f"unknown model {name!r}: choose one of {', '.join((*RESNETS, *HRNETS))} or timm:<name>")
    return SimpleBaseline(
        trunk,
        channels,
        joints,
        stride=backbone_stride,
        heatmap_stride=heatmap_stride,
        head_channels=head_channels,
        colour=colour,
        mean=mean,
        std=std,
    )
