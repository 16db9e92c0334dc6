"""What of a data set or of the weights is in a directory, and whether it is what its publisher gave out.

Files are counted and hashed as they are, without the loaders: this is what to look at before believing them. Official
numbers: persons of COCO's and MPII's parts as the official recipes load them (SimpleBaseline and HRNet, `lib/dataset`),
boxes as HRNet's log counts them, images as the publishers' archives hold them.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.io import loadmat

from hdm.data.download import part_of
from hdm.data.manifest import (
    MANIFEST,
    Asset,
    Record,
    disagreement,
    read_manifest,
    read_record,
    readable,
    sha256_of,
)
from hdm.data.skeletons import PERSON
from hdm.errors import InputError

COCO_PARTS = {"train2017": (149_813, 118_287), "val2017": (6_352, 5_000)}  # persons, images
MPII_PARTS = {"train": 22_246, "valid": 2_958}  # persons
MPII_TRUTH = (16, 2, 2_958)  # joints, (x, y), persons
DETECTIONS, DETECTED = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json", 104_125
LARGE = 500_000_000  # bytes; larger downloads are hashed again only on request


@dataclass(frozen=True)
class Item:
    """One line of an inventory. state: `ok`, `missing` or `differs`. optional: may be missing."""

    name: str
    state: str
    detail: str
    optional: bool = False


@dataclass(frozen=True)
class Inventory:
    """What is in a directory. kind: `coco`, `mpii` or `weights`."""

    directory: Path
    kind: str
    items: tuple[Item, ...]

    @property
    def complete(self) -> bool:
        """Whether something is there, nothing that is needed is missing, and nothing differs from what is expected."""
        needed = [item for item in self.items if not (item.optional and item.state == "missing")]
        return bool(needed) and all(item.state == "ok" for item in needed)

    def __str__(self) -> str:
        lines = [f"{self.kind} in {self.directory}: {'complete' if self.complete else 'not complete'}"]
        for item in self.items:
            state = "optional" if item.optional and item.state == "missing" else item.state
            lines.append(f"  {state:<8}  {item.name}: {item.detail}")
        return "\n".join(lines)


def check(directory: Path | str, *, thorough: bool = False, manifest: Path = MANIFEST) -> Inventory:
    """Looks through a directory in COCO's or MPII's layout, or a folder of weights.

    thorough: also hash again the downloads above 500 MB. A file that is damaged or not the official one is a line that
    says so. Raises InputError where the directory is none of the three, or its record of downloads is damaged.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory: give the folder of the data, or fetch them first")
    assets = read_manifest(manifest)
    record = read_record(directory)
    kind = _kind(directory, assets)
    if kind == "coco":
        items = _coco(directory)
    elif kind == "mpii":
        items = _mpii(directory)
    else:
        items = []
    named = {item.name for item in items}
    for asset in assets.get(kind, ()):
        target = directory / asset.name
        if part_of(target).exists() or (kind == "weights" and not target.exists()):
            items.append(_to_come(asset, directory))
        elif target.exists() and (kind == "weights" or asset.name in record):
            items.append(_download(asset, target, record, thorough))
        elif asset.name in record and asset.name not in named:
            entry = record[asset.name]
            items.append(Item(asset.name, "ok", f"unpacked on {entry['date']}, sha256 {entry['sha256'][:12]}"))
    return Inventory(directory, kind, tuple(items))


def _kind(directory: Path, assets: dict[str, tuple[Asset, ...]]) -> str:
    signs = {"coco": ["annotations", "train2017", "val2017"], "mpii": ["annot", "images"], "weights": []}
    for kind, folders in signs.items():
        targets = [directory / asset.name for asset in assets.get(kind, ())]
        if any((directory / folder).is_dir() for folder in folders) or any(
            path.exists() for target in targets for path in (target, part_of(target))
        ):
            return kind
    raise InputError(
        f"{directory} holds neither COCO (annotations/, val2017/), nor MPII (annot/, images/), nor known weights: give "
        "the folder itself, or fetch into it"
    )


# --- COCO


def _coco(directory: Path) -> list[Item]:
    items = []
    for part, (persons, images) in COCO_PARTS.items():
        name = f"annotations/person_keypoints_{part}.json"
        item, listed = _counted(directory, name, _coco_persons, "persons with keypoints", persons)
        items += [item, _images(directory / part, listed, images)]
    return [*items, _counted(directory, DETECTIONS, _coco_boxes, "person boxes", DETECTED, optional=True)[0]]


def _coco_persons(content: Any) -> tuple[int, set[str]]:
    """Those that the official recipe trains on (no crowd, an area, and some keypoint that is not 0), and all images."""
    persons = sum(
        annotation["category_id"] == PERSON
        and not annotation["iscrowd"]
        and annotation["area"] > 0
        and any(annotation["keypoints"])
        for annotation in content["annotations"]
    )
    return persons, {image["file_name"] for image in content["images"]}


def _coco_boxes(content: Any) -> tuple[int, set[str]]:
    return sum(detection["category_id"] == PERSON for detection in content), set()


# --- MPII


def _mpii(directory: Path) -> list[Item]:
    items: list[Item] = []
    listed: set[str] = set()
    for part, persons in MPII_PARTS.items():
        item, images = _counted(directory, f"annot/{part}.json", _mpii_persons, "persons", persons)
        items.append(item)
        listed |= images or set()
    return [*items, _mpii_truth(directory), _images(directory / "images", listed or None, None)]


def _mpii_persons(content: Any) -> tuple[int, set[str]]:
    return len(content), {person["image"] for person in content}


def _mpii_truth(directory: Path) -> Item:
    name = "annot/gt_valid.mat"
    path = directory / name
    if not path.is_file():
        return Item(name, "missing", "not there")
    try:
        shape = loadmat(str(path))["pos_gt_src"].shape
    except Exception as error:  # scipy raises whatever it stumbles over in a file that is not its own
        return Item(name, "differs", f"{_size(path)}, not a MATLAB file with pos_gt_src ({error})")
    return _compared(name, path, f"pos_gt_src {shape}", shape == MPII_TRUTH, str(MPII_TRUTH))


# --- lines


def _counted(
    directory: Path,
    name: str,
    count: Callable[[Any], tuple[int, set[str]]],
    unit: str,
    official: int,
    optional: bool = False,
) -> tuple[Item, set[str] | None]:
    """The line of a JSON file, and the images that it lists; None where it is missing or of another form."""
    path = directory / name
    if not path.is_file():
        return Item(name, "missing", "not there", optional), None
    try:
        content = json.loads(path.read_bytes())
        number, images = count(content)
    except (OSError, ValueError) as error:
        return Item(name, "differs", f"{_size(path)}, not valid JSON ({error})"), None
    except (KeyError, TypeError, AttributeError) as error:
        return Item(name, "differs", f"{_size(path)}, not the annotation file it is called ({error!r})"), None
    return _compared(name, path, f"{number:,} {unit}", number == official, f"{official:,}"), images


def _compared(name: str, path: Path, found: str, same: bool, official: str) -> Item:
    verdict = "as official" if same else f"official {official}: not the official file"
    detail = f"{_size(path)}, sha256 {sha256_of(path)[:12]}, {found}, {verdict}"
    return Item(name, "ok" if same else "differs", detail)


def _images(folder: Path, listed: set[str] | None, official: int | None) -> Item:
    """The line of a folder of images, which should hold those that its annotation file lists."""
    name = f"{folder.name}/"
    if not folder.is_dir():
        return Item(name, "missing", "not there")
    with os.scandir(folder) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    detail = f"{len(sizes):,} files, {readable(sum(sizes.values()))}"
    absent: list[str] = []
    if listed is not None:
        absent = sorted(listed - sizes.keys())
        here = (
            "all there"
            if not absent
            else f"{len(absent):,} missing ({', '.join(absent[:3])}{', ...' * (len(absent) > 3)})"
        )
        detail += f"; {len(listed):,} listed, {here}"
    number = len(sizes) if listed is None else len(listed)
    same = official is None or number == official
    if not same:
        detail += f"; official {official:,}"
    return Item(name, "ok" if same and not absent else "differs", detail)


def _to_come(asset: Asset, directory: Path) -> Item:
    part = part_of(directory / asset.name)
    if part.exists():
        detail = f"stopped at {_size(part)} of about {readable(asset.bytes)}: fetch again to go on"
    else:
        detail = f"not there ({'hdm fetch gets it' if asset.url else 'to be had by hand: hdm fetch says where'})"
    return Item(asset.name, "missing", detail, asset.optional)


def _download(asset: Asset, path: Path, record: Record, thorough: bool) -> Item:
    """The line of a file whose hash is published or recorded."""
    known = asset.sha256 or asset.sha256_prefix or asset.name in record
    if path.stat().st_size > LARGE and not thorough:
        return Item(asset.name, "ok", f"{_size(path)}, not hashed again (large)")
    sha256 = sha256_of(path)
    contradicted = disagreement(asset, sha256, record)
    if contradicted is not None:
        return Item(asset.name, "differs", f"{_size(path)}, sha256 {sha256[:12]}, but {contradicted}: fetch it again")
    source = "published" if asset.sha256 or asset.sha256_prefix else "recorded"
    verdict = f"as {source}" if known else "nothing to compare with"
    return Item(asset.name, "ok", f"{_size(path)}, sha256 {sha256[:12]}, {verdict}")


def _size(path: Path) -> str:
    return readable(path.stat().st_size)
