"""The command line: each kind of bad input ends with one sentence and exit status 2, and good input does its work."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from animals import make_animals

from hdm.cli import main
from hdm.data import make_synthetic
from hdm.executions import record_execution
from hdm.losses import LOSSES
from hdm.models import build_model

RECORDS = str(Path(__file__).resolve().parents[1] / "data" / "runs")
TINY = ["--epochs", "1", "--batch-size", "4", "--set", "input_size=[32, 32]", "--set", "head_channels=4"]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("cli") / "data", images=10, seed=3, progress=False)


@pytest.fixture
def spoilt(generated: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may damage."""
    return Path(shutil.copytree(generated, tmp_path / "spoilt"))


def annotations(root: Path) -> Path:
    return root / "annotations" / "person_keypoints_train2017.json"


def edit(root: Path, change) -> None:
    content = json.loads(annotations(root).read_text())
    change(content)
    annotations(root).write_text(json.dumps(content))


def train(root: Path, out: Path, *more: str) -> int:
    return main(
        ["train", f"coco:{root}", *TINY, "--runs", str(out / "runs"), "--checkpoints", str(out / "weights"), *more]
    )


def refused(capsys: pytest.CaptureFixture, *words: str) -> None:
    """Standard error holds one line, without a traceback, that says these words."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("hdm ")
    for word in words:
        assert word in lines[0]


def test_trains_and_writes_a_record(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(generated, tmp_path, "--loss", "gaussian_mse", "--decoder", "quarter") == 0
    record = json.loads(next((tmp_path / "runs").glob("local/*/run.json")).read_text())
    assert record["settings"]["loss"] == "gaussian_mse"
    assert record["settings"]["input_size"] == [32, 32]
    assert "record" in capsys.readouterr().out


def test_generates_a_data_set_that_can_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["synth", str(tmp_path / "made"), "--images", "6", "--seed", "4"]) == 0
    assert f"use it as synthetic:{tmp_path / 'made'}" in capsys.readouterr().out
    assert [len(list((tmp_path / "made" / part).iterdir())) for part in ("train2017", "val2017")] == [5, 1]
    assert train(tmp_path / "made", tmp_path, "--loss", "cross_entropy") == 0


def test_trains_a_run_of_a_profile_with_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The profile's generated data set is made first; what is given on the line takes the place of the profile's."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--profile", "smoke", "--name", "gaussian_mse", *TINY, "--set", "train_limit=6"]) == 0
    settings = json.loads(next(Path("data/runs/smoke").glob("*/run.json")).read_text())["settings"]
    assert (settings["loss_settings"], settings["epochs"], settings["train_limit"]) == ({"sigma": 1.0}, 1, 6)
    assert len(list(Path("data/generated/smoke/train2017").iterdir())) > 0
    assert "epoch 1/1" in capsys.readouterr().out


def drop_keypoints(content: dict) -> None:
    for category in content["categories"]:
        del category["keypoints"]


def drop_annotation_keypoints(content: dict) -> None:
    del content["annotations"][0]["keypoints"]


def unknown_image_id(content: dict) -> None:
    content["annotations"][0]["image_id"] = 987654


def other_category(content: dict) -> None:
    content["annotations"][0]["category_id"] = 77


def other_joints(content: dict) -> None:
    content["categories"][0]["keypoints"][0] = "tail"


def empty_box(content: dict) -> None:
    content["annotations"][0]["bbox"][2] = 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_keypoints, ["keypoints"]),
        (drop_annotation_keypoints, ["keypoints", "annotation"]),
        (unknown_image_id, ["987654"]),
        (other_category, ["77"]),
        (other_joints, ["joints"]),
        (empty_box, ["no area"]),
    ],
)
def test_faulty_annotations(spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change, words) -> None:
    edit(spoilt, change)
    assert train(spoilt, tmp_path) == 2
    refused(capsys, "person_keypoints_train2017.json", *words)
    assert not (tmp_path / "runs").exists()


def test_broken_json(spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    annotations(spoilt).write_text("{")
    assert train(spoilt, tmp_path) == 2
    refused(capsys, "not valid JSON")


def test_missing_image(spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    victim = sorted((spoilt / "train2017").iterdir())[0]
    victim.unlink()
    assert train(spoilt, tmp_path) == 2
    refused(capsys, victim.name, "missing")


@pytest.mark.parametrize(
    ("content", "word"), [(None, "cut short"), (b"", "not an image"), (b"no picture", "not an image")]
)
def test_damaged_image(spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture, content, word: str) -> None:
    for victim in (spoilt / "train2017").iterdir():
        victim.write_bytes(victim.read_bytes()[:-500] if content is None else content)
    assert train(spoilt, tmp_path) == 2
    refused(capsys, "train2017", word)


def test_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(tmp_path / "nowhere", tmp_path) == 2
    refused(capsys, "nowhere", "not there")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--loss", "magic"], ["unknown loss 'magic'", "hdm"]),
        (["--model", "magic"], ["unknown model 'magic'", "resnet50"]),
        (["--decoder", "magic"], ["unknown decoder 'magic'", "quarter"]),
        (["--set", "epoch=3"], ["unknown setting 'epoch'", "'epochs'"]),
        (["--set", "epochs"], ["name=value"]),
        (["--set", "loss_settings={blurr: 1}"], ["blurr"]),
        (["--lr", "0"], ["lr 0", "positive"]),
        (["--lr", "1e30"], ["NaN or infinite"]),
    ],
)
def test_bad_settings(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], words) -> None:
    assert train(generated, tmp_path, *more) == 2
    refused(capsys, *words)
    assert not (tmp_path / "runs").exists()


def test_unknown_profile_and_run(capsys: pytest.CaptureFixture) -> None:
    assert main(["book", "--profile", "huge"]) == 2
    refused(capsys, "unknown profile 'huge'", "quick")
    assert main(["book", "--list", "--profile", "huge"]) == 2
    refused(capsys, "unknown profile 'huge'", "quick")
    assert main(["train", "--profile", "smoke", "--name", "magic"]) == 2
    refused(capsys, "no run 'magic'", "gaussian_mse")


@pytest.mark.parametrize("images", ["0", "-3", "1"])
def test_too_few_images(tmp_path: Path, capsys: pytest.CaptureFixture, images: str) -> None:
    assert main(["synth", str(tmp_path / "new"), "--images", images]) == 2
    refused(capsys, "images")
    assert not (tmp_path / "new").exists()


# --- hdm evaluate ---


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 17 joints that has learnt nothing, as the official repositories save theirs."""
    path = tmp_path_factory.mktemp("weights") / "pose_resnet_18.pth"
    torch.save(build_model("resnet18").state_dict(), path)
    return path


def test_scores_weights_on_a_data_set(
    generated: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = tmp_path / "found.json"
    status = main(
        ["evaluate", f"coco:{generated}", "--weights", str(weights), "--model", "resnet18", "--input-size", "64x64",
         "--predictions", str(found), "--limit", "3", "--device", "cpu"]
    )  # fmt: skip
    assert status == 0
    out = capsys.readouterr().out
    assert "ground truth" in out and "pose_resnet_18.pth" in out and "64x64" in out
    assert [line.split()[9] for line in out.splitlines()[1:5]] == ["joints", "max", "mass", "box"]
    assert len(json.loads(found.read_text())) > 0


@pytest.mark.slow
def test_scores_a_run_of_its_own(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(generated, tmp_path, "--loss", "hdm") == 0
    folder = next((tmp_path / "runs").glob("local/*"))
    capsys.readouterr()
    command = ["evaluate", f"coco:{generated}", "--run", str(folder), "--checkpoints", str(tmp_path / "weights")]
    assert main([*command, "--no-flip-test", "--score", "mass", "--score-threshold", "0.1", "--nms", "0"]) == 0
    header, row = capsys.readouterr().out.strip().splitlines()
    assert "boxes" in header and "mass" in row and "local" in row


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--weights", "none.pth", "--model", "resnet18"], ["none.pth", "not there"]),
        (["--weights", "WEIGHTS"], ["--weights needs --model"]),
        (["--weights", "WEIGHTS", "--model", "resnet34"], ["pose_resnet_18.pth"]),
        (["--weights", "WEIGHTS", "--model", "resnet"], ["unknown model 'resnet'"]),
        (["--weights", "WEIGHTS", "--model", "resnet18", "--colour", "hsv"], ["colour is 'hsv'"]),
        (
            ["--weights", "WEIGHTS", "--model", "resnet18", "--boxes", "none.json"],
            ["box file none.json", "can't be read"],
        ),
        (["--weights", "WEIGHTS", "--model", "resnet18", "--decoder", "best"], ["unknown decoder 'best'"]),
        (["--weights", "WEIGHTS", "--model", "resnet18", "--convention", "best"], ["unknown pixel convention"]),
        (["--weights", "WEIGHTS", "--model", "resnet18", "--score", "best"], ["unknown score 'best'"]),
        (["--weights", "WEIGHTS", "--model", "resnet18", "--input-size", "30x30"], ["30", "multiples of 4"]),
        (["--weights", "WEIGHTS", "--model", "resnet18", "--device", "tpu"], ["unknown device 'tpu'"]),
        (["--run", "none"], ["run.json", "can't be read"]),
    ],
)
def test_what_cannot_be_scored(
    generated: Path, weights: Path, capsys: pytest.CaptureFixture, more: list[str], words: list[str]
) -> None:
    arguments = [str(weights) if argument == "WEIGHTS" else argument for argument in more]
    assert main(["evaluate", f"coco:{generated}", *arguments]) == 2
    refused(capsys, *words)


# --- hdm predict ---


@pytest.mark.slow
def test_draws_people_into_pictures(
    generated: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """With a run of this project by its weights file, and with an official checkpoint."""
    assert train(generated, tmp_path, "--loss", "hdm") == 0
    (trained,) = (tmp_path / "weights").glob("**/weights-*.safetensors")
    pictures, out = generated / "val2017", tmp_path / "out"
    capsys.readouterr()
    command = ["predict", str(pictures), "--out", str(out), "--device", "cpu", "--checkpoint"]
    assert main([*command, str(trained), "--heatmaps"]) == 0
    count = len(list(pictures.iterdir()))
    assert f"{count} people in {count} pictures: {out}" in capsys.readouterr().out
    assert len(json.loads((out / "results.json").read_text())) == count
    assert len(list(out.glob("*.png"))) == len(list(out.glob("*.npz"))) == count
    assert main([*command, str(weights), "--model", "resnet18", "--input-size", "64x64", "--flip-test"]) == 0


@pytest.mark.slow
def test_joints_of_another_skeleton_from_training_to_results(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The annotation file says what the joints are; the weights keep it."""
    goats, out = make_animals(tmp_path / "goats"), tmp_path / "out"
    assert train(goats, tmp_path, "--loss", "hdm") == 0
    (folder,) = (tmp_path / "runs").glob("local/*")
    record = json.loads((folder / "run.json").read_text())
    assert record["data"]["skeleton"] == "goat"
    assert "PCK@0.1" in record["results"] and "AP" not in record["results"]
    checkpoints = ["--checkpoints", str(tmp_path / "weights")]
    capsys.readouterr()
    assert main(["evaluate", f"coco:{goats}", "--run", str(folder), *checkpoints]) == 0
    header, row = capsys.readouterr().out.strip().splitlines()
    assert header.split()[-1] == "PCK@0.2" and "goat val" in row
    (trained,) = (tmp_path / "weights").glob("**/weights-*.safetensors")
    command = ["predict", str(goats / "val2017"), "--checkpoint", str(trained), "--out", str(out), "--device", "cpu"]
    assert main([*command, "--flip-test", "--least-score", "0"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert [(len(entry["keypoints"]), entry["category_id"]) for entry in results] == [(15, 3)] * 4
    assert main(["runs", "--runs", str(tmp_path / "runs")]) == 0


def test_parts_of_different_joints(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    goats = make_animals(tmp_path / "goats", images=6)
    hens = make_animals(tmp_path / "hens", images=6, name="hen", keypoints=["beak", "comb", "wing", "tail", "claw"])
    shutil.copy(annotations(hens), annotations(goats))
    assert train(goats, tmp_path) == 2
    refused(capsys, "person_keypoints_train2017.json has", "5 joints of 'hen'", "5 of 'goat'")


def test_half_bodies_of_animals(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    goats = make_animals(tmp_path / "goats", images=6)
    assert train(goats, tmp_path, "--set", "half_body=0.3") == 2
    refused(capsys, "half_body", "'goat' has no halves")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["none.jpg", "--checkpoint", "WEIGHTS", "--model", "resnet18"], ["none.jpg can't be read"]),
        (["DATA", "--checkpoint", "WEIGHTS", "--model", "resnet18"], ["holds no picture"]),
        (["none.mp4", "--checkpoint", "WEIGHTS", "--model", "resnet18"], ["video none.mp4 is not there"]),
        (["PICTURES", "--checkpoint", "WEIGHTS"], ["does not say what network it belongs to"]),
        (["PICTURES", "--checkpoint", "WEIGHTS", "--model", "resnet18", "--joints", "16"], ["pose_resnet_18.pth"]),
        (["PICTURES", "--checkpoint", "none.safetensors"], ["none.safetensors can't be read"]),
        (["PICTURES", "--checkpoint", "DATA"], ["run.json", "can't be read"]),
        (["PICTURES", "--checkpoint", "DATA", "--model", "resnet18"], ["leave --model out"]),
        (
            ["PICTURES", "--checkpoint", "WEIGHTS", "--model", "resnet18", "--boxes", "none.json"],
            ["box file none.json", "can't be read"],
        ),
    ],
)
def test_what_cannot_be_predicted(
    generated: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], words: list[str]
) -> None:
    names = {"WEIGHTS": str(weights), "DATA": str(generated), "PICTURES": str(generated / "val2017")}
    out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["predict", *(names.get(argument, argument) for argument in more), *out]) == 2
    refused(capsys, *words)


# --- hdm fetch ---


def test_says_what_is_there(generated: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["fetch", "--check", str(generated)]) == 1
    out = capsys.readouterr().out
    assert "person_keypoints_val2017.json" in out and "official 6,352" in out


def test_says_that_mpii_is_right(sample_data: Path, capsys: pytest.CaptureFixture) -> None:
    """Its annotations are complete, its pictures are not."""
    assert main(["fetch", "--check", str(sample_data / "mpii_mini")]) == 1
    out = capsys.readouterr().out
    assert "22,246 persons, as official" in out and "2,958 persons, as official" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], ["say what to fetch"]),
        (["weights", "--only", "pose_hourglass*"], ["pose_hourglass*"]),
        (["--check", "nowhere"], ["nowhere"]),
    ],
)
def test_what_cannot_be_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], words: list[str]
) -> None:
    assert main(["fetch", *more]) == 2
    refused(capsys, *words)


# --- a cache, a study, records, benchmarks


@pytest.mark.slow
def test_a_run_from_a_cache_is_the_run_from_the_files(
    generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = str(tmp_path / "cache")
    assert main(["cache", f"coco:{generated}", folder, "--input-size", "32x32"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["train:", "val:"]
    assert main(["cache", f"coco:{generated}", folder, "--check"]) == 0
    assert "every part is whole" in capsys.readouterr().out
    for place, more in (("files", []), ("cached", ["--set", f"cache={folder}"])):
        assert train(generated, tmp_path / place, *more) == 0
    first, second = (next((tmp_path / place / "runs").glob("local/*/run.json")) for place in ("files", "cached"))
    assert json.loads(first.read_text())["results"] == json.loads(second.read_text())["results"]
    capsys.readouterr()

    assert train(generated, tmp_path / "larger", "--set", f"cache={folder}", "--set", "scale=0.5") == 2
    refused(capsys, "scale", "0.5", "hdm cache")
    (tmp_path / "cache" / "val.bin").write_bytes(b"")
    assert main(["cache", f"coco:{generated}", folder, "--check"]) == 1


@pytest.mark.slow
def test_maps_of_a_run_descend(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(generated, tmp_path, "--loss", "cross_entropy") == 0
    (folder,) = (tmp_path / "runs" / "local").iterdir()
    places = ["--runs", str(tmp_path / "runs"), "--checkpoints", str(tmp_path / "weights")]
    places += ["--benchmarks", str(tmp_path / "benchmarks"), "--device", "cpu"]
    line = ["bench", "flow", folder.name[:13], "--data", f"coco:{generated}", "--persons", "2", *places]
    capsys.readouterr()
    assert main([*line, "--steps", "8", "--every", "2", "--rate", "0.1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [row.split()[:3] for row in shown[1:3]] == [
        [folder.name, "cross_entropy", decoder] for decoder in ("local", "argmax")
    ]
    record = json.loads((Path(shown[-1].removeprefix("record ")) / "benchmark.json").read_text())
    assert record["settings"] == {"persons": 2, "steps": 8, "rate": 0.1, "every": 2}
    assert main([*line, "--every", "0"]) == 2
    refused(capsys, "every 0")


STUDY = """
data: coco:{data}
train: {{ epochs: 1, batch_size: 4, input_size: [32, 32], head_channels: 4 }}
grid:
  loss: [gaussian_mse, hdm]
"""


@pytest.mark.slow
def test_a_study_and_its_records(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "both.yml"
    file.write_text(STUDY.format(data=generated))
    places = ["--runs", str(tmp_path / "runs"), "--checkpoints", str(tmp_path / "weights")]
    assert main(["study", str(file), "--plan", *places]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 done, 0 running, 0 cut, 2 new"
    assert main(["study", str(file), "--only", "mse", *places]) == 0
    assert capsys.readouterr().out.count(": record ") == 1
    assert main(["study", str(file), "--dry-run", *places]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 done, 0 running, 0 cut, 1 new"
    assert main(["study", str(file), "--jobs", "2", *places]) == 0  # one is left: it needs no process of its own
    assert capsys.readouterr().out.count(": record ") == 2
    assert main(["study", str(file), "--plan", "--only", "loss=hdm", "--only", "loss=gaussian_mse", *places]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 done, 0 running, 0 cut, 0 new"
    for words, message in (
        (["--only", "loss=hmd"], "no part or run 'loss=hmd': did you mean 'loss=hdm'"),
        (["--jobs", "0"], "jobs 0"),
        (["--jobs", "2", "--ray"], "--jobs is for this machine alone"),
    ):
        assert main(["study", str(file), *words, *places]) == 2
        refused(capsys, message)

    runs = ["runs", "--runs", str(tmp_path / "runs")]
    assert main([*runs, "--csv", "--columns", "loss", "epochs", "--sort", "loss"]) == 0
    table = [line.split(",")[1:] for line in capsys.readouterr().out.splitlines()]
    assert table == [["loss", "epochs"], ["gaussian_mse", "1"], ["hdm", "1"]]
    assert main([*runs, "--where", "loss=hdm"]) == 0
    shown = capsys.readouterr().out
    assert "hdm" in shown and "gaussian_mse" not in shown
    names = [path.name for path in (tmp_path / "runs" / "both").iterdir()]
    assert main([*runs, "--compare", *names]) == 0
    assert "loss" in capsys.readouterr().out
    assert main([*runs, "--show", names[0]]) == 0
    assert names[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["study", "nowhere.yml"], ["nowhere.yml"]),
        (["runs", "--runs", RECORDS, "--where", "loss~hdm"], ["loss~hdm"]),
        (["runs", "--runs", RECORDS, "--show", "2020"], ["2020"]),
        (["cache", "coco:nowhere", "there"], ["nowhere"]),
        (["bench", "pipeline", "mpii:nowhere"], ["mpii:nowhere"]),
        (["bench", "step", "--models", "resnet19"], ["resnet19"]),
        (["bench", "flow", "2020", "--runs", RECORDS, "--data", "coco:nowhere"], ["2020", "hdm runs"]),
    ],
)
def test_what_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, line: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2
    refused(capsys, *words)


def test_a_state_to_resume_from(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(generated, tmp_path, "--resume", str(tmp_path / "nowhere")) == 2
    refused(capsys, "no state", "nowhere")


def test_as_a_process(tmp_path: Path) -> None:
    """A real process: exit status 2, one line, and nothing on standard output; and --help with units and defaults."""
    run = subprocess.run(
        [sys.executable, "-m", "hdm.cli", "train", f"coco:{tmp_path / 'nowhere'}"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.strip().splitlines()) == 1
    shown = subprocess.run([sys.executable, "-m", "hdm.cli", "train", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "default: 0.001" in shown.stdout
    assert "pixels" in shown.stdout


def test_help_names_every_loss(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    named = set(capsys.readouterr().out.replace(",", " ").split())
    assert set(LOSSES) <= named


def test_notebooks_are_listed(repository: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(repository / "tests" / "notebooks", tmp_path / "project")
    (tmp_path / "project" / "_config.yml").touch()
    (tmp_path / "project" / "book" / "_toc.yml").write_text("root: index\nchapters: [{file: slow}, {file: figure}]\n")
    monkeypatch.setenv("HDM_ROOT", str(tmp_path / "project"))
    run = {"status": "failed", "started": "2026-01-02T03:04:05+00:00", "seconds": 6.7, "parameters": {"seed": 3}}
    record_execution("figure", "quick", tmp_path / "project", **run)
    assert main(["book", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "notebook  state      last run (UTC)       seconds  parameters",
        "slow      never run  -                    -        -",
        "figure    failed     2026-01-02 03:04:05  6.7      seed=3",
    ]
