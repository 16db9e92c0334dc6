"""A followed run: joints along the way, and the last maps by every decoder."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from hdm.data import PersonCrops, hold_out, load_persons
from hdm.decode import DECODERS, decode
from hdm.errors import InputError
from hdm.evaluate import consistency, localisation_error
from hdm.losses import GaussianMSE, make_loss
from hdm.models import PoseNetwork
from hdm.pixels import heatmap_to_crop
from hdm.records import read_readings, read_run, read_runs
from hdm.train import trained_network
from hdm.train.checkpoint import newest_state
from hdm.train.follow import EpochWatch, consistency_section, read_maps
from hdm.train.run import run_folder
from hdm.train.validation import validate


class Oracle(PoseNetwork):
    """A network that returns the given maps, batch by batch."""

    def __init__(self, maps):
        super().__init__()
        self.maps, self.at = maps, 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        self.at += len(images)
        return self.maps[self.at - len(images) : self.at]


def targets(data, config):
    """The crops of a part, and Gaussian maps around their joints."""
    crops = PersonCrops(data, config.input_size)
    batch, _ = crops.read(range(len(crops)), 0)
    loss = GaussianMSE(1.0, rounded=False)
    return crops, batch, loss.target(torch.where((batch.visible > 0)[..., None], batch.joints, 0.0), (16, 8))


def test_loss_and_error_of_each_joint_as_seen_along_the_way(tiny, small_data):
    config = tiny(loss_settings={"sigma": 1.0, "rounded": False}, decoder="local", input_size=(64, 32))
    crops, batch, maps = targets(load_persons(small_data, "val"), config)
    maps = maps + 0.3 * torch.rand(maps.shape)
    loss = make_loss("gaussian_mse", **config.loss_settings)
    watch = EpochWatch(loss, config)
    found = validate(Oracle(maps), crops, loss, config, watch=watch)
    losses, errors = watch.result()
    counts = batch.visible > 0
    assert (counts == ~losses.isnan()).all() and (counts == ~errors.isnan()).all()
    by_hand = GaussianMSE(1.0, rounded=False, reduction="none")(maps, batch.joints, batch.visible)
    assert torch.equal(losses[counts], by_hand[counts])
    assert losses.nanmean().item() == pytest.approx(found.loss, rel=1e-5)
    assert errors.nanmean().item() == pytest.approx(found.error_px, rel=1e-5)
    assert loss.reduction == "mean"  # the loss that trains is left as it is


def test_maps_of_the_truth_read_as_the_truth(tiny, small_data):
    config = tiny(loss_settings={"sigma": 1.0, "rounded": False}, decoder="dark", input_size=(64, 32))
    crops, batch, maps = targets(load_persons(small_data, "val"), config)
    table, measures = read_maps(Oracle(maps), crops, GaussianMSE(1.0, rounded=False), config)
    assert list(table["decoder"].unique()) == list(DECODERS)
    assert (table.groupby("decoder").size() == 3).all()
    dark = table[table["decoder"] == "dark"]
    assert dark["median_error_px"].max() < 0.1
    assert (table["PCK@0.2"] == 1).all()
    # A Gaussian of one pixel that is not cut at the border has this spread; cut ones have less.
    assert 1 < measures["spread_px"] <= math.sqrt(2) + 1e-3
    assert math.isnan(measures["mass_calibration"])  # the mass around a peak of 1 is no probability
    for decoder in DECODERS:
        joints = torch.minimum(decode(maps, decoder, sigma=1.0)[0].clamp(min=0), torch.tensor([7.0, 15.0]))
        points = [heatmap_to_crop(values, convention="half_pixel", input_size=(64, 32)) for values in
                  (joints, batch.joints)]  # fmt: skip
        error = float(localisation_error(*points, batch.visible))
        assert table[table["decoder"] == decoder]["error_px"].iloc[0] == pytest.approx(error, rel=1e-5)


def test_a_joint_thrown_off_the_map_is_put_on_its_border(tiny, small_data):
    config = tiny(loss="hdm", decoder="local", input_size=(64, 32))
    crops = PersonCrops(load_persons(small_data, "val"), (64, 32))
    flat = 1e-3 * torch.randn(len(crops), 17, 16, 8)
    table, measures = read_maps(Oracle(flat), crops, make_loss("hdm"), config)
    assert np.isfinite(table["error_px"]).all() and (table["error_px"] < math.hypot(64, 32)).all()
    assert measures["effective_pixels"] == pytest.approx(16 * 8, rel=1e-3)
    assert 0 <= measures["mass_calibration"] <= 1


def test_a_followed_run_records_what_it_saw(tiny, run, tmp_path):
    config = tiny(follow=True, loss="hdm", warm_start=0.25, epochs=4, decoder="local")
    finished = run(config)
    record = read_run(finished.folder)
    section = record["consistency"]
    assert section["decoder"] == "local"
    assert section["first_epoch"] == 1 and section["checkpoints"] == 4
    assert record["late_consistency"]["first_epoch"] == 2
    table = read_readings(finished.folder)
    assert set(table["decoder"]) == set(DECODERS) and set(table["score"]) == {"max", "mass", "box"}
    own = table[table["decoder"] == "local"]
    assert own["error_px"].iloc[0] == pytest.approx(record["results"]["error_px"], rel=1e-4)
    assert own[own["score"] == "mass"]["AP"].iloc[0] == pytest.approx(record["results"]["AP"], abs=1e-6)
    row = read_runs(finished.folder.parents[1]).iloc[0]
    assert row["consistency_checkpoints"] == 4 and row["maps_effective_pixels"] > 1


def test_a_followed_run_that_was_cut_ends_with_the_same_record(tiny, run, at_call, tmp_path):
    config = tiny(follow=True, loss="cross_entropy", epochs=3, decoder="local")
    whole = run(config, "whole")

    def break_off():
        raise RuntimeError("broken off")

    with at_call("hdm.train.loop._take_step", 5, break_off), pytest.raises(RuntimeError, match="broken off"):
        run(config, "cut")
    state = newest_state(
        run_folder(tmp_path / "cut" / "checkpoints", "local", "cross_entropy", whole.record["key"]), print
    )
    assert len(state["followed"]) == 3  # the untrained network and two epochs
    again = run(config, "cut")
    assert json.dumps(again.record["consistency"]) == json.dumps(whole.record["consistency"])
    pd.testing.assert_frame_equal(read_readings(again.folder), read_readings(whole.folder))


def test_epochs_of_the_warm_start_do_not_count():
    rng = np.random.default_rng(0)
    followed = [torch.from_numpy(rng.random((2, 5, 3))) for _ in range(7)]  # the untrained network and six epochs
    history = [{"epoch": epoch, "objective": objective} for epoch, objective in
               enumerate(["untrained", *["cross_entropy"] * 2, *["hdm"] * 4])]  # fmt: skip
    section = consistency_section(followed, history, "hdm")
    values = torch.stack(followed[2:]).numpy()
    assert section["first_epoch"] == 2 and section["checkpoints"] == 5
    assert section["kendall"] == consistency(values[:, 0], values[:, 1]).kendall
    late = consistency_section(followed, history, "hdm", after=0.5)
    assert late["first_epoch"] == 3 and late["checkpoints"] == 4
    assert consistency_section(followed, history, "hdm", after=0.8) == {}
    assert consistency_section(followed[:3], history[:3], "hdm") == {}  # the loss was never minimised
    assert consistency_section(followed[:4], history[:4], "hdm") == {}  # for one epoch only


def test_held_out_persons_are_validated_without_a_look_at_the_val_part(tiny, run, small_data):
    config = tiny(held_out=0.4, train_limit=None, val_limit=None, follow=True, epochs=3, decoder="local")
    finished = run(config)
    record = read_run(finished.folder)
    kept, held = hold_out(load_persons(small_data, "train"), 0.4)
    assert record["data"]["train_persons"] == len(kept.persons)
    assert record["data"]["val_persons"] == len(held.persons)
    assert record["data"]["validated_on"] == "40% of the train part's pictures"
    assert "AP" not in record["results"] and 0 <= record["results"]["PCK@0.1"] <= 1
    assert set(finished.epochs) >= {"PCK@0.1"}
    assert read_readings(finished.folder)["score"].isna().all()


def test_following_changes_no_weight(tiny, run):
    states = [trained_network(run(tiny(follow=follow), str(follow)))[0].state_dict() for follow in (False, True)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "simcc", "loss_settings": {"size": [16, 8]}}, "simcc has none"),
        ({"keep": "best"}, "keep last"),
    ],
)
def test_what_can_not_be_followed_is_refused(tiny, settings, message):
    with pytest.raises(InputError, match=message):
        tiny(follow=True, **settings)


def test_readings_of_a_run_that_was_not_followed_are_told(tiny, run):
    with pytest.raises(InputError, match="setting follow"):
        read_readings(run(tiny()).folder)


@pytest.mark.gpu
def test_a_run_is_followed_on_a_gpu_as_on_the_processor(tiny, run):
    settings = {"follow": True, "loss": "hdm", "warm_start": 0.25, "epochs": 4, "decoder": "local"}
    processor, gpu = (run(tiny(device=device, **settings), device) for device in ("cpu", "cuda"))
    assert gpu.record["hardware"]["device"] == "cuda"
    for section in ("consistency", "late_consistency", "maps"):
        assert gpu.record[section].keys() == processor.record[section].keys()
    tables = [read_readings(finished.folder) for finished in (processor, gpu)]
    assert tables[0][["decoder", "score"]].equals(tables[1][["decoder", "score"]])


@pytest.mark.gpu
def test_the_same_weights_read_the_same_on_a_gpu(tiny, run):
    """Training adds up rounding; reading does not. Peaks are left out: those of a network that has hardly learnt jump
    from pixel to pixel with the last bits, so only what is read by a mean over the map must agree."""
    config = tiny(loss="hdm", decoder="integral")
    network, loss = trained_network(run(config))
    crops = PersonCrops(load_persons(config.data, "val").head(4), config.input_size)
    read = [read_maps(network.to(device), crops, loss, config) for device in ("cpu", "cuda")]
    means = [table[table["decoder"] == "integral"]["error_px"].to_numpy() for table, _ in read]
    assert len(means[0]) and means[1] == pytest.approx(means[0], rel=1e-2)
    assert read[1][1]["spread_px"] == pytest.approx(read[0][1]["spread_px"], rel=1e-3)
