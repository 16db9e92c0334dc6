"""`dark` and `udp`, beside their published rules written out pixel by pixel with OpenCV's blur."""

import math

import cv2
import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Tensor

from hdm.decode import dark_kernel, decode
from hdm.encode import encode
from hdm.errors import InputError

# Not 9, for which OpenCV 5 has a table and older versions have not.
KERNELS = (1, 3, 5, 7, 11, 17)


def dark_by_hand(image: ndarray, kernel: int) -> tuple[float, float]:
    """One map, float64."""
    height, width = image.shape
    y, x = divmod(int(image.argmax()), width)
    wide = np.zeros((height + 2 * kernel, width + 2 * kernel))
    wide[kernel : kernel + height, kernel : kernel + width] = image
    blurred = cv2.GaussianBlur(wide, (kernel, kernel), 0)[kernel : kernel + height, kernel : kernel + width]
    if not (1 < x < width - 2 and 1 < y < height - 2 and blurred.max() > 0):
        return x, y
    h = np.log(np.maximum(blurred * image.max() / blurred.max(), 1e-10))
    gradient = np.array([h[y, x + 1] - h[y, x - 1], h[y + 1, x] - h[y - 1, x]]) / 2
    mixed = (h[y + 1, x + 1] - h[y - 1, x + 1] - h[y + 1, x - 1] + h[y - 1, x - 1]) / 4
    across = (h[y, x + 2] - 2 * h[y, x] + h[y, x - 2]) / 4
    along = (h[y + 2, x] - 2 * h[y, x] + h[y - 2, x]) / 4
    if abs(across * along - mixed**2) < 1e-14:  # 0 but for rounding
        return x, y
    step = np.linalg.solve([[across, mixed], [mixed, along]], gradient)
    return x - step[0], y - step[1]


def udp_by_hand(image: ndarray, kernel: int) -> tuple[float, float]:
    """One map, float64."""
    y, x = divmod(int(image.argmax()), image.shape[1])
    blurred = cv2.GaussianBlur(image, (kernel, kernel), 0)
    stretched = (blurred - blurred.min()) / (blurred.max() - blurred.min()) * image.max()
    h = np.pad(np.log(np.clip(stretched, 1e-3, 50)), 1, mode="edge")
    x, y = x + 1, y + 1
    gradient = np.array([h[y, x + 1] - h[y, x - 1], h[y + 1, x] - h[y - 1, x]]) / 2
    across = h[y, x + 1] - 2 * h[y, x] + h[y, x - 1]
    along = h[y + 1, x] - 2 * h[y, x] + h[y - 1, x]
    one_side = h[y + 1, x + 1] - h[y, x + 1] - h[y + 1, x] + h[y, x]
    other_side = h[y, x] - h[y, x - 1] - h[y - 1, x] + h[y - 1, x - 1]
    mixed = (one_side + other_side) / 2
    if abs(across * along - mixed**2) < 1e-14:  # 0 but for rounding
        return x - 1, y - 1
    step = np.linalg.solve([[across, mixed], [mixed, along]], gradient)
    return x - 1 - step[0], y - 1 - step[1]


def rough_maps(height: int, width: int) -> Tensor:
    """Smoothed noise (6, 5, H, W) around zero, in float64; half of the maps have a peak near the border."""
    noise = np.random.default_rng(height * width).normal(size=(30, height, width))
    smooth = torch.from_numpy(np.stack([cv2.GaussianBlur(image, (0, 0), 1.2) for image in noise]))
    border = torch.rand(15, 2, dtype=torch.float64) * torch.tensor([width - 1, min(height - 1, 1)])
    smooth[:15] += encode(border.unsqueeze(0), (height, width), "dark", sigma=1.5).squeeze(0)
    return smooth.view(6, 5, height, width)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("height", "width"), [(17, 12), (9, 24), (5, 4), (3, 6), (1, 8), (64, 48)])
def test_as_published(height: int, width: int, kernel: int) -> None:
    maps = rough_maps(height, width)
    for method, by_hand in (("dark", dark_by_hand), ("udp", udp_by_hand)):
        found = decode(maps, method, blur_kernel=kernel)[0].flatten(0, 1).numpy()
        expected = np.array([by_hand(image, kernel) for image in maps.flatten(0, 1).numpy()])
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=method)


def test_rough_maps_have_peaks_everywhere() -> None:
    # So that the test above meets borders, steps and places without a step.
    maps = rough_maps(17, 12)
    x, y = decode(maps, "argmax")[0].unbind(-1)
    border = (x < 2) | (x > 9) | (y < 2) | (y > 14)
    assert 5 <= border.sum() <= 25
    moved = (decode(maps, "dark", blur_kernel=3)[0] - decode(maps, "argmax")[0]).norm(dim=-1) > 0
    assert torch.equal(moved, ~border)
    assert (maps < 0).any()


@pytest.mark.parametrize("scale", [1e-3, 0.02, 30.0, 1000.0])
def test_as_published_for_maps_of_any_size(scale: float) -> None:
    # The limits 1e-10, 0.001 and 50 do not move with the map.
    maps = scale * encode(torch.rand(2, 8, 2, dtype=torch.float64) * 8 + 5, (19, 18), "dark", sigma=1.5)
    for method, by_hand, kernel in (("dark", dark_by_hand, 11), ("udp", udp_by_hand, 7)):
        found = decode(maps, method)[0].flatten(0, 1).numpy()
        expected = np.array([by_hand(image, kernel) for image in maps.flatten(0, 1).numpy()])
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=method)


def test_the_default_kernels() -> None:
    maps = rough_maps(17, 12)
    assert [dark_kernel(sigma) for sigma in (0.1, 1, 1.5, 2, 3)] == [1, 5, 9, 11, 17]
    for sigma, kernel in ((1.0, 5), (2.0, 11), (3.0, 17)):
        assert torch.equal(decode(maps, "dark", sigma=sigma)[0], decode(maps, "dark", blur_kernel=kernel)[0])
        assert torch.equal(decode(maps, "udp", sigma=sigma)[0], decode(maps, "udp", blur_kernel=7)[0])
    assert not torch.equal(decode(maps, "dark")[0], decode(maps, "dark", blur_kernel=9)[0])
    with pytest.raises(InputError, match="sigma 0 must be positive and finite"):
        dark_kernel(0)


@pytest.mark.parametrize("method", ["dark", "udp"])
def test_exact_for_a_gaussian_that_is_not_blurred(method: str) -> None:
    # log h is a parabola: wherever the joint, one step is enough. udp's limit of 0.001 is beyond the 3 x 3 pixels.
    joints = torch.rand(3, 20, 2, dtype=torch.float64) * torch.tensor([11, 14]) + 3
    found = decode(encode(joints, (20, 17), "dark", sigma=1.7), method, blur_kernel=1)[0]
    # Stretching to [0, max] moves nothing where the lowest value is nearly 0.
    assert (found - joints).abs().max() < (1e-9 if method == "dark" else 1e-5)


@pytest.mark.parametrize("method", ["dark", "udp"])
def test_slanted_gaussian(method: str) -> None:
    """Covariance [[4, 1.5], [1.5, 2]]: the mixed derivative counts."""
    joints = torch.rand(2, 10, 2, dtype=torch.float64) * 4 + 8
    x = torch.arange(21.0, dtype=torch.float64) - joints[..., 0, None, None]
    y = torch.arange(20.0, dtype=torch.float64)[:, None] - joints[..., 1, None, None]
    determinant = 4 * 2 - 1.5**2
    maps = torch.exp(-(2 * x.square() - 3 * x * y + 4 * y.square()) / (2 * determinant))
    assert (decode(maps, method, blur_kernel=1)[0] - joints).abs().max() < 1e-4
    assert (decode(maps, method, blur_kernel=5)[0] - joints).abs().max() < 0.01


@pytest.mark.parametrize("method", ["dark", "udp"])
def test_flat_map_leaves_the_joint_on_the_first_pixel(method: str) -> None:
    # 0.7 is not exact in binary, so that its blur is flat up to rounding only.
    for dtype in (torch.float32, torch.float64):
        assert decode(torch.full((2, 3, 17, 12), 0.7, dtype=dtype), method)[0].tolist() == [[[0, 0]] * 3] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [1, 7, 11])
def test_ridge_has_no_step(kernel: int, dtype: torch.dtype) -> None:
    # Along a ridge the second derivative is 0 and the Hessian singular, in floating point only nearly so.
    maps = encode(torch.tensor([[[6.0, 8.3], [7.0, 9.4]]], dtype=dtype), (17, 24), "dark")
    ridges = maps.amax(-1, keepdim=True).expand_as(maps).contiguous()
    assert torch.equal(decode(ridges, "udp", blur_kernel=kernel)[0], decode(ridges, "argmax")[0])
    ridges[..., 11] *= 1 + 2 * torch.finfo(dtype).eps  # so that the largest pixel lies far from the border
    assert torch.equal(decode(ridges, "dark", blur_kernel=kernel)[0], torch.tensor([[[11, 8], [11, 9]]]).to(dtype))


def test_udp_and_mirrors() -> None:
    # Its mixed derivative reads one diagonal: turning the map by 180 degrees turns the joint, always; mirroring does
    # where log h is a sum of a part in x and a part in y.
    turned = torch.tensor([11.0, 16.0])
    maps = rough_maps(17, 12)
    assert torch.allclose(decode(maps.flip(-1, -2), "udp")[0], turned - decode(maps, "udp")[0], atol=1e-6)
    gaussians = encode(torch.rand(2, 8, 2, dtype=torch.float64) * 4 + 4, (17, 12), "dark", sigma=math.sqrt(2))
    mirrored, joints = decode(gaussians.flip(-1), "udp")[0], decode(gaussians, "udp")[0]
    assert torch.allclose(mirrored, torch.stack([11 - joints[..., 0], joints[..., 1]], -1), atol=1e-3)
