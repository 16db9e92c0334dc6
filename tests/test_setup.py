"""The house rules: what is installed, what may import what, how notebooks are kept, what the README promises."""

import ast
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hdm

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# --- dependencies: pyproject.toml and environment.yml


# conda-forge's name -> the name that pip knows
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "seaborn-base": "seaborn"}


def bounds(lines: list[str]) -> dict[str, str]:
    """Requirement lines as name -> version bounds, in one spelling."""
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in requirements}


def with_extras(*extras: str) -> list[str]:
    """The runtime requirements and those of the extras; an extra that names others of ours, `hdm[a,b]`, is followed."""
    lines = list(PROJECT["dependencies"])
    waiting = list(extras)
    while waiting:
        for line in PROJECT["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(line)
            if requirement.name == PROJECT["name"]:
                waiting.extend(requirement.extras)
            else:
                lines.append(line)
    return lines


def conda_requirements() -> list[str]:
    """The requirement lines of environment.yml under pip's names, without python, pip and the package itself."""
    lines = []
    for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        if isinstance(entry, dict):
            lines.extend(line for line in entry["pip"] if line != "-e .")
        elif (name := entry.split()[0]) not in ("python", "pip"):
            lines.append(entry.replace(name, CONDA_NAMES.get(name, name), 1))
    return lines


def test_conda_users_get_the_same_packages():
    assert bounds(conda_requirements()) == bounds(with_extras("book"))


def test_conda_users_get_the_same_python():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python = next(entry for entry in dependencies if isinstance(entry, str) and entry.split()[0] == "python")
    assert python == f"python {PROJECT['requires-python']}"


def test_dependencies_are_stated_once():
    lines = with_extras("dev")
    assert len(bounds(lines)) == len(lines)


def test_citation_names_this_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]


def test_changelog_begins_with_this_version():
    headings = re.findall(
        r"^## \[(.+?)\] - (?:unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert headings[0] == PROJECT["version"]


def test_the_package_knows_its_version():
    """Of what is installed: after a change in pyproject.toml, `make env`."""
    assert hdm.__version__ == PROJECT["version"]


# --- imports: arrows point one way


# What each room may import of ours, besides itself. A new room is entered here first.
LOWER = {"errors", "pixels", "transport", "losses", "encode", "decode", "models", "data", "evaluate", "records"}
LOWER |= {"inference", "protocols"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "pixels": {"errors"},
    "transport": {"errors", "pixels"},
    "records": {"errors", "project"},
    "runs": {"errors", "records"},
    "losses": {"errors", "pixels", "transport"},
    "decode": {"errors", "pixels"},
    "encode": {"errors", "pixels", "transport", "losses", "decode"},
    "models": {"errors", "pixels"},
    "data": {"errors", "files", "pixels"},
    "evaluate": {"errors", "files", "pixels", "decode", "data"},
    "figures": {"errors", "pixels", "transport", "losses", "decode", "data", "records", "project"},
    "train": LOWER | {"files"},
    "explorable": {"errors", "files", "figures", "train"},
    "inference": {"errors", "pixels", "decode", "data", "models", "evaluate"},
    "protocols": {"errors", "pixels", "data", "evaluate", "inference"},
    "published": {"errors", "project"},
    "reference": set(),
    "export": LOWER | {"files", "assess"},
    "assess": LOWER | {"train", "published"},
    "poses": LOWER | {"files", "figures", "assess"},
    "grid": {"errors", "train"},
    "jobs": {"errors", "train"},
    "study": LOWER | {"train", "project", "grid", "jobs"},
    "cluster": LOWER | {"files", "train", "study"},
    "comparison": {"errors", "decode", "evaluate", "records", "train", "study"},
    "claims": {"errors", "evaluate", "records", "project", "study", "comparison"},
    "study_figures": {"errors", "evaluate", "figures", "comparison"},
    "run_details": {"records", "study"},
    "study_tables": {"errors", "evaluate", "records", "study", "comparison", "study_figures", "run_details"},
    "bench": LOWER | {"train", "assess"},
    "project": {"errors"},
    "executions": {"errors", "files", "project"},
    "outputs": set(),
    "footers": {"errors", "project"},
    "notebooks": {"errors", "files", "project", "executions", "outputs", "footers"},
    "placeholder": {"project", "executions", "outputs"},
    "launch": {"project"},
    "book": {
        "errors",
        "project",
        "executions",
        "outputs",
        "footers",
        "notebooks",
        "placeholder",
        "launch",
        "explorable",
    },
    "colab": {"errors", "data", "models", "project"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)


def imports_of_ours(tree: ast.AST) -> set[str]:
    """Dotted names below `hdm` that a module imports: `from hdm.data import coco` gives `data.coco`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write `from hdm...`, not a relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.removeprefix("hdm.") for name in names if name.startswith("hdm.")}


@pytest.mark.parametrize("path", sorted((ROOT / "hdm").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    room = path.relative_to(ROOT / "hdm").parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return  # the front door shows every room
    assert room in MAY_IMPORT, f"hdm/{room} is new: say in MAY_IMPORT and in CONTRIBUTING.md what it may import"
    rooms = {name.split(".")[0] for name in imports_of_ours(ast.parse(path.read_text()))}
    assert rooms - {room, "__version__"} <= MAY_IMPORT[room]


def test_forbidden_imports_are_seen():
    source = "import hdm.train\nfrom hdm import models\nfrom hdm.data.coco import load\nimport numpy\n"
    assert imports_of_ours(ast.parse(source)) == {"train", "models", "data.coco.load"}


# --- notebooks: no stored outputs, short cells


BUILT = {"_build", ".ipynb_checkpoints"}
NOTEBOOKS = sorted(path for path in (ROOT / "book").rglob("*.ipynb") if not BUILT & set(path.parts))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def source_of(cell: dict) -> str:
    return "".join(cell["source"])


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_notebook_stores_no_outputs(path):
    for number, cell in enumerate(code_cells(path), start=1):
        assert not cell["outputs"] and cell["execution_count"] is None, f"code cell {number}: clear the outputs"


@each_notebook
def test_notebook_has_one_parameters_cell(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1


@each_notebook
def test_notebook_cells_are_short_and_define_no_class(path):
    for number, cell in enumerate(code_cells(path), start=1):
        source = source_of(cell)
        assert len(source.splitlines()) <= 15, f"code cell {number} has more than 15 lines"
        assert not re.search(r"^\s*class\s", source, re.MULTILINE), f"code cell {number} defines a class"


@each_notebook
def test_notebook_uses_public_names_only(path):
    # `%` and `!` lines are IPython's, not Python's.
    source = "\n".join(re.sub(r"^\s*[%!].*$", "", source_of(cell), flags=re.MULTILINE) for cell in code_cells(path))
    private = [name for name in imports_of_ours(ast.parse(source)) if any(p.startswith("_") for p in name.split("."))]
    assert set(private) <= {"__version__"}


# --- what is written down


def tracked_files() -> list[Path]:
    """The files that git knows or would take up."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def machine_paths() -> re.Pattern:
    """Matches paths that only exist on one machine: this home and working directory, and anybody's home."""
    here = {os.path.expanduser("~"), str(ROOT.parent)} - {"/", tempfile.gettempdir()}
    own = [re.escape(path) + r"(?![\w-])" for path in sorted(here)]
    return re.compile(r"(?<![\w./~-])(" + "|".join([*own, r"/(home|Users)/\w+"]) + ")")


def test_no_file_names_a_place_on_one_machine():
    pattern = machine_paths()
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found.extend(f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text))
    assert not found


def test_paths_of_one_machine_are_seen():
    pattern = machine_paths()
    assert pattern.search("open('" + os.path.join("/home", "someone", "data") + "')")
    assert not pattern.search("see docs/home/index and https://example.org/home/x")


def targets(text: str) -> list[str]:
    """The targets that `make ...` names in code: in back-quotes, in indented or fenced blocks, in shell lines."""
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^\s*(?:[A-Z_]+=\S+ )*(make .*)$", text, re.MULTILINE)
    calls = [found[1] for line in code if (found := re.match(r"(?:[A-Z_]+=\S+ )*make (.*)", line))]
    words = [word for call in calls for word in call.split("#")[0].split()]
    return sorted({word for word in words if "=" not in word and not word.startswith("-")})


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_every_make_command_exists(name):
    named = targets((ROOT / name).read_text())
    assert {"book", "test"} <= set(named)
    with_help = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(named) <= set(with_help)
    dry_run = subprocess.run(["make", "-n", *named], cwd=ROOT, capture_output=True, text=True)
    assert dry_run.returncode == 0, dry_run.stderr


def test_make_says_what_is_wrong_with_an_unusable_python(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "pyproject.toml").touch()
    made = subprocess.run(["make", "-C", tmp_path, "env", "PYTHON=false"], capture_output=True, text=True)
    assert made.returncode == 2
    assert "'false' is not Python 3.10 or newer" in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_check_script_is_executable_bash():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    parsed = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert parsed.returncode == 0, parsed.stderr
