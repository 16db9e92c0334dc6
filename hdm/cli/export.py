"""`hdm export`: a trained network as an ONNX file."""

import argparse
from pathlib import Path

from hdm.cli.options import CHECKPOINT, Commands, Defaults, add_official, named_network


def add(commands: Commands) -> None:
    """Enters this command."""
    export = commands.add_parser(
        "export", help="write a trained network as an ONNX file", formatter_class=Defaults,
        description="Writes a network as ONNX: crops of persons go in, RGB in [0, 1], in batches of any size; raw "
        "heatmaps come out, and the maps that a decoder reads. The file's metadata name the joints, the decoder, the "
        "stride and the pixel convention. It is compared with PyTorch before it is written.",
    )  # fmt: skip
    export.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    export.add_argument("out", type=Path, metavar="OUT.onnx", help="the file to write")
    add_official(export)
    export.add_argument("--opset", type=int, default=17, help="version of ONNX's operators")
    export.add_argument(
        "--check", action=argparse.BooleanOptionalAction, default=True, help="compare with PyTorch, by onnxruntime"
    )
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from hdm.export import export_onnx, metadata

    network = named_network(options)
    path = export_onnx(network, options.out, opset=options.opset, check=options.check)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    for name, value in metadata(network).items():
        print(f"  {name}: {value}")
