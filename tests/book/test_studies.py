"""The studies in book/profiles: what they compare, and that their choices come from records."""

from pathlib import Path

import pytest

from hdm.comparison import decoder_table, study_runs
from hdm.study import Study, read_study
from hdm.study_tables import rates_table


@pytest.fixture(autouse=True)
def _data_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HDM_DATA", raising=False)


@pytest.fixture
def study(repository: Path) -> Study:
    return read_study(repository / "book" / "profiles" / "study-cpu.yml")


@pytest.fixture
def tuning(repository: Path) -> Study:
    return read_study(repository / "book" / "profiles" / "study-cpu-tuning.yml")


def test_choices_are_made_without_a_look_at_the_val_part(study: Study, tuning: Study) -> None:
    assert all(config.held_out == 0.2 for config in tuning.runs.values())
    assert all(config.held_out == 0 and config.follow for config in study.runs.values())


def test_rates_are_those_that_did_best_on_held_out_pictures(study: Study, tuning: Study, repository: Path) -> None:
    """Each method of the main part has the rate of the least error in the records, to a hundredth of a pixel, the
    smaller one of two that are equal; and the same settings else."""
    runs = study_runs(tuning, repository / "data" / "runs")
    rates = rates_table(runs[(runs["part"] == "rates")]).set_index("method")
    assert len(rates) == 16 and rates.notna().all(axis=None)
    best = rates.round(2).idxmin(axis=1)
    for cell, name in study.cells["main"].items():
        method, config = cell.split(" ")[0], study.runs[name]
        if method == "recipe":
            continue
        assert config.lr == best[method], f"{name} has another learning rate than did best"
        tried = tuning.runs[f"rates: {method} lr={config.lr}"]
        same = ("loss", "loss_settings", "warm_start", "decoder", "model", "input_size", "batch_size", "head_channels")
        assert all(getattr(config, setting) == getattr(tried, setting) for setting in same)


def test_the_recipe_is_the_candidate_that_did_best(study: Study, tuning: Study, repository: Path) -> None:
    """The largest PCK@0.1 on held-out pictures, by its best decoder; the two rows for comparison are no candidates."""
    runs = study_runs(tuning, repository / "data" / "runs")
    scores = decoder_table(runs[(runs["part"] == "recipes") & runs["done"]], "PCK@0.1").loc["recipes"]
    candidates = scores.drop(["gaussian_dark", "ce_bilinear"], errors="ignore")
    best = candidates.max(axis=1).idxmax()
    tried, recipe = tuning.runs[f"recipes: {best}"], study.runs["main: recipe seed=0"]
    assert recipe.decoder == candidates.loc[best].idxmax()
    same = {name: getattr(tried, name) for name in ("loss", "loss_settings", "warm_start", "lr", "epochs", "model")}
    assert {name: getattr(recipe, name) for name in same} == same


def test_every_method_but_the_recipe_was_tuned(study: Study, tuning: Study) -> None:
    methods = {cell.split(" ")[0] for cell in study.cells["main"]}
    assert methods - {cell.split(" ")[0] for cell in tuning.cells["rates"]} <= {"recipe"}


def test_rows_differ_by_the_seed_alone(study: Study) -> None:
    """Same network, data, budget and views for all rows of the main part."""
    shared = ("data", "model", "pretrained", "input_size", "epochs", "batch_size", "order", "rotation", "scale", "flip")
    for setting in shared:
        assert len({str(getattr(study.runs[name], setting)) for name in study.cells["main"].values()}) == 1


def test_rates_on_a_gpu_are_those_that_did_best_on_held_out_pictures(repository: Path) -> None:
    """At the larger size as at the smaller; the recipe has the rate of HDM with a warm start, and a length that is the
    same share of the crop."""
    study, tuning = (read_study(repository / "book" / "profiles" / f"study-gpu{end}.yml") for end in ("", "-tuning"))
    assert all(config.held_out == 0.2 for config in tuning.runs.values())
    rates = rates_table(study_runs(tuning, repository / "data" / "runs")).set_index("method")
    best = rates.round(2).idxmin(axis=1)
    assert len(best) == 3 and rates.notna().all(axis=None)
    for cell, name in study.cells["main"].items():
        method, config = cell.split(" ")[0], study.runs[name]
        assert config.held_out == 0 and config.follow
        assert config.lr == best["hdm_warm" if method == "recipe" else method]
    small = read_study(repository / "book" / "profiles" / "study-cpu.yml").runs["main: recipe seed=0"]
    recipe = study.runs["main: recipe seed=0"]
    assert recipe.loss_settings | {"scale": recipe.loss_settings["scale"] / 4} == small.loss_settings
    assert (recipe.warm_start, recipe.decoder) == (small.warm_start, small.decoder)
