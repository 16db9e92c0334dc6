"""RLE: the flow's density, the loss with a flow and a head that are known, and a head that learns to find a peak."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from hdm.decode import decode
from hdm.losses import RLE
from hdm.losses.rle import FLOOR, Flow

One = Callable[[tuple[float, float]], tuple[Tensor, Tensor]]


def bent_flow() -> Flow:
    """A flow that is far from the identity."""
    flow = Flow().double()
    for parameter in flow.parameters():
        parameter.data *= 1.5
    return flow


def straight(loss: RLE) -> RLE:
    """The loss with a flow that changes nothing: its density is the standard normal one."""
    for network in [*loss.flow.scales, *loss.flow.shifts]:
        torch.nn.init.zeros_(network.last.weight)
        torch.nn.init.zeros_(network.last.bias)
    return loss


def blind(place: tuple[float, float], sigma: tuple[float, float], **settings) -> RLE:
    """A head for maps 7 high and 5 wide that gives this place and sigma (shares of the sides), whatever the map."""
    loss = straight(RLE((7, 5), **settings)).double()
    raw = (torch.tensor(sigma, dtype=torch.float64) - FLOOR) / (1 - FLOOR)
    for layer, bias in ((loss.to_place, torch.tensor(place, dtype=torch.float64)), (loss.to_sigma, raw.logit())):
        torch.nn.init.zeros_(layer.weight)
        layer.bias.data = bias
    return loss


EMPTY = torch.zeros(1, 1, 7, 5, dtype=torch.float64)


# --- the flow ---


def test_the_flow_knows_its_jacobian() -> None:
    flow = bent_flow()
    errors = 2 * torch.randn(20, 2, dtype=torch.float64)
    z, log_det = flow.to_normal(errors)
    for i in range(20):
        jacobian = torch.autograd.functional.jacobian(lambda e: flow.to_normal(e[None])[0][0], errors[i])
        assert log_det[i].item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-9)
    expected = Normal(0.0, 1.0).log_prob(z).sum(-1) + log_det
    assert torch.allclose(flow.log_density(errors), expected)
    assert log_det.std() > 0.05  # not the identity


def test_the_flow_can_be_inverted() -> None:
    """Couplings one by one, backwards: what a coupling keeps tells how it changed the rest."""
    flow = bent_flow()
    errors = torch.randn(20, 2, dtype=torch.float64)
    x, _ = flow.to_normal(errors)
    for mask, scale, shift in zip(flow.masks.double(), flow.scales, flow.shifts, strict=True):
        kept = mask * x
        x = kept + (1 - mask) * (x * scale(kept).tanh().exp() + shift(kept))
    assert torch.allclose(x, errors)


def test_the_density_integrates_to_1() -> None:
    step, reach = 0.1, 12.0
    axis = torch.arange(-reach, reach, step, dtype=torch.float64)
    with torch.no_grad():
        density = bent_flow().log_density(torch.cartesian_prod(axis, axis)).exp()
    assert density.sum().item() * step**2 == pytest.approx(1, abs=1e-3)


def test_the_flow_learns_a_distribution() -> None:
    """Errors with two humps: maximum likelihood comes near the negative entropy, which the standard normal misses."""
    generator = torch.Generator().manual_seed(0)
    humps = torch.randint(0, 2, (500, 1), generator=generator) * 4.0 - 2.0
    errors = torch.cat([humps, 0 * humps], 1) + 0.3 * torch.randn(500, 2, generator=generator)
    flow = Flow()
    optimizer = torch.optim.Adam(flow.parameters(), 0.005)
    likelihoods = []
    for _ in range(150):
        likelihood = flow.log_density(errors).mean()
        optimizer.zero_grad()
        (-likelihood).backward()
        optimizer.step()
        likelihoods.append(likelihood.item())
    best = -math.log(2) - math.log(2 * math.pi * math.e * 0.3**2)
    assert likelihoods[0] < -3
    assert best - 0.6 < likelihoods[-1] < best + 0.2


# --- the loss ---


@pytest.mark.parametrize("prior", ["official", "laplace", "gaussian"])
def test_the_loss_by_hand(one: One, prior: str) -> None:
    """A prediction at (0.4, 0.6) of the map's sides with sigma (0.1, 0.2); the dot (1.0, 4.75) is at (0.3, 0.75)."""
    value = blind((0.4, 0.6), (0.1, 0.2), prior=prior)(EMPTY, *one((1.0, 4.75)))
    errors, sigmas = (1.0, -0.75), (0.1, 0.2)
    log_phi = sum(-(e**2) / 2 - math.log(math.sqrt(2 * math.pi)) for e in errors)
    expected = 0.0
    for e, sigma in zip(errors, sigmas, strict=True):
        expected += math.log(sigma) - log_phi
        expected += {
            "official": math.log(sigma * math.sqrt(2 * math.pi)) + abs(e) / math.sqrt(2),
            "laplace": math.log(2 * sigma) + abs(e),
            "gaussian": math.log(sigma * math.sqrt(2 * math.pi)) + e**2 / 2,
        }[prior]
    assert value.item() == pytest.approx(expected)


def test_the_nearer_and_the_surer_the_better(one: One) -> None:
    values = [blind(place, (0.1, 0.1))(EMPTY, *one((1.0, 4.75))) for place in [(0.3, 0.75), (0.35, 0.75), (0.6, 0.75)]]
    assert values[0] < values[1] < values[2]
    assert blind((0.3, 0.75), (0.05, 0.05))(EMPTY, *one((1.0, 4.75))) < values[0]
    assert blind((0.6, 0.75), (0.05, 0.05))(EMPTY, *one((1.0, 4.75))) > values[2]  # sure and wrong


def test_the_first_prediction_is_the_middle_of_the_map() -> None:
    loss = RLE((7, 5))
    joints, scores = loss.joints(torch.zeros(2, 3, 7, 5))
    assert joints.flatten(0, 1).tolist() == [pytest.approx([2.0, 3.0])] * 6
    assert scores.flatten().tolist() == pytest.approx([0.5] * 6, abs=1e-3)


def test_the_amplitude_of_a_map_does_not_move_the_joint() -> None:
    loss, heatmaps = RLE((7, 5)), torch.rand(2, 3, 7, 5)
    assert torch.allclose(loss.joints(100 * heatmaps)[0], loss.joints(heatmaps)[0], atol=1e-5)


def test_sigma_stays_above_its_floor() -> None:
    loss = blind((0.5, 0.5), (0.1, 0.1))
    loss.to_sigma.bias.data.fill_(-1000.0)
    _, sigma = loss.estimate(EMPTY)
    assert (sigma == FLOOR).all()


@pytest.mark.parametrize("joint", [(0.0, 0.0), (1.3, 4.75), (3.99, 5.5), (4.0, 6.0), (2.0, 3.5)])
def test_the_local_decoder_reads_the_maps_exactly(joint: tuple[float, float]) -> None:
    loss = blind(((joint[0] + 0.5) / 5, (joint[1] + 0.5) / 7), (0.3, 0.1))
    joints, scores = loss.joints(EMPTY)
    assert joints.flatten().tolist() == pytest.approx(joint)
    assert scores.item() == pytest.approx(0.8)
    read, mass = decode(loss.maps(EMPTY), "local")
    assert read.flatten().tolist() == pytest.approx(joint)
    assert mass.item() == pytest.approx(0.8)


def test_a_joint_predicted_outside_of_the_map_is_drawn_on_its_border() -> None:
    loss = blind((-0.4, 1.7), (0.3, 0.1))
    assert loss.joints(EMPTY)[0].flatten().tolist() == pytest.approx([-2.5, 11.4])
    assert decode(loss.maps(EMPTY), "local")[0].tolist() == [[[0.0, 6.0]]]


@pytest.mark.parametrize("size", [(6, 1), (1, 6), (1, 1)])
def test_a_map_one_pixel_wide(size: tuple[int, int]) -> None:
    loss = RLE(size)
    heatmaps = torch.rand(2, 3, *size)
    maps = loss.maps(heatmaps)
    assert torch.allclose(maps.sum((-2, -1)), loss.joints(heatmaps)[1])
    assert torch.isfinite(loss(heatmaps, torch.zeros(2, 3, 2), torch.ones(2, 3)))


def bumps(images: int, joints: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Heatmaps with a Gaussian around each joint, and the joints."""
    places = 0.5 + torch.rand(images, joints, 2) * torch.tensor([width - 2.0, height - 2.0])
    x = torch.arange(width) - places[..., :1]
    y = torch.arange(height) - places[..., 1:]
    return torch.exp(-(x.square().unsqueeze(-2) + y.square().unsqueeze(-1)) / 2), places


@pytest.mark.parametrize("prior", ["official", "laplace", "gaussian"])
def test_a_head_learns_to_find_a_peak(prior: str) -> None:
    loss = RLE((10, 8), prior=prior)
    heatmaps, joints = bumps(100, 2, 10, 8)
    head = [*loss.to_place.parameters(), *loss.to_sigma.parameters()]
    # The official rate for the flow: a faster one moves the density away from 0 before the joints are near.
    optimizer = torch.optim.Adam([{"params": head, "lr": 0.005}, {"params": loss.flow.parameters(), "lr": 1e-3}])
    values = []
    for _ in range(200):
        value = loss(heatmaps, joints, torch.ones(100, 2))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 3
    unseen, places = bumps(50, 2, 10, 8)
    found, scores = loss.joints(unseen)
    assert (found - places).norm(dim=-1).mean() < 0.3
    assert ((scores > 0.5) & (scores < 1)).all()
