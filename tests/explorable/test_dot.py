"""What the figure on the dot reckons in its chart, against the losses themselves and autograd."""

import re

import pytest
import torch
import vl_convert

from hdm.explorable import move_the_dot
from hdm.explorable.dot import PIXELS, SIGMA, SLIDERS, line_of_pixels
from hdm.losses import CrossEntropy, GaussianMSE, HDMLoss

FIELDS = ("map", "mse", "cross_entropy", "emd", "step_mse", "step_cross_entropy", "step_emd")
PLACES = [
    {},  # as the figure first stands
    {"dot": 28.7, "spread": 0.5, "second": 0.0, "apart": 4.0},  # the dot where there is no mass
    {"dot": 20.0, "spread": 3.0, "second": 1.2, "apart": 12.0},  # on a pixel: a single demander
    {"dot": 1.4, "spread": 1.1, "second": 0.6, "apart": 7.5},
]


def reckoned(values: dict[str, float]) -> dict[str, torch.Tensor]:
    """The fields of all pixels as the chart's own dataflow has them, read from texts that it is made to write."""
    chart = line_of_pixels().transform_calculate(
        written="'{' + join([datum.x, " + ", ".join(f"datum.{field}" for field in FIELDS) + "], ';') + '}'"
    )
    chart = chart.mark_text().encode(text="written:N").add_params(*(slider.parameter() for slider in SLIDERS))
    spec = vl_convert.vegalite_to_vega(chart.to_dict())
    for signal in spec["signals"]:
        signal["value"] = values.get(signal["name"], signal.get("value"))
    texts = re.findall(r">{(.*?)}</text>", vl_convert.vega_to_svg(spec))
    rows = torch.tensor([[float(number) for number in text.split(";")] for text in texts], dtype=torch.float64)
    assert rows[:, 0].tolist() == list(range(PIXELS))
    return dict(zip(FIELDS, rows[:, 1:].T, strict=True))


@pytest.mark.parametrize("values", PLACES)
def test_values_and_steps_are_those_of_the_losses(values):
    found = reckoned(values)
    dot = values.get("dot", SLIDERS[0].value)
    joints, visible = torch.tensor([[[dot, 0.0]]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    heights = found["map"].view(1, 1, 1, PIXELS)
    for field, loss, raw in (
        ("mse", GaussianMSE(SIGMA, rounded=False), heights),
        ("cross_entropy", CrossEntropy(), heights.log()),
        ("emd", HDMLoss(), heights.log()),
    ):
        raw = raw.clone().requires_grad_()
        value = loss(raw, joints, visible)
        value.backward()
        torch.testing.assert_close(found[field], value.detach().expand(PIXELS), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[f"step_{field}"], -raw.grad.flatten(), rtol=1e-4, atol=1e-5)


def test_the_losses_teach_what_the_text_says():
    """Gaussian MSE does not know how far a wrong peak lies, EMD does; where there is no mass, EMD raises nothing."""
    near, far = (reckoned({"spread": 1.0, "second": 1.0, "apart": apart}) for apart in (12.0, 20.0))
    assert float(near["mse"][0]) == pytest.approx(float(far["mse"][0]), rel=1e-3)
    assert float(far["emd"][0]) - float(near["emd"][0]) == pytest.approx(4.0, rel=0.05)
    empty = reckoned({"dot": 28.0, "second": 0.0})
    assert float(empty["step_cross_entropy"][28]) > 0.9
    assert float(empty["step_emd"][28]) < 0.02 < float(empty["step_emd"].max())


def test_the_figure_has_a_panel_for_the_map_and_one_for_each_loss():
    html = move_the_dot()._repr_html_()
    for name in ("map, target and demanders", "Gaussian MSE = ", "cross-entropy = ", "EMD = "):
        assert name in html
    assert len(html) < 200_000
    signals = {signal["name"] for signal in move_the_dot().specs[0]["signals"]}
    assert signals >= {slider.name for slider in SLIDERS}
