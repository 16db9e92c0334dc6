"""`local` and `integral`, on maps whose mean is known."""

import pytest
import torch

from hdm.decode import decode
from hdm.encode import encode

each_expectation = pytest.mark.parametrize("method", ["local", "integral"])


@each_expectation
def test_the_amplitude_does_not_matter(method: str) -> None:
    joints = torch.rand(4, 50, 2) * torch.tensor([8, 11])
    found, scores = decode(1e-3 * encode(joints, (12, 9), "local"), method)
    assert (found - joints).abs().max() < 1e-5
    assert torch.allclose(scores, torch.full((4, 50), 1e-3))


def test_two_masses_far_apart() -> None:
    joints = torch.tensor([[[3.25, 5.5], [6.0, 4.75]]])
    heatmaps = 0.75 * encode(joints, (12, 9), "local")
    heatmaps[:, :, 0, 0] = 0.25  # the peaks are 0.28125 and 0.5625
    assert torch.allclose(decode(heatmaps, "local")[0], joints)
    assert torch.allclose(decode(heatmaps, "integral")[0], 0.75 * joints)
    # Both scores are the mass around the peak.
    assert decode(heatmaps, "local")[1].tolist() == decode(heatmaps, "integral")[1].tolist() == [[0.75, 0.75]]


def test_integral_of_a_softmax_is_its_mean() -> None:
    maps = torch.randn(2, 3, 7 * 5, dtype=torch.float64).softmax(-1).view(2, 3, 7, 5)
    rows, columns = torch.meshgrid(torch.arange(7.0), torch.arange(5.0), indexing="ij")
    mean = torch.stack([(maps * columns).sum((-2, -1)), (maps * rows).sum((-2, -1))], -1)
    assert torch.allclose(decode(maps, "integral")[0], mean, atol=1e-12)


@each_expectation
def test_negative_pixels_are_left_out(method: str) -> None:
    # What an untrained or a regressing network may give.
    heatmaps = torch.full((1, 2, 7, 5), -2.0)
    heatmaps[0, :, 3, 2], heatmaps[0, :, 3, 3] = 0.75, 0.25
    heatmaps[0, 1] *= -1e-3  # a positive plain with a negative dent
    joints, scores = decode(heatmaps, method)
    assert joints[0, 0].tolist() == pytest.approx([2.25, 3])
    assert scores[0, 0].item() == pytest.approx(1)
    if method == "integral":
        rows, columns = torch.meshgrid(torch.arange(7.0), torch.arange(5.0), indexing="ij")
        plain = torch.ones(7, 5)
        plain[3, 2:4] = 0
        mean = [float((plain * columns).sum() / 33), float((plain * rows).sum() / 33)]
        assert joints[0, 1].tolist() == pytest.approx(mean)


@each_expectation
def test_gradient_moves_mass_towards_where_the_joint_should_go(method: str) -> None:
    splats = encode(torch.tensor([[[3.0, 5.0], [4.0, 6.0]]]), (12, 9), "local")
    heatmaps = (0.9 * splats + 0.001).requires_grad_()
    joints, _ = decode(heatmaps, method)
    joints[..., 0].sum().backward()
    # d/dh_i of sum h x / sum h = (x_i - x) / sum h.
    columns = torch.arange(9.0)
    expected = (columns - joints.detach()[..., :1]) / (0.9 + 0.001 * (9 if method == "local" else 108))
    assert heatmaps.grad is not None
    assert torch.allclose(heatmaps.grad[0, 0, 6, 2:5], expected[0, 0, 2:5], atol=1e-5)
    assert torch.allclose(heatmaps.grad[0, 1, 5, 3:6], expected[0, 1, 3:6], atol=1e-5)
    far = heatmaps.grad[0, :, 0]
    assert torch.allclose(far, expected[0] if method == "integral" else torch.zeros(2, 9), atol=1e-5)
