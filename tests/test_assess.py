"""A network with weights on a data set: which table comes out, and what is written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from animals import make_animals
from oracles import Oracle
from scipy.io import loadmat

from hdm.assess import RESCORINGS, Trained, assess, network_of_run, official_network, published_rows
from hdm.data import PersonCrops, load_persons, with_detections
from hdm.errors import InputError
from hdm.losses import GaussianMSE
from hdm.models import build_model
from hdm.protocols import Rescoring
from hdm.train import TrainConfig, train

SIZE = (128, 96)


def oracle(source: str, convention: str = "hrnet", boxes: Path | None = None) -> Trained:
    data = load_persons(source, "val")
    crops = PersonCrops(data, SIZE, convention=convention)
    return Trained(Oracle(crops, "dark"), GaussianMSE(rounded=False), "oracle.pth", SIZE, convention, "dark")


def boxes_of(source: str, path: Path) -> Path:
    persons = load_persons(source, "val").persons
    entries = [
        {
            "image_id": p.image_id,
            "category_id": 1,
            "bbox": [p.box[0], p.box[1], p.box[2] - 1, p.box[3] - 1],
            "score": 0.9,
        }
        for p in persons
    ]
    path.write_text(json.dumps(entries))
    return path


def test_a_network_that_knows_the_answer(small_data: str, tmp_path: Path) -> None:
    table = assess(oracle(small_data), small_data, flip_test=False, progress=False, predictions=tmp_path / "found.json")
    assert len(table) == len(RESCORINGS)
    assert table["AP50"].tolist() == pytest.approx([100] * 4)
    assert table["AP"].min() > 90  # joints near the border of a heatmap are read less well
    assert set(table["boxes"]) == {"ground truth"} and set(table["flip test"]) == {"no"}
    assert table["score"].tolist() == ["joints", "max", "mass", "box"]
    assert table.loc[0, ["weights", "input", "decoder"]].tolist() == ["oracle.pth", "128x96", "dark"]
    assert len(json.loads((tmp_path / "found.json").read_text())) == len(load_persons(small_data, "val").persons)


def test_boxes_of_a_detector_are_named(small_data: str, tmp_path: Path) -> None:
    """The detector's boxes are the annotated ones, so the crops are the same, and so are the joints."""
    boxes = boxes_of(small_data, tmp_path / "boxes.json")
    table = assess(
        oracle(small_data), small_data, boxes=boxes, flip_test=False, progress=False, rescorings=RESCORINGS[:1]
    )
    assert table["boxes"].tolist() == ["boxes.json"]
    assert table["AP50"].item() == pytest.approx(100)


def test_mpii(small_mpii: str, tmp_path: Path) -> None:
    table = assess(oracle(small_mpii), small_mpii, flip_test=False, progress=False, predictions=tmp_path / "pred.mat")
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["boxes"], row["PCKh@0.5"]) == ("given centre and scale", 100)
    joints = np.stack([person.joints for person in load_persons(small_mpii, "val").persons])
    assert np.median(np.abs(loadmat(tmp_path / "pred.mat")["preds"] - joints - 1)) < 0.05
    with pytest.raises(InputError, match="a box file is for COCO's layout"):
        assess(oracle(small_mpii), small_mpii, boxes=tmp_path / "boxes.json")


def test_the_first_persons_only(small_data: str) -> None:
    table = assess(oracle(small_data), small_data, limit=3, flip_test=False, progress=False)
    assert set(table["persons"]) == {3}


@pytest.mark.parametrize(
    ("name", "colour"), [("resnet18", "bgr"), pytest.param("hrnet_w32", "rgb", marks=pytest.mark.slow)]
)
def test_an_official_checkpoint_is_used_as_its_repository_does(name: str, colour: str, tmp_path: Path) -> None:
    model = build_model(name, joints=16)
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, tmp_path / "pose.pth")
    network = official_network(name, tmp_path / "pose.pth", joints=16, input_size=(384, 288))
    assert (network.model.colour, network.convention, network.decoder) == (colour, "hrnet", "quarter")
    assert (network.weights, network.loss.sigma) == ("pose.pth", 3)
    for key, value in network.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    with pytest.raises(InputError, match="pose.pth"):
        official_network(name, tmp_path / "pose.pth", joints=17, input_size=(256, 192))


def test_a_run_of_ours_scores_what_its_record_says(small_data: str, tmp_path: Path) -> None:
    config = TrainConfig(
        data=small_data,
        model="timm:test_resnet",
        head_channels=8,
        input_size=(64, 64),
        loss="gaussian_mse",
        decoder="quarter",
        convention="udp",
        heatmap_stride=8,
        epochs=1,
        batch_size=8,
        train_limit=8,
        device="cpu",
    )
    folders = {"runs": tmp_path / "runs", "checkpoints": tmp_path / "weights"}
    run = train(config, profile="local", log=lambda line: None, **folders)
    network = network_of_run(run.folder, tmp_path / "weights")
    assert (network.convention, network.decoder, network.input_size) == ("udp", "quarter", (64, 64))
    assert network.heatmap_stride == 8
    rescoring = Rescoring(config.score, config.score_threshold, config.nms)
    table = assess(network, small_data, flip_test=False, rescorings=(rescoring,), progress=False)
    for name in ("AP", "AP50", "AR"):
        assert table[name].item() == pytest.approx(100 * run.record["results"][name], abs=1e-6)
    with pytest.raises(InputError, match="are not there: train it again"):
        network_of_run(run.folder, tmp_path / "elsewhere")


def test_what_others_published_stands_beside_it() -> None:
    table = pd.DataFrame(
        [{"data": "coco val", "boxes": "COCO_val2017_detections_AP_H_56_person.json", "AP": 1.0, "AP75": 2.0}]
    )
    rows = published_rows("hrnet_w32", (256, 192), table)
    official = rows[rows["work"] == "HRNet"]
    assert official[["AP", "AP75"]].to_numpy().tolist() == [["74.4", "81.9"]]
    assert set(rows["boxes"]) == {"AP_H_56"}
    assert not len(published_rows("hrnet_w32", (256, 192), table.assign(boxes="ground truth")))
    assert not len(published_rows("hrnet_w32", (256, 192), table.assign(data="synthetic val")))


def test_boxes_are_the_same_crops(small_data: str, tmp_path: Path) -> None:
    """What the test above rests on."""
    data = load_persons(small_data, "val")
    found = with_detections(data, boxes_of(small_data, tmp_path / "boxes.json"))
    for one, other in zip(data.persons, found.persons, strict=True):
        assert replace(other, joints=one.joints, visible=one.visible).box == pytest.approx(one.box)


# --- joints of another skeleton


def test_other_joints_without_constants_have_pixel_errors_and_pck(tmp_path: Path) -> None:
    source = f"coco:{make_animals(tmp_path / 'goats', images=9)}"
    table = assess(oracle(source), source, flip_test=False, progress=False, predictions=tmp_path / "found.json")
    (row,) = table.to_dict("records")
    assert row["data"] == "goat val" and row["persons"] == 3 and "AP" not in row
    assert row["error_px"] < 0.5 and row["PCK@0.05"] == 100
    assert {entry["category_id"] for entry in json.loads((tmp_path / "found.json").read_text())} == {3}


def test_other_joints_with_constants_have_an_ap(tmp_path: Path) -> None:
    """The answer is off by the decoder's small error, which large constants forgive and tiny ones do not."""
    source = f"coco:{make_animals(tmp_path / 'goats', images=9, sigmas=[0.05] * 5)}"
    table = assess(oracle(source), source, flip_test=False, progress=False)
    assert table["score"].tolist() == ["joints", "max", "mass", "box"]
    assert table["AP"].tolist() == pytest.approx([100] * 4)
    narrow = f"coco:{make_animals(tmp_path / 'narrow', images=9, sigmas=[0.0005] * 5)}"
    assert assess(oracle(narrow), narrow, flip_test=False, progress=False)["AP"].max() < 90


def test_a_network_of_other_joints_is_refused(small_data: str, tmp_path: Path) -> None:
    source = f"coco:{make_animals(tmp_path / 'goats', images=6)}"
    network = Trained(build_model("timm:test_resnet", head_channels=8), GaussianMSE(), "people.pth", SIZE)
    with pytest.raises(InputError, match="people.pth reads 17 joints of skeleton 'coco', and coco:.*has 5 of 'goat'"):
        assess(network, source)
    skeleton = load_persons(source, "val").skeleton
    goats = replace(
        network, model=build_model("timm:test_resnet", joints=5, head_channels=8), trained_on=skeleton, weights="goats"
    )
    with pytest.raises(InputError, match="goats reads 5 joints of skeleton 'goat', and synthetic:.* has 17 of 'coco'"):
        assess(goats, small_data)
    other = make_animals(tmp_path / "hens", images=6, name="hen", keypoints=["beak", "comb", "wing", "tail", "claw"])
    with pytest.raises(InputError, match="'goat', and coco:.*has 5 of 'hen'"):
        assess(goats, f"coco:{other}")


def test_boxes_of_a_detector_need_constants(tmp_path: Path) -> None:
    source = f"coco:{make_animals(tmp_path / 'goats', images=6)}"
    with pytest.raises(InputError, match="no 'sigmas', without which a detector's boxes can't be scored"):
        assess(oracle(source), source, boxes=tmp_path / "boxes.json")
