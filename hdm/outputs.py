"""What an executed notebook shows, made fit to print: no paths of this machine, no warnings, no progress bars."""

import base64
import html
import re
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from sysconfig import get_path
from typing import Any

from PIL import Image

PHOTOGRAPH = 20_000  # bytes, above which a picture within a drawing is stored as a photograph
WIDGET = "application/vnd.jupyter.widget-view+json"


def machine_paths(root: Path) -> dict[str, str]:
    """Folders of this machine that no page may show, longest first, each with what stands in its place."""
    places = {
        root: ".",
        root.resolve(): ".",
        Path(sys.prefix): "<env>",
        Path(get_path("stdlib")): "<python>",
        Path.home(): "~",
        Path(tempfile.gettempdir()): "<tmp>",
    }
    ordered = sorted(places, key=lambda path: len(str(path)), reverse=True)
    return {path_pattern(path): places[path] for path in ordered if len(path.parts) > 1}


def path_pattern(path: Path) -> str:
    """A regular expression for a folder's path where it stands by itself or leads to something below it."""
    return rf"(?<![\w.]){re.escape(str(path))}(?![\w-]|\.\w)"


def without_machine_paths(text: str, root: Path) -> str:
    """A text with `.`, `<env>` and the like in place of folders of this machine."""
    for pattern, name in machine_paths(root).items():
        text = re.sub(pattern, name, text)
    return text


def with_light_photographs(drawing: str) -> str:
    """An SVG drawing with its large opaque pictures as JPEG: lossless, a page of photographs weighs megabytes."""

    def lighter(found: re.Match[str]) -> str:
        data = base64.b64decode(found[1])
        picture = Image.open(BytesIO(data)).convert("RGBA")
        if len(data) < PHOTOGRAPH or picture.getchannel("A").getextrema() != (255, 255):
            return found[0]
        stored = BytesIO()
        picture.convert("RGB").save(stored, "jpeg", quality=90, subsampling=0, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(stored.getvalue()).decode()}"

    return re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", lighter, drawing)


def lean(drawing: str) -> str:
    """An SVG drawing without what no reader sees: metadata, blanks between elements, digits below 1/100 of a point."""

    def short(found: re.Match[str]) -> str:
        return re.sub(r"(\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", found[0]))

    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    return re.sub(r'(?<= )(?:d|x|y)="[^"]*"', short, re.sub(r">\s+<", "><", drawing))


def clean_outputs(notebook: Any, root: Path) -> Any:
    """Make an executed notebook fit to print, in place: no paths of this machine, no standard error, no widgets,
    drawings that load fast, and injected parameters no more in sight than the cell that declares them.

    Warnings are for the person who runs the book, who has seen them; widgets, which is how progress bars appear in a
    notebook, need a live kernel. What papermill noted of paths and times goes too.
    """
    paths = machine_paths(root)

    def clean(text: Any, markup: bool = False) -> Any:
        if isinstance(text, list):
            return [clean(line, markup) for line in text]
        for pattern, name in paths.items() if isinstance(text, str) else ():
            text = re.sub(pattern, html.escape(name) if markup else name, text)
        return text

    declared: list[str] = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            declared = tags
        elif "injected-parameters" in tags and "remove-cell" in declared:
            cell.metadata.tags = [*tags, "remove-cell"]
    for part in (notebook, *notebook.cells):
        for key in ("papermill", "widgets", "execution"):
            part.metadata.pop(key, None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]
        for output in cell.outputs:
            if "text" in output:
                output.text = clean(output.text)
            for kind, content in output.get("data", {}).items():
                if kind.startswith("text/") or kind == "image/svg+xml":
                    output.data[kind] = clean(content, markup=kind in ("text/html", "text/markdown", "image/svg+xml"))
                if kind == "image/svg+xml" and isinstance(content, str):
                    output.data[kind] = lean(with_light_photographs(output.data[kind]))
    return notebook
