"""Decoding, on maps whose joint is known and on maps that are awkward."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor

from hdm.decode import DECODERS, decode
from hdm.errors import InputError


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """As a user meets the package: without jaxtyping's checks, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def offsets(joints: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """x (B, K, 1, W) and y (B, K, H, 1): how far each pixel lies from the joint."""
    x = torch.arange(width, dtype=joints.dtype) - joints[..., 0:1]
    y = torch.arange(height, dtype=joints.dtype) - joints[..., 1:2]
    return x.unsqueeze(-2), y.unsqueeze(-1)


def splats(joints: Tensor, height: int, width: int) -> Tensor:
    """The bilinear maps of dots: products of two hats."""
    x, y = offsets(joints, height, width)
    return (1 - x.abs()).clamp(min=0) * (1 - y.abs()).clamp(min=0)


def gaussians(joints: Tensor, height: int, width: int, sigma: float = 2.0) -> Tensor:
    x, y = offsets(joints, height, width)
    return torch.exp(-(x.square() + y.square()) / (2 * sigma**2))


def random_joints(height: int, width: int, margin: float = 0.0) -> Tensor:
    """Joints (4, 50, 2) between the outermost pixel centres, `margin` away from them."""
    span = torch.tensor([width - 1, height - 1]) - 2 * margin
    return torch.rand(4, 50, 2) * span + margin


def with_border(height: int, width: int) -> Tensor:
    """Random joints, the first of them on the border, in corners, on pixels and on grid lines."""
    joints = random_joints(height, width)
    joints[0, :10, 0], joints[0, 10:20, 0], joints[0, 20:30, 1], joints[0, 30:40, 1] = 0, width - 1, 0, height - 1
    joints[1, :4] = torch.tensor([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    joints[1, 4:20] = joints[1, 4:20].round()
    joints[1, 20:30] = joints[1, 20:30].floor().clamp(max=min(height, width) - 2) + 0.5
    return joints


# Where the joint is


@pytest.mark.parametrize(("height", "width"), [(64, 48), (7, 12), (2, 2)])
def test_local_inverts_the_bilinear_target(height: int, width: int) -> None:
    joints = with_border(height, width)
    found, scores = decode(splats(joints, height, width), "local")
    assert (found - joints).abs().max() < 1e-5
    assert torch.allclose(scores, torch.ones(4, 50))


def test_local_inverts_a_map_one_pixel_wide() -> None:
    joints = torch.tensor([[[0.0, 3.3], [0.0, 5.0]]])
    assert torch.allclose(decode(splats(joints, 6, 1), "local")[0], joints)


def test_local_does_not_depend_on_the_amplitude() -> None:
    joints = random_joints(12, 9)
    found, scores = decode(1e-3 * splats(joints, 12, 9), "local")
    assert (found - joints).abs().max() < 1e-5
    assert torch.allclose(scores, torch.full((4, 50), 1e-3))


def test_local_reads_only_the_neighbours_of_the_peak() -> None:
    heatmaps = splats(torch.tensor([[[3.25, 5.5], [6.0, 4.75]]]), 12, 9)
    heatmaps[:, :, 0, 0] = 0.3  # the peaks are 0.375 and 0.75
    assert torch.allclose(decode(heatmaps, "local")[0], torch.tensor([[[3.25, 5.5], [6.0, 4.75]]]))


def test_quarter_improves_on_argmax() -> None:
    joints = random_joints(64, 48, margin=3)
    heatmaps = gaussians(joints, 64, 48)
    peak = (decode(heatmaps, "argmax")[0] - joints).abs()
    quarter = (decode(heatmaps, "quarter")[0] - joints).abs()
    assert peak.max() <= 0.5 + 1e-5
    assert quarter.max() <= 0.25 + 1e-5
    # For a joint at random places in a pixel the error is 1/4 and 1/8 on average.
    assert peak.mean() == pytest.approx(0.25, abs=0.03)
    assert quarter.mean() == pytest.approx(0.125, abs=0.015)


@pytest.mark.parametrize("method", DECODERS)
def test_peak_on_a_pixel_stays_there(method: str) -> None:
    joints = torch.tensor([[[3.0, 5.0], [10.0, 20.0]], [[40.0, 2.0], [7.0, 61.0]]])
    assert torch.allclose(decode(gaussians(joints, 64, 48), method)[0], joints)


def test_quarter_goes_towards_the_higher_neighbour() -> None:
    heatmaps = torch.zeros(1, 4, 7, 9)
    heatmaps[..., 3, 4] = 1
    heatmaps[0, 0, 3, 5] = 0.3  # right
    heatmaps[0, 1, 3, 3], heatmaps[0, 1, 2, 4] = 0.2, 0.1  # left and up
    heatmaps[0, 2, 4, 4], heatmaps[0, 2, 4, 5] = -0.1, 0.9  # below is lower; a diagonal neighbour does not count
    joints, _ = decode(heatmaps, "quarter")
    assert joints.squeeze(0).tolist() == [[4.25, 3], [3.75, 2.75], [4, 2.75], [4, 3]]


def test_quarter_stays_at_the_border_where_the_official_code_does() -> None:
    # The rule 1 < x < W - 1, 1 < y < H - 1: no step in either axis from columns 0, 1 and W - 1, rows 0, 1 and H - 1.
    height, width = 7, 9
    places = torch.tensor([[x, y] for y in range(height) for x in range(width)])
    heatmaps = torch.zeros(1, len(places), height, width)
    for k, (x, y) in enumerate(places.tolist()):
        heatmaps[0, k, y, x] = 1
        heatmaps[0, k, y, max(x - 1, 0)] = max(0.5, heatmaps[0, k, y, max(x - 1, 0)])
        heatmaps[0, k, max(y - 1, 0), x] = max(0.5, heatmaps[0, k, max(y - 1, 0), x])
    step = decode(heatmaps, "quarter")[0].squeeze(0) - places
    moves = (places >= 2).all(1) & (places <= torch.tensor([width - 2, height - 2])).all(1)
    assert torch.equal(step, -0.25 * moves.unsqueeze(1).repeat(1, 2))


@pytest.mark.parametrize("method", ["argmax", "local"])
def test_mirrored_map_gives_the_mirrored_joint(method: str) -> None:
    heatmaps = torch.rand(2, 3, 7, 5)
    joints, scores = decode(heatmaps, method)
    mirrored, same_scores = decode(heatmaps.flip(-1), method)
    assert torch.allclose(mirrored[..., 0], 4 - joints[..., 0], atol=1e-6)
    assert torch.allclose(mirrored[..., 1], joints[..., 1], atol=1e-6)
    assert torch.allclose(scores, same_scores)


@pytest.mark.parametrize("method", DECODERS)
def test_joints_do_not_mix(method: str) -> None:
    heatmaps = torch.randn(2, 3, 7, 5)
    joints, scores = decode(heatmaps, method)
    for b in range(2):
        for k in range(3):
            alone, score = decode(heatmaps[b : b + 1, k : k + 1], method)
            assert torch.equal(alone[0, 0], joints[b, k])
            assert torch.equal(score[0, 0], scores[b, k])


@pytest.mark.parametrize("method", DECODERS)
def test_tie_goes_to_the_first_pixel(method: str) -> None:
    heatmaps = torch.zeros(2, 2, 7, 9)
    heatmaps[..., 5, 2] = heatmaps[..., 2, 6] = heatmaps[..., 5, 7] = 0.5
    assert decode(heatmaps, method)[0].view(4, 2).tolist() == [[6, 2]] * 4


# Scores


def test_scores() -> None:
    heatmaps = torch.zeros(1, 2, 5, 6)
    heatmaps[0, 0, 1:4, 2:5] = 0.05
    heatmaps[0, 0, 2, 3] = 0.4
    heatmaps[0, 0, 0, 0] = 0.2  # not a neighbour of the peak
    heatmaps[0, 1, 4, 5], heatmaps[0, 1, 4, 0] = 0.7, 0.3  # in a corner; the row does not wrap around
    for method in ("argmax", "quarter"):
        assert decode(heatmaps, method)[1].squeeze(0).tolist() == pytest.approx([0.4, 0.7])
    assert decode(heatmaps, "local")[1].squeeze(0).tolist() == pytest.approx([0.8, 0.7])


@pytest.mark.parametrize("method", DECODERS)
def test_map_without_mass_has_score_zero(method: str) -> None:
    joints, scores = decode(torch.zeros(2, 3, 7, 5), method)
    assert torch.isfinite(joints).all()
    assert torch.equal(scores, torch.zeros(2, 3))


def test_local_leaves_negative_pixels_out() -> None:
    # What an untrained or a regressing network may give.
    heatmaps = torch.full((1, 2, 7, 5), -2.0)
    heatmaps[0, 0, 3, 2], heatmaps[0, 0, 3, 3] = 0.75, 0.25
    joints, scores = decode(heatmaps, "local")
    assert joints[0, 0].tolist() == pytest.approx([2.25, 3])
    assert scores[0].tolist() == pytest.approx([1, 0])
    assert torch.isfinite(joints).all()


@pytest.mark.parametrize("method", DECODERS)
def test_precision_of_the_result(method: str) -> None:
    heatmaps = gaussians(random_joints(7, 5).double(), 7, 5).requires_grad_()
    joints, scores = decode(heatmaps, method)
    assert joints.dtype == scores.dtype == torch.float64
    assert not joints.requires_grad
    half_joints, half_scores = decode(heatmaps.detach().bfloat16(), method)
    assert half_joints.dtype == half_scores.dtype == torch.float32


# Refusals


def test_unknown_method() -> None:
    with pytest.raises(InputError, match="unknown decoder 'dark2': choose one of argmax, quarter, local"):
        decode(torch.zeros(1, 1, 4, 4), "dark2")


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("shape", [(3, 7, 5), (7, 5), (1, 2, 3, 7, 5), (2, 3, 0, 5)])
def test_shape_that_is_wrong(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"heatmaps have shape \(.*\): give \(B, K, H, W\)"):
        decode(torch.zeros(shape))


@pytest.mark.parametrize("method", DECODERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_heatmaps_that_are_not_finite(value: float, method: str) -> None:
    heatmaps = torch.rand(2, 3, 7, 5)
    heatmaps[1, 2, 0, 0] = value
    with pytest.raises(InputError, match="heatmaps hold NaN or infinite values, so no joint can be read from them"):
        decode(heatmaps, method)
