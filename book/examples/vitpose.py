"""HDM for ViTPose as Hugging Face's `transformers` has it (`pip install transformers`).

A tiny network with random weights stands in for a checkpoint, so that the example runs
anywhere in seconds.
"""

import torch
from hdm.decode import decode
from hdm.losses import HDMLoss
from torch import Tensor
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

ROWS, COLUMNS, JOINTS = 64, 48, 17


def tiny_network() -> VitPoseForPoseEstimation:
    """Two narrow layers. Patches of 16 pixels, enlarged by 4 in the head: stride 4."""
    backbone = VitPoseBackboneConfig(
        image_size=[ROWS, COLUMNS],
        patch_size=[16, 16],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        out_indices=[2],
    )
    config = VitPoseConfig(backbone_config=backbone, num_labels=JOINTS, scale_factor=4)
    return VitPoseForPoseEstimation(config)


def fine_tune(
    network: VitPoseForPoseEstimation, batch: dict[str, Tensor], loss: HDMLoss, steps: int
) -> list[float]:
    """Takes steps on one batch; returns the loss before each step and after the last."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    values = []
    for step in range(steps + 1):
        outputs = network(pixel_values=batch["pixel_values"])
        # `labels=` is left out: the loss is computed here, from the maps (B, K, H, W).
        value = loss(outputs.heatmaps, batch["joints"], batch["visible"])
        values.append(value.item())
        if step < steps:
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return values


def main(steps: int = 2) -> tuple[list[float], Tensor]:
    """The losses, and the joints (B, K, 2) in heatmap pixels that are read in the end."""
    torch.manual_seed(0)
    network = tiny_network()
    # What one would write for a real checkpoint, not run here, as it is a download:
    #   name = "usyd-community/vitpose-base-simple"
    #   network = VitPoseForPoseEstimation.from_pretrained(name)
    #   processor = AutoProcessor.from_pretrained(name)  # crops and normalises
    furthest = torch.tensor([COLUMNS / 4 - 1, ROWS / 4 - 1])
    batch = {
        "pixel_values": torch.randn(4, 3, ROWS, COLUMNS),
        "joints": torch.rand(4, JOINTS, 2) * furthest,  # (x, y) in heatmap pixels
        "visible": (torch.rand(4, JOINTS) < 0.8).float(),
    }
    loss = HDMLoss(suppliers="softmax")
    values = fine_tune(network, batch, loss, steps)
    network.eval()
    with torch.no_grad():
        maps = loss.maps(network(pixel_values=batch["pixel_values"]).heatmaps)
    joints, scores = decode(maps, method="local")
    return values, joints


if __name__ == "__main__":
    values, joints = main()
    print("loss in heatmap pixels, step by step:", *(f"{value:.3f}" for value in values))
