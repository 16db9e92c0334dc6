"""The page of runs: places that tables lead to, settings that come back, commands that are there."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup

from hdm.comparison import study_runs
from hdm.records import write_run
from hdm.run_details import anchor, linked, profile_details, study_details
from hdm.study import Study
from hdm.train import TrainConfig

CELLS = {
    f"method=hdm lr={lr} seed={seed}": TrainConfig(data="coco:data", lr=lr, seed=seed)
    for lr in (0.1, 0.2)
    for seed in (0, 1)
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the first row, none of the second."""
    directory = tmp_path_factory.mktemp("runs")
    for number, config in enumerate(list(CELLS.values())[:2]):
        record = {
            "run_id": f"run{number}", "key": "0123", "profile": "small", "seconds": 90.0, "commit": "0123456789",
            "dirty": False, "started": f"2026-11-26T10:00:0{number}+00:00",
            "hardware": {"cpu": "<1 GHz>", "cores": 2, "gpu": None},
            "settings": config.as_dict(), "data": {"source": "coco:data", "boxes": "ground truth"},
            "results": {"error_px": 5.25 + number, "AP": 0.125},
        }  # fmt: skip
        write_run(directory, record, pd.DataFrame({"epoch": [0], "error_px": [5.0]}))
    return directory


@pytest.fixture(scope="module")
def page(runs: Path) -> BeautifulSoup:
    study = Study("small", {f"main: {name}": config for name, config in CELLS.items()},
                  cells={"main": {name: f"main: {name}" for name in CELLS}})  # fmt: skip
    html = study_details(study, study_runs(study, runs), "book/profiles/small.yml")
    return BeautifulSoup(html, "html.parser")


def test_a_table_leads_to_its_row(page: BeautifulSoup) -> None:
    place = anchor("small", "main", "method=hdm lr=0.1")
    assert linked("HDM & co", place) == '<a href="runs.html#small-main-method-hdm-lr-0.1">HDM &amp; co</a>'
    assert page.find(id=place).get_text() == "main: method=hdm lr=0.1 (2 recorded)"
    assert page.find(id=anchor("small", "main", "method=hdm lr=0.2")).get_text().endswith("(0 recorded, 2 open)")


def test_every_record_is_there_in_full(page: BeautifulSoup) -> None:
    first, second = page.find_all("details")
    assert [first["id"], second["id"]] == ["run0", "run1"]
    assert "seed 1: error_px 6.25, AP 0.125 (<1 GHz>, 2 cores, commit 01234567)" in second.summary.get_text()
    command, _, facts = second.pre.get_text().partition("\n\n")
    assert command == 'hdm study book/profiles/small.yml --only "main: method=hdm lr=0.1 seed=1" --again'
    facts = yaml.safe_load(facts)
    assert facts["record"].endswith("small/run1") and facts["boxes"] == "ground truth" and facts["minutes"] == 1.5
    assert facts["settings"] == json.loads(json.dumps(list(CELLS.values())[1].as_dict()))


def test_a_profile_names_the_command_of_its_chapter(runs: Path) -> None:
    html = profile_details("small", study_runs(Study("small", CELLS), runs))
    assert re.findall(r"hdm book [^<\n]*", html) == ["hdm book --profile small --only training -p again=true"] * 2
    assert profile_details("none", study_runs(Study("none", CELLS), runs)) == ""
