"""`hdm book`: notebooks run, pages built and checked."""

import argparse

from hdm.cli.options import Commands, Defaults


def add(commands: Commands) -> None:
    """Enters this command."""
    book = commands.add_parser(
        "book", help="run the notebooks and build the pages", formatter_class=Defaults,
        description="Runs each notebook that changed, or whose profile, package or inputs changed, "
        "then builds the HTML.",
    )  # fmt: skip
    book.add_argument("--profile", default="quick", help="which file of book/profiles to use: smoke, quick, cpu, ...")
    book.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="only these notebooks")
    book.add_argument("--force", action="store_true", help="run also what has not changed")
    book.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="set a notebook parameter"
    )
    book.add_argument(
        "--list", action="store_true", help="say which notebooks are there and in what state, and run none"
    )
    book.add_argument(
        "--check", action="store_true", help="look for faults in the built pages instead (exit status 1 if any)"
    )
    book.set_defaults(run=_book)


def _book(options: argparse.Namespace) -> int:
    from hdm.book import check_pages, run_book
    from hdm.notebooks import parse_parameters

    if options.list:
        for line in _listed(options.profile):
            print(line)
        return 0
    if options.check:
        problems = check_pages(options.profile)
        print("\n".join(problems) or "every page is there, with its figures and without errors")
        return 1 if problems else 0
    index = run_book(
        options.profile, only=options.only, force=options.force, parameters=parse_parameters(options.parameter)
    )
    print(f"open {index}")
    return 0


def _listed(profile: str) -> list[str]:
    """One line a notebook: its name, state, last run (UTC), seconds and parameters, in columns."""
    from hdm.executions import notebook_states

    rows = [("notebook", "state", "last run (UTC)", "seconds", "parameters")]
    for entry in notebook_states(profile):
        started = (entry["started"] or "-").replace("T", " ").removesuffix("+00:00")
        seconds = "-" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
        parameters = " ".join(f"{name}={value}" for name, value in entry["parameters"].items())
        rows.append((entry["notebook"], entry["state"], started, seconds, parameters or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
