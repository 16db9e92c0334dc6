"""Maps, dots and exact answers that the tests of the transport loss share."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdm.transport import demanders_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # POT's own docstrings
    import ot

# Joints (x, y) on a 9 wide, 12 high map: inside a cell, on a grid line, on a pixel, between four pixels, at borders and
# corners, and beyond the outermost pixel centres.
JOINTS = torch.tensor(
    [
        *([4.3, 6.6], [4.0, 6.6], [4.3, 7.0], [4.0, 7.0], [2.5, 3.5], [7.9, 10.2]),
        *([0.0, 0.0], [8.0, 11.0], [8.0, 4.4], [3.7, 11.0], [-0.4, 5.3], [8.5, 11.3]),
    ],
    dtype=torch.float64,
)


def splat(height: int, width: int, joint: tuple[float, float]) -> Tensor:
    """The bilinear map of a dot inside the map: the product of two hats."""
    x, y = (1 - (torch.arange(n, dtype=torch.float64) - c).abs() for n, c in zip((width, height), joint, strict=True))
    return torch.outer(y.clamp(min=0), x.clamp(min=0))


def dirac(height: int, width: int, x: int, y: int) -> Tensor:
    mass = torch.zeros(height, width, dtype=torch.float64)
    mass[y, x] = 1
    return mass


def gaussian(height: int, width: int, centre: tuple[float, float], sigma: float) -> Tensor:
    x = torch.arange(width, dtype=torch.float64) - centre[0]
    y = torch.arange(height, dtype=torch.float64) - centre[1]
    return torch.exp(-(x.square() + y.square()[:, None]) / (2 * sigma**2))


def paper_map() -> Tensor:
    """The map (12, 9) whose distances are known from elsewhere; its dot is (4.3, 6.6)."""
    z = 1.5 * np.random.default_rng(0).normal(size=108)
    return torch.from_numpy((np.exp(z) / np.exp(z).sum()).reshape(12, 9))


PAPER_DOT = torch.tensor([4.3, 6.6], dtype=torch.float64)


def normalised(mass: Tensor) -> Tensor:
    return mass / mass.sum((-2, -1), keepdim=True)


def random_maps(kind: str, count: int, height: int, width: int) -> Tensor:
    shape = (count, height, width)
    if kind == "peaked":
        return torch.randn(shape, dtype=torch.float64).mul(12).flatten(1).softmax(-1).view(shape)
    if kind == "diracs":  # a few pixels, with round masses, so that many plans are equally good
        places = torch.rand(shape).flatten(1).topk(min(5, height * width)).indices
        masses = torch.randint(0, 4, places.shape).double()
        masses[:, 0] += 1
        return normalised(
            torch.zeros(count, height * width, dtype=torch.float64).scatter(1, places, masses).view(shape)
        )
    spread = {"uniform": 0.0, "diffuse": 1.0, "heavy": 3.0}[kind]
    return normalised(torch.randn(shape, dtype=torch.float64).mul(spread).exp())


def four_demanders(joint: Tensor, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The four pixels (4, 2) around a dot, moved into the map, and their bilinear weights (4,)."""
    x, y = min(max(float(joint[0]), 0), width - 1), min(max(float(joint[1]), 0), height - 1)
    x0, y0 = math.floor(x), math.floor(y)
    a, b = x - x0, y - y0
    points = np.array([[x0, y0], [x0 + 1, y0], [x0, y0 + 1], [x0 + 1, y0 + 1]], float)
    return points, np.array([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b])


def linear_programme(mass: Tensor, joint: Tensor, cost: str = "l2") -> tuple[float, dict[str, Any]]:
    """Problem (1) as a linear programme in float64: its value, and POT's log with plan and dual potentials."""
    height, width = mass.shape
    points, d = four_demanders(joint, height, width)
    y, x = np.divmod(np.arange(height * width), width)
    c = np.hypot(x[:, None] - points[:, 0], y[:, None] - points[:, 1])
    s = mass.detach().double().numpy().ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        c = c if cost == "l2" else c**2
        value, log = ot.emd2(s / s.sum(), d, c, log=True, return_matrix=True, numItermax=10**8)
    return float(value), log


def with_random_dots(mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps, the demands of random dots, and the first of the four demanders."""
    height, width = mass.shape[-2:]
    dots = torch.rand(len(mass), 2, dtype=mass.dtype) * torch.tensor([width - 1, height - 1])
    points, weights = demanders_of(dots, (height, width), "subpixel")
    return mass, weights, points[:, 0]


def random_problem(count: int = 6, height: int = 12, width: int = 9) -> tuple[Tensor, Tensor]:
    return random_maps("heavy", count, height, width), torch.rand(count, 2, dtype=torch.float64) * 7 + 0.5


def any_maps(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Maps of all kinds in turn, float32, and dots: anywhere, on grid lines, on borders, in corners."""
    last = torch.tensor([width - 1, height - 1], dtype=torch.float64)
    dots = torch.rand(count, 2, dtype=torch.float64) * last
    on_line = torch.arange(count) % 7
    dots[on_line == 1, 0] = dots[on_line == 1, 0].round()
    dots[on_line == 2] = dots[on_line == 2].round()
    dots[on_line == 3, 1] = last[1]
    dots[on_line == 4] = (torch.rand(count, 2).round() * last)[on_line == 4]
    dots = dots.float()

    def near(sigma: float, spread: float) -> Tensor:
        centres = (dots + spread * torch.randn(count, 2)).tolist()
        return torch.stack([gaussian(height, width, (x, y), sigma) + 1e-12 for x, y in centres])

    splats = torch.stack([splat(height, width, (x, y)) for x, y in dots.tolist()])
    kinds = [
        random_maps("uniform", count, height, width),
        random_maps("diffuse", count, height, width),
        random_maps("heavy", count, height, width),
        random_maps("peaked", count, height, width),
        random_maps("diracs", count, height, width),
        torch.stack([dirac(height, width, *place) for place in zip(*random_pixels(count, height, width), strict=True)]),
        normalised(near(0.6, 0.5)),
        normalised(near(1.5, 2.0)),
        normalised(near(0.8, 0.3) + 0.5 * near(1.0, 10.0)),
        0.97 * splats + 0.03 * random_maps("heavy", count, height, width),
        normalised(splats * torch.rand(count, height, width) + 1e-7),
    ]
    mass = torch.stack(kinds, 1)[torch.arange(count), torch.arange(count) % len(kinds)]
    return normalised(mass.float()), dots


def random_pixels(count: int, height: int, width: int) -> tuple[list[int], list[int]]:
    return torch.randint(width, (count,)).tolist(), torch.randint(height, (count,)).tolist()
