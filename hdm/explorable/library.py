"""The JavaScript that draws explorable figures: Vega, taken from an installed package when the book is built."""

from importlib.metadata import version
from pathlib import Path

from hdm.files import write_whole

# `.mjs`, because Jupyter Book loads every `.js` of a book's static files on every page, and this one is large.
SCRIPT = "vega.mjs"
LICENCE = "/*! Vega, Vega-Lite and vega-embed, University of Washington Interactive Data Lab, BSD 3-Clause */\n"


def vega_script(folder: Path) -> Path:
    """The path of a script below `folder` that defines `vegaEmbed`; made where it is not there, which takes seconds.

    Source: vl-convert's copy of Vega, which is also what draws the stills.
    """
    path = folder / f"vega-{version('vl-convert-python')}.mjs"
    if not path.is_file():
        import vl_convert

        bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        # Within a function, or its many short names would be those of every other script on the page.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{LICENCE}(() => {{\n{bundle}\n}})();\n".encode())
    return path
