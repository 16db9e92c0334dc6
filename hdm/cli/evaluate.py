"""`hdm evaluate`: a trained network by the benchmark's protocol."""

import argparse
import dataclasses
from pathlib import Path

from hdm.cli.options import Commands, Defaults, size
from hdm.errors import InputError


def add(commands: Commands) -> None:
    """Enters this command."""
    evaluate = commands.add_parser(
        "evaluate", help="score a trained network by the benchmark's protocol", formatter_class=Defaults,
        description="Runs a checkpoint of the official repositories, or a run of this project, on the validation part "
        "of a data set, and prints AP (COCO's layout) or PCKh (MPII) in percent, with the source of the boxes. "
        "Official checkpoints are used as their repositories use them: hrnet pixels, quarter shift, flip test, "
        "the person's score from joints above 0.2, OKS-NMS at 0.9. On COCO's layout further rows show what other "
        "definitions of the person's score give.",
    )  # fmt: skip
    evaluate.add_argument("data", help="coco:DIR, mpii:DIR or synthetic:DIR")
    which = evaluate.add_mutually_exclusive_group(required=True)
    which.add_argument("--weights", type=Path, help="a checkpoint of the official repositories")
    which.add_argument("--run", dest="run_record", type=Path, metavar="FOLDER", help="a run record of this project")
    evaluate.add_argument("--model", help="with --weights: resnet50, resnet101, resnet152, hrnet_w32, hrnet_w48")
    evaluate.add_argument(
        "--input-size", type=size, metavar="ROWSxCOLUMNS",
        help="with --weights: of the crop in pixels; by default 256x192, for MPII 256x256",
    )  # fmt: skip
    evaluate.add_argument("--colour", help="with --weights: rgb or bgr; by default bgr for ResNets, rgb for HRNets")
    evaluate.add_argument("--boxes", type=Path, help="a detector's box file; without one, ground-truth boxes")
    evaluate.add_argument(
        "--decoder", help="instead of quarter, or the run's: argmax, quarter, dark, udp, local, integral"
    )
    evaluate.add_argument("--convention", help="instead of hrnet, or the run's: half_pixel, hrnet, udp")
    evaluate.add_argument(
        "--flip-test", action=argparse.BooleanOptionalAction, default=True, help="average with the mirror image's maps"
    )
    evaluate.add_argument("--score", help="only this definition of a person's score: joints, max, mass, box")
    evaluate.add_argument("--score-threshold", type=float, default=0.2, help="with --score: joints below do not count")
    evaluate.add_argument("--nms", type=float, default=0.9, help="with --score: OKS-NMS threshold; 0 for none")
    evaluate.add_argument("--predictions", type=Path, help="write the file for the official evaluation: .json or .mat")
    evaluate.add_argument("--limit", type=int, help="only the first so many persons or boxes")
    evaluate.add_argument("--batch-size", type=int, default=32, help="persons per pass")
    evaluate.add_argument("--workers", type=int, default=0, help="processes that read images")
    evaluate.add_argument("--device", default="auto", help="auto, cpu or cuda")
    evaluate.add_argument("--checkpoints", type=Path, default=Path("data/checkpoints"), help="with --run: its weights")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from hdm.assess import RESCORINGS, assess, network_of_run, official_network, published_rows
    from hdm.data import COCO, MPII
    from hdm.protocols import Rescoring

    mpii = options.data.startswith("mpii:")
    if options.run_record is not None:
        network = network_of_run(options.run_record, options.checkpoints)
    elif options.model is None:
        raise InputError("--weights needs --model: say which network they belong to, such as hrnet_w32")
    else:
        input_size = options.input_size or ((256, 256) if mpii else (256, 192))
        joints = (MPII if mpii else COCO).joints
        network = official_network(
            options.model, options.weights, joints=joints, input_size=input_size, colour=options.colour
        )
    changes = {name: value for name in ("decoder", "convention") if (value := getattr(options, name)) is not None}
    network = dataclasses.replace(network, **changes)
    rescorings: tuple[Rescoring, ...] = RESCORINGS
    if options.score is not None:
        rescorings = (Rescoring(options.score, options.score_threshold, options.nms or None),)
    table = assess(
        network,
        options.data,
        boxes=options.boxes,
        flip_test=options.flip_test,
        rescorings=rescorings,
        predictions=options.predictions,
        limit=options.limit,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
    )
    print(table.round(2).to_string(index=False))
    if options.model is not None and len(published := published_rows(options.model, network.input_size, table)):
        print(f"published for this network, size and box source:\n{published.to_string(index=False)}")
