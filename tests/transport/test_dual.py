"""The solver of the dual problem: its path, and what it asks of the device."""

import pytest
import torch
from problems import dirac, random_maps, with_random_dots
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hdm.transport import COSTS, transport_costs
from hdm.transport.dual import follow_path, optimal_plan, path_for, potentials
from hdm.transport.groups import Suppliers, every_pixel

pytestmark = pytest.mark.usefixtures("one_thread")


SCALES = {"truncated": 2.5, "gaussian": 1.7}  # of the bounded costs, in pixels


def scale_for(cost: str, mass: Tensor) -> Tensor | None:
    return torch.full_like(mass[:, 0, 0], SCALES[cost]) if cost in SCALES else None


def dual(g: Tensor, mass: Tensor, demand: Tensor, corner: Tensor, cost: str) -> Tensor:
    points = corner.unsqueeze(1) + torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    f = (transport_costs(points, mass.shape[-2:], cost, SCALES.get(cost)) - g.view(-1, 4, 1, 1)).amin(1)
    return (demand * g).sum(1) + (mass * f).sum((1, 2))


# The path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cost", COSTS)
def test_one_supplier_ties_all_demanders(cost: str, dtype: torch.dtype) -> None:
    # All four are served from one pixel, so it must be indifferent: g_j = c_j up to a constant.
    mass, demand, corner = with_random_dots(torch.stack([dirac(40, 30, 3, 7), dirac(40, 30, 29, 39)]).to(dtype))
    g = potentials(mass, demand, corner, cost, scale_for(cost, mass))
    points = corner.unsqueeze(1) + torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    costs = transport_costs(points, (40, 30), cost, SCALES.get(cost))[[0, 1], :, [7, 39], [3, 29]]
    tolerance = 2e-5 * float(costs.amax()) if dtype == torch.float32 else 1e-9
    assert torch.allclose(g - g[:, :1], costs - costs[:, :1], atol=tolerance)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", ["uniform", "diffuse", "heavy", "peaked", "diracs"])
def test_no_potential_nearby_is_better(kind: str, cost: str) -> None:
    mass, demand, corner = with_random_dots(random_maps(kind, 8, 24, 23))
    g = potentials(mass, demand, corner, cost, scale_for(cost, mass))
    best = dual(g, mass, demand, corner, cost)
    for step in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(10):
            other = dual(g + step * torch.randn(8, 4, dtype=g.dtype), mass, demand, corner, cost)
            assert (other <= best + 1e-7 * (1 + best)).all()


def test_splitting_a_supplier_in_two_changes_nothing() -> None:
    mass, demand, corner = with_random_dots(random_maps("heavy", 6, 12, 9))
    parts = every_pixel(mass, corner)
    first = torch.rand_like(parts.mass) * parts.mass
    split = Suppliers(
        torch.cat([first, parts.mass - first], 1), *(torch.cat([values, values], 1) for values in parts[1:])
    )
    path = path_for((12, 9), "l2", precise=True)
    whole, halves = (follow_path(suppliers, demand, "l2", path)[0] for suppliers in (parts, split))
    assert torch.allclose(
        dual(whole, mass, demand, corner, "l2"), dual(halves, mass, demand, corner, "l2"), rtol=1e-9, atol=1e-9
    )


def test_scale_of_the_problem_does_not_matter() -> None:
    mass, demand, corner = with_random_dots(random_maps("diffuse", 6, 32, 24).float())
    small = potentials(1e-6 * mass, 1e-6 * demand, corner, "l2")
    assert torch.allclose(small, potentials(mass, demand, corner, "l2"), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_move_is_no_trouble(dtype: torch.dtype) -> None:
    nothing = torch.zeros(2, 40, 30, dtype=dtype), torch.zeros(2, 4, dtype=dtype), torch.ones(2, 2, dtype=dtype)
    assert torch.isfinite(potentials(*nothing, "l2")).all()
    assert torch.isfinite(optimal_plan(*nothing, "l2")).all()


def test_many_problems_are_solved_in_parts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    mass, demand, corner = with_random_dots(random_maps("diffuse", 7, 32, 24).float())
    together = potentials(mass, demand, corner, "l2")
    monkeypatch.setattr("hdm.transport.dual.PIXELS_AT_ONCE", (2 * 32 * 24, 2 * 32 * 24))  # two at a time
    assert torch.allclose(potentials(mass, demand, corner, "l2"), together, atol=1e-4)


# The device


class Calls(TorchDispatchMode):
    """The operations that are called, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cost", COSTS)
def test_same_work_whatever_the_values_and_no_wait_for_the_device(cost: str, dtype: torch.dtype) -> None:
    work = []
    for kind in ("uniform", "peaked", "diracs"):
        example = with_random_dots(random_maps(kind, 3, 40, 30).to(dtype))
        with Calls() as calls:
            potentials(*example, cost, scale_for(cost, example[0]))
        work.append(calls.names)
    assert work[0] == work[1] == work[2]
    waits = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique"}
    assert not waits & set(work[0])
