"""Networks with numbers that are known to the last digit."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from hdm.models import build_model


@pytest.fixture
def drawn() -> Callable[..., nn.Module]:
    """`build_model`, ready for use in float64, with every tensor drawn from one generator in the order of the names.

    Convolutions keep the size of what flows through them, batch norms have statistics of their own: no layer is idle.
    Scales of about a third keep the sums of residual blocks small.
    """

    def build(name: str, **settings: int) -> nn.Module:
        with torch.device("meta"):  # spares the initialisation
            model = build_model(name, **settings)  # type: ignore[arg-type]
        model = model.to_empty(device="cpu").double().eval()
        generator = torch.Generator().manual_seed(7)
        for key, value in sorted(model.state_dict().items()):
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            if value.ndim == 4:
                value.copy_(noise * math.sqrt(2 / value[0].numel()))
            elif key.endswith(("running_var", "weight")):
                value.copy_((1 + noise.abs() / 4) / (1 if key.endswith("var") else 3))
            else:
                value.copy_(noise / 4)
        return model

    return build


@pytest.fixture
def as_ever(drawn: Callable[..., nn.Module]) -> Callable[..., None]:
    """Checks that a drawn network of five joints gives stored numbers at some places of its heatmaps.

    Compared at 1e-6: a hash of the bits would differ between processors, which add in different orders. The
    channels-last layout must give the same.
    """

    def check(name: str, size: tuple[int, int], places: Sequence[tuple[int, ...]], numbers: Sequence[float]) -> None:
        model = drawn(name, joints=5)
        images = (0.7 * torch.arange(2 * 3 * size[0] * size[1], dtype=torch.float64)).sin().reshape(2, 3, *size)
        with torch.no_grad():
            heatmaps = model(images)
            channels_last = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
        found = torch.stack([heatmaps[place] for place in places])
        torch.testing.assert_close(found, torch.tensor(numbers, dtype=torch.float64), rtol=1e-6, atol=0)
        torch.testing.assert_close(channels_last, heatmaps, rtol=1e-9, atol=1e-9)

    return check
