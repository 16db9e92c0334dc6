"""What the commands' options have in common."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hdm.errors import InputError

if TYPE_CHECKING:
    from hdm.assess import Trained

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
CHECKPOINT = "a run record's folder, a weights file of this project, or, with --model, an official checkpoint"


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


def add_official(parser: argparse.ArgumentParser) -> None:
    """Enters the options that say what network an official checkpoint belongs to."""
    parser.add_argument("--model", help="of an official checkpoint: resnet50, resnet101, resnet152, hrnet_w32 ...")
    parser.add_argument("--input-size", type=size, metavar="ROWSxCOLUMNS", help="with --model; by default 256x192")
    parser.add_argument("--colour", help="with --model: rgb or bgr; by default bgr for ResNets, rgb for HRNets")
    parser.add_argument("--joints", type=int, default=17, help="with --model: 17 for COCO, 16 for MPII")


def named_network(options: argparse.Namespace) -> "Trained":
    """The network that `checkpoint` and the options of `add_official` name."""
    from hdm.assess import load_network, official_network

    if options.model is None:
        return load_network(options.checkpoint)
    if options.checkpoint.is_dir():
        raise InputError(f"{options.checkpoint} is a run record, which knows its network: leave --model out")
    input_size = options.input_size or (256, 192)
    return official_network(
        options.model, options.checkpoint, joints=options.joints, input_size=input_size, colour=options.colour
    )


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help with default values, but for options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)
