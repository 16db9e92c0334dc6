"""`hdm bench flow`: maps of real runs that descend to ends which are known, the record, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hdm.bench.flow import bench_flow, flow_table
from hdm.data import PersonCrops, hold_out, load_persons
from hdm.decode import decode
from hdm.errors import InputError
from hdm.losses import make_loss
from hdm.pixels import heatmap_to_crop
from hdm.records import read_benchmark
from hdm.train import Run, TrainConfig, train
from hdm.train.checkpoint import read_tensors, write_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
COLUMNS = ["run", "loss", "decoder", "step", "mean_loss", "error_px", "worse", "still"]
NARROW = {"sigma": 0.7, "rounded": False}
PERSONS = 3
Trained = Callable[..., Run]


@pytest.fixture(scope="module")
def trained(small_data: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Tiny runs of three steps, all in one place, each trained once: `trained("hdm", held_out=0.3)`."""
    place, known = tmp_path_factory.mktemp("flow"), {}
    # Steps so large that the maps are no longer as flat as those of an untrained network.
    fixed = {"model": "timm:test_resnet", "head_channels": 8, "input_size": (64, 32), "device": "cpu"}
    fixed |= {"epochs": 3, "batch_size": 8, "train_limit": 8, "lr": 0.05, "warm_up": 0.0, "schedule": "step"}

    def run(loss: str, **settings: Any) -> Run:
        name = json.dumps([loss, settings])
        if name not in known:
            config = TrainConfig(data=small_data, loss=loss, **{"val_limit": 2} | fixed | settings)
            places = {"runs": place / "runs", "checkpoints": place / "checkpoints"}
            known[name] = train(config, **places, log=lambda line: None, progress=False)
        return known[name]

    return run


@pytest.fixture
def flow(small_data: str, tmp_path: Path) -> Callable[..., tuple[Path, dict, pd.DataFrame]]:
    """`bench_flow` of runs, with few persons, and with its record below the test's folder."""

    def measure(*runs: Run, source: str = small_data, **settings: Any) -> tuple[Path, dict, pd.DataFrame]:
        places = {
            "runs": runs[0].folder.parents[1],
            "checkpoints": runs[0].checkpoint.parents[2],
            "directory": tmp_path / "benchmarks",
        }
        few = {"persons": PERSONS, "steps": 20, "device": "cpu"}
        return bench_flow([run.record["run_id"] for run in runs], source, **places | few | settings)

    return measure


def curve(table: pd.DataFrame, decoder: str = "local") -> pd.DataFrame:
    return table[table["decoder"] == decoder].reset_index(drop=True)


def reweighed(run: Run, factor: float, place: Path) -> Run:
    """A copy of a run whose raw maps differ `factor` times as much from flat."""
    tensors, notes = read_tensors(run.checkpoint)
    tensors["final_layer.weight"] = tensors["final_layer.weight"] * factor
    folder = shutil.copytree(run.folder, place / "runs" / "local" / run.folder.name)
    weights = place / "checkpoints" / "local" / run.checkpoint.parent.name
    weights.mkdir(parents=True)
    weights = write_tensors(weights, "weights", tensors, notes)
    record = run.record | {"weights": {"file": weights.name, "sha256": ""}}
    (folder / "run.json").write_text(json.dumps(record))
    return Run(record, run.epochs, folder, weights)


# --- ends that are known


def test_squared_error_ends_at_its_target(trained: Trained, flow: Callable, small_data: str) -> None:
    """And so each decoder ends with the error that it makes of the target itself, in crop pixels."""
    run = trained("gaussian_mse", loss_settings=NARROW, convention="udp")
    _, _, table = flow(run, steps=160, rate=0.2, every=20)
    batch, _ = PersonCrops(load_persons(small_data, "val").head(PERSONS), (64, 32), convention="udp").read(
        range(PERSONS)
    )
    assert 0 < (batch.visible > 0).sum() < batch.visible.numel()  # some joints must not count
    target = make_loss("gaussian_mse", **NARROW).target(batch.joints.double(), (16, 8))
    for decoder in ("local", "argmax"):
        way = curve(table, decoder)
        assert way["step"].tolist() == list(range(0, 161, 20))
        assert way["mean_loss"].iloc[-1] < 1e-6 * way["mean_loss"].iloc[0]
        found, dots = (
            heatmap_to_crop(points, convention="udp", input_size=(64, 32))
            for points in (decode(target, decoder)[0], batch.joints.double())
        )
        expected = float((found - dots).norm(dim=-1)[batch.visible > 0].mean())
        assert way["error_px"].iloc[-1] == pytest.approx(expected, abs=0.01)
        assert way["still"].iloc[1] == 0 and way["still"].iloc[-1] == 1  # it came to rest on the way
    # From far away to what 3 x 3 pixels tell of a Gaussian of this width.
    assert curve(table)["error_px"].iloc[0] > 5 > 1 > curve(table)["error_px"].iloc[-1]


def test_cross_entropy_ends_at_the_dot(trained: Trained, flow: Callable) -> None:
    """Four bilinear weights are read by `local` without an error, by `argmax` as the nearest pixel."""
    _, record, table = flow(trained("cross_entropy"), steps=240, rate=0.2, every=40)
    local, argmax = curve(table), curve(table, "argmax")
    assert local["error_px"].iloc[0] > 5 and local["error_px"].iloc[-1] < 0.05
    assert 0.5 < argmax["error_px"].iloc[-1] < 2.9  # at most half a heatmap pixel along each axis
    assert local["worse"].iloc[0] == 0 and local["worse"].iloc[-1] == 0
    found = {entry["decoder"]: entry for entry in record["flows"]}
    assert found["local"]["kendall"] > 0.9 and found["local"]["joint_kendall"] > 0.5
    assert (np.diff(local["mean_loss"]) <= 0).all()


def test_the_start_is_what_the_network_says(trained: Trained, flow: Callable, small_data: str) -> None:
    """Of the run's own persons: here those that it held out, all of them, as its own validation saw them."""
    _, rest = hold_out(load_persons(small_data, "train"), 0.3)
    count = len(rest.persons)
    run = trained("cross_entropy", held_out=0.3, val_limit=None)
    assert run.record["data"]["val_persons"] == count
    _, record, table = flow(run, persons=count, steps=2, every=1)
    assert curve(table)["error_px"].iloc[0] == pytest.approx(run.record["results"]["error_px"], rel=1e-4)
    assert table["mean_loss"].iloc[0] == pytest.approx(run.epochs["val_loss"].iloc[-1], rel=1e-4)
    shown = [PersonCrops(rest, (64, 32)).show(index).visible for index in range(count)]
    assert record["flows"][0]["joints"] == int(sum((visible > 0).sum() for visible in shown))
    with pytest.raises(InputError, match=f"{count} persons to validate run .*, fewer than {count + 1}: ask for fewer"):
        flow(run, persons=count + 1)


# --- the record


def test_a_record_of_several_runs(trained: Trained, flow: Callable) -> None:
    runs = [trained("hdm"), trained("cross_entropy")]
    folder, record, table = flow(*runs, runs[0], steps=10, every=3)
    assert list(table.columns) == COLUMNS
    names = [run.record["run_id"] for run in runs]
    assert record["runs"] == names  # one that is given twice counts once
    rows = table[["run", "loss", "decoder", "step"]].to_numpy().tolist()
    assert rows == [
        [name, loss, decoder, step]
        for name, loss in zip(names, ("hdm", "cross_entropy"), strict=True)
        for decoder in ("local", "argmax")
        for step in (0, 3, 6, 9)
    ]
    written, again = read_benchmark("flow", directory=folder.parents[1])
    assert written == json.loads(json.dumps(record))
    pd.testing.assert_frame_equal(again, table, rtol=1e-5, check_dtype=False)
    assert written["settings"] == {"persons": PERSONS, "steps": 10, "rate": 0.01, "every": 3}
    assert written["device"] == "cpu" and written["data"]["source"] == "synthetic:data"
    assert {"commit", "versions", "hardware", "started"} <= set(written)
    assert [(entry["run"], entry["decoder"]) for entry in written["flows"]] == [
        (name, decoder) for name in names for decoder in ("local", "argmax")
    ]
    for entry in written["flows"]:
        assert entry["persons"] == PERSONS and entry["checkpoints"] == 4 and entry["falling_steps"] == 3
        assert {"joint_kendall", "joint_discordant", "excess_px", "p_value"} <= set(entry)
    assert sorted(path.name for path in folder.iterdir()) == ["benchmark.json", "table.csv"]  # numbers only


def test_the_same_numbers_twice_and_in_smaller_batches(
    trained: Trained, flow: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("cross_entropy")
    (_, record, table), (_, again, same) = (flow(run, directory=tmp_path / name) for name in ("first", "second"))
    pd.testing.assert_frame_equal(table, same, check_exact=True)
    assert record["flows"] == again["flows"]
    monkeypatch.setattr("hdm.bench.flow.TOGETHER", 2)
    pd.testing.assert_frame_equal(flow(run, directory=tmp_path / "third")[2], table, rtol=1e-9)


def test_the_rate_is_a_share_of_the_run_s_own_maps(trained: Trained, flow: Callable, tmp_path: Path) -> None:
    _, record, _ = flow(trained("cross_entropy"), steps=5)
    _, larger, _ = flow(reweighed(trained("cross_entropy"), 16.0, tmp_path), steps=5, directory=tmp_path)
    assert larger["flows"][0]["rate"] == pytest.approx(16 * record["flows"][0]["rate"], rel=1e-4)


def test_what_is_printed(trained: Trained, flow: Callable) -> None:
    folder, record, table = flow(trained("hdm"), trained("cross_entropy"), steps=5)
    printed = flow_table(record, table)
    assert printed["decoder"].tolist() == ["local", "argmax"] * 2
    assert printed["loss"].tolist() == ["hdm"] * 2 + ["cross_entropy"] * 2
    first = curve(table[table["loss"] == "hdm"])
    assert printed["px at start"][0] == f"{first['error_px'].iloc[0]:.2f}"
    assert printed["px at the end"][0] == f"{first['error_px'].iloc[-1]:.2f}"
    assert printed["joint tau"][3] == f"{record['flows'][3]['joint_kendall']:.2f}"
    read = flow_table(*read_benchmark("flow", directory=folder.parents[1]))
    pd.testing.assert_frame_equal(read, printed)


# --- refusals


def test_what_cannot_descend(
    trained: Trained, flow: Callable, small_data: str, small_mpii: str, tmp_path: Path
) -> None:
    run = trained("hdm")
    with pytest.raises(InputError, match="has no heatmaps to descend: leave it out"):
        flow(trained("simcc", loss_settings={"size": [16, 8]}))
    with pytest.raises(InputError, match="weights .* are not there: train it again"):
        flow(run, checkpoints=tmp_path)
    with pytest.raises(InputError, match="run id or key that begins with 'nobody'"):
        bench_flow(["nobody"], small_data, runs=run.folder.parents[1], directory=tmp_path)
    with pytest.raises(InputError, match=f"{small_mpii} is not the data set of run {run.record['run_id']}"):
        flow(run, source=small_mpii)
    for settings, words in (
        ({"persons": 1}, "persons 1 must be 2 or more"),
        ({"steps": 4, "every": 5}, "every 5 must be from 1 to the number of steps, 4"),
        ({"every": 0}, "every 0 must be from 1"),
        ({"rate": 0.0}, "rate 0.0 must be positive"),
    ):
        with pytest.raises(InputError, match=words):
            flow(run, **settings)
    assert not (tmp_path / "benchmarks").exists()


def test_flat_maps(trained: Trained, flow: Callable, tmp_path: Path) -> None:
    run = reweighed(trained("cross_entropy"), 0.0, tmp_path)
    with pytest.raises(InputError, match=f"raw maps of run {run.record['run_id']} are flat"):
        flow(run)
