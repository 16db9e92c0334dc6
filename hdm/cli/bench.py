"""`hdm bench`: the measurements behind the book's statements."""

import argparse
import os
from pathlib import Path

from hdm.cli.options import Commands, Defaults, size


def add(commands: Commands) -> None:
    """Enters this command."""
    bench = commands.add_parser("bench", help="measure what the book states, and write a record")
    benches = bench.add_subparsers(dest="what", required=True, metavar="WHAT")
    speed = benches.add_parser(
        "transport", help="time the loss beside others", formatter_class=Defaults,
        description="Times forward and backward of HDM, of other losses and of other libraries' solvers on the same "
        "inputs, in turn, and writes a record. Columns: ms (median), times Gaussian MSE (in the median, and of the "
        "fastest), largest relative error against the exact distance, peak memory as a multiple of the heatmaps' own.",
    )  # fmt: skip
    speed.add_argument(
        "--sizes", nargs="+", type=size, default=[(64, 48), (96, 72), (128, 128)], metavar="ROWSxCOLUMNS",
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
        "protocol", help="measure what mistakes in the benchmarks' protocols cost", formatter_class=Defaults,
        description="Scores the same predictions rightly and wrongly: perfect heatmaps and known errors on MPII, "
        "which needs no pictures, and trained networks on COCO's layout.",
    )  # fmt: skip
    traps.add_argument("--coco", required=True, metavar="coco:DIR", help="its validation part is scored")
    traps.add_argument("--mpii", required=True, metavar="mpii:DIR", help="its annotations are enough")
    traps.add_argument("--runs", nargs="+", type=Path, required=True, metavar="FOLDER", help="records of the networks")
    traps.add_argument("--checkpoints", type=Path, default=Path("data/checkpoints"), help="where their weights are")
    traps.add_argument("--limit", type=int, help="only the first so many persons")
    traps.set_defaults(run=_bench_protocol)
    feed = benches.add_parser(
        "pipeline", help="time the input pipeline, and beside mmpose's", formatter_class=Defaults,
        description="Times reading, augmenting and batching of person crops from JPEG files and from a crop cache, in "
        "turn with mmpose's own pipeline where --peer names a python that has it, and writes a record. Columns: images "
        "per second, per core, their spread over the rounds, CPU milliseconds per image, times mmpose by time and by "
        "CPU time, and the share of a simulated step's time spent waiting for data.",
    )  # fmt: skip
    feed.add_argument("data", help="coco:DIR or synthetic:DIR; its train part is read")
    feed.add_argument("--input-size", type=size, default=(256, 192), metavar="ROWSxCOLUMNS", help="of a crop in pixels")
    feed.add_argument("--persons", type=int, default=2000, help="at most so many, of randomly chosen images")
    feed.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2, 4], help="processes; 0: in the main one")
    feed.add_argument("--batch-size", type=int, default=32, help="persons per step")
    feed.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    feed.add_argument("--peer", type=Path, metavar="PYTHON", help="python of an environment with mmpose")
    feed.add_argument("--assume-step-ms", type=float, metavar="MS", help="simulate a GPU that takes so long for a step")
    feed.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True, help="measure the crop cache too")
    feed.add_argument("--device", default="auto", help="auto, cpu or cuda: where the stages that need one run")
    feed.set_defaults(run=_bench_pipeline)
    steps = benches.add_parser(
        "step", help="time a training step and what goes with it", formatter_class=Defaults,
        description="Times the phases of training steps, and decoders and metrics in turn with them, and writes a "
        "record. With a data set also real short trainings (share of the time that they wait for data, memory over "
        "epochs) and a validation.",
    )  # fmt: skip
    steps.add_argument("data", nargs="?", help="coco:DIR or synthetic:DIR")
    steps.add_argument(
        "--models", nargs="+", default=["resnet18", "resnet50"], metavar="MODEL",
        help="decoders and metrics are compared with the last one",
    )  # fmt: skip
    steps.add_argument(
        "--sizes", nargs="+", type=size, default=[(256, 192)], metavar="ROWSxCOLUMNS", help="of the crops in pixels"
    )
    steps.add_argument("--losses", nargs="+", default=["gaussian_mse", "hdm"], metavar="LOSS", help="as in hdm train")
    steps.add_argument(
        "--precisions", nargs="+", default=["float32", "bfloat16"], metavar="PRECISION",
        help="float32, bfloat16 or, on a GPU, float16",
    )  # fmt: skip
    steps.add_argument("--batch-size", type=int, default=8, help="persons per step")
    steps.add_argument("--rounds", type=int, default=5, help="how often each runs")
    steps.add_argument("--persons", type=int, default=48, help="at most so many are trained on")
    steps.add_argument("--val-persons", type=int, default=200, help="at most so many are validated")
    steps.add_argument("--device", default="auto", help="auto, cpu or cuda")
    steps.set_defaults(run=_bench_step)
    flow = benches.add_parser(
        "flow", help="let the heatmaps of trained runs descend their own loss", formatter_class=Defaults,
        description="Takes the raw heatmaps of trained runs on persons that they were validated on, lets the heatmaps "
        "themselves descend the loss of the run, and writes a record of loss and located error along the way. Columns: "
        "loss and error in crop pixels from start to end, share of joints that end with a larger error, "
        "share whose loss no longer falls (at the target, or stuck), mean of "
        "Kendall's tau between loss and error of single joints, share of their falling steps on which the error rises, "
        "and by how much the mean error lies above its least value so far, in crop pixels.",
    )  # fmt: skip
    flow.add_argument("which", nargs="+", metavar="RUN", help="run id, key or folder of a record")
    flow.add_argument("--data", required=True, help="coco:DIR, mpii:DIR or synthetic:DIR that the runs were trained on")
    flow.add_argument("--persons", type=int, default=64, help="the first so many")
    flow.add_argument("--steps", type=int, default=200, help="of the descent")
    flow.add_argument(
        "--rate", type=float, default=0.01, help="what the first steps change, as a share of how far maps are from flat"
    )
    flow.add_argument("--every", type=int, default=5, help="steps between two looks at loss and error")
    flow.add_argument("--device", default="auto", help="auto, cpu or cuda")
    flow.add_argument("--runs", type=Path, default=Path("data/runs"), help="where the records of the runs are")
    flow.add_argument("--checkpoints", type=Path, default=Path("data/checkpoints"), help="where their weights are")
    flow.set_defaults(run=_bench_flow)
    for each in (speed, traps, feed, steps, flow):
        each.add_argument("--benchmarks", type=Path, default=Path("data/benchmarks"), help="where the record goes")


def _bench_transport(options: argparse.Namespace) -> None:
    _quiet_profiler()
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


def _bench_pipeline(options: argparse.Namespace) -> None:
    from hdm.bench import bench_pipeline, pipeline_table

    folder, table = bench_pipeline(
        options.data,
        input_size=options.input_size,
        persons=options.persons,
        workers=options.workers,
        batch_size=options.batch_size,
        rounds=options.rounds,
        peer=options.peer,
        assume_step_ms=options.assume_step_ms,
        cached=options.cache,
        device=options.device,
        directory=options.benchmarks,
    )
    print(pipeline_table(table).to_string(index=False))
    print(f"record {folder}")


def _bench_step(options: argparse.Namespace) -> None:
    _quiet_profiler()
    from hdm.bench import bench_step, step_table

    folder, table = bench_step(
        options.models,
        options.sizes,
        options.losses,
        options.precisions,
        batch_size=options.batch_size,
        rounds=options.rounds,
        data=options.data,
        persons=options.persons,
        val_persons=options.val_persons,
        device=options.device,
        directory=options.benchmarks,
    )
    print(step_table(table).to_string(index=False))
    print(f"record {folder}")


def _bench_flow(options: argparse.Namespace) -> None:
    from hdm.bench.flow import bench_flow, flow_table

    folder, record, table = bench_flow(
        options.which,
        options.data,
        persons=options.persons,
        steps=options.steps,
        rate=options.rate,
        every=options.every,
        device=options.device,
        runs=options.runs,
        checkpoints=options.checkpoints,
        directory=options.benchmarks,
    )
    print(flow_table(record, table).to_string(index=False))
    print(f"record {folder}")


def _quiet_profiler() -> None:
    """The profiler that counts memory talks on standard error; torch reads these when it is imported."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
