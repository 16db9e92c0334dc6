"""Settings: what is refused, and what the key of a run depends on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hdm.errors import InputError
from hdm.records import read_run
from hdm.train import TrainConfig, run_configs

DATA = "synthetic:data/generated/quick"

# --- refusals ---

INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "input_size not a multiple": ({"input_size": (250, 192)}, "input_size .250, 192. must be .* multiples of 32"),
    "input_size zero": ({"input_size": (0, 192)}, "multiples of 32"),
    "input_size of one number": ({"input_size": [192]}, "input_size .192. must be a list of two whole numbers"),
    "input_size no list": ({"input_size": 256}, "input_size 256 must be a list of two whole numbers"),
    "input_size in fractions": ({"input_size": [256.0, 192.0]}, "must be a list of two whole numbers"),
    "loss": ({"loss": "hmd"}, "unknown loss 'hmd': choose one of gaussian_mse"),
    "loss setting": ({"loss": "hdm", "loss_settings": {"sigma": 2.0}}, "does not take these settings"),
    "loss setting's value": ({"loss_settings": {"cost": "l3"}}, "unknown cost 'l3': choose one of"),
    "loss settings no mapping": ({"loss_settings": None}, "loss_settings None must be a mapping"),
    "reduction": ({"loss_settings": {"reduction": "none"}}, "loss_settings must leave out reduction"),
    "decoder": ({"decoder": "soft"}, "unknown decoder 'soft': choose one of argmax"),
    "schedule": ({"schedule": "linear"}, "unknown schedule 'linear': choose cosine or step"),
    "heatmap_stride": ({"heatmap_stride": 3}, "unknown heatmap_stride 3: choose 2, 4 or 8"),
    "device": ({"device": "gpu"}, "unknown device 'gpu': choose auto, cpu or cuda"),
    "epochs": ({"epochs": 0}, "epochs 0 must be positive"),
    "half an epoch": ({"epochs": 2.5}, "epochs 2.5 must be a whole number"),
    "batch_size": ({"batch_size": -8}, "batch_size -8 must be positive"),
    "head_channels": ({"head_channels": 0}, "head_channels 0 must be positive"),
    "lr": ({"lr": 0.0}, "lr 0.0 must be positive"),
    "lr NaN": ({"lr": float("nan")}, "lr nan must be positive"),
    "lr as YAML reads 1e-3": ({"lr": "1e-3"}, "lr '1e-3' must be a number .in YAML: 1.0e-3"),
    "warm_start": ({"warm_start": 1.5}, "warm_start 1.5 must be from 0 to 1"),
    "warm_up": ({"warm_up": -0.1}, "warm_up -0.1 must be from 0 to 1"),
    "flip": ({"flip": 50}, "flip 50.0 must be from 0 to 1"),
    "rotation": ({"rotation": -1.0}, "rotation must be at least 0"),
    "scale": ({"scale": 1.0}, "scale from 0 to below 1"),
    "drops": ({"drops": [90, 120]}, "drops .90, 120. must be shares"),
    "drops no list": ({"drops": 0.5}, "drops 0.5 must be a list of numbers"),
    "workers": ({"workers": -1}, "workers -1 must be 0 or more"),
    "seed": ({"seed": -1}, "seed -1 must be 0 or more"),
    "train_limit": ({"train_limit": 0}, "train_limit 0 must be positive"),
    "val_limit": ({"val_limit": -2}, "val_limit -2 must be positive"),
    "yes for a number": ({"workers": True}, "workers True must be a whole number"),
    "a number for yes": ({"compile": 1}, "compile 1 must be true or false"),
    "precision": ({"precision": "half"}, "unknown precision 'half': choose float32, bfloat16 or float16"),
    "order": ({"order": "random"}, "unknown order 'random': choose images or persons"),
    "keep": ({"keep": "all"}, "unknown keep 'all': choose last or best"),
    "accumulate": ({"accumulate": 0}, "accumulate 0 must be positive"),
    "clip": ({"clip": 0.0}, "clip 0.0 must be positive"),
    "ema": ({"ema": 1.0}, "ema 1.0 must be from 0 to below 1"),
    "save_minutes": ({"save_minutes": 0}, "save_minutes 0.0 must be positive"),
    "cache": ({"cache": 3}, "cache 3 must be text or nothing"),
    "text": ({"model": 50}, "model 50 must be text"),
}


@pytest.mark.parametrize("fault", INVALID)
def test_a_value_that_cannot_be_is_named(fault: str) -> None:
    settings, words = INVALID[fault]
    with pytest.raises(InputError, match=words):
        TrainConfig.from_dict({"data": DATA, **settings})


@pytest.mark.parametrize(
    ("name", "suggestion"), [("epoch", "epochs"), ("batchsize", "batch_size"), ("warmstart", "warm_start")]
)
def test_an_unknown_setting_is_refused_with_the_likely_one(name: str, suggestion: str) -> None:
    with pytest.raises(InputError, match=f"unknown setting '{name}': did you mean '{suggestion}'"):
        TrainConfig.from_dict({"data": DATA, name: 1})


def test_an_unknown_setting_like_no_other_lists_all() -> None:
    with pytest.raises(InputError, match="unknown setting 'xyz': known are data, model, .*workers"):
        TrainConfig.from_dict({"data": DATA, "xyz": 1})
    with pytest.raises(InputError, match="unknown setting 7"):
        TrainConfig.from_dict({"data": DATA, 7: 1})  # YAML has keys that are numbers


def test_data_must_be_given() -> None:
    with pytest.raises(InputError, match="setting 'data' is missing"):
        TrainConfig.from_dict({"epochs": 3})


def test_settings_are_not_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig(data=DATA).epochs = 3  # type: ignore[misc]


# --- from files ---


def test_what_yaml_gives_is_what_python_gives() -> None:
    text = "{data: 'synthetic:x', input_size: [128, 96], drops: [0.5], lr: 1, rotation: 0, loss_settings: {blur: 0.2}}"
    config = TrainConfig.from_dict(yaml.safe_load(text))
    expected = TrainConfig(
        "synthetic:x", input_size=(128, 96), drops=(0.5,), lr=1.0, rotation=0.0, loss_settings={"blur": 0.2}
    )
    assert config == expected
    assert config.key() == expected.key()
    assert (config.input_size, config.drops) == ((128, 96), (0.5,))


def test_settings_survive_the_way_through_json() -> None:
    config = TrainConfig(DATA, loss="gaussian_mse", loss_settings={"sigma": 1.5}, train_limit=10, schedule="step")
    again = TrainConfig.from_dict(json.loads(json.dumps(config.as_dict())))
    assert again == dataclasses.replace(config, data="synthetic:quick")
    assert again.key("hash") == config.key("hash")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("coco:/data/somebody/data/coco_mini", "coco:coco_mini"),
        ("coco:/data/somebody/data/coco_mini/", "coco:coco_mini"),
        ("synthetic:quick", "synthetic:quick"),
    ],
)
def test_a_record_shows_no_path_of_the_machine(data: str, shown: str) -> None:
    assert TrainConfig(data).as_dict()["data"] == shown


def test_a_record_shows_no_path_of_a_cache() -> None:
    assert TrainConfig(DATA, cache="/fast/disk/crops").as_dict()["cache"] == "crops"
    assert TrainConfig(DATA).as_dict()["cache"] is None


def test_runs_of_a_profile_share_its_settings() -> None:
    profile = yaml.safe_load("""
        data: synthetic:x
        train: {epochs: 4, loss: hdm, seed: 3}
        runs:
          mse: {loss: gaussian_mse, decoder: quarter}
          long: {epochs: 9}
          plain:
    """)
    configs = run_configs(profile)
    assert list(configs) == ["mse", "long", "plain"]
    assert configs["mse"] == TrainConfig("synthetic:x", epochs=4, loss="gaussian_mse", decoder="quarter", seed=3)
    assert (configs["long"].epochs, configs["long"].loss) == (9, "hdm")
    assert configs["plain"] == TrainConfig("synthetic:x", epochs=4, seed=3)


@pytest.mark.parametrize("section", ["data", "runs"])
def test_a_profile_without_a_section(section: str) -> None:
    profile = {"data": DATA, "runs": {"hdm": {}}} | {section: None}
    with pytest.raises(InputError, match=f"no section '{section}'"):
        run_configs(profile)


def test_a_profile_with_a_misspelt_setting() -> None:
    with pytest.raises(InputError, match="did you mean 'warm_start'"):
        run_configs({"data": DATA, "runs": {"hdm": {"warmstart": 0.4}}})


# --- the key of a run ---


# Records and checkpoints are found by their keys: a change here loses them all.


def test_the_key_of_settings_from_before_orders_stays() -> None:
    """The default settings of the first versions, which shuffled persons and read pictures at their full size."""
    assert TrainConfig("synthetic:quick", order="persons", reduced=False).key("data") == "06f2e09a"


def test_the_key_of_the_default_settings_stays() -> None:
    assert TrainConfig("synthetic:quick").key("data") == "8ad484e2"


@pytest.mark.parametrize("key", ["35e73941", "b753b63f"])
def test_the_keys_of_recorded_runs_stay(repository: Path, key: str) -> None:
    (folder,) = (repository / "data" / "runs" / "cpu").glob(f"*-{key}")
    record = read_run(folder)
    dropped = ("amp", "margin")  # settings of that time; neither was made use of
    settings = {name: value for name, value in record["settings"].items() if name not in dropped}
    assert not any(record["settings"].get(name) for name in dropped)
    config = TrainConfig.from_dict(settings | {"order": "persons", "reduced": False})
    assert config.key(record["data"]["train_sha256"] + record["data"]["val_sha256"]) == key == record["key"]


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cpu"},
        {"workers": 4},
        {"cache": "somewhere"},
        {"save_minutes": 1.0},
        {"data": "synthetic:elsewhere/quick"},
    ],
)
def test_where_and_how_fast_a_run_goes_is_not_in_its_key(change: dict[str, Any]) -> None:
    config = TrainConfig(DATA)
    assert dataclasses.replace(config, **change).key("hash") == config.key("hash")


def test_every_other_setting_and_the_data_are_in_the_key() -> None:
    changes: list[dict[str, Any]] = [
        {"data": "coco:quick"}, {"model": "resnet34"}, {"pretrained": True}, {"head_channels": 8},
        {"backbone_stride": 16}, {"input_size": (192, 256)}, {"loss": "gaussian_mse"},
        {"loss_settings": {"cost": "l2_squared"}}, {"warm_start": 0.4}, {"decoder": "argmax"}, {"epochs": 11},
        {"batch_size": 31}, {"lr": 1e-4},
        {"schedule": "step"}, {"drops": (0.5,)}, {"warm_up": 0.0}, {"rotation": 30.0}, {"scale": 0.25}, {"flip": 0.0},
        {"seed": 1}, {"train_limit": 5}, {"val_limit": 5}, {"precision": "bfloat16"},
        {"colour": "bgr"}, {"convention": "udp"}, {"half_body": 0.3}, {"flip_test": True},
        {"score": "mass"}, {"score_threshold": 0.2}, {"nms": 0.9}, {"accumulate": 2}, {"clip": 1.0}, {"ema": 0.99},
        {"keep": "best"}, {"order": "persons"}, {"drop_last": False}, {"reduced": False}, {"skip_unreadable": True},
        {"compile": True}, {"sync_batch_norm": True}, {"held_out": 0.2}, {"label_noise": 0.01}, {"follow": True},
        {"heatmap_stride": 8},
    ]  # fmt: skip
    config = TrainConfig(DATA)
    keys = [config.key("hash"), config.key("another"), *(dataclasses.replace(config, **c).key("hash") for c in changes)]
    assert len(set(keys)) == len(keys)
    tried = {name for change in changes for name in change} | {"device", "workers", "cache", "save_minutes"}
    assert tried == {field.name for field in dataclasses.fields(TrainConfig)}
