"""Which runs the grid, or the parts, of a study's file ask for; `hdm.study` shows such a file."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hdm.errors import InputError, hint
from hdm.train import TrainConfig

PART_SECTIONS = ("description", "question", "data", "train", "grid", "exclude")


def grid_runs(grid: Any, exclude: Any, shared: dict[str, Any]) -> dict[str, TrainConfig]:
    """The runs of a grid, each called by the names in its cell, then by `setting=value`, both in the grid's order.

    The last axis changes fastest.

    grid: axes by name, each a list of values of the setting of this name, or a mapping of names to settings.
    exclude: a list of mappings of axes to a value (or name), or to a list of several; a cell that fits one of them in
        all its axes is left out.
    shared: settings of all runs; those of a cell go on top. Raises InputError for a grid or axis that is empty or
    something else, two axes that give the same setting, two cells of one name, an exclusion that fits no cell or leaves
    none, and for wrong settings.
    """
    return _runs(_cells(as_section(grid, "grid"), exclude or []), shared)


def parts_runs(parts: Any, shared: dict[str, Any]) -> tuple[dict[str, TrainConfig], dict[str, dict[str, str]]]:
    """The runs of all parts by name, and for each part the name of the run of each of its cells.

    A run is called `PART: CELL`, or like its part where this has no grid; one that several parts ask for is there once,
    with its name in the first of them.
    parts: sections by name. shared: settings that all parts share; those of a part go on top, then those of a cell.
    Raises InputError, with the name of the part, as `grid_runs` does, and for two cells of a part that are one run.
    """
    parts = as_section(parts, "parts")
    if not parts:
        raise InputError("parts is empty: give it at least one, such as main: { grid: { seed: [0, 1, 2] } }")
    runs: dict[str, TrainConfig] = {}
    cells: dict[str, dict[str, str]] = {}
    owners: dict[tuple[str, str], str] = {}
    for part, text in parts.items():
        if not isinstance(part, str) or ":" in part:
            raise InputError(f"part {part!r} must have a name that is text without ':'")
        try:
            configs = _part(part, as_section(text, "it"), shared)
        except InputError as error:
            raise InputError(f"part {part!r}: {error}") from None
        cells[part] = {}
        for cell, config in configs.items():
            own_name = f"{part}: {cell}" if "grid" in text else part
            cells[part][cell] = name = owners.setdefault(_identity(config), own_name)
            runs.setdefault(name, config)
    return runs, cells


def _part(part: str, text: dict[str, Any], shared: dict[str, Any]) -> dict[str, TrainConfig]:
    """The settings of each cell of a part; without a grid it has one cell, of the part's name."""
    check_sections(text, PART_SECTIONS)
    own = {} if text.get("data") is None else {"data": text["data"]}
    own |= as_section(text.get("train") or {}, "train")
    if "grid" not in text and "exclude" in text:
        raise InputError("it has exclude but no grid: drop exclude")
    if "grid" in text:
        configs = grid_runs(text["grid"], text.get("exclude"), shared | own)
    else:
        configs = _runs({part: {}}, shared | own)
    check_different(configs, "it")
    return configs


def _runs(cells: dict[str, dict[str, Any]], shared: dict[str, Any]) -> dict[str, TrainConfig]:
    configs = {}
    for name, settings in cells.items():
        try:
            configs[name] = TrainConfig.from_dict(shared | settings)
        except InputError as error:
            raise InputError(f"run {name!r}: {error}") from None
    return configs


# --- the cells of a grid


@dataclass(frozen=True)
class _Point:
    """One value of an axis: what a run's name and `exclude` call it, and the settings that it stands for."""

    label: str
    value: Any
    settings: dict[str, Any]


def _cells(grid: dict[str, Any], exclude: Any) -> dict[str, dict[str, Any]]:
    """The settings of each cell that is not excluded, by its name."""
    if not grid:
        raise InputError("grid is empty: give it at least one axis, such as seed: [0, 1, 2]")
    axes = {axis: _axis(axis, values) for axis, values in grid.items()}
    _check_apart(axes)
    left_out = _exclusions(exclude, axes)
    order = sorted(axes, key=lambda axis: not isinstance(grid[axis], dict))  # names before settings, else as given
    cells: dict[str, dict[str, Any]] = {}
    for points in itertools.product(*axes.values()):
        cell = dict(zip(axes, points, strict=True))
        if any(all(cell[axis].value in values for axis, values in entry.items()) for entry in left_out):
            continue
        name = " ".join(cell[axis].label for axis in order)
        if name in cells:
            raise InputError(f"two cells of grid are called {name!r}: leave one of them out")
        cells[name] = {setting: value for point in points for setting, value in point.settings.items()}
    if not cells:
        raise InputError("exclude leaves no run: drop some of its entries")
    return cells


def _axis(axis: str, values: Any) -> list[_Point]:
    if not isinstance(values, list | dict):
        raise InputError(f"axis {axis!r} is {values!r}: give a list of values, or a mapping of names to settings")
    if not values:
        raise InputError(f"axis {axis!r} is empty: give it values or drop it")
    if isinstance(values, dict):
        return [_Point(str(name), name, as_section(values[name] or {}, f"{axis} {name!r}")) for name in values]
    known = [entry.name for entry in dataclasses.fields(TrainConfig)]
    if axis not in known:
        raise InputError(
            f"axis {axis!r} has a list of values but is no setting{hint(axis, known)}; "
            "an axis of another name is a mapping of names to settings"
        )
    return [_Point(f"{axis}={value}", value, {axis: value}) for value in values]


def _check_apart(axes: dict[str, list[_Point]]) -> None:
    """Raises InputError where two axes give the same setting: one would undo the other."""
    owners: dict[str, str] = {}
    for axis, points in axes.items():
        for setting in (setting for point in points for setting in point.settings):
            if owners.setdefault(setting, axis) != axis:
                raise InputError(f"axes {owners[setting]!r} and {axis!r} both give {setting!r}: keep one of them")


def _exclusions(exclude: Any, axes: dict[str, list[_Point]]) -> list[dict[str, list[Any]]]:
    """The values that each entry means, by axis: one, or, where that is no value of the axis itself, those of a list.
    Raises InputError where an axis has none such."""
    if not isinstance(exclude, list) or not all(exclude):
        raise InputError(f"exclude is {exclude!r}: give a list of mappings, such as [{{ seed: 2 }}]")
    entries = []
    for entry in exclude:
        values = {}
        for axis, value in as_section(entry, "an entry of exclude").items():
            known = [point.value for point in axes.get(axis, [])]
            values[axis] = value if isinstance(value, list) and value not in known else [value]
            for each in values[axis]:
                if each not in known:
                    raise InputError(f"exclude {entry!r} fits no cell: grid has no {axis!r} with {each!r}")
        entries.append(values)
    return entries


# --- what both and `hdm.study` check


def as_section(value: Any, name: str) -> dict[Any, Any]:
    """The value, if it is a mapping; else an InputError that calls it `name`."""
    if not isinstance(value, dict):
        raise InputError(f"{name} must be a mapping, one `name: value` on each line, not {value!r}")
    return value


def check_sections(text: dict[str, Any], known: Sequence[str]) -> None:
    """Raises InputError for a section that is not known."""
    for name in text:
        if name not in known:
            raise InputError(f"unknown section {name!r}{hint(name, known)}")


def check_different(configs: dict[str, TrainConfig], where: str) -> None:
    """Raises InputError where two runs are the same."""
    names: dict[tuple[str, str], str] = {}
    for name, config in configs.items():
        same = names.setdefault(_identity(config), name)
        if same != name:
            raise InputError(f"runs {same!r} and {name!r} of {where} are the same: leave one of them out")


def _identity(config: TrainConfig) -> tuple[str, str]:
    """What is the same for configs of the same run, however fast and on what machine it is trained."""
    return config.data, config.key()
