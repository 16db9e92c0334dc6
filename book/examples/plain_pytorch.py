"""HDM in a loop of one's own: nothing but PyTorch and the loss.

The network is whatever gives one map of raw values per joint;
here a small one that must find three coloured dots.
"""

import torch
from hdm.decode import decode
from hdm.losses import CrossEntropy, HDMLoss
from torch import Tensor, nn

STRIDE = 4  # picture pixels per heatmap pixel


def dots(batch: int, rows: int = 64, columns: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy pictures (B, 3, rows, columns) with a dot in each colour.

    And their joints (B, 3, 2), as (x, y) in heatmap pixels, and visible (B, 3).
    """
    joints = 8 + torch.rand(batch, 3, 2) * torch.tensor([columns - 17.0, rows - 17.0])
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    squared = (x - joints[..., 0, None, None]) ** 2 + (y - joints[..., 1, None, None]) ** 2
    pictures = torch.exp(-squared / 18) + 0.1 * torch.randn(batch, 3, rows, columns)
    # A heatmap pixel covers STRIDE picture pixels; in both, centres are at whole numbers.
    joints = (joints + 0.5) / STRIDE - 0.5
    visible = (torch.rand(batch, 3) < 0.9).float()  # 0: not labelled, or off the map
    return pictures, joints, visible


def main(steps: int = 60, warm: int = 30, device: str = "cpu") -> tuple[float, float]:
    """Trains; returns the mean error in picture pixels before and after."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 3, 1),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    start, loss = CrossEntropy(), HDMLoss(suppliers="softmax", demanders="subpixel")

    def error() -> float:
        pictures, joints, visible = (part.to(device) for part in dots(32))
        with torch.no_grad():
            maps = loss.maps(network(pictures))  # the loss's own distributions
        found, scores = decode(maps, method="local")
        return float(STRIDE * (found - joints).norm(dim=-1)[visible > 0].mean())

    before = error()
    for step in range(steps):
        pictures, joints, visible = (part.to(device) for part in dots(16))
        # Half precision is for the network, on a GPU; the loss goes to float32 by itself.
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            heatmaps = network(pictures)
        value = (start if step < warm else loss)(heatmaps, joints, visible)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    network.eval()
    return before, error()


if __name__ == "__main__":
    print("mean error before and after, in picture pixels: {:.2f}, {:.2f}".format(*main()))
