"""Batches that the tests of all losses share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """The problems are small."""


@pytest.fixture
def problem() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Two images, three joints, maps 7 high and 5 wide; two of the joints are not visible and one counts half."""

    def draw(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
        heatmaps = torch.randn(2, 3, 7, 5, dtype=dtype)
        joints = torch.rand(2, 3, 2, dtype=dtype) * torch.tensor([3.8, 5.8], dtype=dtype) + 0.1
        return heatmaps, joints, torch.tensor([[1, 0, 0.5], [1, 1, 0]], dtype=dtype)

    return draw


@pytest.fixture
def one() -> Callable[[tuple[float, float]], tuple[Tensor, Tensor]]:
    """Joints and visible of a batch with one joint."""

    def batch(joint: tuple[float, float]) -> tuple[Tensor, Tensor]:
        return torch.tensor(joint, dtype=torch.float64).view(1, 1, 2), torch.ones(1, 1, dtype=torch.float64)

    return batch
