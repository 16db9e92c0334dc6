"""Downloads of data sets and weights that can be trusted, stopped and gone on with (`hdm fetch`).

Each file of the manifest is downloaded (`hdm.data.download`), its hash compared with the published one or with that
of the first download (`hdm.data.manifest`), and unpacked where it is an archive (`hdm.data.archives`). What is
complete is left alone, so the same command may be given again at any time. Sources: the publishers', as `manifest.yml`
names them.
"""

import datetime
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from hdm.data.archives import unpack
from hdm.data.download import download, part_of
from hdm.data.manifest import (
    KINDS,
    MANIFEST,
    Asset,
    Record,
    disagreement,
    is_unpacked,
    read_manifest,
    read_record,
    readable,
    sha256_of,
    write_record,
)
from hdm.errors import InputError


@dataclass(frozen=True)
class FetchReport:
    """What `fetch` found and did, by the names of the manifest. by_hand: what the user must do, a sentence a page."""

    directory: Path
    there: tuple[str, ...]
    fetched: tuple[str, ...]
    by_hand: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do by hand."""
        return not self.by_hand

    def __str__(self) -> str:
        lines = [f"{name}: is there" for name in self.there]
        lines += [f"{name}: fetched" for name in self.fetched]
        return "\n".join([*lines, *self.by_hand])


def fetch(
    what: str,
    directory: Path | str,
    *,
    only: Sequence[str] | None = None,
    keep_archives: bool = False,
    progress: bool = True,
    manifest: Path = MANIFEST,
) -> FetchReport:
    """Gets `coco`, `mpii` or `weights` into a directory, in the official layout.

    only: names of the manifest, or patterns such as `pose_*`, for a part of it. keep_archives: don't delete what was
    downloaded after unpacking it; an archive that was there before is kept in any case. A file that its publisher only
    shows in a browser is not downloaded: the report says what to do.

    One file that can't be had does not keep the others back; then InputError is raised at the end, with a clause for
    each. It is raised at once where something is misspelt, the record of earlier downloads is damaged, or the disk is
    too small. A file whose hash is not what it should be is moved to NAME.bad. KeyboardInterrupt leaves what has
    arrived, for the next call.
    """
    directory = Path(directory)
    assets = _chosen(what, only, manifest)
    record = read_record(directory)
    _check_space(assets, directory, record, keep_archives)
    done: dict[str, list[Asset]] = {"there": [], "fetched": [], "by hand": []}
    failed: list[str] = []
    for asset in assets:
        try:
            done[_fetch_one(asset, directory, record, keep_archives, progress)].append(asset)
        except InputError as error:
            failed.append(str(error))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped at {asset.name}; what has arrived is kept in {directory}, and the same command goes on"
            ) from None
    if failed:
        raise InputError("; and ".join(failed))
    there, fetched = (tuple(asset.name for asset in done[state]) for state in ("there", "fetched"))
    return FetchReport(directory, there, fetched, _what_to_do(done["by hand"], directory))


def _chosen(what: str, only: Sequence[str] | None, manifest: Path) -> list[Asset]:
    if what not in KINDS:
        raise InputError(f"unknown data {what!r}: choose one of {', '.join(KINDS)}")
    assets = read_manifest(manifest).get(what, ())
    if only is None:
        return list(assets)
    for pattern in only:
        if not any(fnmatchcase(asset.name, pattern) for asset in assets):
            names = ", ".join(asset.name for asset in assets)
            raise InputError(f"no file of {what} is called {pattern!r}: choose from {names}")
    return [asset for asset in assets if any(fnmatchcase(asset.name, pattern) for pattern in only)]


def _check_space(assets: list[Asset], directory: Path, record: Record, keep_archives: bool) -> None:
    """Compares the disk's free space with the most that will be needed at once: each file, then what it unpacks to."""
    held = needed = 0
    for asset in assets:
        target = directory / asset.name
        if is_unpacked(asset, directory, record) or (asset.url is None and not target.exists()):
            continue
        here = sum(path.stat().st_size for path in (target, part_of(target)) if path.is_file())
        to_come = 0 if target.is_file() else max(0, asset.bytes - here)
        needed = max(needed, held + to_come + asset.unpacked)
        held += asset.unpacked + (to_come if keep_archives or not asset.unpacks else 0)
    existing = next(folder for folder in (directory, *directory.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(
            f"{directory} needs about {readable(needed)} and its disk has {readable(free)} free: free space, choose "
            "another directory, or fetch less at once"
        )


def _fetch_one(asset: Asset, directory: Path, record: Record, keep_archives: bool, progress: bool) -> str:
    """Brings one file of the manifest to its end: `there`, `fetched` or `by hand`."""
    if is_unpacked(asset, directory, record):
        return "there"
    target = directory / asset.name
    if target.is_file():
        state, arrived, sha256 = "there", target, sha256_of(target, progress=progress)
    elif asset.url is None:
        return "by hand"
    else:
        sha256 = download(asset.url, target, size=asset.size, page=asset.page, progress=progress)
        state, arrived = "fetched", part_of(target)
    _accept(asset, arrived, target, sha256, record)
    counts: dict[str, int] = {}
    downloaded = state == "fetched"
    if asset.unpacks:
        counts = unpack(target, directory, asset.unpacks, progress=progress)
        state = "fetched"
    # After unpacking, which finds an archive that is damaged: its hash must not bind the next download.
    if asset.name not in record or counts:
        _note(asset, target, sha256, counts, directory, record)
    if asset.unpacks and downloaded and not keep_archives:  # an archive that was there before is the user's
        target.unlink()
    return state


def _accept(asset: Asset, arrived: Path, target: Path, sha256: str, record: Record) -> None:
    """Moves a file into place, or to NAME.bad where its hash is not the one to expect."""
    contradicted = disagreement(asset, sha256, record)
    place = target if contradicted is None else target.with_name(f"{target.name}.bad")
    try:
        os.replace(arrived, place)
    except OSError as error:
        raise InputError(
            f"{place} can't be written ({error.strerror}): check the directory's rights and fetch again"
        ) from error
    if contradicted is not None:
        expected = "" if asset.sha256 or asset.sha256_prefix else f", or forget {asset.name} in the record of downloads"
        raise InputError(
            f"{target} has a SHA-256 that begins {sha256[:12]}, and {contradicted}: it is now {place.name}; fetch it "
            f"again{expected}"
        )


def _note(asset: Asset, target: Path, sha256: str, counts: dict[str, int], directory: Path, record: Record) -> None:
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    entry = {"url": asset.url or asset.page, "size": target.stat().st_size, "sha256": sha256, "date": today}
    # The date of a hash is that of its first sight.
    record[asset.name] = {**entry, **record.get(asset.name, {}), **({"unpacked": counts} if counts else {})}
    write_record(directory, record)


def _what_to_do(assets: list[Asset], directory: Path) -> tuple[str, ...]:
    """A sentence for each page, with the files to save from there."""
    names: dict[tuple[str | None, str | None], list[str]] = {}
    for asset in assets:
        names.setdefault((asset.page, asset.by_hand), []).append(asset.name)
    return tuple(
        f"by hand: open {page} ({which}) in a browser and save in {directory}: {', '.join(files)}"
        for (page, which), files in names.items()
    )
