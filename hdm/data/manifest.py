"""What can be fetched (`manifest.yml`), and what was (`DIR/.hdm-fetch.json`).

The manifest names other people's files: address, size, licence, and the SHA-256 where its publisher gives one. Where
none is given, the first download is trusted: its hash is recorded beside the data and compared with from then on.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from hdm.errors import InputError
from hdm.files import write_whole

KINDS = ("coco", "mpii", "weights")
MANIFEST = Path(__file__).with_name("manifest.yml")
RECORD = ".hdm-fetch.json"
CHUNK = 1 << 18  # bytes read at a time

Record = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Asset:
    """One file of the manifest; `manifest.yml` explains the fields. Sizes in bytes."""

    name: str
    about: int
    licence: str
    size: int | None = None
    url: str | None = None
    page: str | None = None
    by_hand: str | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    unpacks: dict[str, int] = field(default_factory=dict)
    unpacked: int = 0
    optional: bool = False

    @property
    def bytes(self) -> int:
        """The size where it is known, else the estimate."""
        return self.about if self.size is None else self.size


def read_manifest(path: Path = MANIFEST) -> dict[str, tuple[Asset, ...]]:
    """The files of each kind. Raises InputError where the manifest can't be read or an entry is not as it should be."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        manifest = {kind: tuple(Asset(**entry) for entry in entries) for kind, entries in content.items()}
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise InputError(f"manifest {path} can't be read ({error}): mend it or install hdm again") from error
    for asset in (asset for assets in manifest.values() for asset in assets):
        if asset.url is None and not (asset.page and asset.by_hand):
            raise InputError(f"{asset.name} in manifest {path} has neither url nor page and by_hand: add what is known")
        if asset.url is not None and not asset.url.startswith(("http://", "https://")):
            raise InputError(f"{asset.name} in manifest {path} has the url {asset.url!r}: give one of http or https")
    return manifest


def read_record(directory: Path) -> Record:
    """Name -> url, size, sha256, date and unpacked folders of what was fetched into a directory; empty at first.

    Raises InputError where the record is damaged: without it, nothing vouches for the files.
    """
    path = directory / RECORD
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        if not all(isinstance(entry["sha256"], str) for entry in files.values()):
            raise TypeError("an entry has no sha256")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"record of downloads {path} can't be read ({error}): restore it, or delete it to trust the files that are "
            "there from now on"
        ) from error
    return files


def write_record(directory: Path, record: Record) -> None:
    """Writes the record whole or not at all."""
    write_whole(directory / RECORD, (json.dumps({"files": record}, indent=1) + "\n").encode())


def disagreement(asset: Asset, sha256: str, record: Record) -> str | None:
    """What a file's hash contradicts, as the end of a sentence; None where it agrees or nothing is known."""
    published = asset.sha256 or asset.sha256_prefix or ""
    if not sha256.startswith(published.lower()):
        return f"its publisher's begins {published[:12]}"
    known = record.get(asset.name)
    if known is not None and known["sha256"] != sha256:
        return f"that of {known.get('date', 'an earlier download')} begins {known['sha256'][:12]}"
    return None


def is_unpacked(asset: Asset, directory: Path, record: Record) -> bool:
    """Whether every folder of an archive is there with its files: as many as were unpacked, or as the publisher's.

    So the folders of somebody who already had them count as well.
    """
    counts = record.get(asset.name, {}).get("unpacked") or asset.unpacks
    return bool(counts) and all(_files(directory / folder) >= count for folder, count in counts.items())


def sha256_of(path: Path, *, progress: bool = False) -> str:
    """The hash of a file. Raises InputError where it can't be read."""
    try:
        return hash_file(path, progress=progress)[0].hexdigest()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check its rights or fetch it again") from error


def hash_file(path: Path, *, progress: bool = False) -> tuple[Any, int]:
    """A SHA-256 object that has seen the whole file, ready for more, and the number of bytes it saw."""
    digest, size = hashlib.sha256(), 0
    total = path.stat().st_size
    with (
        open(path, "rb") as file,
        tqdm(total=total, desc=f"checking {path.name}", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            bar.update(len(chunk))
    return digest, size


def readable(size: int) -> str:
    """A number of bytes as people say it: 12.5 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB" if value < 999.5 else f"{value:,.0f} GB"


def _files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))
