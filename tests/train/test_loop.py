"""Training runs: what they record, that they learn, and what each setting does."""

import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import hdm.train.state
from hdm.data import epoch_order, load_persons
from hdm.data.augment import Augmentation
from hdm.data.cache import make_cache
from hdm.data.crops import PersonCrops
from hdm.errors import InputError, Stopped
from hdm.losses import make_loss
from hdm.protocols import protocol_scores
from hdm.records import read_epochs, read_run, read_runs, results_table
from hdm.train import Run, TrainConfig, trained_network
from hdm.train.checkpoint import read_tensors
from hdm.train.validation import validate

Tiny = Callable[..., TrainConfig]
Start = Callable[..., Run]
AtCall = Callable[..., AbstractContextManager[None]]
SameEnd = Callable[[Run, Run], None]


# --- what a run records ---


def test_a_run_records_what_was_run_and_what_came_out(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    config = tiny(decoder="quarter", seed=5)
    lines: list[str] = []
    result = run(config, profile="quick", log=lines.append)
    record = read_run(result.folder)
    assert record == result.record
    assert result.folder.parent == tmp_path / "runs" / "quick"
    assert (record["settings"]["seed"], record["settings"]["model"]) == (5, "timm:test_resnet")
    data = record["data"]
    assert (data["train_persons"], data["val_persons"], data["boxes"]) == (16, 4, "ground truth")
    assert data["train_sha256"] == load_persons(config.data, "train").sha256
    assert record["hardware"]["device"] == "cpu"
    assert record["started"] <= record["ended"]
    assert [session["commit"] for session in record["sessions"]] == [record["commit"]]
    assert len(lines) == 3
    assert "epoch 2/2" in lines[-1]

    epochs = result.epochs
    assert epochs["epoch"].tolist() == [0, 1, 2]
    assert epochs["objective"].tolist() == ["untrained", "gaussian_mse", "gaussian_mse"]
    assert math.isnan(epochs.loc[0, "train_loss"])
    assert epochs.loc[1:, "train_loss"].notna().all()
    assert (epochs["val_loss"] > 0).all()
    assert (epochs.loc[1:, "images_per_second"] > 0).all() and epochs["data_wait"][1:].between(0, 1).all()
    assert (epochs["seconds"] >= epochs["val_seconds"]).all() and record["seconds"] == epochs["seconds"].sum()
    assert (epochs["unreadable"] == 0).all()
    written = read_epochs(result.folder)[list(epochs.columns)]
    pd.testing.assert_frame_equal(written, epochs, rtol=1e-5, check_dtype=False)

    results = record["results"]
    assert results["error_px"] == epochs["error_px"].iloc[-1]
    assert results["untrained_error_px"] == epochs["error_px"].iloc[0]
    assert 0 < results["mean_pose_error_px"] < 32
    assert 0 <= results["PCK@0.05"] <= results["PCK@0.1"] <= results["PCK@0.2"] <= 1
    assert -1 <= results["AP"] <= 1
    assert record["weights"]["file"] == result.checkpoint.name
    assert record["selection"] == {"keep": "last", "epoch": 2, "by": None}
    assert record["faults"] == {"unreadable": {}, "worker_restarts": 0}


def test_no_path_of_the_machine_is_in_a_record(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    result = run(tiny(epochs=1))
    for file in result.folder.iterdir():
        for place in (str(tmp_path), tiny().data.partition(":")[2], sys.prefix, str(Path.home()) + os.sep):
            assert place not in file.read_text()


def test_the_untrained_error_is_that_of_the_first_weights(tiny: Tiny, run: Start) -> None:
    """Another learning rate does not change what an untrained network does; another seed does."""
    first = run(tiny(epochs=1), "first").record["results"]["untrained_error_px"]
    assert run(tiny(epochs=1, lr=1e-5), "slow").record["results"]["untrained_error_px"] == first
    assert run(tiny(epochs=1, seed=1), "seed").record["results"]["untrained_error_px"] != first


def test_the_usual_backbone_runs_too(tiny: Tiny, run: Start) -> None:
    """ResNet-18, with worker processes, bf16, a stepped learning rate and fewer persons than a batch holds."""
    # 64 x 64, because on CPUs with AMX, bf16 convolutions of stride 2 are wrong where their output is one pixel wide
    # (pytorch/pytorch, issue 169688).
    settings = {"model": "resnet18", "workers": 1, "schedule": "step", "input_size": (64, 64)}
    config = tiny(loss="hdm", epochs=1, train_limit=5, val_limit=3, precision="bfloat16", **settings)
    result = run(config)
    assert result.epochs["train_loss"].notna().tolist() == [False, True]


# --- that it learns, and the same each time ---


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("gaussian_mse", {"loss_settings": {"sigma": 1.0}, "decoder": "quarter"}),
        ("hdm", {"warm_start": 0.4, "decoder": "local"}),
    ],
)
def test_a_few_persons_are_learnt_by_heart(tiny: Tiny, run: Start, seen_data: str, loss: str, settings: dict) -> None:
    still = {"rotation": 0.0, "scale": 0.0, "flip": 0.0, "train_limit": 8, "val_limit": 8, "batch_size": 4}
    network = {"head_channels": 32, "backbone_stride": 16}
    config = tiny(data=seen_data, loss=loss, epochs=20, lr=1e-2, **network, **still, **settings)
    result = run(config)
    epochs, results = result.epochs, result.record["results"]
    assert epochs["val_loss"].iloc[-1] < 0.65 * epochs["val_loss"].iloc[0]
    assert results["error_px"] < results["untrained_error_px"] / 2
    assert results["error_px"] < results["mean_pose_error_px"]


def test_the_same_seed_gives_the_same_numbers(tiny: Tiny, run: Start, same_end: SameEnd) -> None:
    first = run(tiny(), "first")
    same_end(first, run(tiny(), "second"))
    same_end(first, run(tiny(workers=2), "workers"))
    other = run(tiny(seed=1), "other")
    assert other.epochs["train_loss"].iloc[1] != pytest.approx(first.epochs["train_loss"].iloc[1], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "alike"),
    [
        ({}, True),
        ({"rotation": 40.0, "scale": 0.3, "flip": 0.5}, False),  # other views of the same persons
        ({"train_limit": 20}, False),  # sixteen others of the twenty
        ({"train_limit": 20, "order": "persons"}, False),
    ],
)
def test_every_epoch_draws_anew(tiny: Tiny, run: Start, settings: dict, alike: bool) -> None:
    """Without a learning rate to speak of, epochs differ by what they show alone."""
    still = {"loss": "hdm", "lr": 1e-30, "rotation": 0.0, "scale": 0.0, "flip": 0.0}
    first, second = run(tiny(**still | settings)).epochs["train_loss"][1:]
    assert math.isclose(first, second, rel_tol=1e-4) is alike


# --- the warm start ---


@pytest.mark.parametrize(
    ("share", "objectives"),
    [
        # 6 steps, 2 in each epoch; an epoch is named after its last step.
        (0.5, ["cross_entropy", "hdm", "hdm"]),  # 3 steps: the fourth is hdm's
        (0.6, ["cross_entropy", "cross_entropy", "hdm"]),  # 3.6 steps, rounded to 4
    ],
)
def test_the_objective_changes_after_its_share_of_the_steps(
    tiny: Tiny, run: Start, share: float, objectives: list[str]
) -> None:
    result = run(tiny(loss="hdm", epochs=3, warm_start=share))
    assert result.epochs["objective"].tolist() == ["untrained", *objectives]


def test_a_warm_start_to_the_end_is_cross_entropy(tiny: Tiny, run: Start) -> None:
    warm = run(tiny(loss="hdm", warm_start=1.0), "warm").epochs
    plain = run(tiny(loss="cross_entropy"), "plain").epochs
    pd.testing.assert_series_equal(warm["train_loss"], plain["train_loss"], rtol=1e-6)
    pd.testing.assert_series_equal(warm["error_px"], plain["error_px"], rtol=1e-6)
    assert not math.isclose(warm["val_loss"].iloc[-1], plain["val_loss"].iloc[-1], rel_tol=0.01)  # it validates as hdm


def test_a_warm_start_has_the_temperature_of_the_loss(tiny: Tiny, run: Start) -> None:
    hot = {"epochs": 1, "loss_settings": {"temperature": 3.0}}
    warm = run(tiny(loss="hdm", warm_start=1.0, **hot), "warm").epochs
    plain = run(tiny(loss="cross_entropy", **hot), "plain").epochs
    pd.testing.assert_series_equal(warm["train_loss"], plain["train_loss"], rtol=1e-6)


# --- the learning rate ---


def test_the_recorded_rate_is_that_of_the_last_step(tiny: Tiny, run: Start) -> None:
    config = tiny(lr=0.004, warm_up=0.0)
    rates = run(config).epochs["lr"].tolist()
    # The second and the fourth of four steps, a quarter and three quarters of the way down half a cosine.
    assert rates == pytest.approx([0, 0.004 * (1 + math.sqrt(0.5)) / 2, 0.004 * (1 - math.sqrt(0.5)) / 2])


# --- what a step does, and which weights are kept ---


@pytest.fixture
def without_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose persons do not depend on who else is in the batch."""
    build_model = hdm.train.state.build_model

    def build(*arguments, **options) -> nn.Module:
        model = build_model(*arguments, **options)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                model.set_submodule(name, nn.GroupNorm(1, module.num_features))
        return model

    monkeypatch.setattr(hdm.train.state, "build_model", build)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the optimiser had at each of its steps: the gradient's norm, the rate, and the parameters it came to."""
    seen: list[dict[str, Any]] = []
    step = torch.optim.Adam.step

    def look(optimizer: torch.optim.Adam, *arguments, **options) -> object:
        (group,) = optimizer.param_groups
        norm = float(torch.stack([value.grad.norm() for value in group["params"]]).norm())
        result = step(optimizer, *arguments, **options)
        seen.append(
            {"norm": norm, "lr": group["lr"], "parameters": [value.detach().clone() for value in group["params"]]}
        )
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    return seen


@pytest.mark.parametrize("accumulate", [3, 8])
def test_a_batch_in_parts_is_the_same_step(
    tiny: Tiny, run: Start, without_batch_norm: None, watched: list[dict], accumulate: int
) -> None:
    """Parts of different sizes, whose persons show different numbers of joints."""
    settings = {"batch_size": 7, "train_limit": 14, "lr": 1e-4, "rotation": 90.0, "scale": 0.9}
    whole = run(tiny(**settings), "whole").epochs
    parts = run(tiny(**settings, accumulate=accumulate), "parts").epochs
    assert len(watched) == 8
    assert [row["lr"] for row in watched[:4]] == [row["lr"] for row in watched[4:]]
    assert watched[4]["norm"] == pytest.approx(watched[0]["norm"], rel=1e-4)
    pd.testing.assert_series_equal(parts["train_loss"], whole["train_loss"], rtol=1e-4)
    pd.testing.assert_series_equal(parts["grad_norm"], whole["grad_norm"], rtol=1e-3)


def test_a_gradient_is_clipped(tiny: Tiny, run: Start, watched: list[dict]) -> None:
    free = run(tiny(epochs=1, lr=1e-9), "free").epochs["grad_norm"]
    norms = [row["norm"] for row in watched]
    assert free[1] == pytest.approx(np.mean(norms), rel=1e-5)
    limit = min(norms) / 3
    watched.clear()
    clipped = run(tiny(epochs=1, lr=1e-9, clip=limit), "clipped").epochs["grad_norm"]
    assert [row["norm"] for row in watched] == pytest.approx([limit, limit], rel=1e-4)
    assert clipped[1] == pytest.approx(free[1], rel=1e-5)  # what it was before
    watched.clear()
    run(tiny(epochs=1, lr=1e-9, clip=max(norms) * 2), "loose")
    assert [row["norm"] for row in watched] == pytest.approx(norms, rel=1e-5)


def test_averaged_weights_are_kept(tiny: Tiny, run: Start, watched: list[dict]) -> None:
    """a_1 = w_1, a_t = 0.6 a_(t-1) + 0.4 w_t after each of three steps."""
    config = tiny(epochs=1, batch_size=5, lr=0.01, warm_up=0.0, ema=0.6)
    result = run(config)
    averages: list[Tensor] = watched[0]["parameters"]
    for row in watched[1:]:
        averages = [0.6 * old + 0.4 * new for old, new in zip(averages, row["parameters"], strict=True)]
    assert len(watched) == 3
    model, loss = trained_network(result)
    for value, expected, last in zip(model.parameters(), averages, watched[-1]["parameters"], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
        assert not torch.equal(value, last)
    crops = PersonCrops(load_persons(config.data, "val").head(config.val_limit), config.input_size, reduced=True)
    again = validate(model, crops, loss, config)
    assert again.error_px == pytest.approx(result.record["results"]["error_px"], rel=1e-4)
    plain = run(tiny(epochs=1, batch_size=5, lr=0.01, warm_up=0.0), "plain")
    assert plain.epochs["train_loss"][1] == result.epochs["train_loss"][1]  # what is learnt does not depend on it
    assert plain.record["results"]["error_px"] != result.record["results"]["error_px"]


def test_the_best_weights_are_kept(tiny: Tiny, run: Start, small_mpii: str, tmp_path: Path) -> None:
    """A learning rate that rises and rises: what was learnt is lost again."""
    network = {"head_channels": 32, "backbone_stride": 16, "batch_size": 4}
    config = tiny(data=small_mpii, train_limit=8, epochs=10, lr=0.3, warm_up=1.0, keep="best", **network)
    result = run(config)
    scores, errors = result.epochs["PCKh@0.5"], result.epochs["error_px"]
    best = int(scores[1:].idxmax())  # the first of equals
    assert best < 10 and scores[best] > 0 and errors[best] != errors[10]
    assert result.record["selection"] == {"keep": "best", "epoch": best, "by": "PCKh@0.5"}
    assert result.record["results"]["PCKh@0.5"] == scores[best]
    assert result.record["results"]["error_px"] == errors[best]
    assert result.record["results"]["untrained_error_px"] == errors[0]
    model, loss = trained_network(result)
    data = load_persons(config.data, "val").head(config.val_limit)
    found = validate(model, PersonCrops(data, config.input_size, reduced=True), loss, config)
    assert found.error_px == pytest.approx(errors[best], rel=1e-4)
    assert protocol_scores(data, found, config.input_size, config.convention)["PCKh@0.5"] == scores[best]
    assert [path.name for path in result.checkpoint.parent.glob("*.safetensors")] == [result.checkpoint.name]
    assert run(tiny(**vars(config) | {"keep": "last"}), "last").record["results"]["error_px"] == errors[10]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"batch_size": 5}, 3),
        ({"batch_size": 5, "drop_last": False}, 4),
        ({"batch_size": 16}, 1),
        ({"batch_size": 99}, 1),  # an incomplete batch is not left out where it is the only one
        ({"batch_size": 8, "accumulate": 4}, 2),
    ],
)
def test_number_of_steps(tiny: Tiny, run: Start, watched: list[dict], settings: dict, steps: int) -> None:
    epochs = run(tiny(warm_up=0.0, lr=0.008, **settings)).epochs
    assert len(watched) == 2 * steps
    rates = [0.004 * (1 + math.cos(math.pi * step / (2 * steps))) for step in range(2 * steps)]
    assert [row["lr"] for row in watched] == pytest.approx(rates)
    assert epochs["lr"].tolist() == [0, watched[steps - 1]["lr"], watched[-1]["lr"]]


def out_of_sight(annotations: list[dict]) -> None:
    """All but the first three persons have one joint, and it is far outside of the box."""
    for annotation in annotations[3:]:
        annotation["keypoints"] = [0, 0, 0] * 16 + [annotation["bbox"][0] + 5000, annotation["bbox"][1] + 5000, 2]


def test_a_batch_without_a_visible_joint_is_passed_over(
    tiny: Tiny, run: Start, watched: list[dict], small_data: str, tmp_path: Path
) -> None:
    data = change_annotations(small_data, tmp_path / "data", "train", out_of_sight)
    config = tiny(data=data, batch_size=2, epochs=3)
    result = run(config)
    persons = load_persons(data, "train").head(16)
    seen = [
        any(persons.persons[index].visible.sum() > 1 for index in step)
        for epoch in (1, 2, 3)
        for step in epoch_order(persons, 2, seed=0, epoch=epoch, drop_last=True)
    ]
    assert 0 < len(watched) == sum(seen) < len(seen) == 24
    assert np.isfinite(result.epochs["train_loss"][1:]).all()


# --- a cache ---


def test_a_run_from_a_cache_is_the_same(
    tiny: Tiny, run: Start, same_end: SameEnd, small_data: str, tmp_path: Path
) -> None:
    files = run(tiny(half_body=0.3), "files")
    copy = shutil.copytree(small_data.partition(":")[2], tmp_path / "copy" / "data")
    data = f"synthetic:{copy}"
    make_cache(data, tmp_path / "crops", (64, 32), augmentation=Augmentation(half_body=0.3), progress=False)
    for part in ("train2017", "val2017"):
        shutil.rmtree(copy / part)  # the pictures themselves are not needed
    for workers in (0, 1):
        cached = run(tiny(data=data, half_body=0.3, cache=str(tmp_path / "crops"), workers=workers), f"{workers}")
        same_end(cached, files)
        assert cached.record["key"] == files.record["key"]
        assert cached.record["settings"]["cache"] == "crops"


def test_a_cache_of_other_crops_is_refused(tiny: Tiny, run: Start, small_data: str, tmp_path: Path) -> None:
    make_cache(small_data, tmp_path / "crops", (64, 64), progress=False)
    with pytest.raises(InputError, match=r"was made for the input size \[64, 64\], not \[64, 32\]"):
        run(tiny(cache=str(tmp_path / "crops")))
    with pytest.raises(InputError, match="holds no finished cache of the part"):
        run(tiny(cache=str(tmp_path / "nowhere")))


# --- records instead of training ---


def test_a_finished_run_is_trained_again_from_the_start(tiny: Tiny, run: Start, same_end: SameEnd) -> None:
    first = run(tiny())
    again = run(tiny())  # perhaps in the same second, by which records are named
    assert again.folder != first.folder
    same_end(again, first)


def test_a_record_can_be_shown_instead_of_training(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    first = run(tiny())
    shutil.rmtree(tmp_path / "checkpoints")
    lines: list[str] = []
    again = run(tiny(), reuse=True, log=lines.append)
    assert again.record == first.record
    assert again.folder == first.folder
    assert len(lines) == 1 and "not trained again" in lines[0]
    assert len(read_runs(tmp_path / "runs")) == 1
    # Where it runs does not matter, what runs does.
    assert run(tiny(device="auto"), reuse=True).folder == first.folder
    assert run(tiny(seed=1), reuse=True).folder != first.folder


def test_a_record_of_other_data_is_not_shown(tiny: Tiny, run: Start, small_data: str, tmp_path: Path) -> None:
    first = run(tiny(epochs=1))
    copy = tmp_path / "elsewhere" / "data"
    shutil.copytree(small_data.partition(":")[2], copy)
    same = run(tiny(epochs=1, data=f"synthetic:{copy}"), reuse=True)
    assert same.folder == first.folder  # the same data in another place
    with (copy / "annotations" / "person_keypoints_val2017.json").open("a") as file:
        file.write("\n")
    assert run(tiny(epochs=1, data=f"synthetic:{copy}"), reuse=True).folder != first.folder


# --- MPII, and the settings of the official recipes ---

OFFICIAL = {
    "convention": "hrnet",
    "colour": "bgr",
    "half_body": 0.5,
    "flip_test": True,
    "score_threshold": 0.2,
    "nms": 0.9,
    "loss_settings": {"sigma": 1.0, "divide_by": "all", "margin": 3.0},
    "decoder": "quarter",
}


def test_a_run_on_mpii_is_scored_by_pckh(tiny: Tiny, run: Start, small_mpii: str) -> None:
    config = tiny(data=small_mpii, train_limit=8, **OFFICIAL)
    result = run(config)
    record = result.record
    assert record["data"]["boxes"] == "given centre and scale"
    assert {"PCKh@0.5", "PCKh@0.1", "PCKh@0.11", "PCKh@0.5 Wrist", "error_px"} <= set(record["results"])
    assert "AP" not in record["results"]
    assert all(0 <= value <= 100 for name, value in record["results"].items() if name.startswith("PCKh"))
    model, _ = trained_network(result)
    assert (model.colour, len(model.state_dict()["final_layer.bias"])) == ("bgr", 16)
    table = results_table(read_runs(result.folder.parents[1]))
    assert table["PCKh@0.5"].tolist() == [round(record["results"]["PCKh@0.5"], 1)]
    assert "OKS-AP" not in table and table["boxes"].tolist() == ["given centre and scale"]


def test_a_missing_reference_of_mpii_is_told_before_the_training(
    tiny: Tiny, run: Start, small_mpii: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(small_mpii.partition(":")[2], tmp_path / "copy")
    (copy / "annot" / "gt_valid.mat").unlink()
    lines: list[str] = []
    with pytest.raises(InputError, match="gt_valid.mat"):
        run(tiny(data=f"mpii:{copy}"), log=lines.append)
    assert not lines


def test_the_official_settings_train_and_repeat(tiny: Tiny, run: Start, same_end: SameEnd) -> None:
    first, again = (run(tiny(**OFFICIAL), place) for place in ("first", "again"))
    same_end(first, again)
    assert first.record["key"] != run(tiny(), "plain").record["key"]


def test_only_a_loss_that_draws_targets_sees_joints_outside_of_the_map(tiny: Tiny, run: Start) -> None:
    with pytest.raises(InputError, match="unexpected|margin"):
        tiny(loss="hdm", loss_settings={"margin": 3.0})


# --- a loss with a head of its own ---


@pytest.mark.parametrize("loss", ["simcc", "rle"])
def test_a_head_is_trained_saved_and_restored(
    tiny: Tiny, run: Start, at_call: AtCall, same_end: SameEnd, loss: str
) -> None:
    config = tiny(loss=loss, loss_settings={"size": [16, 8]}, lr=0.01, warm_up=0.0)

    def press() -> None:
        signal.raise_signal(signal.SIGINT)

    with at_call("torch.optim.Adam.step", 3, press), pytest.raises(Stopped):
        run(config, "stopped")
    result = run(config, "stopped")
    same_end(result, run(config, "whole"))

    model, trained = trained_network(result)
    untrained = make_loss(loss, **config.loss_settings).state_dict()
    saved, _ = read_tensors(result.checkpoint)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, saved[f"loss.{name}"])
        assert not torch.equal(value, untrained[name])
    crops = PersonCrops(load_persons(config.data, "val").head(config.val_limit), config.input_size, reduced=True)
    again = validate(model, crops, trained, config)
    assert again.loss == pytest.approx(result.epochs["val_loss"].iloc[-1], rel=1e-4)
    assert again.error_px == pytest.approx(result.record["results"]["error_px"], rel=1e-4)


def test_a_head_learns_a_few_persons_by_heart(tiny: Tiny, run: Start, seen_data: str) -> None:
    still = {"rotation": 0.0, "scale": 0.0, "flip": 0.0, "train_limit": 8, "val_limit": 8, "batch_size": 4}
    settings = {"loss_settings": {"size": (16, 8)}, "head_channels": 32, "backbone_stride": 16}
    results = run(tiny(data=seen_data, loss="simcc", epochs=20, lr=5e-3, **settings, **still)).record["results"]
    assert results["error_px"] < results["untrained_error_px"] / 2
    assert results["error_px"] < results["mean_pose_error_px"]


def test_heatmaps_that_the_head_does_not_fit(tiny: Tiny, run: Start) -> None:
    with pytest.raises(InputError, match=r"heatmaps have 16 rows and 8 columns, .*: give it size=\(16, 8\)"):
        run(tiny(loss="simcc"))


# --- what goes wrong ---


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there(tiny: Tiny, run: Start) -> None:
    with pytest.raises(InputError, match="device is cuda, but torch sees no GPU: use auto or cpu"):
        run(tiny(device="cuda"))


def change_annotations(data: str, copy: Path, part: str, change: Callable[[list[dict]], object]) -> str:
    shutil.copytree(data.partition(":")[2], copy)
    path = copy / "annotations" / f"person_keypoints_{part}2017.json"
    content = json.loads(path.read_text())
    change(content["annotations"])
    path.write_text(json.dumps(content))
    return f"synthetic:{copy}"


@pytest.mark.parametrize("part", ["train", "val"])
def test_data_without_a_visible_joint(tiny: Tiny, run: Start, small_data: str, tmp_path: Path, part: str) -> None:
    def hide(annotations: list[dict]) -> None:
        for annotation in annotations:
            annotation["keypoints"][2::3] = [0] * 17

    data = change_annotations(small_data, tmp_path / "data", part, hide)
    with pytest.raises(InputError, match=f"{part}2017.json holds no person with a labelled joint"):
        run(tiny(data=data))


def test_a_data_directory_that_is_not_there(tiny: Tiny, run: Start) -> None:
    with pytest.raises(InputError, match="data directory nowhere is not there"):
        run(tiny(data="coco:nowhere"))


def test_a_precision_that_the_processor_has_not(tiny: Tiny, run: Start) -> None:
    with pytest.raises(InputError, match="precision float16 needs a GPU: use bfloat16 or float32 on a CPU"):
        run(tiny(precision="float16"))


# --- with a GPU ---


@pytest.mark.gpu
def test_a_gpu_learns_as_the_processor_does(tiny: Tiny, run: Start) -> None:
    processor = run(tiny(device="cpu"), "cpu").epochs
    gpu = run(tiny(device="cuda"), "cuda")
    assert gpu.record["hardware"]["device"] == "cuda"
    pd.testing.assert_series_equal(gpu.epochs["train_loss"], processor["train_loss"], rtol=0.02)
    for precision in ("bfloat16", "float16"):
        mixed = run(tiny(device="cuda", precision=precision), precision).epochs
        pd.testing.assert_series_equal(mixed["train_loss"], processor["train_loss"], rtol=0.05)
