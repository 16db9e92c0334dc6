"""The measurement of the traps, on a network that has learnt nothing much and generated persons."""

import json
from pathlib import Path

import numpy as np
import pytest

from hdm.bench import bench_protocol
from hdm.bench.protocol import simulated_boxes
from hdm.data import load_persons, with_detections
from hdm.records import read_benchmark
from hdm.train import TrainConfig, train


@pytest.mark.slow
def test_every_trap_is_measured_and_recorded(small_data: str, small_mpii: str, tmp_path: Path) -> None:
    config = TrainConfig(
        data=small_data,
        model="timm:test_resnet",
        head_channels=8,
        input_size=(64, 64),
        loss="hdm",
        epochs=1,
        batch_size=8,
        train_limit=8,
        device="cpu",
    )
    weights = tmp_path / "weights"
    run = train(config, runs=tmp_path / "runs", checkpoints=weights, log=lambda line: None)
    folder, table = bench_protocol(
        small_data, small_mpii, [run.folder], checkpoints=weights, directory=tmp_path / "benchmarks"
    )
    record, written = read_benchmark("protocol", directory=tmp_path / "benchmarks")
    assert len(written) == len(table) and folder.parent.name == "protocol"
    assert record["settings"]["networks"] == [run.record["run_id"]]
    coco = table[table["data"] == "synthetic"]
    assert set(coco["trap"]) == {"flip test", "decoder", "pixels", "input", "boxes", "score"}
    assert set(coco["metric"]) == {"AP", "AP75"}
    assert set(table.loc[table["data"] == "mpii", "trap"]) == {"decoder", "flip test", "PCKh"}
    assert table["value"].between(0, 100).all()
    plain = coco[coco["right"] & (coco["metric"] == "AP") & coco["trap"].isin(["pixels", "input", "decoder"])]
    assert plain["value"].nunique() == 1  # the same predictions
    assert plain["value"].iloc[0] == pytest.approx(100 * run.record["results"]["AP"])
    boxes = coco[(coco["trap"] == "score") & (coco["metric"] == "AP")].groupby("boxes")["persons"].first()
    assert boxes["simulated detector"] > boxes["ground truth"] == len(load_persons(small_data, "val").persons)


def test_simulated_boxes_are_those_of_a_bad_detector(small_data: str, tmp_path: Path) -> None:
    data = load_persons(small_data, "train")
    found = with_detections(data, simulated_boxes(data, tmp_path / "boxes"))
    again = json.loads(simulated_boxes(data, tmp_path / "again").read_text())
    assert again == json.loads((tmp_path / "boxes").read_text())
    pictures = len({person.image_id for person in data.persons})
    twice = len(found.persons) - len(data.persons) - pictures
    assert 0.05 * len(data.persons) < twice < 0.4 * len(data.persons)
    ratios = np.array([person.box[2] for person in found.persons if person.score >= 0.5])
    assert ratios.min() > 0
    assert min(person.score for person in found.persons) >= 0
