"""Studies: what a file expands to, what is refused, and that only what has no record yet is trained."""

import ast
import contextlib
import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from hdm.errors import InputError
from hdm.project import load_profile
from hdm.records import read_runs
from hdm.study import Study, choose, keys, plan, plan_text, prepare, read_study, run_study, study_of_profile
from hdm.train import Run, TrainConfig, run_configs, run_folder, saved_states, train
from hdm.train.checkpoint import only_here

# Two steps in each of two epochs, on 16 persons, validated on 4.
TINY = {
    "model": "timm:test_resnet",
    "head_channels": 8,
    "input_size": [64, 32],
    "loss": "gaussian_mse",
    "epochs": 2,
    "batch_size": 8,
    "train_limit": 16,
    "val_limit": 4,
    "device": "cpu",
}
METHODS = {"mse": {"loss": "gaussian_mse", "decoder": "quarter"}, "hdm": {"loss": "hdm", "warm_start": 0.4}}
TEXT = {"data": "synthetic:x/data", "train": TINY, "grid": {"seed": [0, 1, 2], "method": METHODS}}

Read = Callable[[dict[str, Any]], Study]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The study of a mapping, read from a file."""

    def study(text: dict[str, Any], name: str = "losses.yml") -> Study:
        (tmp_path / name).write_text(yaml.safe_dump(text, sort_keys=False))
        return read_study(tmp_path / name)

    return study


# --- reading


def test_every_cell_is_a_run(read: Read) -> None:
    study = read(TEXT)
    assert study.name == "losses"
    assert list(study.runs) == [f"{method} seed={seed}" for seed in (0, 1, 2) for method in ("mse", "hdm")]
    for seed, (method, settings) in itertools.product((0, 1, 2), METHODS.items()):
        config = TrainConfig.from_dict({"data": "synthetic:x/data", **TINY, **settings, "seed": seed})
        assert study.runs[f"{method} seed={seed}"] == config
        assert study.runs[f"{method} seed={seed}"].key("hash") == config.key("hash")


def test_the_order_in_the_file_changes_order_alone(read: Read) -> None:
    first = read(TEXT).runs
    second = read({"train": dict(reversed(TINY.items())), "grid": TEXT["grid"], "data": TEXT["data"]}).runs
    turned = read({**TEXT, "grid": {"method": METHODS, "seed": [2, 0, 1]}}).runs
    assert list(turned)[:4] == ["mse seed=2", "mse seed=0", "mse seed=1", "hdm seed=2"]
    for runs in (second, turned):
        assert {name: config.key() for name, config in runs.items()} == {name: c.key() for name, c in first.items()}


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ([{"method": "hdm", "seed": 2}], ["mse seed=0", "hdm seed=0", "mse seed=1", "hdm seed=1", "mse seed=2"]),
        ([{"method": "hdm"}, {"seed": 1}], ["mse seed=0", "mse seed=2"]),
    ],
)
def test_cells_are_left_out(read: Read, exclude: list, left: list[str]) -> None:
    assert list(read({**TEXT, "exclude": exclude}).runs) == left


def test_axes_of_lists_and_of_mappings(read: Read) -> None:
    """Values that are themselves lists or mappings, a name that stands for no change, and data as an axis."""
    grid = {
        "input_size": [[64, 32], [96, 64]],
        "loss_settings": [{"sigma": 1.0}, {"sigma": 2.0}],
        "data": ["synthetic:a/one", "synthetic:a/two"],
        "rate": {"plain": None, "fast": {"lr": 0.1, "warm_up": 0.0}},
    }
    runs = read({"train": {**TINY, "lr": 0.01}, "grid": grid}).runs
    assert len(runs) == 16
    config = runs["fast input_size=[96, 64] loss_settings={'sigma': 2.0} data=synthetic:a/two"]
    assert (config.input_size, config.loss_settings, config.data) == ((96, 64), {"sigma": 2.0}, "synthetic:a/two")
    assert {config.lr for name, config in runs.items() if name.startswith("plain")} == {0.01}


def test_a_profile_is_the_base(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("quick")
    study = read({"name": "more-seeds", "profile": "quick", "train": {"epochs": 3}, "grid": {"seed": [0, 1]}})
    assert (study.name, study.synthetic) == ("more-seeds", {"images": 1000, "seed": 0})
    for seed in (0, 1):
        settings = {"data": profile["data"], **profile["train"], "epochs": 3, "seed": seed}
        assert study.runs[f"seed={seed}"] == TrainConfig.from_dict(settings)
    monkeypatch.setenv("SOME_DATA", "photos")
    study = read({"profile": "quick", "data": "coco:${SOME_DATA}", "grid": {"seed": [0]}})
    assert study.runs["seed=0"].data == "coco:photos"


def test_the_example_trains_two_losses_with_two_seeds(repository: Path) -> None:
    study = read_study(repository / "book" / "studies" / "quick.yml")
    assert study.name == "quick-seeds"
    assert list(study.runs) == [f"{method} seed={seed}" for method in ("gaussian_mse", "hdm") for seed in (0, 1)]
    profile = run_configs(load_profile("quick"))
    for method in ("gaussian_mse", "hdm"):
        same = {"loss", "loss_settings", "warm_start", "decoder", "lr", "input_size", "model"}
        assert {name: getattr(study.runs[f"{method} seed=1"], name) for name in same} == {
            name: getattr(profile[method], name) for name in same
        }


def test_a_profile_is_a_study() -> None:
    study = study_of_profile("smoke")
    assert study == Study("smoke", run_configs(load_profile("smoke")), {"images": 24, "seed": 0})
    assert study_of_profile(load_profile("smoke"), "other") == Study("other", study.runs, study.synthetic)


def grid(**axes: Any) -> dict[str, Any]:
    return {**TEXT, "grid": axes}


PARTS = {
    "main": {"question": "Which is better?", "grid": {"method": METHODS, "seed": [0, 1]}},
    "rates": {"train": METHODS["hdm"], "grid": {"lr": [0.001, 0.01]}},
}


def parts(**sections: Any) -> dict[str, Any]:
    return {"data": "synthetic:x/data", "train": TINY, "parts": sections}


def test_a_study_of_several_parts(read: Read) -> None:
    study = read(parts(**PARTS))
    main = ["main: mse seed=0", "main: mse seed=1", "main: hdm seed=0", "main: hdm seed=1"]
    assert list(study.runs) == [*main, "rates: lr=0.01"]
    assert study.cells["main"] == {name.removeprefix("main: "): name for name in main}
    assert study.cells["rates"] == {"lr=0.001": "main: hdm seed=0", "lr=0.01": "rates: lr=0.01"}
    alone = read(TEXT)
    assert study.runs["main: hdm seed=1"] == alone.runs["hdm seed=1"]
    assert alone.cells == {}


def test_the_examples_of_the_docstring_are_studies(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HDM_DATA", raising=False)
    text = ast.get_docstring(ast.parse((repository / "hdm" / "study.py").read_text())) or ""
    examples = (example.partition("\n\nIts runs")[0] for example in text.split(":\n\n")[1:])
    single, several = map(textwrap.dedent, examples)
    assert single.startswith("name: losses") and several.startswith("profile: cpu")
    (tmp_path / "single.yml").write_text(single)
    (tmp_path / "several.yml").write_text("data: coco:x\n" + several)
    runs = [f"{method} seed={seed}" for method in ("gaussian_mse", "hdm") for seed in (0, 1, 2)]
    assert list(read_study(tmp_path / "single.yml").runs) == runs[:-2]
    study = read_study(tmp_path / "several.yml")
    assert list(study.runs) == [*(f"main: loss={run}" for run in runs), "sigma: loss_settings={'sigma': 3.0}"]
    assert study.cells["sigma"]["loss_settings={}"] == "main: loss=gaussian_mse seed=0"


@pytest.mark.parametrize(
    ("only", "left"),
    [
        ([], ["main: mse seed=0", "main: mse seed=1", "main: hdm seed=0", "main: hdm seed=1", "rates: lr=0.01"]),
        (["seed=1"], ["main: mse seed=1", "main: hdm seed=1"]),
        (["rates"], ["main: hdm seed=0", "rates: lr=0.01"]),  # the part, with what it shares
        (["rates: lr=0.001"], ["main: hdm seed=0"]),
        (["lr=", "mse seed=0"], ["main: mse seed=0", "main: hdm seed=0", "rates: lr=0.01"]),
        (["main: mse seed=1"], ["main: mse seed=1"]),
    ],
)
def test_runs_are_chosen(read: Read, only: list[str], left: list[str]) -> None:
    study = read(parts(**PARTS))
    chosen = choose(study, only)
    assert list(chosen.runs) == left
    assert {run for cells in chosen.cells.values() for run in cells.values()} == set(left)
    for part, cells in chosen.cells.items():
        assert cells and cells.items() <= study.cells[part].items()
    assert (chosen.name, chosen.synthetic) == (study.name, study.synthetic)


def test_an_exact_name_wins(read: Read) -> None:
    lr = read(grid(lr=[0.1, 0.15, 1.0]))
    assert list(choose(lr, ["lr=0.1"]).runs) == ["lr=0.1"]
    assert list(choose(lr, ["lr=0."]).runs) == ["lr=0.1", "lr=0.15"]


def test_a_choice_that_fits_nothing(read: Read) -> None:
    with pytest.raises(InputError, match="study losses has no part or run 'main: hmd seed=0': did you mean 'main: hdm"):
        choose(read(parts(**PARTS)), ["seed=0", "main: hmd seed=0"])
    with pytest.raises(InputError, match="study losses has no part or run 'rate5': did you mean 'rates'"):
        choose(read(parts(**PARTS)), ["rate5"])
    with pytest.raises(InputError, match="no part or run 'x': known are lr=0.1, lr=1.0"):
        choose(read(grid(lr=[0.1, 1.0])), ["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({**TEXT, "trian": {}}, "unknown section 'trian': did you mean 'train'"),
        ({**TEXT, "grid": {}}, "grid is empty: give it at least one axis"),
        ({**TEXT, "grid": None}, "grid must be a mapping, .* not None"),
        ({"data": "synthetic:x"}, "there are neither grid nor parts: give one of them"),
        ({**TEXT, "parts": PARTS}, "there are both grid and parts: give one of them"),
        ({**parts(**PARTS), "exclude": [{"seed": 0}]}, "exclude stands beside parts: move it into the part"),
        (parts(), "parts is empty: give it at least one"),
        (parts() | {"parts": ["main"]}, "parts must be a mapping"),
        (parts() | {"parts": {1: PARTS["main"]}}, "part 1 must have a name that is text"),
        (parts() | {"parts": {"a: b": PARTS["main"]}}, "part 'a: b' must have a name that is text without ':'"),
        (parts(main=None), "part 'main': it must be a mapping"),
        (parts(main={"gird": {}}), "part 'main': unknown section 'gird': did you mean 'grid'"),
        (parts(main={"profile": "quick"}), "part 'main': unknown section 'profile'"),
        (parts(main={"exclude": [{"seed": 0}]}), "part 'main': it has exclude but no grid"),
        (parts(main={"grid": {"seed": []}}), "part 'main': axis 'seed' is empty"),
        (parts(main={"train": {"los": "hdm"}}), "part 'main': run 'main': unknown setting 'los'"),
        (parts(one=PARTS["main"], main={"grid": {"lr": [1, 1.0]}}), "part 'main': runs 'lr=1' and 'lr=1.0' of it are"),
        ({**TEXT, "train": ["epochs"]}, "train must be a mapping"),
        ({**TEXT, "train": {"epoch": 3}}, "run 'mse seed=0': unknown setting 'epoch': did you mean 'epochs'"),
        ({**TEXT, "train": {"lr": "1e-3"}}, r"run 'mse seed=0': setting lr '1e-3' must be a number \(in YAML"),
        ({"train": TINY, "grid": {"seed": [0]}}, "run 'seed=0': setting 'data' is missing"),
        ({**TEXT, "profile": "quik"}, "unknown profile 'quik': choose one of .*quick"),
        ({**TEXT, "name": "../runs"}, r"study name '\.\./runs' must be letters"),
        ({**TEXT, "data": "coco:${HDM_NO_SUCH}"}, "needs the environment variable HDM_NO_SUCH"),
        (grid(seed=[]), "axis 'seed' is empty: give it values or drop it"),
        (grid(method={}), "axis 'method' is empty"),
        (grid(seed=3), "axis 'seed' is 3: give a list of values, or a mapping"),
        (grid(sead=[0, 1]), "axis 'sead' has a list of values but is no setting: did you mean 'seed'"),
        (grid(method=["hdm"]), "axis 'method' has a list of values but is no setting.*mapping of names to settings"),
        (grid(method={"hdm": "hdm"}), "method 'hdm' must be a mapping"),
        (grid(seed=[0, "one"]), "run 'seed=one': setting seed 'one' must be a whole number"),
        (grid(method={"a": {"los": "hdm"}}), "run 'a': unknown setting 'los': did you mean 'loss'"),
        (grid(seed=[0, 1], method={"a": {"seed": 3}, "b": {}}), "axes 'seed' and 'method' both give 'seed'"),
        (grid(lr=[1, 1.0]), "runs 'lr=1' and 'lr=1.0' of study losses are the same"),
        (grid(device=["cpu", "auto"]), "runs 'device=cpu' and 'device=auto' of study losses are the same"),
        (grid(seed=[0, 0]), "two cells of grid are called 'seed=0'"),
        ({**TEXT, "exclude": {"seed": 1}}, "exclude is .*: give a list of mappings"),
        ({**TEXT, "exclude": [{}]}, "exclude is .*: give a list of mappings"),
        ({**TEXT, "exclude": ["hdm"]}, "an entry of exclude must be a mapping"),
        ({**TEXT, "exclude": [{"seed": 7}]}, "fits no cell: grid has no 'seed' with 7"),
        ({**TEXT, "exclude": [{"sed": 1}]}, "fits no cell: grid has no 'sed' with 1"),
        ({**TEXT, "exclude": [{"method": "mse"}, {"method": "hdm"}]}, "exclude leaves no run"),
    ],
)
def test_a_study_that_is_wrong_is_refused(read: Read, text: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"losses.yml.*{message}") as caught:
        read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a", "losses.yml is no mapping"), ("a: [", "losses.yml is not valid YAML"), (None, "there is no")],
)
def test_a_file_that_holds_no_study(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "losses.yml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_study(tmp_path / "losses.yml")


# --- planning and running


@pytest.fixture
def study(read: Read, small_data: str, one_thread: None) -> Study:
    """Four tiny runs."""
    return read({"data": small_data, "train": TINY, "grid": {"method": METHODS, "seed": [0, 1]}})


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    return {"runs": tmp_path / "runs", "checkpoints": tmp_path / "checkpoints"}


def quiet(line: str) -> None:
    pass


def states(study: Study, places: dict[str, Any]) -> list[str]:
    return plan(study, **places)["state"].tolist()


def assert_same_numbers(first: Run, second: Run) -> None:
    for name in ("train_loss", "val_loss", "error_px"):
        pd.testing.assert_series_equal(first.epochs[name], second.epochs[name], rtol=1e-6)


def cut(config: TrainConfig, label: str, places: dict[str, Any]) -> None:
    """Starts a run and stops it after its first epoch."""

    def stop(line: str) -> None:
        if "epoch 1/" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, profile=label, log=stop, **places)


def test_runs_are_those_of_train(study: Study, places: dict[str, Any], tmp_path: Path) -> None:
    lines: list[str] = []
    result = run_study(study, log=lines.append, **places)
    assert list(result) == list(study.runs)
    assert [line for line in lines if line.startswith("[")] == [
        f"[{number}/4] {name}" for number, name in enumerate(study.runs, start=1)
    ]
    records = read_runs(places["runs"], "losses")
    assert sorted(records["key"]) == sorted(keys(study.runs).values())
    assert sorted(records["seed"]) == [0, 0, 1, 1]
    alone = train(study.runs["hdm seed=1"], runs=tmp_path / "alone", checkpoints=tmp_path / "alone", log=quiet)
    assert alone.record["key"] == result["hdm seed=1"].record["key"]
    assert_same_numbers(alone, result["hdm seed=1"])


def test_only_what_is_missing_is_trained(study: Study, places: dict[str, Any]) -> None:
    assert states(study, places) == ["new"] * 4
    done = train(study.runs["mse seed=1"], profile=study.name, log=quiet, **places)
    cut(study.runs["hdm seed=0"], study.name, places)
    table = plan(study, **places)
    assert table.columns.tolist() == ["name", "key", "state", "record"]
    assert table["name"].tolist() == list(study.runs)
    assert table["state"].tolist() == ["new", "done", "cut", "new"]
    assert table["record"].tolist() == ["", str(done.folder), "", ""]

    before = (done.folder / "run.json").stat()
    lines: list[str] = []
    result = run_study(study, log=lines.append, **places)
    assert states(study, places) == ["done"] * 4
    assert result["mse seed=1"].record == done.record
    after = (done.folder / "run.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert "[2/4] mse seed=1" not in lines
    assert any("hdm: goes on after" in line for line in lines)
    assert len(result["hdm seed=0"].record["sessions"]) == 2
    assert len(result["hdm seed=1"].record["sessions"]) == 1

    again = run_study(study, log=quiet, **places)
    assert {name: run.folder for name, run in again.items()} == {name: run.folder for name, run in result.items()}


def test_a_study_can_be_trained_again(study: Study, places: dict[str, Any]) -> None:
    two = Study(study.name, dict(list(study.runs.items())[:2]))
    first = run_study(two, log=quiet, **places)
    for run in first.values():  # else their ids, which hold the second, could be the same
        run.folder.rename(run.folder.with_name("earlier-" + run.folder.name))
    second = run_study(two, reuse=False, log=quiet, **places)
    assert len(read_runs(places["runs"])) == 4
    for name in two.runs:
        assert_same_numbers(first[name], second[name])


def test_a_run_that_fails_leaves_the_others_alone(study: Study, places: dict[str, Any], read: Read) -> None:
    methods = {"wild": {"lr": 1e30}, "mse": {"lr": 1e-3}}
    data = next(iter(study.runs.values())).data
    mixed = read({"data": data, "train": TINY, "grid": {"method": methods, "seed": [0, 1]}}, "mixed.yml")
    with pytest.raises(InputError, match="2 of 4 runs of study mixed failed, .*: wild seed=0 .*learning rate"):
        run_study(mixed, log=quiet, **places)
    assert [state == "done" for state in states(mixed, places)] == [False, False, True, True]
    assert read_runs(places["runs"])["lr"].tolist() == [1e-3, 1e-3]


def test_what_others_train_is_left_to_them(study: Study, places: dict[str, Any]) -> None:
    """Four runs: another process is at work on the first, begins the third just before it is tried here, and finishes
    the fourth meanwhile."""
    locks = contextlib.ExitStack()
    place = {
        name: run_folder(places["checkpoints"], study.name, study.runs[name].loss, key)
        for name, key in keys(study.runs).items()
    }
    first, second, third, fourth = study.runs
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line == f"[3/4] {third}":
            locks.enter_context(only_here(place[third]))
            train(study.runs[fourth], profile=study.name, log=quiet, **places)

    with locks:
        locks.enter_context(only_here(place[first]))
        result = run_study(study, log=log, **places)
    assert list(result) == [second, fourth]
    assert [line for line in lines if "epoch" not in line] == [
        f"{first} is trained by another process: passed over",
        f"[2/4] {second}",
        f"[3/4] {third}",
        f"{third} is trained by another process: passed over",
        f"2 of 4 runs are not finished, but left to others: {first}, {third}",
    ]
    assert states(study, places) == ["new", "done", "new", "done"]


def test_what_others_have_finished_at_the_end_is_returned(study: Study, places: dict[str, Any]) -> None:
    two = choose(study, ["mse"])
    first, second = two.runs
    key = keys(two.runs)[first]
    lock = only_here(run_folder(places["checkpoints"], two.name, "gaussian_mse", key))

    def log(line: str) -> None:
        if line == f"[2/2] {second}":
            lock.__exit__(None, None, None)
            train(two.runs[first], profile=two.name, log=quiet, **places)

    lock.__enter__()
    result = run_study(two, log=log, **places)
    assert list(result) == [first, second]
    assert len(read_runs(places["runs"])) == 2


def test_no_run_at_once(study: Study, places: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="jobs 0 must be 1 or more"):
        run_study(study, jobs=0, **places)


def test_a_plan_for_the_terminal(read: Read, small_data: str, one_thread: None, places: dict[str, Any]) -> None:
    study = read({**parts(**PARTS), "data": small_data})
    train(study.runs["rates: lr=0.01"], profile=study.name, log=quiet, **places)
    lines = plan_text(study, plan(study, **places)).splitlines()
    assert lines[0].split() == ["part", "name", "key", "state", "record"]
    assert [line.split()[:3] for line in lines[1:3]] == [["main", "mse", "seed=0"], ["main", "mse", "seed=1"]]
    assert lines[5].split()[:2] == ["rates", "lr=0.01"] and " done " in lines[5]
    assert lines[6:] == ["1 done, 0 running, 0 cut, 4 new"]
    shared = choose(study, ["rates"])
    lines = plan_text(shared, plan(shared, **places)).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["main", "hdm"], ["rates", "lr=0.01"]]
    assert lines[3:] == ["1 done, 0 running, 0 cut, 1 new"]


def test_a_stop_stops_the_study(study: Study, places: dict[str, Any]) -> None:
    """Ctrl-C in the second run: the first has its record, the second a state, the others are not begun."""
    seen: list[str] = []

    def stop(line: str) -> None:
        seen.append(line)
        if "epoch 1/" in line and "[2/4] mse seed=1" in seen:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, log=stop, **places)
    assert states(study, places) == ["done", "cut", "new", "new"]


def test_generated_data_is_made_for_the_plan(places: dict[str, Any], tmp_path: Path) -> None:
    settings = {"data": f"synthetic:{tmp_path / 'made'}", **TINY}
    made = Study("made", {"only": TrainConfig.from_dict(settings)}, {"images": 4, "seed": 0})
    assert states(made, places) == ["new"]
    assert (tmp_path / "made" / "annotations").is_dir()
    prepare(made, progress=False)  # it stays as it is
    with pytest.raises(InputError, match="nowhere"):
        plan(Study("lost", {"only": TrainConfig.from_dict({**settings, "data": f"synthetic:{tmp_path / 'nowhere'}"})}))


def test_a_run_at_work_is_seen(study: Study, places: dict[str, Any]) -> None:
    seen = []

    def look(line: str) -> None:
        if "epoch 1/" in line:
            seen.append(states(study, places))

    train(study.runs["mse seed=0"], profile=study.name, log=look, **places)
    assert seen == [["running", "new", "new", "new"]]
    key = keys(study.runs)["mse seed=0"]
    assert saved_states(run_folder(places["checkpoints"], study.name, "gaussian_mse", key)) == []
