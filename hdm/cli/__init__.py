"""The `hdm` command: each subcommand calls one public function.

Bad input ends with one sentence on standard error and exit status 2; a run that was stopped, with 128 and the number of
the signal.
"""

import argparse
import sys
from collections.abc import Sequence

from hdm.cli import bench, book, data, evaluate, export, predict, train
from hdm.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line (that of the process by default) and returns its exit status."""
    parser = argparse.ArgumentParser(prog="hdm", description="Heatmap Distribution Matching: data, training, book.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (data, train, evaluate, predict, export, bench, book):
        module.add(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except InputError as error:
        print(f"hdm {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"hdm {options.command}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 128 + getattr(stop, "signal", 2)
