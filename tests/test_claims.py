"""The ledger of claims: verdicts on records whose numbers are known, and what a broken file is told."""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import ttest_rel

from hdm.claims import NOT_RUN, NOT_SUPPORTED, SUPPORTED, UNDECIDED, claim_verdicts, claimed_study, ledger, read_claims
from hdm.errors import InputError
from hdm.evaluate import holm
from hdm.records import write_run
from hdm.train import TrainConfig

EPOCHS = pd.DataFrame({"epoch": [0, 1], "error_px": [20.0, 8.0]})
METHODS = {"a": {"loss": "hdm"}, "b": {"loss": "gaussian_mse"}, "c": {"loss": "kl", "decoder": "dark"}}
STUDY: dict[str, Any] = {
    "name": "losses",
    "data": "coco:somewhere/people",
    "train": {"epochs": 12, "input_size": [64, 96]},
    "parts": {
        "main": {"grid": {"method": METHODS, "seed": [0, 1, 2, 3]}},
        "sizes": {"grid": {"method": {"small": {"batch_size": 8}}, "seed": [0, 1]}},
    },
}  # fmt: skip
PROFILE = {"data": "mpii:somewhere", "train": {"epochs": 3}, "runs": {"a": {"loss": "hdm"}, "b": {"loss": "js"}}}
TEST = {
    "id": "t1", "test": "a below b", "study": "losses", "part": "main", "first": {"row": "a", "measure": "error_px"},
    "second": {"row": "b"}, "direction": "lower", "page": "results",
}  # fmt: skip
CLAIM = {"id": "c1", "claim": "a is better", "source": "a paper", "tests": [TEST]}
B = np.array([9.0, 9.5, 8.8, 9.2])
NOISE = np.array([0.02, -0.02, 0.01, -0.01])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a study and a profile that is none."""
    (tmp_path / "book" / "profiles").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "_config.yml").write_text("")
    for name, settings in (("losses", STUDY), ("plain", PROFILE)):
        (tmp_path / "book" / "profiles" / f"{name}.yml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("HDM_ROOT", str(tmp_path))
    return tmp_path


def claims(project: Path, *tests: dict[str, Any]) -> None:
    """Writes a ledger of one claim with these tests: `TEST` with some entries changed."""
    entries = [{**TEST, "id": f"t{number}", **test} for number, test in enumerate(tests, start=1)]
    (project / "data" / "claims.yml").write_text(yaml.safe_dump([{**CLAIM, "tests": entries}]))


def write_row(
    project: Path, row: str, values: Sequence[float], *, readings: Callable | None = None, **more: Any
) -> None:
    """Records of a row of part main, one for each value of `error_px`, which becomes that of the seed."""
    for seed, value in enumerate(values):
        config = TrainConfig.from_dict({"data": "coco:x/people", **STUDY["train"], **METHODS[row], "seed": seed})
        sections = {"consistency": {name: column[seed] for name, column in more.items()}}
        write(project, "losses", f"{row}{seed}", config, {"error_px": value}, readings and readings(seed), **sections)


def write(
    project: Path, profile: str, run_id: str, config: TrainConfig, results: dict, readings: Any = None, **more: Any
) -> None:
    record = {
        "run_id": run_id, "key": "0123abcd", "profile": profile, "started": "2026-11-26T10:00:00+00:00", "seconds": 1.0,
        "commit": "0123", "dirty": False, "settings": config.as_dict(), "data": {"train_persons": 4998},
        "hardware": {}, "results": results, **more,
    }  # fmt: skip
    write_run(project / "runs", record, EPOCHS, readings)


# --- verdicts ---


@pytest.mark.parametrize(
    ("difference", "direction", "margin", "verdict"),
    [
        (-0.5, "lower", 0.0, SUPPORTED),
        (-0.5, "higher", 0.0, NOT_SUPPORTED),
        (0.5, "lower", 0.0, NOT_SUPPORTED),
        (0.5, "higher", 0.0, SUPPORTED),
        (0.004, "lower", 0.0, UNDECIDED),
        # The margin of 2 % is 0.1825 px.
        (0.004, "lower", 0.02, SUPPORTED),
        (0.1, "lower", 0.02, SUPPORTED),  # worse, but not by as much
        (-0.5, "lower", 0.02, SUPPORTED),
        (0.18, "lower", 0.02, UNDECIDED),
        (0.3, "lower", 0.02, NOT_SUPPORTED),
        (-0.1, "higher", 0.02, SUPPORTED),
        (-0.18, "higher", 0.02, UNDECIDED),
        (-0.3, "higher", 0.02, NOT_SUPPORTED),
    ],
)
def test_a_verdict(project: Path, difference: float, direction: str, margin: float, verdict: str) -> None:
    write_row(project, "a", B + difference + NOISE)
    write_row(project, "b", B)
    claims(project, {"direction": direction, "margin": margin})
    (line,) = ledger(runs=project / "runs").to_dict("records")
    assert line["verdict"] == verdict
    assert (line["claim"], line["source"], line["id"], line["page"]) == ("a is better", "a paper", "t1", "results")
    assert (line["n"], line["difference"]) == (4, pytest.approx(difference))
    assert line["low"] < difference < line["high"]
    bound = margin * B.mean() * (1 if direction == "lower" else -1)
    assert line["bound"] == pytest.approx(bound)
    assert line["p"] == pytest.approx(ttest_rel(B + difference + NOISE, B + bound).pvalue)
    if verdict != UNDECIDED:
        assert not line["low"] <= line["bound"] <= line["high"]


def test_the_evidence_and_its_budget(project: Path) -> None:
    write_row(project, "a", B[:3] + NOISE[:3])
    write_row(project, "b", B)
    claims(project, {})
    (line,) = ledger(runs=project / "runs").to_dict("records")
    assert line["budget"] == "people, 4,998 persons, resnet18, 64 x 96, 12 epochs, 3 seeds"
    assert [Path(folder).name for folder in line["evidence"]] == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_too_few_seeds_are_no_test(project: Path) -> None:
    write_row(project, "a", B + 1)
    write_row(project, "b", B[:2])
    claims(project, {}, {"seeds": 2}, {"first": {"row": "c", "measure": "error_px"}})
    table = ledger(runs=project / "runs")
    assert table["verdict"].tolist() == [NOT_RUN, NOT_SUPPORTED, NOT_RUN]
    assert table["budget"].tolist()[::2] == ["2 of 3 seeds", "0 of 3 seeds"]
    assert table["n"].tolist() == [2, 2, 0]
    assert table["p"].isna().tolist() == [True, False, True] and math.isnan(table.loc[0, "difference"])


def test_p_values_are_adjusted_for_all_tests_that_were_run(project: Path) -> None:
    """A difference that would pass on its own no longer does beside three others."""
    a, c = B + [-0.1, -0.6, -0.3, -0.5], B + 3 * NOISE
    for row, values in (("a", a), ("b", B), ("c", c)):
        write_row(project, row, values)
    rows = [("a", "b"), ("a", "c"), ("c", "b")]
    tests = [{"first": {"row": one, "measure": "error_px"}, "second": {"row": other}} for one, other in rows]
    claims(project, *tests, {"first": {"row": "small", "measure": "error_px"}, "second": {}, "part": "sizes"})
    table = ledger(runs=project / "runs")
    values = {"a": a, "b": B, "c": c}
    p = [ttest_rel(values[one], values[other]).pvalue for one, other in rows]
    assert p[0] < 0.05
    np.testing.assert_allclose(table["p"], [*holm(p), math.nan])
    assert table.loc[0, "p"] > 0.05
    assert table["verdict"].tolist() == [UNDECIDED, UNDECIDED, UNDECIDED, NOT_RUN]


def test_two_measures_of_one_row(project: Path) -> None:
    write_row(project, "a", B, discordant=0.4 + NOISE, expected=[0.25] * 4)
    both = {"first": {"row": "a", "measure": "consistency_discordant"}, "direction": "higher"}
    claims(project, {**both, "second": {"measure": "consistency_expected"}}, {**both, "second": {"value": 0.5}})
    table = ledger(runs=project / "runs")
    assert table["verdict"].tolist() == [SUPPORTED, NOT_SUPPORTED]
    assert table["difference"].tolist() == pytest.approx([0.15, -0.1])
    assert table["evidence"].map(len).tolist() == [4, 4]


def test_readings_and_runs_that_have_none(project: Path) -> None:
    """Only the followed runs of `a` count; `b` is read by another decoder than its own."""

    def readings(seed: int) -> pd.DataFrame | None:
        lines = [("dark", "max", 5.0 + NOISE[seed]), ("dark", "box", 0.0), ("local", "max", 1.0)]
        return pd.DataFrame(lines, columns=["decoder", "score", "error_px"]) if seed < 3 else None

    write_row(project, "a", B)
    write_row(project, "b", B, readings=readings)
    claims(
        project,
        {"second": {"row": "b", "decoder": "dark", "score": "max"}},
        {"second": {"row": "a", "decoder": "dark"}},
    )
    table = ledger(runs=project / "runs")
    assert table["verdict"].tolist() == [NOT_SUPPORTED, NOT_RUN]
    assert table["n"].tolist() == [3, 0]
    assert table.loc[0, "difference"] == pytest.approx((B - 5 - NOISE)[:3].mean())


def test_a_profile_that_is_no_study_has_its_runs_as_rows(project: Path) -> None:
    claims(project, {"study": "plain", "part": "", "first": {"row": "a", "measure": "PCKh@0.5"}, "direction": "higher"})
    assert ledger(runs=project / "runs")["verdict"].tolist() == [NOT_RUN]
    for row, settings in PROFILE["runs"].items():
        for seed in range(3):
            config = TrainConfig.from_dict({"data": "mpii:here", **PROFILE["train"], **settings, "seed": seed})
            write(project, "plain", f"{row}{seed}", config, {"PCKh@0.5": 80 + seed + (row == "a") * (1 + seed / 50)})
    other = dataclasses.replace(config, lr=0.5, seed=3)
    write(project, "plain", "other", other, {"PCKh@0.5": 99.0})
    (line,) = ledger(runs=project / "runs").to_dict("records")
    assert (line["verdict"], line["n"], line["difference"]) == (SUPPORTED, 3, pytest.approx(1.02))
    assert set(claimed_study("plain", project / "runs").runs) == {
        f"{row} seed={seed}" for row in "ab" for seed in range(4)
    }


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([SUPPORTED, SUPPORTED], SUPPORTED),
        ([SUPPORTED, NOT_SUPPORTED, NOT_RUN], NOT_SUPPORTED),
        ([NOT_RUN, NOT_RUN], NOT_RUN),
        ([SUPPORTED, NOT_RUN], UNDECIDED),
        ([SUPPORTED, UNDECIDED], UNDECIDED),
        ([NOT_SUPPORTED], NOT_SUPPORTED),
    ],
)
def test_a_claim_is_judged_by_all_its_tests(verdicts: list[str], expected: str) -> None:
    other = {"claim": "another", "source": "us", "verdict": SUPPORTED}
    lines = [other, *({"claim": "one", "source": "us", "verdict": verdict} for verdict in verdicts)]
    table = claim_verdicts(pd.DataFrame(lines))
    assert table.to_numpy().tolist() == [["another", "us", SUPPORTED], ["one", "us", expected]]


# --- the file ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"directon": "lower"}, "claim 1, test 1: unknown key 'directon': did you mean 'direction'"),
        ({"direction": "smaller"}, "claim 1, test 1: unknown direction 'smaller'"),
        ({"page": None}, "claim 1, test 1: 'page' is missing"),
        ({"margin": -0.1}, "margin -0.1 must be a share"),
        ({"seeds": 1}, "seeds 1 must be 2 or more"),
        ({"first": {"row": "a", "measure": "eror_px"}}, "first: unknown measure 'eror_px': did you mean 'error_px'"),
        ({"first": {"row": "a"}}, "first: 'measure' is missing"),
        ({"first": "a"}, "first is 'a': write a mapping"),
        ({"second": {"rwo": "b"}}, "second: unknown key 'rwo': did you mean 'row'"),
        ({"second": {"row": "b", "value": 1}}, "second: value is 1: give a number, and nothing beside it"),
        ({"second": {"row": "b", "score": "max"}}, "second: score 'max' belongs to a decoder"),
        ({"study": "lossse"}, "claim test 't1': unknown profile 'lossse'"),
        ({"part": "mian"}, "claim test 't1': the study has no part 'mian': did you mean 'main'"),
        ({"second": {"row": "hdm"}}, "claim test 't1': the study has no row 'hdm'"),
        ({"id": "c1"}, "claim 1: the id 'c1' is there twice"),
    ],
)
def test_a_broken_test(project: Path, change: dict[str, Any], words: str) -> None:
    claims(project, change)
    with pytest.raises(InputError, match=words):
        ledger(runs=project / "runs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "can't be read"),
        ("claims: []", "holds no claims"),
        ("- 3", "claim 1 is 3: write a mapping"),
        (yaml.safe_dump([CLAIM | {"tests": []}]), "claim 1: 'tests' is missing|tests is empty"),
        (yaml.safe_dump([CLAIM | {"sources": "x"}]), "claim 1: unknown key 'sources'"),
        (yaml.safe_dump([CLAIM, copy.deepcopy(CLAIM | {"id": "c2"})]), "claim 2: the id 't1' is there twice"),
    ],
)
def test_a_broken_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "claims.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_claims(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_claims(tmp_path / "claims.yml")


@pytest.mark.slow
def test_the_book_s_claims_are_sound(repository: Path) -> None:
    """The four claims of the abstract and those of the book; where nothing was run, every verdict says so."""
    tests = read_claims(repository / "data" / "claims.yml")
    assert len({test.claim for test in tests if "abstract" in test.source}) == 4
    assert {test.source for test in tests} == {"the paper's abstract", "this book"}
    for test in tests:
        assert claimed_study(test.study, repository / "none").runs


def test_the_book_s_ledger_without_records(repository: Path, tmp_path: Path) -> None:
    table = ledger(repository / "data" / "claims.yml", tmp_path)
    assert (table["verdict"] == NOT_RUN).all() and table["p"].isna().all()
    assert (claim_verdicts(table)["verdict"] == NOT_RUN).all()
