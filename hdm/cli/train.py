"""`hdm train`, `hdm study`, `hdm runs`: one run, a grid of them, and what came out."""

import argparse
import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

from hdm.cli.options import Commands, add_places
from hdm.errors import InputError


def add(commands: Commands) -> None:
    """Enters these commands."""
    train = commands.add_parser(
        "train", help="train one network and write a run record",
        description="Trains on coco:DIR, mpii:DIR or synthetic:DIR, or as one run of a profile does. "
        "Stopped and called again, it goes on where it was. The same line runs on several GPUs and machines behind "
        "`accelerate launch` or `torchrun`. "
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
    train.add_argument(
        "--resume", default="auto", metavar="auto|never|PATH",
        help="go on from the run's newest state, start over, or go on from a state of the same settings elsewhere "
        "(default: %(default)s)",
    )  # fmt: skip
    train.add_argument("--tensorboard", type=Path, metavar="DIR", help="write TensorBoard's files there too")
    train.add_argument("--progress", action=argparse.BooleanOptionalAction, help="show a bar (default: on a terminal)")
    add_places(train)
    train.set_defaults(run=_train)

    study = commands.add_parser(
        "study", help="train a grid of settings, here or on a Ray cluster",
        description="Trains every cell of a study's grid that has no record yet; what was cut goes on from its last "
        "state, and what another process trains is passed over. hdm.study says what a study file looks like; "
        "book/studies has an example.",
    )  # fmt: skip
    study.add_argument("file", type=Path, metavar="FILE.yml", help="the study")
    study.add_argument(
        "--plan", "--dry-run", action="store_true", help="only say what is done, running, cut or new, and how many"
    )
    study.add_argument(
        "--only", action="append", default=[], metavar="TEXT",
        help="only this part or run, or those runs whose names contain the text; may be repeated",
    )  # fmt: skip
    study.add_argument(
        "--jobs", type=int, default=1, metavar="N",
        help="train N runs at once on this machine, each with its share of the threads (default: %(default)s)",
    )  # fmt: skip
    study.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="on a Ray cluster: auto, local, HOST:PORT or ray://HOST:PORT; without an address the one on this machine, "
        "or else one that is started for this study (needs the extra `cluster`)",
    )  # fmt: skip
    study.add_argument("--gpus-per-run", type=float, default=0, help="with --ray; 0.5: two share one (default: 0)")
    study.add_argument("--cpus-per-run", type=float, default=1, help="with --ray; also threads (default: 1)")
    study.add_argument(
        "--retries",
        type=int,
        default=3,
        help="with --ray: how often a run that lost its node begins again (default: 3)",
    )
    study.add_argument("--again", action="store_true", help="train also what has a record")
    add_places(study)
    study.set_defaults(run=_study)

    runs = commands.add_parser(
        "runs", help="list, filter and compare run records",
        description="One row for each record, oldest first: the start of its run id, what was run, mean pixel error, "
        "AP (COCO's layout) or PCKh@0.5 (MPII), minutes, the share of the training time in percent in which it waited "
        "for data, machine, and commit (+ for uncommitted changes). Columns that are the same in all rows move below "
        "a table that is wider than the terminal. A run is named by the start of its run id or key, or by its folder.",
    )  # fmt: skip
    runs.add_argument("--runs", type=Path, default=Path("data/runs"), help="where records are (default: %(default)s)")
    runs.add_argument("--profile", help="only records of this profile")
    runs.add_argument(
        "--where", action="append", default=[], metavar="CONDITION",
        help="only records that meet it: a setting, a result or another column, one of = != < <= > >=, and a value, "
        "such as 'loss=hdm', 'error_px<10', 'input_size=[128, 96]'; may be repeated, and all must hold",
    )  # fmt: skip
    runs.add_argument("--sort", metavar="COLUMN", help="smallest first; --sort=-COLUMN for largest first")
    runs.add_argument("--columns", nargs="+", metavar="COLUMN", help="show these instead, such as lr batch_size AP75")
    runs.add_argument("--csv", action="store_true", help="as CSV, with all digits")
    instead = runs.add_mutually_exclusive_group()
    instead.add_argument(
        "--compare", nargs="+", metavar="RUN", help="instead: in what two or more differ, and how far their results"
    )
    instead.add_argument("--show", metavar="RUN", help="instead: one record in full")
    runs.set_defaults(run=_runs)


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
    run = train(
        config,
        profile=label,
        runs=options.runs,
        checkpoints=options.checkpoints,
        resume=options.resume,
        progress=options.progress,
        tensorboard=options.tensorboard,
    )
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
        print(f"record {run.folder}\nweights {run.checkpoint}")


def _study(options: argparse.Namespace) -> None:
    from hdm.study import choose, plan, plan_text, read_study, run_study

    if options.ray is not None and options.jobs != 1:
        raise InputError("--jobs is for this machine alone: with --ray, --cpus-per-run says how many runs have room")
    study = choose(read_study(options.file), options.only)
    places = {"runs": options.runs, "checkpoints": options.checkpoints}
    if options.plan:
        print(plan_text(study, plan(study, **places)))
        return
    if options.ray is None:
        finished = run_study(study, jobs=options.jobs, reuse=not options.again, **places)
    else:
        from hdm.cluster import run_on_ray

        finished = run_on_ray(
            study,
            address=options.ray or None,
            gpus_per_run=options.gpus_per_run,
            cpus_per_run=options.cpus_per_run,
            retries=options.retries,
            reuse=not options.again,
            **places,
        )
    print("\n".join(f"{name}: record {run.folder}" for name, run in finished.items()))


def _runs(options: argparse.Namespace) -> None:
    from hdm.runs import as_text, compare_runs, fit_table, runs_table, show_run

    width = shutil.get_terminal_size((160, 24)).columns
    if options.show is not None:
        print(show_run(options.runs, options.show, width=width))
        return
    if options.compare is not None:
        table, text = compare_runs(options.runs, options.compare), as_text
    else:
        text = fit_table
        table = runs_table(
            options.runs,
            profile=options.profile,
            where=options.where,
            sort=options.sort,
            columns=options.columns or (),
        )
    if options.csv:
        print(table.to_csv(index=False), end="")
    elif table.columns.empty:
        print(f"{options.runs} holds no run records: make one with `hdm train --profile quick`, or name another --runs")
    else:
        print(text(table, width) if len(table) else "no run record meets these conditions")
