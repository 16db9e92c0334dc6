"""Where the project lies, here and in public, its book's pages, and the profiles that say how large a build is."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hdm.errors import InputError


def project_root() -> Path:
    """The folder that holds `_config.yml` and `book/`.

    The environment variable HDM_ROOT where it is set, else the nearest such folder at or above the current directory,
    else at or above this package. Raises InputError where there is none.
    """
    named = os.environ.get("HDM_ROOT")
    here, package = Path.cwd(), Path(__file__)
    starts = [Path(named)] if named else [here, *here.parents, *package.parents]
    for folder in starts:
        if (folder / "_config.yml").is_file() and (folder / "book").is_dir():
            return folder.resolve()
    where = f"HDM_ROOT={named} is not" if named else f"neither {here} nor a folder above it is"
    raise InputError(f"{where} a project with _config.yml and book/: change into the project or set HDM_ROOT")


def book_pages(root: Path | None = None) -> list[str]:
    """The pages in the table of contents `book/_toc.yml`, in reading order and without their file endings.

    Raises InputError where the table or the file of a page is missing.
    """
    toc = (root or project_root()) / "book" / "_toc.yml"
    pages = [re.sub(r"\.(md|ipynb)$", "", page) for page in _toc_files(_read_yaml(toc))]
    for page in pages:
        if not any((toc.parent / f"{page}{ending}").is_file() for ending in (".ipynb", ".md")):
            raise InputError(f"{toc} lists {page}, but {toc.parent} has neither {page}.ipynb nor {page}.md")
    return pages


def book_notebooks(root: Path | None = None) -> list[str]:
    """The pages in the table of contents that are notebooks, in reading order."""
    root = root or project_root()
    return [page for page in book_pages(root) if notebook_source(page, root).is_file()]


def notebook_source(name: str, root: Path) -> Path:
    """The notebook as it is written: `book/<name>.ipynb`, without outputs."""
    return root / "book" / f"{name}.ipynb"


def read_notebook(name: str, root: Path) -> Any:
    """A notebook as it is written, as nbformat's version 4. Raises InputError where the file is none."""
    import nbformat  # comes with the extra `book`; profiles are read without it

    path = notebook_source(name, root)
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise InputError(f"{path} is not a valid notebook: {str(error).strip().partition(chr(10))[0]}") from None


def repository_url(root: Path | None = None) -> str | None:
    """The address at which the repository is public, `https://HOST/OWNER/NAME`, or None where it is not known.

    The environment variable HDM_REPOSITORY where it is set, else the remote `origin` of the checkout in `root`. An
    address for ssh is turned into that for a browser, and a name or password in it is left out. None too for a folder,
    and for a host without a public name. Raises InputError where HDM_REPOSITORY is no such address.
    """
    named = os.environ.get("HDM_REPOSITORY")
    address = named or _git("remote", "get-url", "origin", root=root or project_root())
    host = r"(?:[^@/\s]+@)?(?P<host>[\w-]+(?:\.[\w-]+)*\.[a-z]{2,})"
    path = r"(?P<path>[\w.-]+(?:/[\w.-]+)+)/?"
    for form in (rf"https?://{host}/{path}", rf"ssh://{host}(?::\d+)?/{path}", rf"{host}:{path}"):
        if found := re.fullmatch(form, address):
            return f"https://{found['host']}/{found['path'].removesuffix('.git')}"
    if named:
        raise InputError(
            f"HDM_REPOSITORY={named} is no public address: write https://github.com/OWNER/NAME or unset it"
        )
    return None


def checkout_commit(root: Path) -> tuple[str, bool]:
    """The commit of the checkout in `root`, and whether files differ from it; empty outside of a checkout."""
    commit = _git("rev-parse", "HEAD", root=root)
    return commit, bool(_git("status", "--porcelain", "--untracked-files=no", root=root))


def _git(*arguments: str, root: Path) -> str:
    """Output of git where `root` is the top of a checkout; empty where it is not or there is no git."""
    if not (root / ".git").exists():  # it may lie within a checkout of something else
        return ""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def profile_names(root: Path | None = None) -> list[str]:
    """The profiles in `book/profiles`, in the order of the alphabet; studies that lie there too are none."""
    folder = (root or project_root()) / "book" / "profiles"
    return sorted(path.stem for path in folder.glob("*.yml") if not _is_study(path))


def load_profile(name: str, root: Path | None = None) -> dict[str, Any]:
    """The settings in `book/profiles/<name>.yml`, with `${NAME}` and `${NAME:-default}` taken from the environment.

    Raises InputError for an unknown profile, a study, a file that is no mapping, and a variable with neither value nor
    default.
    """
    folder = (root or project_root()) / "book" / "profiles"
    path = folder / f"{name}.yml"
    if path not in folder.glob("*.yml"):
        known = ", ".join(profile_names(root)) or "none"
        raise InputError(f"unknown profile {name!r}: choose one of {known} in {folder}")
    if _is_study(path):
        raise InputError(f"{name!r} is a study and no profile: run it with `hdm study {path}`")
    return read_settings(path)


def _is_study(path: Path) -> bool:
    """A study, see `hdm.study`, has a grid, or parts with grids of their own."""
    try:
        text = _read_yaml(path)
    except InputError:  # it is told to whoever asks for this file
        return False
    return isinstance(text, dict) and bool({"grid", "parts"} & text.keys())


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, with `${NAME}` and `${NAME:-default}` taken from the environment.

    Raises InputError for a file that is not there or no mapping, and for a variable with neither value nor default.
    """
    settings = _read_yaml(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path} is no mapping: write one `setting: value` on each line")
    return _expand(settings, path)


def _expand(value: Any, path: Path) -> Any:
    """A setting with the environment's variables filled in, wherever it holds text."""

    def variable(match: re.Match[str]) -> str:
        # As in a shell, the default after `:-` also stands in for an empty value.
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            raise InputError(f"{path} needs the environment variable {match['name']}: set it, then try again")
        return found

    if isinstance(value, str):
        return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", variable, value)
    if isinstance(value, dict):
        return {key: _expand(item, path) for key, item in value.items()}
    return [_expand(item, path) for item in value] if isinstance(value, list) else value


def _toc_files(node: Any) -> Iterator[str]:
    """Every `root:` and `file:` in a table of contents, whatever parts and sections they stand in."""
    if isinstance(node, dict):
        yield from (str(node[key]) for key in ("root", "file") if key in node)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _toc_files(child)


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
