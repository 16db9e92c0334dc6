"""HDM on a timm backbone (`pip install timm`): ready made, or with a head of one's own."""

import timm
import torch
from hdm.losses import HDMLoss
from hdm.models import build_model
from torch import Tensor, nn

JOINTS = 21  # those of a hand


def ready_made() -> nn.Module:
    """SimpleBaseline's head on any timm model with features at stride 32, 16 or 8."""
    return build_model("timm:mobilenetv3_small_050", joints=JOINTS, backbone_stride=16)


class OwnHead(nn.Module):
    """timm's features at stride 16, brought to stride 4, and one map per joint."""

    def __init__(self, name: str = "mobilenetv3_small_050") -> None:
        super().__init__()
        backbone = timm.create_model(name, features_only=True, pretrained=False)
        level = backbone.feature_info.reduction().index(16)
        self.backbone, self.level = backbone, level
        self.head = nn.Sequential(
            nn.Conv2d(backbone.feature_info.channels()[level], 64, 1),
            nn.Upsample(scale_factor=4, mode="bilinear"),
            nn.ReLU(),
            nn.Conv2d(64, JOINTS, 3, padding=1),  # raw values: no ReLU or sigmoid here
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images)[self.level])


def main() -> dict[str, float]:
    """One step's loss of both networks, in heatmap pixels."""
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, 128, 96), dtype=torch.uint8)
    joints = torch.rand(2, JOINTS, 2) * torch.tensor([23.0, 31.0])  # on maps of 32 x 24
    visible = torch.ones(2, JOINTS)
    values = {}
    for name, network in (("ready made", ready_made()), ("own head", OwnHead())):
        images = network.prepare(pictures) if name == "ready made" else pictures / 127.5 - 1
        value = HDMLoss()(network(images), joints, visible)
        value.backward()
        values[name] = value.item()
    return values


if __name__ == "__main__":
    print(main())
