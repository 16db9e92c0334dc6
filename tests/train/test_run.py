"""Finished runs: found by their key, read from their records, ready to be used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from hdm.data import load_persons
from hdm.data.crops import PersonCrops
from hdm.errors import InputError
from hdm.records import EPOCH_COLUMNS, read_readings
from hdm.train import Run, TrainConfig, finished_run, recorded_run, run_folder, trained_network
from hdm.train.checkpoint import read_tensors, write_tensors
from hdm.train.validation import validate

Tiny = Callable[..., TrainConfig]
Start = Callable[..., Run]
KEYS = ("35e73941", "b753b63f")  # of the recorded runs, which were written as schema 1


@pytest.fixture
def old_record(repository: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a recorded run without what later versions have written into it."""
    (folder,) = (repository / "data" / "runs" / "cpu").glob(f"*-{request.param}")
    copy = shutil.copytree(folder, tmp_path / "runs" / "cpu" / folder.name)
    assert json.loads((copy / "run.json").read_text())["schema"] == 1
    return copy


def test_a_finished_run_is_read_from_its_record(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    result = run(tiny(), profile="quick")
    again = finished_run(result.folder, tmp_path / "checkpoints")
    assert (again.record, again.folder, again.checkpoint) == (result.record, result.folder, result.checkpoint)
    assert again.checkpoint.parent == run_folder(
        tmp_path / "checkpoints",
        "quick",
        "gaussian_mse",
        tiny().key(result.record["data"]["train_sha256"] + result.record["data"]["val_sha256"]),
    )
    assert list(again.epochs) == list(EPOCH_COLUMNS)
    pd.testing.assert_frame_equal(again.epochs[list(result.epochs)], result.epochs, rtol=1e-5, check_dtype=False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_trained_network_is_the_one_that_was_measured(tiny: Tiny, run: Start, precision: str) -> None:
    # 64 x 64, because on CPUs with AMX, bf16 convolutions of stride 2 are wrong where their output is one pixel wide
    # (pytorch/pytorch, issue 169688).
    config = tiny(loss_settings={"sigma": 1.5}, lr=0.01, warm_up=0.0, precision=precision, input_size=(64, 64))
    result = run(config)
    model, loss = trained_network(result)
    assert not model.training and not loss.training
    assert loss.sigma == 1.5
    crops = PersonCrops(load_persons(config.data, "val").head(config.val_limit), config.input_size, reduced=True)
    again = validate(model, crops, loss, config)
    assert again.error_px == pytest.approx(result.record["results"]["error_px"], rel=1e-4)
    assert again.loss == pytest.approx(result.epochs["val_loss"].iloc[-1], rel=1e-4)


def test_a_network_of_another_heatmap_stride(tiny: Tiny, run: Start) -> None:
    """Trained, followed and read again, with an error in crop pixels."""
    result = run(tiny(heatmap_stride=8, follow=True, loss="hdm", decoder="local", epochs=3))
    model, loss = trained_network(result)
    config = TrainConfig.from_dict({**result.record["settings"], "data": tiny().data})
    data = load_persons(config.data, "val").head(4)
    crops = PersonCrops(data, config.input_size, heatmap_stride=8, reduced=True)
    assert model(torch.zeros(1, 3, 64, 32)).shape == (1, 17, 8, 4)
    assert validate(model, crops, loss, config).error_px == pytest.approx(result.epochs["error_px"].iloc[-1], rel=1e-4)
    readings = read_readings(result.folder).set_index("decoder")["error_px"]
    assert readings["local"].iloc[0] == pytest.approx(result.epochs["error_px"].iloc[-1], rel=1e-4)


def test_weights_say_where_they_are_from(tiny: Tiny, run: Start) -> None:
    result = run(tiny())
    tensors, notes = read_tensors(result.checkpoint)
    assert notes["settings"] == result.record["settings"] and notes["step"] == 4
    assert all(value.dtype in (torch.float32, torch.int64) for value in tensors.values())


def test_weights_that_are_not_on_this_machine(tiny: Tiny, run: Start) -> None:
    result = run(tiny(epochs=1))
    result.checkpoint.unlink()
    words = f"weights .*{result.checkpoint.name} of run {result.record['run_id']} are not there: train it again"
    with pytest.raises(InputError, match=words):
        trained_network(result)


def test_a_record_is_found_by_its_key(tiny: Tiny, run: Start, tmp_path: Path) -> None:
    assert recorded_run("00000000", "local", tmp_path / "runs") is None
    first = run(tiny(epochs=1))
    key = first.record["key"]
    assert recorded_run(key, "local", tmp_path / "runs") == first.folder
    assert recorded_run(key, "quick", tmp_path / "runs") is None
    assert recorded_run("00000000", "local", tmp_path / "runs") is None
    newest = run(tiny(epochs=1))
    assert recorded_run(key, "local", tmp_path / "runs") == newest.folder != first.folder


def test_a_folder_that_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run record .* can't be read"):
        finished_run(tmp_path)


# --- records of schema 1 ---


@pytest.mark.parametrize("old_record", KEYS, indirect=True)
def test_an_old_record_is_read(old_record: Path, tmp_path: Path) -> None:
    result, key = finished_run(old_record, tmp_path / "checkpoints"), old_record.name[-8:]
    assert result.record["key"] == key and result.record["schema"] == 1
    assert set(result.record["selection"].values()) == {None}
    assert result.checkpoint.name == "last.pt"
    assert result.checkpoint.parent.name == f"{result.record['settings']['loss']}-{key}"
    assert result.epochs["epoch"].tolist() == list(range(11))
    assert result.epochs["error_px"].iloc[-1] == pytest.approx(result.record["results"]["error_px"], rel=1e-4)
    assert result.epochs["grad_norm"].isna().all()
    assert recorded_run(key, "cpu", tmp_path / "runs") == old_record
    with pytest.raises(InputError, match="weights .*last.pt of run .* are not there: train it again"):
        trained_network(result)


@pytest.mark.parametrize("old_record", KEYS[:1], indirect=True)
def test_weights_of_an_old_setting_are_still_built(tiny: Tiny, run: Start, old_record: Path, tmp_path: Path) -> None:
    """A record of before `colour` was a setting."""
    new = run(tiny(epochs=1))
    record = new.record | {
        "settings": {name: value for name, value in new.record["settings"].items() if name != "colour"}
    }
    tensors, _ = read_tensors(new.checkpoint)
    weights = write_tensors(tmp_path / "old", "weights", tensors, {})
    model, _ = trained_network(Run(record, new.epochs, old_record, weights))
    assert model.colour == "rgb"
