"""Training runs: what they record, that they learn, and that nothing is lost when they are stopped."""

import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from hdm.data import load_persons
from hdm.data.crops import PersonCrops
from hdm.errors import InputError
from hdm.losses import make_loss
from hdm.records import read_epochs, read_run, read_runs, results_table
from hdm.train import Run, TrainConfig, finished_run, trained_network
from hdm.train.checkpoint import load_checkpoint, save_checkpoint
from hdm.train.loop import learning_rate
from hdm.train.validation import validate

Tiny = Callable[..., TrainConfig]
Start = Callable[..., Run]


def assert_same_numbers(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """All that an epoch measures, to six digits; times differ."""
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"), rtol=1e-6)


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
    pd.testing.assert_frame_equal(read_epochs(result.folder), epochs, rtol=1e-5)

    results = record["results"]
    assert results["error_px"] == epochs["error_px"].iloc[-1]
    assert results["untrained_error_px"] == epochs["error_px"].iloc[0]
    assert 0 < results["mean_pose_error_px"] < 32
    assert 0 <= results["PCK@0.05"] <= results["PCK@0.1"] <= results["PCK@0.2"] <= 1
    assert -1 <= results["AP"] <= 1


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


def test_a_trained_network_is_the_one_that_was_measured(tiny: Tiny, run: Start) -> None:
    config = tiny(loss_settings={"sigma": 1.5}, lr=0.01, warm_up=0.0)
    result = run(config)
    model, loss = trained_network(result)
    assert not model.training
    crops = PersonCrops(load_persons(config.data, "val").head(config.val_limit), config.input_size)
    again = validate(model, crops, loss, config)
    assert again.error_px == pytest.approx(result.record["results"]["error_px"], rel=1e-4)
    assert again.loss == pytest.approx(result.epochs["val_loss"].iloc[-1], rel=1e-4)
    result.checkpoint.unlink()
    with pytest.raises(InputError, match="weights .*last.pt of run .* are not there: train it again"):
        trained_network(result)


def test_the_usual_backbone_runs_too(tiny: Tiny, run: Start) -> None:
    """ResNet-18, with worker processes, bf16, a stepped learning rate and fewer persons than a batch holds."""
    # 64 x 64, because on CPUs with AMX, bf16 convolutions of stride 2 are wrong where their output is one pixel wide
    # (pytorch/pytorch, issue 169688).
    settings = {"model": "resnet18", "workers": 1, "amp": True, "schedule": "step", "input_size": (64, 64)}
    config = tiny(loss="hdm", epochs=1, train_limit=5, val_limit=3, **settings)
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


def test_the_same_seed_gives_the_same_numbers(tiny: Tiny, run: Start) -> None:
    first, second = run(tiny(), "first"), run(tiny(), "second")
    assert_same_numbers(first.epochs, second.epochs)
    weights = [load_checkpoint(result.checkpoint)["model"] for result in (first, second)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    other = run(tiny(seed=1), "other")
    assert other.epochs["train_loss"].iloc[1] != pytest.approx(first.epochs["train_loss"].iloc[1], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "alike"),
    [
        ({}, True),
        ({"rotation": 40.0, "scale": 0.3, "flip": 0.5}, False),  # other views of the same persons
        ({"train_limit": 20}, False),  # sixteen others of the twenty
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

COSINE = {0: 1 / 11, 4: 5 / 11, 9: 10 / 11, 10: 1.0, 40: 0.75, 55: 0.5, 70: 0.25, 99: 0.000304586}
STEP = {0: 1 / 11, 9: 10 / 11, 10: 1.0, 59: 1.0, 60: 0.1, 89: 0.1, 90: 0.01, 99: 0.01}


@pytest.mark.parametrize(("schedule", "golden"), [("cosine", COSINE), ("step", STEP)])
def test_the_learning_rate_at_chosen_steps(schedule: str, golden: dict[int, float]) -> None:
    """100 steps, a tenth of them to warm up; the cosine falls from step 10 to 100, the steps come at 60 and 90."""
    config = TrainConfig("synthetic:x", lr=0.02, warm_up=0.1, schedule=schedule, drops=(0.6, 0.9))
    for step, share in golden.items():
        assert learning_rate(step, 100, config) == pytest.approx(0.02 * share, rel=1e-5), step


def test_the_official_schedule() -> None:
    """SimpleBaseline: 140 epochs, a tenth of the rate from epoch 90 on and a hundredth from 120 on."""
    config = TrainConfig("synthetic:x", lr=1e-3, warm_up=0.0, schedule="step", drops=(90 / 140, 120 / 140), epochs=140)
    rates = [learning_rate(epoch * 1000, 140_000, config) for epoch in (0, 89, 90, 119, 120, 139)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
@pytest.mark.parametrize("warm_up", [0.0, 0.05, 1.0])
def test_the_learning_rate_is_positive_and_at_most_its_peak(schedule: str, steps: int, warm_up: float) -> None:
    config = TrainConfig("synthetic:x", lr=0.02, warm_up=warm_up, schedule=schedule)
    assert all(0 < learning_rate(step, steps, config) <= 0.02 for step in range(steps))


def test_the_recorded_rate_is_that_of_the_last_step(tiny: Tiny, run: Start) -> None:
    config = tiny(lr=0.004, warm_up=0.0)
    rates = run(config).epochs["lr"].tolist()
    # The second and the fourth of four steps, a quarter and three quarters of the way down half a cosine.
    assert rates == pytest.approx([0, 0.004 * (1 + math.sqrt(0.5)) / 2, 0.004 * (1 - math.sqrt(0.5)) / 2])


# --- stopped and continued ---

CHILD = """
import json, sys, torch
from hdm.train import TrainConfig, train
torch.set_num_threads(1)
config = TrainConfig.from_dict(json.loads(sys.argv[1]))
train(config, runs=sys.argv[2], checkpoints=sys.argv[3], log=lambda line: print(line, flush=True))
"""


def start_child(config: TrainConfig, root: Path) -> subprocess.Popen:
    settings = {**config.as_dict(), "data": config.data}
    arguments = [json.dumps(settings), str(root / "runs"), str(root / "checkpoints")]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch cannot train in a forked process where there is a GPU")
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    """A process of its own, killed in its second epoch without a chance to tidy up."""
    config = tiny(loss="hdm", epochs=4, warm_start=0.5)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=run, args=(config, "killed"), kwargs={"log": sender.send})
    child.start()
    while "epoch 1/4" not in receiver.recv():
        pass
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(read_runs(tmp_path / "killed" / "runs")) == 0

    lines: list[str] = []
    continued = run(config, "killed", log=lines.append)
    assert "goes on after epoch" in lines[0]
    assert len(lines) <= 4  # not from the start
    whole = run(config, "whole")
    assert_same_numbers(continued.epochs, whole.epochs)
    assert len(continued.record["sessions"]) == 2
    for name, value in whole.record["results"].items():
        assert continued.record["results"][name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_again_and_again_comes_to_the_same_end(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    """Killed at four arbitrary moments, while it starts, trains or writes; never a damaged file, never a lost epoch."""
    config = tiny(epochs=40)
    done = -1
    for delay in (0.0, 0.15, 0.4, 0.05):
        child = start_child(config, tmp_path / "killed")
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay)
        child.kill()
        child.wait()
        (checkpoint,) = (tmp_path / "killed" / "checkpoints").rglob("last.pt")
        saved = load_checkpoint(checkpoint)
        assert saved is not None
        assert saved["history"][-1]["epoch"] >= done
        done = saved["history"][-1]["epoch"]
    assert_same_numbers(run(config, "killed").epochs, run(config, "whole").epochs)


def test_interrupted_from_the_keyboard(tiny: Tiny, run: Start) -> None:
    config = tiny(epochs=3)

    def press(line: str) -> None:
        if "epoch 1/3" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, "stopped", log=press)
    assert_same_numbers(run(config, "stopped").epochs, run(config, "whole").epochs)


def test_a_finished_run_is_trained_again_from_the_start(tiny: Tiny, run: Start) -> None:
    first = run(tiny())
    while time.strftime("%H%M%S", time.gmtime()) in first.folder.name:
        time.sleep(0.1)  # records are named by the second
    again = run(tiny())
    assert again.folder != first.folder
    assert_same_numbers(again.epochs, first.epochs)


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


def test_the_official_settings_train_and_repeat(tiny: Tiny, run: Start) -> None:
    first, again = (run(tiny(**OFFICIAL), place) for place in ("first", "again"))
    assert_same_numbers(first.epochs, again.epochs)
    assert first.record["key"] != run(tiny(), "plain").record["key"]
    assert finished_run(first.folder, first.checkpoint.parents[2]).checkpoint == first.checkpoint


def test_only_a_loss_that_draws_targets_sees_joints_outside_of_the_map(tiny: Tiny, run: Start) -> None:
    with pytest.raises(InputError, match="unexpected|margin"):
        tiny(loss="hdm", loss_settings={"margin": 3.0})


# --- a loss with a head of its own ---


@pytest.mark.parametrize("loss", ["simcc", "rle"])
def test_a_head_is_trained_saved_and_restored(tiny: Tiny, run: Start, loss: str) -> None:
    config = tiny(loss=loss, loss_settings={"size": [16, 8]}, lr=0.01, warm_up=0.0)

    def press(line: str) -> None:
        if "epoch 1/2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, "stopped", log=press)
    result = run(config, "stopped")
    assert_same_numbers(result.epochs, run(config, "whole").epochs)

    model, trained = trained_network(result)
    untrained = make_loss(loss, **config.loss_settings).state_dict()
    saved = load_checkpoint(result.checkpoint)
    assert saved is not None
    for name, value in trained.state_dict().items():
        assert torch.equal(value, saved["loss"][name])
        assert not torch.equal(value, untrained[name])
    crops = PersonCrops(load_persons(config.data, "val").head(config.val_limit), config.input_size)
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


def test_a_checkpoint_from_before_losses_had_heads(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    def press(line: str) -> None:
        if "epoch 1/2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), "old", log=press)
    (checkpoint,) = (tmp_path / "old" / "checkpoints").rglob("last.pt")
    saved = load_checkpoint(checkpoint)
    assert saved is not None and saved.pop("loss") == {}
    save_checkpoint(checkpoint, saved)
    result = run(tiny(), "old")
    assert_same_numbers(result.epochs, run(tiny(), "whole").epochs)
    finished = load_checkpoint(result.checkpoint)
    assert finished is not None
    del finished["loss"]
    save_checkpoint(result.checkpoint, finished)
    trained_network(result)


# --- what goes wrong ---


def test_a_network_that_diverges_is_stopped_and_its_last_good_weights_stay(
    tiny: Tiny, run: Start, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="heatmaps hold NaN or infinite values: lower the learning rate"):
        run(tiny(lr=1e30, warm_up=0.0))
    assert len(read_runs(tmp_path / "runs")) == 0
    (checkpoint,) = (tmp_path / "checkpoints").rglob("last.pt")
    saved = load_checkpoint(checkpoint)
    assert saved is not None
    assert saved["history"][-1]["epoch"] == 0
    assert all(bool(value.isfinite().all()) for value in saved["model"].values())


def test_weights_that_are_not_numbers_are_noticed(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), log=stop)
    (checkpoint,) = (tmp_path / "checkpoints").rglob("last.pt")
    saved = load_checkpoint(checkpoint)
    assert saved is not None
    saved["model"]["final_layer.bias"][3] = math.nan
    save_checkpoint(checkpoint, saved)
    with pytest.raises(InputError, match="heatmaps hold NaN"):
        run(tiny())
    assert len(read_runs(tmp_path / "runs")) == 0


def test_a_full_disk_while_the_record_is_written_costs_one_epoch(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    """The disk fills up after the last epoch, when only the record is left to write; once there is room, a second call
    finishes the run from the epoch before the last."""
    config = tiny()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(line: str) -> None:
        if "epoch 2/2" in line:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    try:
        with pytest.raises(InputError, match="run record .* can't be written"):
            run(config, log=fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(read_runs(tmp_path / "runs")) == 0
    lines: list[str] = []
    finished = run(config, log=lines.append)
    assert "goes on after epoch 1 of 2" in lines[0]
    assert_same_numbers(finished.epochs, run(config, "whole").epochs)


def test_a_full_disk_while_training_keeps_the_last_checkpoint(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(line: str) -> None:
        if "epoch 0/2" in line:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))

    try:
        with pytest.raises(InputError, match="checkpoint .* can't be written"):
            run(tiny(), log=fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_same_numbers(run(tiny()).epochs, run(tiny(), "whole").epochs)


def test_a_damaged_checkpoint_is_named(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    checkpoint = run(tiny(epochs=1)).checkpoint
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="last.pt is damaged"):
        run(tiny(epochs=1))


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


def test_an_image_that_is_cut_short_stops_the_run_by_name(
    tiny: Tiny, run: Start, small_data: str, tmp_path: Path
) -> None:
    data = change_annotations(small_data, tmp_path / "data", "train", lambda annotations: None)
    image = sorted((tmp_path / "data" / "train2017").glob("*.jpg"))[2]
    image.write_bytes(image.read_bytes()[:5000])
    for workers in (0, 1):
        with pytest.raises(InputError, match=f"{image.name} is cut short"):
            run(tiny(data=data, workers=workers))


def test_a_data_directory_that_is_not_there(tiny: Tiny, run: Start) -> None:
    with pytest.raises(InputError, match="data directory nowhere is not there"):
        run(tiny(data="coco:nowhere"))


# --- with a GPU ---


@pytest.mark.gpu
def test_a_gpu_learns_as_the_processor_does(tiny: Tiny, run: Start) -> None:
    processor = run(tiny(device="cpu"), "cpu").epochs
    gpu = run(tiny(device="cuda"), "cuda")
    assert gpu.record["hardware"]["device"] == "cuda"
    pd.testing.assert_series_equal(gpu.epochs["train_loss"], processor["train_loss"], rtol=0.02)
    assert run(tiny(device="cuda", amp=True), "amp").epochs["train_loss"].iloc[1] > 0
