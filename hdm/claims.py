"""The ledger of claims: what is claimed, how that is tested, what the records say. Verdicts are computed, never typed.

`data/claims.yml` is a list of claims, each with its tests:

- id: consistent
  claim: "matching distributions improves the joints more consistently"
  source: "abstract"
  tests:
    - id: consistent-kendall
      test: "Kendall's tau of loss and error over the epochs, hdm above gaussian"
      study: study-cpu                  # book/profiles/study-cpu.yml; a profile that is no study has its `runs` as rows
      part: main                        # of a study with parts
      first: { row: hdm, measure: consistency_kendall }    # also decoder and score, see `hdm.comparison.measured`
      second: { row: gaussian }         # what is left out is as in `first`; or { value: NUMBER }
      direction: higher                 # what the claim says of the first: lower or higher
      margin: 0.0                       # optional: by which share of the second's mean the first may be worse
      seeds: 3                          # optional, 3: the least number of seeds that both must have
      page: consistency                 # the book's page that shows the numbers
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hdm.comparison import MEASURES, Choice, pairs, study_runs
from hdm.errors import InputError, hint
from hdm.evaluate import holm, paired_comparison
from hdm.project import profile_names, project_root
from hdm.records import RUNS, read_runs
from hdm.study import Study, read_study, study_of_profile

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
UNDECIDED, NOT_RUN = "not decidable at this budget", "not run"
LEVEL = 0.05  # of the adjusted p value
DIRECTIONS = ("lower", "higher")
CLAIM_KEYS = ("id", "claim", "source", "tests")
TEST_KEYS = ("id", "test", "study", "part", "first", "second", "direction", "margin", "seeds", "page")
CHOICE_KEYS = ("row", "measure", "decoder", "score")


@dataclass(frozen=True)
class ClaimTest:
    """One test of a claim; the fields are those of the file, `second` a number where that is given."""

    claim: str
    source: str
    id: str
    test: str
    study: str
    first: Choice
    second: Choice | float
    direction: str
    page: str
    part: str = ""
    margin: float = 0.0
    seeds: int = 3


# --- the file


def read_claims(path: Path | str | None = None) -> list[ClaimTest]:
    """The tests in a file of claims (default `data/claims.yml` of the project), in its order.

    Raises InputError, with the file and the claim or test, for what can't be read, an unknown key, a missing one, an id
    that is there twice, an unknown direction, measure, decoder or score, and numbers out of range.
    """
    path = project_root() / "data" / "claims.yml" if path is None else Path(path)
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} can't be read ({' '.join(str(error).split())}): mend or restore it") from None
    if not isinstance(text, list) or not text:
        raise InputError(f"{path} holds no claims: write a list of mappings with {', '.join(CLAIM_KEYS)}")
    tests, ids = [], set()
    for number, claim in enumerate(text, start=1):
        where = f"{path}, claim {number}"
        _check_keys(claim, CLAIM_KEYS, CLAIM_KEYS, where)
        if not isinstance(claim["tests"], list) or not claim["tests"]:
            raise InputError(f"{where}: tests is empty: say at least one way to test the claim")
        found = [_claim_test(claim, entry, f"{where}, test {i}") for i, entry in enumerate(claim["tests"], start=1)]
        for name in (claim["id"], *(test.id for test in found)):
            if name in ids:
                raise InputError(f"{where}: the id {name!r} is there twice: give each claim and test its own")
            ids.add(name)
        tests += found
    return tests


def _check_keys(entry: Any, known: Sequence[str], needed: Sequence[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {entry!r}: write a mapping with {', '.join(known)}")
    for name in entry:
        if name not in known:
            raise InputError(f"{where}: unknown key {name!r}{hint(name, known)}")
    for name in needed:
        if entry.get(name) in (None, ""):
            raise InputError(f"{where}: {name!r} is missing: add it")


def _claim_test(claim: dict[str, Any], entry: Any, where: str) -> ClaimTest:
    _check_keys(entry, TEST_KEYS, [name for name in TEST_KEYS if name not in ("part", "margin", "seeds")], where)
    settings = dict(entry)
    direction, margin, seeds = settings["direction"], settings.get("margin", 0.0), settings.get("seeds", 3)
    if direction not in DIRECTIONS:
        raise InputError(f"{where}: unknown direction {direction!r}{hint(direction, DIRECTIONS)}")
    if not _is_number(margin) or not 0 <= margin < 1:
        raise InputError(f"{where}: margin {margin!r} must be a share, from 0 to below 1")
    if type(seeds) is not int or seeds < 2:
        raise InputError(f"{where}: seeds {seeds!r} must be 2 or more: one pair has no spread")
    part = settings.get("part", "")
    _check_keys(entry["first"], CHOICE_KEYS, ("row", "measure"), f"{where}, first")
    first = _choice(part, entry["first"], f"{where}, first")
    _check_keys(entry["second"], (*CHOICE_KEYS, "value"), (), f"{where}, second")
    if "value" not in entry["second"]:
        second: Choice | float = _choice(part, {**entry["first"], **entry["second"]}, f"{where}, second")
    elif len(entry["second"]) == 1 and _is_number(entry["second"]["value"]):
        second = float(entry["second"]["value"])
    else:
        raise InputError(
            f"{where}, second: value is {entry['second']['value']!r}: give a number, and nothing beside it"
        )
    settings |= {"first": first, "second": second, "margin": float(margin)}
    return ClaimTest(claim=claim["claim"], source=claim["source"], **settings)


def _choice(part: str, settings: dict[str, Any], where: str) -> Choice:
    if settings["measure"] not in MEASURES:
        raise InputError(f"{where}: unknown measure {settings['measure']!r}{hint(settings['measure'], MEASURES)}")
    try:
        return Choice(part, **settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- the verdicts


def ledger(path: Path | str | None = None, runs: Path | str = RUNS) -> pd.DataFrame:
    """What the records say on each claim, a line for each test in the order of the file.

    With d the mean difference first - second over the seeds that both have, b the bound on it (0, or with a margin that
    share of the second's mean, on the side on which the first is worse) and p the p value of the paired t test of
    first - second - b, adjusted by Holm's procedure over all tests that were run, the verdict is

        not run                         fewer pairs than the test asks for
        supported                       p < 0.05, and d - b has the claimed sign
        not supported                   p < 0.05, and d - b has the other sign
        not decidable at this budget    otherwise

    p < 0.05 implies that the 95 % interval of d lies on one side of b. So a margin makes a test of non-inferiority,
    which a difference of nothing can pass.

    Columns: `claim`, `source`, `id`, `test`, `direction`, `budget` (data, persons, model, rows x columns, epochs and
    seeds of the records), `n` pairs, `difference`, `low`, `high` (its 95 % interval), `bound`, `p`, `verdict`,
    `evidence`, a tuple of the records' folders, and `page`.
    Raises InputError as `read_claims` does, and for an unknown study, part or row.
    """
    tests = read_claims(path)
    tables: dict[str, pd.DataFrame] = {}
    lines = []
    for test in tests:
        try:
            if test.study not in tables:
                tables[test.study] = study_runs(claimed_study(test.study, runs), runs)
            lines.append(_line(test, tables[test.study]))
        except InputError as error:
            raise InputError(f"claim test {test.id!r}: {error}") from None
    table = pd.DataFrame(lines)
    table["p"] = holm(table["p"].to_numpy(float))
    table["verdict"] = [_verdict(line) for line in table.to_dict("records")]
    columns = [name for name in table if name not in ("verdict", "evidence", "page")]
    return table[[*columns, "verdict", "evidence", "page"]]


def claim_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """One verdict on each claim of a `ledger`: `supported` if all its tests are, `not supported` if any is, `not run`
    if all are, else `not decidable at this budget`. Columns: `claim`, `source`, `verdict`."""
    lines = []
    for (claim, source), group in table.groupby(["claim", "source"], sort=False):
        verdicts = list(dict.fromkeys(group["verdict"]))
        mixed = NOT_SUPPORTED if NOT_SUPPORTED in verdicts else UNDECIDED
        lines.append((claim, source, verdicts[0] if len(verdicts) == 1 else mixed))
    return pd.DataFrame(lines, columns=["claim", "source", "verdict"])


def ledger_page(table: pd.DataFrame) -> pd.DataFrame:
    """A `ledger` as a page shows it: test, verdict, difference with its interval, p value, budget, and a link to the
    chapter with the rows."""
    numbers = [
        f"{line['difference']:+.3g} [{line['low']:+.3g}, {line['high']:+.3g}]" if line["verdict"] != NOT_RUN else "-"
        for line in table.to_dict("records")
    ]
    return pd.DataFrame(
        {
            "test": table["test"],
            "verdict": table["verdict"],
            "difference": numbers,
            "p": [f"{p:.2g}" if not math.isnan(p) else "-" for p in table["p"]],
            "budget": table["budget"],
            "rows": [f'<a href="{page}.html">{page}</a>' for page in table["page"]],
        }
    )


def claimed_study(name: str, runs: Path | str = RUNS) -> Study:
    """The study `book/profiles/<name>.yml`; for a profile that is no study its runs, once for each seed of its records.

    Raises InputError for an unknown name.
    """
    path = project_root() / "book" / "profiles" / f"{name}.yml"
    if path.is_file() and name not in profile_names():
        return read_study(path)
    study = study_of_profile(name)
    records = read_runs(runs, name)
    seeds = sorted(set(records["seed"])) if len(records) else []
    configs = {
        f"{row} seed={seed}": dataclasses.replace(config, seed=int(seed))
        for row, config in study.runs.items()
        for seed in seeds or [config.seed]
    }
    return Study(name, configs, study.synthetic)


def _line(test: ClaimTest, table: pd.DataFrame) -> dict[str, Any]:
    """A line of the ledger without a verdict, its p value not yet adjusted."""
    second = test.first if isinstance(test.second, float) else test.second
    both = pairs(table, test.first, second)
    if isinstance(test.second, float):
        both["second"] = test.second
    line = {name: getattr(test, name) for name in ("claim", "source", "id", "test", "direction", "page")}
    evidence = tuple(dict.fromkeys([*both["first_folder"], *both["second_folder"]]))
    line |= {"budget": f"{len(both)} of {test.seeds} seeds", "n": len(both), "evidence": evidence}
    if len(both) < test.seeds:
        return line | dict.fromkeys(("difference", "low", "high", "bound", "p"), math.nan)
    worse = 1 if test.direction == "lower" else -1
    bound = worse * test.margin * abs(float(both["second"].mean()))
    found = paired_comparison(both["first"].tolist(), both["second"].tolist())
    shifted = paired_comparison(both["first"].tolist(), (both["second"] + bound).tolist())
    line |= {"budget": _budget(table, evidence, len(both)), "bound": bound, "p": shifted.p_value}
    return line | {name: getattr(found, name) for name in ("difference", "low", "high")}


def _verdict(line: Mapping[Any, Any]) -> str:
    if math.isnan(line["p"]):
        return NOT_RUN
    beyond = line["difference"] - line["bound"]
    if line["p"] >= LEVEL:
        return UNDECIDED
    return SUPPORTED if (beyond < 0) == (line["direction"] == "lower") else NOT_SUPPORTED


def _budget(table: pd.DataFrame, evidence: Sequence[str], seeds: int) -> str:
    """What the records of the evidence were made with, such as "coco_mini, 4,998 persons, resnet18, 64 x 48, 12 epochs,
    5 seeds"; where they differ, all of it."""
    lines = table[table["folder"].isin(evidence)]

    def alike(column: str, text: Any) -> str:
        values = lines[column].dropna() if column in lines else ()
        return " / ".join(dict.fromkeys(text(value) for value in values)) or "unknown"

    return ", ".join(
        [
            alike("data", lambda name: name.partition(":")[2]),
            alike("data_train_persons", lambda count: f"{count:,.0f}") + " persons",
            alike("model", lambda name: name.removeprefix("timm:")),
            alike("input_size", lambda size: f"{size[0]} x {size[1]}"),
            alike("epochs", lambda count: f"{count:.0f}") + " epochs",
            f"{seeds} seeds",
        ]
    )
