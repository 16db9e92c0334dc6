"""What all decoders have in common: batches, symmetry, gradients, precision, awkward maps, refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from hdm.decode import DECODERS, SCORES, decode, joint_scores
from hdm.encode import encode
from hdm.errors import InputError

each_decoder = pytest.mark.parametrize("method", DECODERS)
DIFFERENTIABLE = ("dark", "udp", "local", "integral")


def smooth_maps(height: int, width: int) -> Tensor:
    """Positive maps (2, 3, H, W) without symmetry, in float64, each with one peak in the middle part."""
    joints = torch.rand(2, 3, 2, dtype=torch.float64) + torch.tensor([width / 2 - 1, height / 2 - 1])
    noise = avg_pool2d(torch.rand(2, 3, height, width, dtype=torch.float64), 3, 1, 1)
    return encode(joints, (height, width), "dark", sigma=1.5) + 0.3 * noise


@each_decoder
def test_joints_do_not_mix(method: str) -> None:
    heatmaps = smooth_maps(9, 7)
    joints, scores = decode(heatmaps, method)
    for b in range(2):
        for k in range(3):
            alone, score = decode(heatmaps[b : b + 1, k : k + 1], method)
            assert torch.allclose(alone[0, 0], joints[b, k], atol=1e-9)
            assert torch.equal(score[0, 0], scores[b, k])


@each_decoder
def test_peak_on_a_pixel_stays_there(method: str) -> None:
    joints = torch.tensor([[[13.0, 15.0], [20.0, 20.0]], [[30.0, 12.0], [17.0, 51.0]]])
    assert torch.allclose(decode(encode(joints, (64, 48), "dark"), method)[0], joints, atol=1e-3)


@pytest.mark.parametrize("method", ["argmax", "dark", "local", "integral"])
def test_mirrored_map_gives_the_mirrored_joint(method: str) -> None:
    # Not `quarter` and `udp`: their published rules are not symmetric (tests/decode/test_peaks.py, test_taylor.py).
    heatmaps = smooth_maps(9, 12)
    joints, scores = decode(heatmaps, method)
    mirrored, same_scores = decode(heatmaps.flip(-1), method)
    upside_down, _ = decode(heatmaps.flip(-2), method)
    assert torch.allclose(mirrored, joints * torch.tensor([-1, 1]) + torch.tensor([11, 0]), atol=1e-9)
    assert torch.allclose(upside_down, joints * torch.tensor([1, -1]) + torch.tensor([0, 8]), atol=1e-9)
    assert torch.allclose(scores, same_scores)


@each_decoder
def test_transposed_map_gives_the_transposed_joint(method: str) -> None:
    heatmaps = smooth_maps(9, 12)
    transposed = decode(heatmaps.mT, method)[0]
    assert torch.allclose(transposed, decode(heatmaps, method)[0].flip(-1), atol=1e-9)


@each_decoder
def test_map_without_mass_has_score_zero_and_its_joint_on_the_map(method: str) -> None:
    joints, scores = decode(torch.zeros(2, 3, 7, 5), method)
    assert torch.equal(joints, torch.zeros(2, 3, 2))
    assert torch.equal(scores, torch.zeros(2, 3))


@each_decoder
def test_negative_map_leaves_the_joint_on_its_largest_pixel(method: str) -> None:
    heatmaps = torch.full((1, 2, 9, 8), -2.0)
    heatmaps[0, 0, 4, 3] = heatmaps[0, 1, 5, 4] = -1
    joints, scores = decode(heatmaps, method)
    assert joints.tolist() == [[[3, 4], [4, 5]]]
    assert scores.tolist() == [[0, 0]] if method in ("local", "integral") else [[-1, -1]]


@each_decoder
def test_maps_of_one_pixel_and_empty_batches(method: str) -> None:
    assert decode(torch.rand(2, 3, 1, 1), method)[0].tolist() == [[[0, 0]] * 3] * 2
    for shape in ((0, 3, 7, 5), (2, 0, 7, 5)):
        joints, scores = decode(torch.zeros(shape), method)
        assert joints.shape == (*shape[:2], 2)
        assert scores.shape == shape[:2]


@each_decoder
def test_precision_of_the_result(method: str) -> None:
    heatmaps = smooth_maps(9, 7)
    joints, scores = decode(heatmaps, method)
    assert joints.dtype == scores.dtype == torch.float64
    single, single_scores = decode(heatmaps.float(), method)
    assert torch.allclose(single.double(), joints, atol=1e-4)
    half, half_scores = decode(heatmaps.bfloat16(), method)
    assert single.dtype == single_scores.dtype == half.dtype == half_scores.dtype == torch.float32


@each_decoder
def test_autocast_changes_nothing(method: str) -> None:
    heatmaps = smooth_maps(9, 7).float()
    expected = decode(heatmaps, method)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decode(heatmaps, method)[0], expected)


@pytest.mark.gpu
@each_decoder
def test_the_same_on_a_gpu(method: str) -> None:
    heatmaps = smooth_maps(64, 48)
    for on_cpu, on_gpu in zip(decode(heatmaps, method), decode(heatmaps.cuda(), method), strict=True):
        assert torch.allclose(on_cpu, on_gpu.cpu(), atol=1e-9)


# Gradients


@pytest.mark.parametrize("method", DIFFERENTIABLE)
def test_gradients_of_joints_and_scores(method: str) -> None:
    heatmaps = smooth_maps(9, 8).requires_grad_()
    joints, scores = decode(heatmaps, method, sigma=1.0)
    assert joints.requires_grad
    assert scores.requires_grad
    assert torch.autograd.gradcheck(lambda maps: decode(maps, method, sigma=1.0), (heatmaps,), fast_mode=True)


@pytest.mark.parametrize("method", ["argmax", "quarter"])
def test_what_has_no_gradient_is_detached(method: str) -> None:
    joints, scores = decode(smooth_maps(9, 8).requires_grad_(), method)
    assert not joints.requires_grad
    assert not scores.requires_grad


@pytest.mark.parametrize("method", DIFFERENTIABLE)
def test_gradient_is_finite_where_there_is_nothing_to_read(method: str) -> None:
    heatmaps = torch.zeros(1, 3, 9, 8)
    heatmaps[0, 1] = -1
    heatmaps[0, 2] = 0.5
    heatmaps.requires_grad_()
    (decode(heatmaps, method)[0].sum() + decode(heatmaps, method)[1].sum()).backward()
    assert heatmaps.grad is not None
    assert torch.isfinite(heatmaps.grad).all()


# Scores


def awkward_peaks() -> Tensor:
    heatmaps = torch.zeros(1, 2, 5, 6)
    heatmaps[0, 0, 1:4, 2:5] = 0.05
    heatmaps[0, 0, 1, 2] = -9  # counts as 0
    heatmaps[0, 0, 2, 3] = 0.45
    heatmaps[0, 0, 0, 0] = 0.2  # not a neighbour of the peak
    heatmaps[0, 1, 4, 5], heatmaps[0, 1, 4, 0] = 0.7, 0.3  # in a corner; the row does not wrap around
    return heatmaps


@pytest.mark.parametrize(("score", "expected"), [("max", [0.45, 0.7]), ("mass", [0.8, 0.7])])
def test_scores(score: str, expected: list[float]) -> None:
    assert joint_scores(awkward_peaks(), score).squeeze(0).tolist() == pytest.approx(expected)


@each_decoder
def test_score_of_each_decoder(method: str) -> None:
    score = "mass" if method in ("local", "integral") else "max"
    assert torch.equal(decode(awkward_peaks(), method)[1], joint_scores(awkward_peaks(), score))


def test_mass_of_one_map_lies_between_its_largest_pixel_and_one() -> None:
    maps = torch.randn(2, 3, 7 * 5).mul(3).softmax(-1).view(2, 3, 7, 5)
    largest, mass = (joint_scores(maps, score) for score in SCORES)
    assert torch.equal(largest, maps.amax((-2, -1)))
    assert ((largest < mass) & (mass < 1)).all()


# Refusals


def test_unknown_method() -> None:
    known = "choose one of argmax, quarter, dark, udp, local, integral"
    with pytest.raises(InputError, match=f"unknown decoder 'dark2': {known}"):
        decode(torch.zeros(1, 1, 4, 4), "dark2")
    with pytest.raises(InputError, match="unknown score 'sum': choose one of max, mass"):
        joint_scores(torch.zeros(1, 1, 4, 4), "sum")


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("read", [decode, lambda maps: joint_scores(maps, "max")])
@pytest.mark.parametrize("shape", [(3, 7, 5), (7, 5), (1, 2, 3, 7, 5), (2, 3, 0, 5)])
def test_shape_that_is_wrong(shape: tuple[int, ...], read: Any) -> None:
    with pytest.raises(InputError, match=r"heatmaps have shape \(.*\): give \(B, K, H, W\)"):
        read(torch.zeros(shape))


@each_decoder
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_heatmaps_that_are_not_finite(value: float, method: str) -> None:
    heatmaps = torch.rand(2, 3, 7, 5)
    heatmaps[1, 2, 0, 0] = value
    with pytest.raises(InputError, match="heatmaps hold NaN or infinite values, so no joint can be read from them"):
        decode(heatmaps, method)


@pytest.mark.usefixtures("no_shape_checks")
@each_decoder
@pytest.mark.parametrize("width", [0, -3, 4, 3.0])
def test_blur_kernel_that_is_none(width: Any, method: str) -> None:
    with pytest.raises(InputError, match=f"blur_kernel {width} must be odd and positive: it is a width in pixels"):
        decode(torch.rand(1, 2, 7, 5), method, blur_kernel=width)


@each_decoder
@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_sigma_that_is_none(sigma: float, method: str) -> None:
    with pytest.raises(InputError, match=f"sigma {sigma} must be positive and finite"):
        decode(torch.rand(1, 2, 7, 5), method, sigma=sigma, blur_kernel=3)
