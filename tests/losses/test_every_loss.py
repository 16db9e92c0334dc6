"""What all losses have in common: what they take, refuse and return, and that no output breaks them."""

import math
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as search
from hypothesis import strategies as st
from torch import Tensor, nn

from hdm.errors import InputError
from hdm.losses import (
    DSNT,
    LOSSES,
    OHKM,
    RLE,
    SUPPLIERS,
    AdaptiveWing,
    CrossEntropy,
    ExpectedCost,
    GaussianMSE,
    HDMLoss,
    IntegralRegression,
    JSDivergence,
    KLDivergence,
    SimCC,
    make_loss,
)

Form = tuple[str, dict[str, Any]]
Problem = Callable[..., tuple[Tensor, Tensor, Tensor]]

# Losses whose value depends on where the mass lies, not on which pixel is which.
PLAIN: list[Form] = [
    ("gaussian_mse", {}),
    ("gaussian_mse", {"rounded": False, "sigma": 1.3}),
    ("adaptive_wing", {}),
    ("adaptive_wing", {"rounded": False, "theta": 0.3}),
    ("cross_entropy", {}),
    ("cross_entropy", {"demanders": "nearest", "temperature": 0.7}),
    ("cross_entropy", {"demanders": "gaussian", "sigma": 1.2}),
    ("kl", {}),
    ("kl", {"demanders": "subpixel", "temperature": 0.7}),
    ("js", {}),
    ("expected_cost", {}),
    ("expected_cost", {"cost": "l2_squared"}),
    ("dsnt", {}),
    ("dsnt", {"js_weight": 0.0}),
    *(("hdm", {"suppliers": suppliers}) for suppliers in SUPPLIERS),
    ("hdm", {"demanders": "dot", "temperature": 2.0}),
    ("hdm", {"demanders": "nearest", "suppliers": "relu"}),
    ("hdm", {"cost": "l2_squared"}),
    ("hdm", {"cost": "truncated", "scale": 2.5}),
    ("hdm", {"cost": "gaussian", "demanders": "dot", "scale": 1.7}),
    ("hdm", {"cross_entropy": 0.3}),
]
# Theirs counts the sides of the map.
SIDED: list[Form] = [("integral", {})]
SINKHORN: Form = ("hdm", {"solver": "sinkhorn", "blur": 1.0})
HEADS: list[Form] = [
    ("simcc", {"size": (7, 5)}),
    ("simcc", {"size": (7, 5), "target": "gaussian", "bins_per_pixel": 3}),
    *(("rle", {"size": (7, 5), "prior": prior}) for prior in ("official", "laplace", "gaussian")),
]
# Their mean is another one.
OTHER_MEANS: list[Form] = [("gaussian_mse", {"divide_by": "all"}), ("ohkm", {}), ("ohkm", {"topk": 2})]

USUAL = [*PLAIN, *SIDED, SINKHORN, *HEADS]


def losses(forms: list[Form]) -> pytest.MarkDecorator:
    """A test for each (name, settings) of `forms`."""
    names = ["-".join([name, *map(str, settings.values())]) for name, settings in forms]
    return pytest.mark.parametrize(("name", "settings"), forms, ids=names)


def build(name: str, settings: dict[str, Any], reduction: str = "mean") -> nn.Module:
    """The loss; where it has a head, always with the same weights."""
    torch.manual_seed(1)
    return make_loss(name, **settings, reduction=reduction)


def test_every_loss_is_in_the_lists() -> None:
    assert {name for name, _ in [*USUAL, *OTHER_MEANS]} == set(LOSSES)


@losses(USUAL)
def test_the_mean_is_over_the_visible(problem: Problem, name: str, settings: dict[str, Any]) -> None:
    heatmaps, joints, visible = problem()
    each = build(name, settings, "none")(heatmaps, joints, visible)
    assert each.shape == (2, 3)
    assert ((each != 0) == (visible > 0)).all()
    assert torch.allclose(build(name, settings)(heatmaps, joints, visible), each.sum() / 3.5)


@losses(USUAL)
def test_a_weight_scales_a_joint(problem: Problem, name: str, settings: dict[str, Any]) -> None:
    heatmaps, joints, visible = problem()
    each = build(name, settings, "none")
    full = each(heatmaps, joints, torch.ones(2, 3, dtype=torch.float64))
    assert torch.allclose(each(heatmaps, joints, visible), full * visible)
    mean = build(name, settings)
    assert torch.allclose(mean(heatmaps, joints, 10 * visible), mean(heatmaps, joints, visible))


@losses([*PLAIN, SINKHORN])
def test_a_mirrored_or_transposed_problem(problem: Problem, name: str, settings: dict[str, Any]) -> None:
    heatmaps, joints, visible = problem()
    loss = build(name, settings)
    value = loss(heatmaps, joints, visible)
    tolerance = 1e-3 if "solver" in settings else 1e-9
    mirrored = torch.stack([4 - joints[..., 0], joints[..., 1]], -1)
    assert torch.allclose(loss(heatmaps.flip(-1), mirrored, visible), value, rtol=tolerance)
    if name != "dsnt":  # whose unit is half of each side
        assert torch.allclose(loss(heatmaps.mT.contiguous(), joints.flip(-1), visible), value, rtol=tolerance)


@losses([*USUAL, *OTHER_MEANS])
class TestEveryLoss:
    def test_joints_do_not_mix(self, problem: Problem, name: str, settings: dict[str, Any]) -> None:
        if settings.get("topk") == 2:
            pytest.skip("choosing the hardest joints is mixing them")
        heatmaps, joints, _ = problem()
        loss = build(name, settings, "none")
        everyone = torch.ones(2, 3, dtype=torch.float64)
        together = loss(heatmaps, joints, everyone)
        for b in range(2):
            for k in range(3):
                alone = loss(heatmaps[b : b + 1, k : k + 1], joints[b : b + 1, k : k + 1], everyone[:1, :1])
                assert torch.allclose(alone.squeeze(), together[b, k], atol=1e-3 if "solver" in settings else 1e-9)

    def test_an_invisible_joint_has_no_gradient(self, problem: Problem, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        loss = build(name, settings)
        known = loss(heatmaps, joints, visible)
        joints[0, 1], joints[1, 2] = float("nan"), float("inf")
        heatmaps.requires_grad_()
        value = loss(heatmaps, joints, visible)
        value.backward()
        assert torch.allclose(value, known)
        assert torch.isfinite(heatmaps.grad).all()
        assert torch.equal(heatmaps.grad.abs().sum((-2, -1)) > 0, visible > 0)
        assert all(torch.isfinite(parameter.grad).all() for parameter in loss.parameters())

    def test_precision(self, problem: Problem, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        loss = build(name, settings)
        assert loss(heatmaps, joints, visible).dtype == torch.float64
        half, joints, visible = heatmaps.bfloat16(), joints.float(), visible.float()
        value = loss(half, joints, visible)
        assert value.dtype == torch.float32
        assert torch.equal(value, loss(half.float(), joints, visible))
        assert loss.maps(half).dtype == torch.float32

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_changes_nothing(
        self, problem: Problem, name: str, settings: dict[str, Any], dtype: torch.dtype
    ) -> None:
        heatmaps, joints, visible = problem(torch.float32)
        gradients = []
        for enabled in (False, True):
            z = heatmaps.clone().requires_grad_()
            with torch.autocast("cpu", dtype=dtype, enabled=enabled):
                loss = build(name, settings)
                value = loss(z, joints, visible)
                maps = loss.maps(heatmaps)
            value.backward()
            gradients.append(torch.stack([z.grad, maps.detach()]))
        assert torch.equal(*gradients)

    def test_the_same_value_twice(self, problem: Problem, name: str, settings: dict[str, Any]) -> None:
        values = [build(name, settings)(*batch) for batch in [problem()] for _ in range(2)]
        assert torch.equal(*values)

    def test_maps_are_of_the_same_shape(self, problem: Problem, name: str, settings: dict[str, Any]) -> None:
        heatmaps, _, _ = problem()
        assert build(name, settings).maps(heatmaps).shape == heatmaps.shape

    def test_no_visible_joint(self, problem: Problem, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        for reduction in ("mean", "none"):
            with pytest.raises(InputError, match="no joint of the batch is visible: leave out persons"):
                build(name, settings, reduction)(heatmaps, joints, 0 * visible)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_heatmaps_that_are_not_finite(
        self, problem: Problem, name: str, settings: dict[str, Any], value: float
    ) -> None:
        heatmaps, joints, visible = problem()
        heatmaps[1, 2, 3, 4] = value
        with pytest.raises(InputError, match="heatmaps hold NaN or infinite values: lower the learning rate"):
            build(name, settings)(heatmaps, joints, visible)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_visible_joint_that_is_nowhere(
        self, problem: Problem, name: str, settings: dict[str, Any], value: float
    ) -> None:
        heatmaps, joints, visible = problem()
        joints[0, 2, 1] = value
        with pytest.raises(InputError, match="a visible joint has NaN or infinite coordinates"):
            build(name, settings)(heatmaps, joints, visible)

    @pytest.mark.parametrize(("axis", "place"), [(0, -0.51), (0, 4.51), (1, -0.51), (1, 6.51)])
    def test_a_visible_joint_outside_of_the_map(
        self, problem: Problem, name: str, settings: dict[str, Any], axis: int, place: float
    ) -> None:
        heatmaps, joints, visible = problem()
        loss = build(name, settings)
        joints[0, 2, axis] = round(place, 1)  # half a pixel outside of the pixel centres: the map's border
        assert torch.isfinite(loss(heatmaps, joints, visible))
        joints[0, 2, axis] = place
        with pytest.raises(InputError, match="a visible joint lies outside of its 5 x 7 heatmap: .* visibility to 0"):
            loss(heatmaps, joints, visible)
        visible[0, 2] = 0
        assert torch.isfinite(loss(heatmaps, joints, visible))

    @pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
    def test_visible_that_is_no_weight(
        self, problem: Problem, name: str, settings: dict[str, Any], value: float
    ) -> None:
        heatmaps, joints, visible = problem()
        visible[1, 0] = value
        with pytest.raises(InputError, match="visible holds negative, NaN or infinite weights"):
            build(name, settings)(heatmaps, joints, visible)

    @pytest.mark.usefixtures("no_shape_checks")
    def test_shapes_that_do_not_match(self, problem: Problem, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        loss = build(name, settings)
        for batch in (
            (heatmaps[0], joints[0], visible[0]),
            (heatmaps, joints[:, :2], visible),
            (heatmaps, joints, visible[:, :2]),
            (heatmaps, torch.cat([joints, joints], -1), visible),
            (heatmaps, joints, visible.unsqueeze(-1)),
        ):
            with pytest.raises(InputError, match=r"heatmaps \(.*\), joints \(.*\) and visible \(.*\) do not match"):
                loss(*batch)


# Sinkhorn returns the cost of its plan with the gradient of the entropic problem.
@losses([*PLAIN, *SIDED, *HEADS, *OTHER_MEANS])
def test_gradient_against_finite_differences(problem: Problem, name: str, settings: dict[str, Any]) -> None:
    heatmaps, joints, visible = problem()
    loss = build(name, settings)
    heatmaps.requires_grad_()
    torch.autograd.gradcheck(lambda z: loss(z, joints, visible), heatmaps, atol=1e-6, fast_mode=True)


@losses(
    [("hdm", {"demanders": "dot"}), *((name, {}) for name in LOSSES if name not in ("simcc", "rle", "hdm")), *HEADS]
)
def test_gradient_of_each_image_by_vmap(problem: Problem, name: str, settings: dict[str, Any]) -> None:
    heatmaps, joints, visible = problem()
    loss = build(name, settings)

    def image_loss(z: Tensor, q: Tensor, w: Tensor) -> Tensor:
        return loss(z[None], q[None], w[None])

    gradients = torch.func.vmap(torch.func.grad(image_loss))(heatmaps, joints, visible)
    heatmaps.requires_grad_()
    sum(image_loss(z, q, w) for z, q, w in zip(heatmaps, joints, visible, strict=True)).backward()
    assert torch.allclose(gradients, heatmaps.grad)


def test_finite_heatmaps_whose_sum_is_infinite(problem: Problem) -> None:
    heatmaps, joints, visible = problem(torch.float32)
    value = CrossEntropy()(torch.full_like(heatmaps, 3e38), joints, visible)
    assert value.item() == pytest.approx(math.log(35))


# --- a search for NaN and infinity ---

SIZE = (6, 5)
SEARCHED: list[Form] = [
    *((name, {"size": SIZE} if name in ("simcc", "rle") else {}) for name in LOSSES),
    *(("hdm", {"suppliers": suppliers}) for suppliers in SUPPLIERS[1:]),
    *(("hdm", {"suppliers": suppliers, "cost": "l2_squared"}) for suppliers in SUPPLIERS),
    ("hdm", {"suppliers": "relu", "demanders": "dot"}),
    ("cross_entropy", {"demanders": "gaussian", "sigma": 0.1}),
    ("kl", {"demanders": "subpixel"}),
    ("simcc", {"size": SIZE, "target": "gaussian", "sigma": 0.05}),
    ("rle", {"size": SIZE, "prior": "gaussian"}),
]

values = st.sampled_from([0.0, 1e4, -1e4, 1e-6]) | st.floats(-1e4, 1e4, width=16)


@st.composite
def extreme_map(draw: st.DrawFn, size: tuple[int, int]) -> np.ndarray:
    """Logits of a map: anything up to 1e4, one value everywhere, or one pixel that sticks out."""
    kind = draw(st.sampled_from(["any", "equal", "one"]))
    if kind == "any":
        return draw(hnp.arrays(np.float32, size, elements=values, fill=values))
    heatmap = np.full(size, draw(values), np.float32)
    if kind == "one":
        heatmap[draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))] = draw(values)
    return heatmap


@st.composite
def extreme_batch(draw: st.DrawFn, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """One image, two joints; joints on pixels, between them and on the border; a joint that does not count is NaN."""
    heatmaps = torch.from_numpy(np.stack([draw(extreme_map(size)) for _ in range(2)])[None])
    place = [
        st.sampled_from([-0.5, 0.0, 2.0, 2.5, side - 1.0, side - 0.5]) | st.floats(-0.5, side - 0.5, width=32)
        for side in reversed(size)
    ]
    joints = torch.tensor([[[draw(axis) for axis in place] for _ in range(2)]], dtype=torch.float32)
    visible = torch.tensor([draw(st.sampled_from([(1.0, 1.0), (1.0, 0.0), (0.25, 1.0)]))])
    return heatmaps, torch.where(visible.unsqueeze(-1) > 0, joints, torch.nan), visible


dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


def check_all_is_finite(
    name: str, settings: dict[str, Any], batch: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype
) -> None:
    heatmaps, joints, visible = batch
    heatmaps = heatmaps.to(dtype).requires_grad_()
    loss = build(name, settings)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        value = loss(heatmaps, joints, visible)
        maps = loss.maps(heatmaps)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(heatmaps.grad).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in loss.parameters())
    assert torch.isfinite(maps).all()


@losses(SEARCHED)
@search(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(batch=extreme_batch(SIZE), dtype=dtypes)
def test_no_output_breaks_a_loss(
    name: str, settings: dict[str, Any], batch: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype
) -> None:
    check_all_is_finite(name, settings, batch, dtype)


# Of these, many pixels are grouped.
@losses([*(("hdm", {"suppliers": suppliers}) for suppliers in SUPPLIERS), ("hdm", {"cost": "l2_squared"})])
@search(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(batch=extreme_batch((32, 24)), dtype=dtypes)
def test_no_large_map_breaks_the_transport(
    name: str, settings: dict[str, Any], batch: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype
) -> None:
    check_all_is_finite(name, settings, batch, dtype)


# --- settings ---


def test_make_loss_builds_each_loss() -> None:
    assert {name: type(make_loss(name)) for name in LOSSES} == {
        "gaussian_mse": GaussianMSE,
        "ohkm": OHKM,
        "adaptive_wing": AdaptiveWing,
        "cross_entropy": CrossEntropy,
        "kl": KLDivergence,
        "js": JSDivergence,
        "expected_cost": ExpectedCost,
        "integral": IntegralRegression,
        "dsnt": DSNT,
        "simcc": SimCC,
        "rle": RLE,
        "hdm": HDMLoss,
    }
    assert make_loss("gaussian_mse", sigma=3.0).sigma == 3


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_refuses_an_unknown_reduction(name: str) -> None:
    with pytest.raises(InputError, match="unknown reduction 'sum': choose one of mean, none"):
        make_loss(name, reduction="sum")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mse", {}, "unknown loss 'mse': choose one of gaussian_mse, ohkm, .*, hdm"),
        ("hdm", {"sigma": 2.0}, "loss 'hdm' does not take these settings {'sigma': 2.0}"),
        ("hdm", {"suppliers": "abs"}, "unknown suppliers 'abs': choose one of softmax, softplus, relu, sigmoid"),
        ("hdm", {"demanders": "four"}, "unknown demanders 'four'"),
        ("hdm", {"cost": "l1"}, "unknown cost 'l1'"),
        ("hdm", {"solver": "newton"}, "unknown solver 'newton'"),
        ("hdm", {"blur": 0.0}, "blur 0.0 must be positive"),
        ("hdm", {"temperature": -1.0}, "temperature -1.0 must be positive"),
        ("hdm", {"floor": 0.0}, "floor 0.0 must be positive"),
        ("hdm", {"temperature": float("nan")}, "temperature nan must be positive"),
        ("gaussian_mse", {"sigma": 0.0}, "sigma 0.0 must be positive"),
        ("gaussian_mse", {"divide_by": "batch"}, "unknown divide_by 'batch': choose one of visible, all"),
        ("ohkm", {"topk": 0}, "topk 0 must be positive"),
        ("adaptive_wing", {"theta": 0.0}, "theta 0.0 must be positive"),
        ("adaptive_wing", {"alpha": 2.0}, "alpha 2.0 must be more than 2"),
        ("cross_entropy", {"demanders": "dot"}, "unknown demanders 'dot': choose one of nearest, subpixel, gaussian"),
        ("cross_entropy", {"temperature": 0.0}, "temperature 0.0 must be positive"),
        ("cross_entropy", {"sigma": 0.0}, "sigma 0.0 must be positive"),
        ("kl", {"demanders": "dot"}, "unknown demanders 'dot'"),
        ("js", {"sigma": -1.0}, "sigma -1.0 must be positive"),
        ("expected_cost", {"cost": "l1"}, "unknown cost 'l1'"),
        ("integral", {"temperature": 0.0}, "temperature 0.0 must be positive"),
        ("dsnt", {"js_weight": -1.0}, "js_weight -1.0 must be 0 or more"),
        ("simcc", {"target": "subpixel"}, "unknown target 'subpixel': choose one of one_hot, gaussian"),
        ("simcc", {"bins_per_pixel": 0}, "bins_per_pixel 0 must be positive"),
        ("rle", {"prior": "uniform"}, "unknown prior 'uniform': choose one of official, laplace, gaussian"),
    ],
)
def test_settings_that_are_wrong(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_loss(name, **settings)


@pytest.mark.parametrize("size", [(7,), (7, 5, 3), (7, 0), (7, -5), [7, 5.5]])
@pytest.mark.parametrize("name", ["simcc", "rle"])
@pytest.mark.usefixtures("no_shape_checks")
def test_sizes_that_are_none(name: str, size: Any) -> None:
    with pytest.raises(InputError, match=r"size .* must be \(H, W\), the rows and columns of the heatmaps"):
        make_loss(name, size=size)


@pytest.mark.parametrize("name", ["simcc", "rle"])
def test_heatmaps_of_another_size(problem: Problem, name: str) -> None:
    loss = make_loss(name, size=[5, 7])
    message = r"heatmaps have 7 rows and 5 columns, but .* for 5 and 7: give it size=\(7, 5\)"
    heatmaps, joints, visible = problem()
    with pytest.raises(InputError, match=message):
        loss(heatmaps, joints, visible)
    for read in (loss.maps, loss.joints):
        with pytest.raises(InputError, match=message):
            read(heatmaps)


def test_a_printed_loss_names_its_settings() -> None:
    assert "suppliers='relu'" in repr(make_loss("hdm", suppliers="relu"))
    assert "sigma=3.0" in repr(make_loss("gaussian_mse", sigma=3.0))
    assert "demanders='nearest'" in repr(make_loss("cross_entropy", demanders="nearest"))
    assert "prior='laplace'" in repr(make_loss("rle", size=(7, 5), prior="laplace"))
    for name in LOSSES:
        assert type(make_loss(name)).__name__ in repr(make_loss(name))


@pytest.mark.gpu
@losses([*USUAL, *OTHER_MEANS])
def test_the_same_on_a_gpu(problem: Problem, name: str, settings: dict[str, Any]) -> None:
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(2)
        heatmaps, joints, visible = (part.to(device) for part in problem())
        loss = build(name, settings).to(device, heatmaps.dtype)
        value = loss(heatmaps.requires_grad_(), joints, visible)
        found.append((value.item(), torch.autograd.grad(value, heatmaps)[0].cpu()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3 if "solver" in settings else 1e-6)
    if "solver" not in settings:
        assert torch.allclose(found[1][1], found[0][1], rtol=1e-5, atol=1e-8)
