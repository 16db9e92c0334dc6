"""Loss against error over checkpoints, on curves that are known, and heatmaps that descend on paths that are known."""

import math
import warnings
from types import FunctionType

import numpy as np
import pytest
import torch
from numpy import ndarray
from problems import gaussian
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from hdm.decode import decode
from hdm.errors import InputError
from hdm.evaluate import consistency, gradient_flow, kendall_tau, step_discordance
from hdm.evaluate.consistency import Consistency, _isotonic
from hdm.losses import make_loss

NAN = math.nan


def alike(curve: list[float], persons: int = 3, joints: int = 2) -> ndarray:
    """One curve for every joint of every person."""
    return np.tile(np.array(curve, dtype=float)[:, None, None], (1, persons, joints))


@pytest.fixture
def measured() -> tuple[ndarray, ndarray]:
    """Losses and errors (12, 25, 4), correlated, with ties, and NaN where a joint does not count."""
    rng = np.random.default_rng(3)
    losses = rng.normal(size=(12, 25, 4)).cumsum(0).round(1)
    errors = (losses + rng.normal(size=losses.shape)).round(1)
    hidden = rng.random((25, 4)) < 0.3
    hidden[7] = True  # a person without any joint
    losses[:, hidden] = errors[:, hidden] = NAN
    return losses, errors


def test_function_and_module_share_a_name() -> None:
    assert isinstance(consistency, FunctionType)
    assert isinstance(consistency(alike([2, 1]), alike([2, 1])), Consistency)


# --- curves


def test_an_error_that_follows_the_loss() -> None:
    found = consistency(alike([4, 3, 3.5, 1]), alike([8, 6, 7, 2]), resamples=50)
    assert (found.checkpoints, found.falling_steps, found.discordant_steps) == (4, 2, 0)
    assert found.kendall == found.joint_kendall == found.person_kendall == 1
    assert found.spearman == pytest.approx(1)
    assert found.discordant == found.joint_discordant == found.person_discordant == found.expected == 0
    assert found.p_value == 1
    assert found.excess_px == pytest.approx((0 + 0 + 1 + 0) / 4)
    assert found.excess_share == pytest.approx(found.excess_px / 2)


def test_an_error_that_rises_while_the_loss_falls() -> None:
    """Without noise, since all persons are alike, noise explains nothing."""
    found = consistency(alike([4, 3, 2, 1]), alike([1, 2, 3, 5]), resamples=99)
    assert found.kendall == found.joint_kendall == -1
    assert found.discordant == found.person_discordant == 1
    assert (found.expected, found.p_value) == (0, 0.01)
    assert found.excess_px == pytest.approx((0 + 1 + 2 + 4) / 4)


def test_the_papers_argument() -> None:
    """On the way from 0.1 G to 0.9 G with a high pixel elsewhere the squared error falls in all six steps, and the
    largest pixel jumps from the joint (20, 30) to (5, 5) once, by sqrt(15^2 + 25^2) pixels."""
    truth = gaussian(64, 48, (20, 30), 2.0)
    end = 0.9 * truth
    end[5, 5] = 0.95
    maps = [(1 - t) * 0.1 * truth + t * end for t in (0, 0.2, 0.4, 0.6, 0.7, 0.8, 1)]
    joints, visible = torch.tensor([20.0, 30.0]).double().expand(2, 2, 2), torch.ones(2, 2)
    loss = make_loss("gaussian_mse", rounded=False, reduction="none")
    losses, errors = [], []
    for heatmap in maps:
        heatmaps = heatmap.expand(2, 2, 64, 48)
        losses.append(loss(heatmaps, joints, visible).numpy())
        errors.append(torch.linalg.vector_norm(decode(heatmaps, "argmax")[0] - joints, dim=-1).numpy())
    found = consistency(np.stack(losses), np.stack(errors), resamples=50)
    assert (found.discordant_steps, found.falling_steps) == (1, 6)
    assert found.excess_px == pytest.approx(3 * math.hypot(15, 25) / 7)
    assert math.isnan(found.excess_share)  # the smallest error is 0


def test_means_are_over_the_joints_that_count(measured: tuple[ndarray, ndarray]) -> None:
    losses, errors = measured
    found = consistency(losses, errors, resamples=20)
    curves = [np.nanmean(values.reshape(12, -1), 1) for values in measured]
    assert found.kendall == pytest.approx(kendalltau(*curves).statistic)
    assert found.spearman == pytest.approx(spearmanr(*curves).statistic)
    falls, rises = np.diff(curves[0]) < 0, np.diff(curves[1]) > 0
    assert (found.discordant_steps, found.falling_steps) == ((falls & rises).sum(), falls.sum())
    assert found.excess_px == pytest.approx(np.mean([curves[1][c] - curves[1][: c + 1].min() for c in range(12)]))


def test_series_of_joints_and_persons(measured: tuple[ndarray, ndarray]) -> None:
    found = consistency(*measured, resamples=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the person without joints
        persons = [np.nanmean(values, 2, keepdims=True) for values in measured]
    for losses, errors, tau, share in (
        (*measured, found.joint_kendall, found.joint_discordant),
        (*persons, found.person_kendall, found.person_discordant),
    ):
        taus, discordant, falling = [], 0, 0
        for n, k in zip(*np.nonzero(~np.isnan(losses[0])), strict=True):
            taus.append(kendalltau(losses[:, n, k], errors[:, n, k]).statistic)
            falls, rises = np.diff(losses[:, n, k]) < -1e-9, np.diff(errors[:, n, k]) > 1e-9
            discordant, falling = discordant + (falls & rises).sum(), falling + falls.sum()
        assert tau == pytest.approx(np.mean(taus))
        assert share == pytest.approx(discordant / falling)


def test_what_is_not_defined() -> None:
    found = consistency(alike([1, 1, 1]), alike([3, 2, 1]), resamples=10)
    assert found.falling_steps == found.discordant_steps == 0
    for value in (found.kendall, found.spearman, found.discordant, found.expected, found.p_value, found.joint_kendall):
        assert math.isnan(value)


def test_units_and_order_of_persons_do_not_matter(measured: tuple[ndarray, ndarray]) -> None:
    losses, errors = measured
    found = consistency(losses, errors, resamples=20)
    scaled = consistency(1e4 * losses, 1e-3 * errors, resamples=20)
    turned = consistency(losses[:, ::-1, ::-1], errors[:, ::-1, ::-1], resamples=20)
    for other in (scaled, turned):
        assert other.kendall == found.kendall
        assert other.discordant == found.discordant
        assert other.joint_kendall == pytest.approx(found.joint_kendall)
    assert scaled.expected == pytest.approx(found.expected)
    assert consistency(losses, errors, resamples=20) == found  # the same seed


# --- noise


def test_noise_is_that_of_persons_drawn_anew(measured: tuple[ndarray, ndarray]) -> None:
    """Against the definition, one draw of persons after another."""
    losses, errors = (np.delete(values, 7, axis=1) for values in measured)
    curves = [np.nanmean(values.reshape(12, -1), 1) for values in (losses, errors)]
    truth = _isotonic(*curves)
    rng = np.random.default_rng(8)
    shares = []
    for _ in range(800):
        chosen = rng.integers(24, size=24)
        drawn = [np.nanmean(values[:, chosen].reshape(12, -1), 1) for values in (losses, errors)]
        falls, rises = np.diff(drawn[0]) < 0, np.diff(truth + drawn[1] - curves[1]) > 0
        shares.append((falls & rises).sum() / falls.sum())
    found = consistency(losses, errors, resamples=4000)
    assert found.expected == pytest.approx(np.mean(shares), abs=4 * np.std(shares) / math.sqrt(800))
    as_many = np.mean(np.array(shares) >= found.discordant)
    assert found.p_value == pytest.approx(as_many, abs=0.06)


def noisy(truth: ndarray, rng: np.random.Generator) -> ndarray:
    """A curve measured on 50 persons of 3 joints, which differ from each other more than from time to time."""
    steady, moving = rng.normal(size=(1, 50, 1)), rng.normal(size=(len(truth), 50, 3))
    return truth[:, None, None] + 2 * steady + moving


def test_noise_alone_seldom_looks_like_inconsistency() -> None:
    """The error falls with the loss; in 60 trainings about as many p values below 0.2 as there may be, at most."""
    small = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        time = np.linspace(0, 1, 15)
        found = consistency(noisy(2 - 2 * time, rng), noisy(5 - 0.5 * time, rng), resamples=100)
        assert found.discordant > 0 or found.p_value == 1
        small += found.p_value < 0.2
    assert small <= 18  # 12 expected at most; more than 18 in 3 of 100 cases


def test_a_true_rise_is_told_from_noise() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        time = np.linspace(0, 1, 20)
        found = consistency(noisy(2 - 4 * time, rng), noisy(5 + 4 * time, rng), resamples=200)
        assert found.discordant > found.expected + 0.2
        assert found.p_value < 0.05


def test_isotonic_regression_pools_ties() -> None:
    """At loss 1 the errors 2 and 6 have mean 4; it and the 3 at loss 2 are out of order: (2 * 4 + 3) / 3."""
    fitted = _isotonic(np.array([3.0, 1.0, 2.0, 1.0]), np.array([9.0, 2.0, 3.0, 6.0]))
    np.testing.assert_allclose(fitted, [9, 11 / 3, 11 / 3, 11 / 3])


# --- parts


def test_steps_of_several_series() -> None:
    losses = np.array([[3, 3], [2, 4], [1, 2], [1, 1]], dtype=float)
    errors = np.array([[1, 1], [2, 5], [2, 6], [3, 1]], dtype=float)
    discordant, falling = step_discordance(losses, errors)
    np.testing.assert_array_equal(discordant, [1, 1])
    np.testing.assert_array_equal(falling, [2, 2])


def test_rounding_is_no_step() -> None:
    losses, errors = np.array([3.0, 2.0, 1.0]), np.array([0.3, 0.1 + 0.2, 0.3])
    assert errors[1] > errors[0]
    assert step_discordance(losses, errors)[0] == 0
    assert step_discordance(errors[1:], losses[1:])[1] == 0


def test_kendall_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 6, size=(2, 9, 5, 4)).astype(float)
    x[:, 2, 3] = 1  # constant: no tau
    tau = kendall_tau(x, y)
    assert tau.shape == (5, 4)
    for n in range(5):
        for k in range(4):
            expected = kendalltau(x[:, n, k], y[:, n, k]).statistic
            np.testing.assert_allclose(tau[n, k], expected, rtol=1e-12, equal_nan=True)
    assert math.isnan(tau[2, 3])


# --- refusals


def test_places_of_nan(measured: tuple[ndarray, ndarray]) -> None:
    losses, errors = measured
    n, k = np.argwhere(~np.isnan(losses[0]))[0]
    for which in (losses, errors):
        kept = which[4, n, k]
        which[4, n, k] = NAN
        with pytest.raises(InputError, match="NaN in different places"):
            consistency(losses, errors)
        which[4, n, k] = kept
    losses[2, n, k] = -math.inf
    with pytest.raises(InputError, match="infinite values"):
        consistency(losses, errors)


def test_too_little_to_compare(measured: tuple[ndarray, ndarray], no_shape_checks: None) -> None:
    losses, errors = measured
    with pytest.raises(InputError, match="1 checkpoints have no step"):
        consistency(losses[:1], errors[:1])
    with pytest.raises(InputError, match="1 persons with a joint"):
        consistency(losses[:, 6:8], errors[:, 6:8])
    with pytest.raises(InputError, match="resamples 0"):
        consistency(losses, errors, resamples=0)
    with pytest.raises(InputError, match=r"losses \(12, 25, 4\) and errors \(12, 24, 4\)"):
        consistency(losses, errors[:, 1:])


# --- heatmaps that descend


@pytest.fixture
def start() -> tuple[Tensor, Tensor, Tensor]:
    """Maps (2, 3, 12, 9) in float64, joints on them, and which of them are visible."""
    maps = torch.randn(2, 3, 12, 9, dtype=torch.float64)
    joints = torch.rand(2, 3, 2, dtype=torch.float64) * torch.tensor([8.0, 11.0])
    return maps, joints, torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])


def argmax(maps: Tensor) -> Tensor:
    return decode(maps, "argmax")[0]


def test_squared_error_goes_straight_to_its_target(start: tuple[Tensor, Tensor, Tensor]) -> None:
    """l = r^2 / 2 with r the root mean square from the target, which each step brings nearer by its length."""
    maps, joints, visible = start
    loss = make_loss("gaussian_mse", sigma=1.0, rounded=False, reduction="none")
    before = maps.clone()
    flow = gradient_flow(loss, maps, joints, visible, decoder=argmax, steps=50, rate=0.05)
    assert flow.losses.shape == flow.errors.shape == (51, 2, 3)
    target = loss.target(joints, (12, 9))
    distance = (maps - target).square().mean((-2, -1)).sqrt()
    shown = visible > 0
    for step in (0, 1, 7, 15):
        expected = (distance - 0.05 * step).square()[shown] / 2
        np.testing.assert_allclose(flow.losses[step][shown], expected, rtol=1e-9)
    torch.testing.assert_close(flow.heatmaps[shown], target[shown], atol=1e-3, rtol=0)
    torch.testing.assert_close(maps, before, atol=0, rtol=0)
    # An invisible joint has no loss and no error, and its map stays.
    assert np.isnan(flow.losses[:, 0, 2]).all() and np.isnan(flow.errors[:, 0, 2]).all()
    torch.testing.assert_close(flow.heatmaps[0, 2], maps[0, 2], atol=0, rtol=0)
    # At the end the largest pixel is that nearest to the joint.
    np.testing.assert_allclose(flow.errors[-1][shown], (joints - joints.round()).norm(dim=-1)[shown])


@pytest.mark.parametrize("name", [pytest.param("hdm", marks=pytest.mark.slow), "gaussian_mse", "cross_entropy"])
def test_a_loss_never_rises_and_maps_do_not_depend_on_each_other(
    start: tuple[Tensor, Tensor, Tensor], name: str
) -> None:
    maps, joints, visible = start
    loss = make_loss(name, reduction="none")
    flow = gradient_flow(loss, maps, joints, visible, decoder=argmax, steps=20, rate=0.1)
    shown = visible.numpy() > 0
    assert (np.diff(flow.losses[:, shown], axis=0) <= 0).all()
    assert (flow.losses[-1][shown] < 0.8 * flow.losses[0][shown]).all()
    alone = gradient_flow(loss, maps[1:, 2:], joints[1:, 2:], visible[1:, 2:], decoder=argmax, steps=20, rate=0.1)
    np.testing.assert_allclose(alone.losses[:, 0, 0], flow.losses[:, 1, 2], rtol=1e-9)
    found = consistency(flow.losses, flow.errors, resamples=20)
    assert found.checkpoints == 21
    assert found.falling_steps > 15  # all, but for the last ones where a minimum is reached
    assert found.joint_kendall > 0


@pytest.mark.slow
def test_the_path_does_not_depend_on_the_unit_of_the_loss(start: tuple[Tensor, Tensor, Tensor]) -> None:
    maps, joints, visible = start
    loss = make_loss("hdm", reduction="none")
    flow = gradient_flow(loss, maps, joints, visible, decoder=argmax, steps=12, rate=0.1)
    scaled = gradient_flow(
        lambda *batch: 1024 * loss(*batch), maps, joints, visible, decoder=argmax, steps=12, rate=0.1
    )
    np.testing.assert_allclose(scaled.losses, 1024 * flow.losses, rtol=1e-9)
    np.testing.assert_array_equal(scaled.errors, flow.errors)


def test_records_are_thinned(start: tuple[Tensor, Tensor, Tensor]) -> None:
    loss = make_loss("gaussian_mse", reduction="none")
    each = gradient_flow(loss, *start, decoder=argmax, steps=11, rate=0.05)
    third = gradient_flow(loss, *start, decoder=argmax, steps=11, rate=0.05, every=3)
    assert len(third.losses) == 4
    np.testing.assert_array_equal(third.losses, each.losses[::3])
    np.testing.assert_array_equal(third.errors, each.errors[::3])
    torch.testing.assert_close(third.heatmaps, each.heatmaps, atol=0, rtol=0)


def test_a_gradient_too_small_to_be_squared(start: tuple[Tensor, Tensor, Tensor]) -> None:
    """1e-30 times a linear loss, in single precision: each step moves the map by its length all the same."""
    maps, joints, visible = (values.float() for values in start)
    slope = torch.randn(12, 9)

    def linear(maps: Tensor, joints: Tensor, visible: Tensor) -> Tensor:
        return visible * 1e-30 * (maps * slope).sum((-2, -1))

    flow = gradient_flow(linear, maps, joints, visible, decoder=argmax, steps=10, rate=0.1)
    expected = maps - visible[..., None, None] * slope / slope.square().mean().sqrt()
    torch.testing.assert_close(flow.heatmaps, expected, atol=1e-5, rtol=0)


def test_half_precision_descends_in_single(start: tuple[Tensor, Tensor, Tensor]) -> None:
    maps, joints, visible = start
    loss = make_loss("gaussian_mse", reduction="none")
    flow = gradient_flow(loss, maps.half(), joints.float(), visible, decoder=argmax, steps=2, rate=0.1)
    assert flow.heatmaps.dtype == torch.float32
    assert flow.losses.dtype == flow.errors.dtype == np.float64


def test_settings_of_a_flow(start: tuple[Tensor, Tensor, Tensor]) -> None:
    loss = make_loss("gaussian_mse", reduction="none")
    with pytest.raises(InputError, match="rate 0.0 must be positive"):
        gradient_flow(loss, *start, decoder=argmax, steps=2, rate=0.0)
    for steps, every in ((0, 1), (3, 0)):
        with pytest.raises(InputError, match=f"steps {steps} and every {every} must be 1 or more"):
            gradient_flow(loss, *start, decoder=argmax, steps=steps, rate=0.1, every=every)
    with pytest.raises(InputError, match=r"loss returns \(\) for \(2, 3\) joints: make it with reduction='none'"):
        gradient_flow(make_loss("gaussian_mse"), *start, decoder=argmax, steps=2, rate=0.1)
