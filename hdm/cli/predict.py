"""`hdm predict`: pictures in, annotated pictures and joints out."""

import argparse
from pathlib import Path

from hdm.cli.options import CHECKPOINT, Commands, Defaults, add_official, named_network


def add(commands: Commands) -> None:
    """Enters this command."""
    predict = commands.add_parser(
        "predict", help="find joints in a picture, a folder of them or a video", formatter_class=Defaults,
        description="Reads the joints of people in pictures with a trained network, and writes each picture with limbs "
        "drawn into it, and results.json in the format of the COCO keypoint task. A network reads one person at a "
        "time: give persons' boxes, or the whole picture is taken for one.",
    )  # fmt: skip
    predict.add_argument("source", type=Path, help="a picture, a folder of pictures, or a video")
    predict.add_argument("--checkpoint", type=Path, required=True, help=CHECKPOINT)
    add_official(predict)
    predict.add_argument("--boxes", type=Path, help="persons' boxes: a JSON list of {image_id, bbox, score}")
    predict.add_argument("--least-box-score", type=float, default=0.0, help="boxes below are left out")
    predict.add_argument("--least-score", type=float, default=0.2, help="joints below are not drawn")
    predict.add_argument("--out", type=Path, default=Path("predictions"), help="where the results go")
    predict.add_argument("--heatmaps", action="store_true", help="write the heatmaps too, as .npz beside the picture")
    predict.add_argument("--flip-test", action="store_true", help="average with the mirror image's maps")
    predict.add_argument("--batch-size", type=int, default=32, help="persons per pass")
    predict.add_argument("--device", default="auto", help="auto, cpu or cuda")
    predict.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> None:
    from hdm.poses import predict_all

    pictures, people = predict_all(
        options.source,
        named_network(options),
        options.out,
        boxes=options.boxes,
        least_box_score=options.least_box_score,
        least_score=options.least_score,
        heatmaps=options.heatmaps,
        flip_test=options.flip_test,
        batch_size=options.batch_size,
        device=options.device,
    )
    print(f"{people} people in {pictures} pictures: {options.out}")
