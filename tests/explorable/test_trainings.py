"""Trainings side by side: what is drawn for an epoch, and what is refused."""

import json
import re

import pandas as pd
import pytest
import torch
import vl_convert

from hdm.errors import InputError
from hdm.explorable import Explorable, trainings_side_by_side
from hdm.train import Frame, TrainConfig

CONFIGS = {
    "gaussian_mse": TrainConfig("synthetic:x", loss="gaussian_mse"),
    "hdm": TrainConfig("synthetic:x", loss="hdm", warm_start=0.4),
}
JOINTS = torch.tensor([[2.2, 3.0], [4.0, 10.5]])


def frames(epochs: range = range(4)) -> list[Frame]:
    """Maps of 12 x 8 pixels with a single pixel set, which moves on by one column each epoch."""
    made = []
    for config in CONFIGS.values():
        for epoch in epochs:
            maps = torch.zeros(2, 12, 8)
            maps[:, 5, epoch] = 0.3
            made.append(Frame(config, epoch, maps, JOINTS, torch.tensor([[float(epoch), 5.0]] * 2)))
    return made


def histories() -> dict[str, pd.DataFrame]:
    table = pd.DataFrame({"epoch": range(4), "val_loss": [4.0, 3.0, 2.0, 1.0], "error_px": [20.0, 9.0, 5.0, 6.0]})
    return {"gaussian_mse": table, "hdm": table.assign(val_loss=2 * table["val_loss"])}


def drawn(figure: Explorable, chart: int, epoch: int) -> str:
    spec = figure.specs[chart]
    for signal in spec["signals"]:
        if signal["name"] == "epoch":
            signal["value"] = epoch
    return vl_convert.vega_to_svg(spec)


def test_the_slider_runs_over_the_epochs_and_stands_at_the_last():
    slider = trainings_side_by_side(frames(), histories()).sliders[0]
    assert (slider.name, slider.least, slider.largest, slider.step, slider.value) == ("epoch", 0, 3, 1, 3)


def test_maps_are_those_of_the_epoch_with_their_joints():
    figure = trainings_side_by_side(frames(), histories())
    first, third = (drawn(figure, 0, epoch) for epoch in (0, 2))
    dark = r'<path[^>]*d="M(-?[\d.]+),(-?[\d.]+)h[^>]*fill="rgb\(30, 30, 30\)"'
    pixel = 136 // 12
    for svg, column in ((first, 0), (third, 2)):
        places = [(float(x) / pixel, float(y) / pixel) for x, y in re.findall(dark, svg)]
        assert len(places) == 4  # two methods, two persons: one dark pixel each
        assert places == [(pytest.approx(column, abs=0.05), pytest.approx(5, abs=0.05))] * 4
    for name in ("Gaussian MSE", "HDM, warm start", "person 1", "person 2"):
        assert name in first
    assert first.count('role="graphics-symbol"') == 4  # a screen reader hears the headers, not each pixel


def test_curves_have_the_epoch_marked_for_each_method():
    figure = trainings_side_by_side(frames(), histories())
    first, third = (drawn(figure, 1, epoch) for epoch in (0, 2))
    assert first != third and "pixel error" in first
    assert first.count('stroke-dasharray="4,3"') == third.count('stroke-dasharray="4,3"') == 4


def test_epochs_that_not_all_methods_have_are_left_out():
    some = [frame for frame in frames() if frame.epoch != 0 or frame.config.loss == "hdm"]
    assert trainings_side_by_side(some, histories()).sliders[0].least == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "no epoch has maps"),
        (frames()[:4], "no epoch has maps"),
        (frames(range(0, 4, 2)), "some epochs are missing"),
    ],
    ids=["none", "one method", "gaps"],
)
def test_frames_that_do_not_do_are_told(given, told):
    with pytest.raises(InputError, match=told):
        trainings_side_by_side(given, histories())


def test_in_jupyter_both_charts_follow_one_slider(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "some.ipynb")
    shown = json.dumps(trainings_side_by_side(frames(), histories())._repr_mimebundle_())
    assert shown.count("After epoch") == 1 and shown.count("bind") == 1
    assert "person 1" in shown and "share of the untrained network" in shown
