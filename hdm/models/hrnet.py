"""HRNet (Sun, Xiao, Liu, Wang, CVPR 2019): branches of several resolutions side by side, which keep exchanging."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from hdm.errors import InputError
from hdm.models.network import PoseNetwork

# Branches and modules of the stages 2, 3 and 4.
STAGES = ((2, 1), (3, 4), (4, 3))
STRIDE = 32  # crop pixels per pixel of the coarsest branch


class HRNet(PoseNetwork):
    """Stem of stride 4, four bottlenecks, three stages of two, three and four branches, 1 x 1 on the finest branch.

    Branch i has stride 4 * 2^i and width * 2^i channels. Input (B, 3, h, w) with sides divisible by 32, output
    (B, K, h/4, w/4): one raw heatmap per joint.
    width: channels of the finest branch, 32 or 48 in the paper.
    Every tensor has the name and the shape that it has in `PoseHighResolutionNet` of the official repository
    (deep-high-resolution-net.pytorch, lib/models/pose_hrnet.py); where that one has no layer, `Identity` stands here,
    so that the numbers in the names agree. As there, the last module of stage 4 makes the finest branch only.
    Initialised as there: convolutions N(0, 0.001), biases 0, batch norm at identity.
    colour, mean, std: see `PoseNetwork`. Raises InputError for an input with a side that 32 does not divide.
    """

    def __init__(self, width: int, joints: int, *, colour: str = "rgb") -> None:
        super().__init__(colour=colour)
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        widen = nn.Sequential(*convolution(64, 256, kernel=1, relu=False))
        self.layer1 = nn.Sequential(Bottleneck(64, 64, downsample=widen), *(Bottleneck(256, 64) for _ in range(3)))
        channels = [256]
        for number, (branches, modules) in enumerate(STAGES, start=2):
            wider = [width * 2**i for i in range(branches)]
            self.add_module(f"transition{number - 1}", transition(channels, wider))
            outputs = [branches] * modules
            if number == 4:
                outputs[-1] = 1
            self.add_module(f"stage{number}", nn.Sequential(*(Exchange(wider, count) for count in outputs)))
            channels = wider
        self.final_layer = nn.Conv2d(width, joints, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C h/4 w/4"]:
        """The finest branch after the last exchange, C = width."""
        if images.shape[2] % STRIDE or images.shape[3] % STRIDE:
            rows, columns = images.shape[2:]
            raise InputError(
                f"HRNet can't take an input of {rows} x {columns} pixels: choose sides divisible by {STRIDE}"
            )
        stem = self.relu(self.bn1(self.conv1(images)))
        stem = self.relu(self.bn2(self.conv2(stem)))
        branches = [self.layer1(stem)]
        for number in (2, 3, 4):
            # The new branch starts from the coarsest so far.
            layers = zip(getattr(self, f"transition{number - 1}"), [*branches, branches[-1]], strict=True)
            branches = getattr(self, f"stage{number}")([layer(branch) for layer, branch in layers])
        return branches[0]

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B K h/4 w/4"]:
        return self.final_layer(self.features(images))


class Exchange(nn.Module):
    """One module of a stage: four residual blocks on each branch, then every output gathers from all branches.

    Output i is ReLU(sum_j f_ij(branch j)), with f_ij as in `fuse_layer`, for the `outputs` finest branches.
    channels: of each branch, the finest first.
    """

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(4))) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(fuse_layer(channels, source, target) for source in range(len(channels)))
            for target in range(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        branches = [blocks(branch) for blocks, branch in zip(self.branches, branches, strict=True)]
        gathered = []
        for layers in self.fuse_layers:
            paths = zip(layers, branches, strict=True)  # type: ignore[call-overload]
            first, *others = (layer(branch) for layer, branch in paths)
            gathered.append(self.relu(sum(others, first)))
        return gathered


def fuse_layer(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """What takes branch `source` to the size and the channels of branch `target`.

    From coarse to fine a 1 x 1 convolution and the nearest pixel; from fine to coarse 3 x 3 convolutions of stride 2,
    of which the last one changes the channels and has no ReLU; from a branch to itself nothing.
    """
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            *convolution(channels[source], channels[target], kernel=1, relu=False),
            nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"),
        )
    steps = [
        nn.Sequential(*convolution(channels[source], channels[source], stride=2)) for _ in range(source + 1, target)
    ]
    last = nn.Sequential(*convolution(channels[source], channels[target], stride=2, relu=False))
    return nn.Sequential(*steps, last)


def transition(channels: Sequence[int], wider: Sequence[int]) -> nn.ModuleList:
    """From branches of `channels` to those of `wider`, which has one more: a 3 x 3 convolution where the number of
    channels changes, and one of stride 2 for the new branch, which starts from the last one."""
    layers: list[nn.Module] = [
        nn.Identity() if before == after else nn.Sequential(*convolution(before, after))
        for before, after in zip(channels, wider, strict=False)
    ]
    # A sequence of one, for the name: the official network allows for several halvings at once.
    layers.append(nn.Sequential(nn.Sequential(*convolution(channels[-1], wider[-1], stride=2))))
    return nn.ModuleList(layers)


def convolution(before: int, after: int, *, kernel: int = 3, stride: int = 1, relu: bool = True) -> list[nn.Module]:
    """A convolution that keeps the size but for its stride, batch norm, and ReLU where it is wanted."""
    layers = [
        nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(after),
    ]
    return [*layers, nn.ReLU(inplace=True)] if relu else layers
