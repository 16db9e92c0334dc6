"""Perfect maps and known errors: what comes out is known beforehand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hdm.bench.ideal import NOISE, SIZE, error_rows, map_rows, perfect_joints
from hdm.data import PersonData, load_persons
from hdm.protocols import mpii_truth


@pytest.fixture(scope="module")
def some(sample_data: Path) -> PersonData:
    return load_persons(f"mpii:{sample_data / 'mpii_mini'}", "val", check_images=False).head(150)


def shift_px(data: PersonData, encoder: str, decoder: str, convention: str, shift: int | None) -> np.ndarray:
    """How far joints are moved, in heatmap pixels; of those well inside of their crop."""
    truth = mpii_truth(data)
    plain = perfect_joints(data, truth, convention, encoder, decoder)
    found = perfect_joints(data, truth, convention, encoder, decoder, shift=shift)
    per_pixel = np.array([1.25 * (person.box[2] - 1) / SIZE[1] * 4 for person in data.persons])
    exact = np.linalg.norm(plain + 1 - truth.joints, axis=-1) / per_pixel[:, None] < 0.01
    return ((found - plain)[..., 0] / per_pixel[:, None])[exact]


@pytest.mark.parametrize(
    ("convention", "shift", "expected"), [("hrnet", 1, 0.125), ("hrnet", 0, -0.375), ("half_pixel", 0, 0.0)]
)
def test_a_flip_test_moves_joints_by_half_of_the_misalignment(
    some: PersonData, convention: str, shift: int, expected: float
) -> None:
    """The expectation of an average of two maps lies in the middle: 1/4 and -3/4 heatmap pixels apart, or none.

    Where the two splats share no 3 x 3 pixels around the peak, `local` sees less; hence the median.
    """
    moved = shift_px(some, "local", "local", convention, shift)
    assert len(moved) > 1000
    assert np.median(moved) == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_perfect_maps_are_read_right_by_their_own_decoder(some: PersonData) -> None:
    table = pd.DataFrame(map_rows(some))
    plain = table[(table["trap"] == "decoder") & (table["metric"] == "median error, % of the head")]
    error = plain.set_index(["predictions", "setting"])["value"]
    assert error["perfect bilinear maps", "local"] < 0.01
    assert error["perfect Gaussian maps", "dark"] < 0.1
    assert error["perfect Gaussian maps", "dark"] < error["perfect Gaussian maps", "quarter"] / 10
    assert error["perfect Gaussian maps", "quarter"] < error["perfect Gaussian maps", "argmax"]
    right = table[table["right"] & (table["metric"] == "PCKh@0.1")]
    assert right["value"].min() > 95


def test_known_errors_give_the_share_that_the_normal_distribution_gives(sample_data: Path) -> None:
    """Of a two-dimensional normal error with standard deviation s, 1 - exp(-t^2 / 2 s^2) lies within t."""
    data = load_persons(f"mpii:{sample_data / 'mpii_mini'}", "val", check_images=False)
    value = pd.DataFrame(error_rows(data)).set_index("setting")["value"]
    for setting, threshold in (
        ("threshold 0.1", 0.1),
        ("threshold 0.11, printed as 0.1", 0.11),
        ("head box without the factor 0.6", 0.1 / 0.6),
        ("pelvis and thorax in the mean", 0.1),
        ("every joint with the same weight", 0.1),
    ):
        assert value[setting] == pytest.approx(100 * (1 - np.exp(-(threshold**2) / (2 * NOISE**2))), abs=1.0)
    assert value["predictions counted from 0"] < value["threshold 0.1"] - 1
