"""Networks with numbers that are known to the last digit."""

import math
from collections.abc import Callable

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
