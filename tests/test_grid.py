"""What grids and parts expand to; what files with them are refused is in test_study.py."""

from typing import Any

import pytest

from hdm.errors import InputError
from hdm.grid import check_different, grid_runs, parts_runs
from hdm.train import TrainConfig

SHARED = {"data": "coco:x", "epochs": 3, "lr": 0.01}
LOSSES = {"mse": {"loss": "gaussian_mse"}, "hdm": {"loss": "hdm", "warm_start": 0.4}}


def config(**settings: Any) -> TrainConfig:
    return TrainConfig.from_dict({**SHARED, **settings})


def test_cells_lie_on_top_of_what_is_shared() -> None:
    runs = grid_runs({"seed": [1, 0], "loss": LOSSES, "lr": [0.01, 0.1]}, [{"loss": "hdm", "lr": 0.1}], SHARED)
    assert runs == {
        f"{name} seed={seed} lr={lr}": config(**LOSSES[name], seed=seed, lr=lr)
        for seed in (1, 0)
        for name, lr in (("mse", 0.01), ("mse", 0.1), ("hdm", 0.01))
    }
    assert list(runs)[:3] == ["mse seed=1 lr=0.01", "mse seed=1 lr=0.1", "hdm seed=1 lr=0.01"]


def test_an_exclusion_may_list_values() -> None:
    grid = {"loss": LOSSES, "seed": [0, 1, 2, 3], "input_size": [[64, 32], [32, 64]]}
    runs = grid_runs(grid, [{"loss": ["hdm"], "seed": [2, 3]}, {"input_size": [32, 64]}], SHARED)
    assert list(runs) == [
        *(f"mse seed={seed} input_size=[64, 32]" for seed in range(4)),
        *(f"hdm seed={seed} input_size=[64, 32]" for seed in range(2)),
    ]
    with pytest.raises(InputError, match="grid has no 'seed' with 4"):
        grid_runs(grid, [{"seed": [3, 4]}], SHARED)


PARTS = {
    "main": {"question": "Which loss?", "grid": {"loss": LOSSES, "seed": [0, 1]}},
    "rates": {"train": LOSSES["hdm"] | {"seed": 1}, "grid": {"lr": [0.01, 0.1]}},
    "elsewhere": {"data": "coco:y", "grid": {"loss": LOSSES}, "exclude": [{"loss": "mse"}]},
    "long": {"description": "one run", "train": {"epochs": 30}},
    "again": {"train": {"workers": 2}, "grid": {"seed": [1, 0], "loss": LOSSES}},
}


def test_a_run_of_several_parts_is_one_run() -> None:
    """With the name, the place in the order and the number of workers that it has in the first of them."""
    runs, cells = parts_runs(PARTS, SHARED)
    assert runs == {
        **{f"main: {name} seed={seed}": config(**LOSSES[name], seed=seed) for name in LOSSES for seed in (0, 1)},
        "rates: lr=0.1": config(**LOSSES["hdm"], seed=1, lr=0.1),
        "elsewhere: hdm": config(**LOSSES["hdm"], data="coco:y"),
        "long": config(epochs=30),
    }
    assert list(runs)[4:] == ["rates: lr=0.1", "elsewhere: hdm", "long"]
    assert list(cells) == list(PARTS)
    assert cells["main"] == {cell: f"main: {cell}" for cell in ("mse seed=0", "mse seed=1", "hdm seed=0", "hdm seed=1")}
    assert cells["rates"] == {"lr=0.01": "main: hdm seed=1", "lr=0.1": "rates: lr=0.1"}
    assert cells["elsewhere"] == {"hdm": "elsewhere: hdm"}
    assert cells["long"] == {"long": "long"}
    assert list(cells["again"].items()) == [
        (f"{name} seed={seed}", f"main: {name} seed={seed}") for seed in (1, 0) for name in ("mse", "hdm")
    ]


def test_order_of_parts_decides_names() -> None:
    runs, cells = parts_runs(dict(reversed(PARTS.items())), SHARED)
    assert list(runs)[:2] == ["again: mse seed=1", "again: hdm seed=1"]
    assert cells["main"]["hdm seed=0"] == "again: hdm seed=0"
    assert {run.key() for run in runs.values()} == {run.key() for run in parts_runs(PARTS, SHARED)[0].values()}


def test_a_cell_may_be_called_like_its_part() -> None:
    runs, cells = parts_runs({"hdm": {"grid": {"loss": LOSSES}}}, SHARED)
    assert list(runs) == ["hdm: mse", "hdm: hdm"]
    assert cells == {"hdm": {"mse": "hdm: mse", "hdm": "hdm: hdm"}}


@pytest.mark.parametrize("other", [{"data": "coco:y"}, {"seed": 1}])
def test_other_data_and_other_settings_are_other_runs(other: dict[str, Any]) -> None:
    check_different({"a": config(), "b": config(**other)}, "this")
    with pytest.raises(InputError, match="runs 'a' and 'c' of this are the same"):
        check_different({"a": config(), "b": config(**other), "c": config(device="cpu")}, "this")
