"""The book's notebooks, run by papermill: strictly, in sight, and only where something has changed.

    book/training.ipynb  --profile, parameters-->  _build/<profile>/executed/training.ipynb

A notebook has a cell tagged `parameters` that assigns at least `profile`; the runner injects the profile's name and
the given parameters after it. An unknown parameter, a missing tag and a failed cell are errors. What is published shows
no paths of this machine, no warnings and no progress bars.
"""

import ast
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from hdm.errors import InputError
from hdm.executions import (
    declared_files,
    executed_path,
    executions,
    fingerprint,
    is_current,
    record_execution,
)
from hdm.files import write_whole
from hdm.footers import sign_figures
from hdm.outputs import clean_outputs
from hdm.project import book_notebooks, load_profile, project_root, read_notebook

__all__ = [
    "NotebookError",
    "Progress",
    "execute_notebooks",
    "executions",
    "load_profile",
    "parse_parameters",
    "project_root",
]


class NotebookError(InputError):
    """A notebook that stopped: which one, in which cell, and why."""


def execute_notebooks(
    profile: str = "quick",
    *,
    only: Iterable[str] | None = None,
    force: bool = False,
    parameters: dict[str, Any] | None = None,
    root: Path | None = None,
) -> None:
    """Run the book's notebooks in reading order, except those that are current, and keep what they show.

    only: names of the notebooks to consider; None for all.
    force: run also what is current.
    parameters: values to inject, besides the profile's name, into each of these notebooks that declares them.
    Raises InputError for an unknown profile, notebook or parameter and for a notebook without a `parameters` cell, all
    before anything runs; NotebookError where a notebook stops, whose remains are kept as `<name>.failed.ipynb`.
    """
    root, parameters = root or project_root(), parameters or {}
    load_profile(profile, root)
    names = book_notebooks(root)
    chosen = names if only is None else list(only)
    if unknown := [name for name in chosen if name not in names]:
        raise InputError(f"unknown notebook {unknown[0]!r}: the table of contents has {', '.join(names)}")
    declared = {name: declared_parameters(name, root) for name in chosen}
    for parameter in parameters:
        if parameter == "profile":
            raise InputError("`profile` is not a parameter to be set: name the profile of the whole build")
        if not any(parameter in known for known in declared.values()):
            raise InputError(f"unknown parameter {parameter!r}: no parameters cell declares it in {', '.join(chosen)}")
    stopped = []
    for number, name in enumerate(names, 1):
        if name not in chosen:
            continue
        injected = {key: value for key, value in parameters.items() if key in declared[name]}
        label = f"[{number}/{len(names)}] {name:<{max(map(len, names))}}"
        if not force and is_current(name, profile, injected, root):
            record_execution(name, profile, root, reused=True)
            Progress(label).close("unchanged")
            continue
        try:
            _execute(name, profile, injected, root, label)
        except NotebookError as error:
            stopped.append(str(error))
    if stopped:
        raise NotebookError("; and ".join(stopped))


def parse_parameters(items: Iterable[str]) -> dict[str, Any]:
    """`["seed=3", "losses=[hdm, gaussian_mse]"]` as a mapping; the values are read as YAML."""
    parameters = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (equals and name.isidentifier()):
            raise InputError(f"parameter {item!r} is not of the form name=value")
        try:
            parameters[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"parameter {name!r}: {value!r} is not valid YAML") from None
    return parameters


def declared_parameters(name: str, root: Path) -> set[str]:
    """The names that a notebook's `parameters` cell assigns. (papermill's own reading skips a line with two `=`.)"""
    source = read_notebook(name, root).cells[_parameters_cell(name, root)].source
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise InputError(f"notebook {name!r}: the cell tagged 'parameters' is not valid Python: {error.msg}") from None
    targets = [target for line in statements if isinstance(line, ast.Assign) for target in line.targets]
    targets += [line.target for line in statements if isinstance(line, ast.AnnAssign)]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    if "profile" not in names:
        raise InputError(f"notebook {name!r}: the cell tagged 'parameters' must assign `profile`")
    return names


def _parameters_cell(name: str, root: Path) -> int:
    for place, cell in enumerate(read_notebook(name, root).cells):
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            return place
    raise InputError(f"notebook {name!r} has no code cell tagged 'parameters': tag the one that assigns `profile`")


class Progress:
    """The account of one notebook that its user sees: a line for each cell and, indented, what the cell prints.

        [3/7] training   cell 5/12   1:02
              | epoch 3   loss 0.031   error 2.4 px

    On a terminal the line of the cell is rewritten in place. `cell` says where the notebook is, as an error puts it;
    it is empty before the first.
    """

    def __init__(self, label: str, cells: int = 0, injected: int = 0):
        self.label, self.cell = label, ""
        self._cells, self._injected = cells, injected
        self._started = time.monotonic()
        self._unfinished = ""
        self._in_place = sys.stdout.isatty()

    @property
    def seconds(self) -> float:
        """Time since the notebook started."""
        return time.monotonic() - self._started

    def locate(self, source: str, cell_index: int) -> str:
        """`5/12`, counted in the notebook as it is written, where there is no injected cell."""
        number = f"{cell_index + (cell_index < self._injected)}/{self._cells}"
        code = [line for line in source.splitlines() if line.strip() and not line.startswith("#")]
        self.cell = f"cell {number} (`{code[0].strip()}`)" if code else f"cell {number}"
        return number

    def start_cell(self, cell: Any, cell_index: int) -> None:
        """nbclient's hook: a cell is about to run."""
        if cell.cell_type == "code" and cell_index != self._injected:
            self._finish_line()
            number = self.locate(cell.source, cell_index)
            self._say(f"{self.label}   cell {number}   {_clock(self.seconds)}", keep=not self._in_place)

    def write(self, text: str) -> None:
        """papermill's hook: a cell printed something. Of a line rewritten by carriage returns the last state counts."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._say("      | " + line.rstrip("\r").rpartition("\r")[2])

    def flush(self) -> None:
        """papermill calls this after each `write`."""

    def close(self, state: str) -> None:
        """The last line: how the notebook ended."""
        self._finish_line()
        self._say(f"{self.label}   {state}")

    def _finish_line(self) -> None:
        if self._unfinished.rpartition("\r")[2]:
            self.write("\n")
        self._unfinished = ""

    def _say(self, line: str, keep: bool = True) -> None:
        erase = "\r\x1b[K" if self._in_place else ""
        print(erase + line, end="\n" if keep else "", flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _execute(name: str, profile: str, parameters: dict[str, Any], root: Path, label: str) -> None:
    """Run one notebook; afterwards its executed copy is there if, and only if, it ran to its end."""
    import nbformat

    final = executed_path(name, profile, root)
    partial, failed = final.with_suffix(".partial.ipynb"), final.with_suffix(".failed.ipynb")
    final.parent.mkdir(parents=True, exist_ok=True)
    for path in (final, partial, failed):
        path.unlink(missing_ok=True)
    progress = Progress(label, len(read_notebook(name, root).cells), _parameters_cell(name, root) + 1)
    run: dict[str, Any] = {
        "status": "running",
        "parameters": parameters,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "reused": False,
    }
    unknown = ("seconds", "fingerprint", "outputs", "error", "cell")
    record_execution(name, profile, root, **run, **dict.fromkeys(unknown))
    try:
        run["fingerprint"] = fingerprint(name, profile, parameters, root)
        _run_papermill(name, {"profile": profile, **parameters}, partial, root, progress)
        cleaned = clean_outputs(nbformat.read(partial, as_version=4), root)
        write_whole(final, (nbformat.writes(sign_figures(cleaned, profile, root)) + "\n").encode())
        partial.unlink()
        run |= {"status": "done", "outputs": declared_files("outputs", name, profile, root)}
    except BaseException as error:
        final.unlink(missing_ok=True)
        if partial.exists():
            os.replace(partial, failed)
        stopped = isinstance(error, KeyboardInterrupt)
        reason = _reason(error, progress)
        run |= {"status": "interrupted" if stopped else "failed", "error": reason, "cell": progress.cell}
        progress.close(f"{run['status']} after {_clock(progress.seconds)}")
        kept = f"; what it did is in {os.path.relpath(failed, root)}" if failed.exists() else ""
        place = f"in {progress.cell}" if progress.cell else "before its first cell"
        message = f"notebook {name!r} stopped {place}: {reason}{kept}"
        raise (KeyboardInterrupt if stopped else NotebookError)(message) from error
    finally:
        record_execution(name, profile, root, **run, seconds=round(progress.seconds, 1))
    progress.close(f"done in {_clock(progress.seconds)}")


def _run_papermill(name: str, parameters: dict[str, Any], output: Path, root: Path, progress: Progress) -> None:
    import papermill

    notebook = read_notebook(name, root)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with _kernel_environment(root):
        executed = papermill.execute_notebook(
            notebook,
            str(output).replace("{", "{{").replace("}", "}}"),  # papermill fills parameters into the path
            parameters=parameters,
            engine_name="nbclient",
            kernel_name="python3",
            cwd=root,
            progress_bar=False,
            stdout_file=progress,
            stderr_file=progress,
            on_cell_start=progress.start_cell,
            coalesce_streams=True,
            start_timeout=300,
            iopub_timeout=60,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    # papermill takes `sys.exit()` for a good end, though no later cell has run.
    if any(output.output_type == "error" for cell in executed.cells for output in cell.get("outputs", [])):
        raise NotebookError("the cell left the notebook early")


@contextmanager
def _kernel_environment(root: Path) -> Iterator[None]:
    """What kernels inherit: this project, this environment's kernel, and figures that appear in the notebook."""
    before = dict(os.environ)
    os.environ |= {"HDM_ROOT": str(root), "JUPYTER_PREFER_ENV_PATH": "1"}
    os.environ.pop("MPLBACKEND", None)
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what it reports reaches the user through `Progress` and `NotebookError`
    try:
        yield
    finally:
        logger.setLevel(level)
        os.environ.clear()
        os.environ |= before


def _reason(error: BaseException, progress: Progress) -> str:
    """One line on why a notebook stopped; moves `progress` to the cell that failed."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, DeadKernelError):
        return "the kernel died, out of memory or by a crash in native code"
    if isinstance(error, PapermillExecutionError):
        progress.locate(error.source, error.cell_index)
        name, text = error.ename, error.evalue
    else:
        name, text = type(error).__name__, str(error)
    first, *_ = text.strip().splitlines() or [""]
    return first if isinstance(error, InputError) else f"{name}: {first}".removesuffix(": ")
