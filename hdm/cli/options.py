"""What the commands' options have in common."""

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def size(text: str) -> tuple[int, int]:
    """(64, 48) from 64x48."""
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give rows x columns, such as 64x48") from None


def add_places(parser: argparse.ArgumentParser) -> None:
    """Enters the options that say where a training's results go."""
    parser.add_argument("--runs", type=Path, default=Path("data/runs"), help="where records go (default: %(default)s)")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("data/checkpoints"), help="where weights go (default: %(default)s)"
    )


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help with default values, but for options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)
