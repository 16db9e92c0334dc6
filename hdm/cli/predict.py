"""`hdm predict`: pictures in, annotated pictures and joints out."""

import argparse
from pathlib import Path

from hdm.cli.options import Commands, Defaults, size
from hdm.errors import InputError


def add(commands: Commands) -> None:
    """Enters this command."""
    predict = commands.add_parser(
        "predict", help="find joints in a picture, a folder of them or a video", formatter_class=Defaults,
        description="Reads the joints of people in pictures with a trained network, and writes each picture with limbs "
        "drawn into it, and results.json in the format of the COCO keypoint task. A network reads one person at a "
        "time: give persons' boxes, or the whole picture is taken for one.",
    )  # fmt: skip
    predict.add_argument("source", type=Path, help="a picture, a folder of pictures, or a video")
    predict.add_argument(
        "--checkpoint", type=Path, required=True,
        help="a run record's folder, a weights file of this project, or, with --model, an official checkpoint",
    )  # fmt: skip
    predict.add_argument("--model", help="of an official checkpoint: resnet50, resnet101, resnet152, hrnet_w32 ...")
    predict.add_argument("--input-size", type=size, metavar="ROWSxCOLUMNS", help="with --model; by default 256x192")
    predict.add_argument("--colour", help="with --model: rgb or bgr; by default bgr for ResNets, rgb for HRNets")
    predict.add_argument("--joints", type=int, default=17, help="with --model: 17 for COCO, 16 for MPII")
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
    from hdm.assess import load_network, official_network
    from hdm.poses import predict_all

    if options.model is None:
        network = load_network(options.checkpoint)
    elif options.checkpoint.is_dir():
        raise InputError(f"{options.checkpoint} is a run record, which knows its network: leave --model out")
    else:
        network = official_network(
            options.model, options.checkpoint, joints=options.joints, input_size=options.input_size or (256, 192),
            colour=options.colour,
        )  # fmt: skip
    pictures, people = predict_all(
        options.source,
        network,
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
