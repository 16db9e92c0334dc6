"""`hdm synth`, `hdm fetch`, `hdm cache`: data sets made, downloaded, and decoded once."""

import argparse
from pathlib import Path

from hdm.cli.options import Commands, Defaults, size
from hdm.errors import InputError


def add(commands: Commands) -> None:
    """Enters these commands."""
    synth = commands.add_parser(
        "synth", help="make the generated data set", formatter_class=Defaults,
        description="Draws jointed figures with exact annotations, in COCO's directory layout. "
        "The same seed gives the same bytes.",
    )  # fmt: skip
    synth.add_argument("directory", type=Path, help="where to put it")
    synth.add_argument("--images", type=int, default=1000, help="number of pictures; the last fifth is for validation")
    synth.add_argument("--seed", type=int, default=0, help="of everything drawn")
    synth.set_defaults(run=_synth)

    fetch = commands.add_parser(
        "fetch", help="download data sets and official weights, and check what is there", formatter_class=Defaults,
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

    cache = commands.add_parser(
        "cache", help="decode the parts of pictures that training shows, once, into one file", formatter_class=Defaults,
        description="Makes a crop cache: for each person the part of the picture that any view can show, decoded, in "
        "one file for the train part and one for the val part (plain views). Crops from it are to the bit those from "
        "the image files, and faster; the image files need not be there then. It takes some ten times their bytes.",
    )  # fmt: skip
    cache.add_argument("data", help="coco:DIR, mpii:DIR or synthetic:DIR")
    cache.add_argument("folder", type=Path, help="where to put it; train with --set cache=FOLDER")
    cache.add_argument(
        "--input-size", type=size, default=(256, 192), metavar="ROWSxCOLUMNS", help="of the crop in pixels"
    )
    cache.add_argument("--rotation", type=float, default=40.0, help="of the augmentation, in degrees; 0 for none")
    cache.add_argument("--scale", type=float, default=0.3, help="of the augmentation: largest change, as a share")
    cache.add_argument("--half-body", type=float, default=0.0, help="of the augmentation: probability, 0 for none")
    cache.add_argument("--convention", default="half_pixel", help="half_pixel, hrnet or udp")
    cache.add_argument("--full-size", action="store_true", help="for runs that set reduced to false")
    cache.add_argument("--check", action="store_true", help="compare the SHA-256 of FOLDER's pixels instead")
    cache.set_defaults(run=_cache)


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


def _cache(options: argparse.Namespace) -> int:
    from hdm.data.augment import Augmentation
    from hdm.data.cache import check_cache, make_cache

    if options.check:
        problems = check_cache(options.folder)
        print("\n".join(problems) or f"{options.folder}: every part is whole")
        return 1 if problems else 0
    reports = make_cache(
        options.data,
        options.folder,
        options.input_size,
        augmentation=Augmentation(options.rotation, options.scale, half_body=options.half_body),
        convention=options.convention,
        reduced=not options.full_size,
    )
    for report in reports:
        sizes = f"{report.bytes / 1e6:.0f} MB from {report.jpeg_bytes / 1e6:.0f} MB of image files"
        state = f"made in {report.seconds:.0f} s" if report.made else "is there already"
        print(f"{report.part}: {report.persons} persons, {sizes}, {state}")
    return 0
