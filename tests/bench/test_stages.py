"""Stages of the input pipeline: what is timed in the place of another does the same."""

import cv2
import numpy as np
import torch

from hdm.bench.stages import sample_on


def test_torch_cuts_the_same_crop():
    rng = np.random.default_rng(0)
    part = cv2.GaussianBlur(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8), (0, 0), 4)
    affine = np.array([[0.7, -0.2, 3.3], [0.25, 0.8, -4.6]])
    expected = cv2.warpAffine(part, affine, (48, 64), flags=cv2.INTER_LINEAR)
    found = sample_on(torch.device("cpu"), part, affine, (64, 48)).permute(1, 2, 0).numpy()
    difference = np.abs(found.astype(int) - expected.astype(int))
    # Outside of the picture both are black; at its border they mix black and picture in other ways.
    assert np.quantile(difference, 0.97) <= 2
    assert (expected == 0).mean() < 0.3
