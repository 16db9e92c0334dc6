"""The `hdm` command: each subcommand calls one public function.

Bad input ends with one sentence on standard error and exit status 2.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hdm.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line (that of the process by default) and returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except InputError as error:
        print(f"hdm {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"hdm {options.command}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130


def _synth(options: argparse.Namespace) -> None:
    from hdm.data.synthetic import make_synthetic

    root = make_synthetic(options.directory, images=options.images, seed=options.seed)
    print(f"{root}: ready; use it as synthetic:{root}")


def _fetch(options: argparse.Namespace) -> int:
    from hdm.data.fetch import fetch
    from hdm.data.inventory import check

    if options.check is not None:
        inventory = check(options.check, thorough=options.thorough)
        print(inventory)
        return 0 if inventory.complete else 1
    if options.what is None:
        raise InputError("say what to fetch, coco, mpii or weights, or give --check DIR")
    directory = options.directory or Path("data") / options.what
    print(fetch(options.what, directory, only=options.only, keep_archives=options.keep_archives))
    return 0


def _train(options: argparse.Namespace) -> None:
    from hdm.data import prepare_data
    from hdm.notebooks import parse_parameters
    from hdm.project import load_profile
    from hdm.train import TrainConfig, run_configs, train

    given = {
        name: getattr(options, name)
        for name in ("model", "loss", "decoder", "epochs", "batch_size", "lr", "seed", "device")
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    changes |= parse_parameters(options.set)
    if options.data is not None:
        config = TrainConfig.from_dict({"data": options.data, **changes})
        label = "local"
    else:
        profile = load_profile(options.profile)
        configs = run_configs(profile)
        if options.name not in configs:
            raise InputError(
                f"profile {options.profile} has no run {options.name!r}: choose one of {', '.join(configs)}"
            )
        prepare_data(profile)
        config = TrainConfig.from_dict({**dataclasses.asdict(configs[options.name]), **changes})
        label = options.profile
    run = train(config, profile=label, runs=options.runs, checkpoints=options.checkpoints)
    print(f"record {run.folder}\nweights {run.checkpoint}")


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


def _book(options: argparse.Namespace) -> int:
    from hdm.book import check_pages, run_book
    from hdm.notebooks import parse_parameters

    if options.check:
        problems = check_pages(options.profile)
        print("\n".join(problems) or "every page is there, with its figures and without errors")
        return 1 if problems else 0
    index = run_book(
        options.profile, only=options.only, force=options.force, parameters=parse_parameters(options.parameter)
    )
    print(f"open {index}")
    return 0


def _bench_transport(options: argparse.Namespace) -> None:
    # The profiler that counts memory talks on standard error; torch reads these when it is imported.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from hdm.bench import bench_transport, speed_table

    folder, table = bench_transport(
        options.sizes,
        options.batches,
        joints=options.joints,
        rounds=options.rounds,
        limit_s=options.limit,
        threads=options.threads,
        device=options.device,
        directory=options.benchmarks,
    )
    print(speed_table(table).to_string(index=False))
    print(f"record {folder}")


def _bench_protocol(options: argparse.Namespace) -> None:
    from hdm.bench import bench_protocol

    folder, table = bench_protocol(
        options.coco,
        options.mpii,
        options.runs,
        checkpoints=options.checkpoints,
        directory=options.benchmarks,
        limit=options.limit,
    )
    print(table.drop(columns=["data", "persons"]).round(2).to_string(index=False))
    print(f"record {folder}")


def _size(text: str) -> tuple[int, int]:
    """(64, 48) from 64x48."""
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give rows x columns, such as 64x48") from None


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help with default values, but for options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    defaults = _Defaults
    parser = argparse.ArgumentParser(prog="hdm", description="Heatmap Distribution Matching: data, training, book.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    synth = commands.add_parser(
        "synth", help="make the generated data set", formatter_class=defaults,
        description="Draws jointed figures with exact annotations, in COCO's directory layout. "
        "The same seed gives the same bytes.",
    )  # fmt: skip
    synth.add_argument("directory", type=Path, help="where to put it")
    synth.add_argument("--images", type=int, default=1000, help="number of pictures; the last fifth is for validation")
    synth.add_argument("--seed", type=int, default=0, help="of everything drawn")
    synth.set_defaults(run=_synth)

    fetch = commands.add_parser(
        "fetch", help="download data sets and official weights, and check what is there", formatter_class=defaults,
        description="Downloads what is named into the layout that the other commands read. A download that was cut "
        "off goes on where it stopped; every file's SHA-256 is compared with the published one or, where none is "
        "published, with that of the first download. What its publisher only shows in a browser is named with its "
        "page. --check downloads nothing: it says what is there, what is missing and whether the counts of persons "
        "are the official ones, with exit status 1 where something is missing or differs.",
    )  # fmt: skip
    fetch.add_argument("what", nargs="?", choices=["coco", "mpii", "weights"], help="what to download")
    fetch.add_argument("directory", nargs="?", type=Path, help="where to put it; by default data/coco and so on")
    fetch.add_argument("--only", nargs="+", metavar="NAME", help="only these files; patterns such as 'pose_*' too")
    fetch.add_argument("--keep-archives", action="store_true", help="don't delete archives once they are unpacked")
    fetch.add_argument("--check", type=Path, metavar="DIR", help="say what is in DIR instead")
    fetch.add_argument("--thorough", action="store_true", help="with --check: hash large files too")
    fetch.set_defaults(run=_fetch)

    train = commands.add_parser(
        "train", help="train one network and write a run record",
        description="Trains on coco:DIR, mpii:DIR or synthetic:DIR, or as one run of a profile does. "
        "Stopped and called again, it goes on after its last complete epoch. "
        "Settings not given keep the profile's value, or hdm.train.TrainConfig's default.",
    )  # fmt: skip
    source = train.add_mutually_exclusive_group(required=True)
    source.add_argument("data", nargs="?", help="coco:DIR, mpii:DIR or synthetic:DIR, in the official layouts")
    source.add_argument("--profile", help="take data and settings from book/profiles/PROFILE.yml")
    train.add_argument("--name", default="hdm", help="with --profile: which of its runs (default: %(default)s)")
    train.add_argument(
        "--model", help="resnet18 to resnet152, hrnet_w32, hrnet_w48, or timm:<name> (default: resnet18)"
    )
    train.add_argument(
        "--loss", help="hdm, or one it is compared with: gaussian_mse, ohkm, adaptive_wing, cross_entropy, kl, js, "
        "expected_cost, integral, dsnt, simcc, rle (default: hdm)",
    )  # fmt: skip
    train.add_argument("--decoder", help="argmax, quarter, dark, udp, local or integral (default: local)")
    train.add_argument("--epochs", type=int, help="passes over the training part (default: 10)")
    train.add_argument("--batch-size", type=int, help="persons per step (default: 32)")
    train.add_argument("--lr", type=float, help="peak learning rate of Adam (default: 0.001)")
    train.add_argument("--seed", type=int, help="of weights, order and views (default: 0)")
    train.add_argument("--device", help="auto, cpu or cuda (default: auto)")
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="any other setting of hdm.train.TrainConfig, such as 'input_size=[128, 96]' (rows, columns in pixels), "
        "'warm_start=0.4' (share of the steps), 'loss_settings={sigma: 1.0}' (heatmap pixels); may be repeated",
    )  # fmt: skip
    train.add_argument("--runs", type=Path, default=Path("data/runs"), help="where records go (default: %(default)s)")
    train.add_argument(
        "--checkpoints", type=Path, default=Path("data/checkpoints"), help="where weights go (default: %(default)s)"
    )
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate", help="score a trained network by the benchmark's protocol", formatter_class=defaults,
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
        "--input-size", type=_size, metavar="ROWSxCOLUMNS",
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

    bench = commands.add_parser("bench", help="measure what the book states, and write a record")
    benches = bench.add_subparsers(dest="what", required=True, metavar="WHAT")
    speed = benches.add_parser(
        "transport", help="time the loss beside others", formatter_class=defaults,
        description="Times forward and backward of HDM, of other losses and of other libraries' solvers on the same "
        "inputs, in turn, and writes a record. Columns: ms (median), times Gaussian MSE (in the median, and of the "
        "fastest), largest relative error against the exact distance, peak memory as a multiple of the heatmaps' own.",
    )  # fmt: skip
    speed.add_argument(
        "--sizes", nargs="+", type=_size, default=[(64, 48), (96, 72), (128, 128)], metavar="ROWSxCOLUMNS",
        help="heatmap sizes in pixels",
    )  # fmt: skip
    speed.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 256], help="images per batch")
    speed.add_argument("--joints", type=int, default=17, help="maps per image")
    speed.add_argument("--rounds", type=int, default=15, help="how often each runs")
    speed.add_argument("--limit", type=float, default=20.0, help="seconds: what takes longer than this is left out")
    speed.add_argument("--threads", type=int, default=2, help="of the CPU")
    speed.add_argument("--device", default="auto", help="auto, cpu or cuda")
    speed.set_defaults(run=_bench_transport)
    traps = benches.add_parser(
        "protocol", help="measure what mistakes in the benchmarks' protocols cost", formatter_class=defaults,
        description="Scores the same predictions rightly and wrongly: perfect heatmaps and known errors on MPII, "
        "which needs no pictures, and trained networks on COCO's layout.",
    )  # fmt: skip
    traps.add_argument("--coco", required=True, metavar="coco:DIR", help="its validation part is scored")
    traps.add_argument("--mpii", required=True, metavar="mpii:DIR", help="its annotations are enough")
    traps.add_argument("--runs", nargs="+", type=Path, required=True, metavar="FOLDER", help="records of the networks")
    traps.add_argument("--checkpoints", type=Path, default=Path("data/checkpoints"), help="where their weights are")
    traps.add_argument("--limit", type=int, help="only the first so many persons")
    traps.set_defaults(run=_bench_protocol)
    for each in (speed, traps):
        each.add_argument("--benchmarks", type=Path, default=Path("data/benchmarks"), help="where the record goes")

    book = commands.add_parser(
        "book", help="run the notebooks and build the pages", formatter_class=defaults,
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
        "--check", action="store_true", help="look for faults in the built pages instead (exit status 1 if any)"
    )
    book.set_defaults(run=_book)
    return parser


if __name__ == "__main__":
    sys.exit(main())
