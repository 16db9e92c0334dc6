"""Zip and tar.gz archives from strangers: every member is looked at before any is written, and links are refused.

Members are written as plain files by this module; nothing of their owner, rights or type is taken over.
"""

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from tqdm import tqdm

from hdm.data.manifest import CHUNK
from hdm.errors import InputError

SUFFIXES = (".zip", ".tar.gz", ".tgz")
# What the libraries raise for an archive that is cut short, changed on the way, encrypted or of an unknown method.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


class Member(NamedTuple):
    """A member of an archive. kind: `file`, `folder`, or what makes it unwelcome. size: bytes."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.name.replace("\\", "/")).parts

    @property
    def top(self) -> str:
        return self.parts[0] if len(self.parts) > 1 else ""  # a file that lies in no folder


def unpack(archive: Path, directory: Path, folders: Iterable[str], *, progress: bool = True) -> dict[str, int]:
    """Takes the top-level `folders` out of an archive into `directory`; returns the number of files in each.

    Everything is first unpacked into a hidden folder beside, then moved: a folder that was not there appears whole,
    and files are added to one that was. An interruption leaves the archive, so that unpacking can start again.

    Raises InputError, before anything is written, where a member's path leaves the directory (absolute, `..`, a drive),
    or a member is a link or a device; and where a folder is not in the archive, the archive is damaged, or the disk is
    full.
    """
    folders = tuple(folders)
    hidden = directory / f".{archive.name}.unpacking"
    try:
        with _members(archive, progress) as members:
            for member in members:
                _check(member, archive)
            wanted = [member for member in members if member.kind == "file" and member.top in folders]
            counts = {folder: sum(member.top == folder for member in wanted) for folder in folders}
            absent = [folder for folder, count in counts.items() if not count]
            if absent:
                raise InputError(f"archive {archive} holds no folder {absent[0]}: it is not the manifest's; delete it")
            shutil.rmtree(hidden, ignore_errors=True)
            for member in tqdm(wanted, f"unpacking {archive.name}", unit=" files", disable=not progress):
                _write(member, hidden.joinpath(*member.parts))
        for folder in folders:
            _move(hidden / folder, directory / folder)
        shutil.rmtree(hidden, ignore_errors=True)
    except DAMAGE as error:  # one of them is an OSError too
        raise InputError(f"archive {archive} is damaged ({error}): delete it and fetch it again") from error
    except OSError as error:
        raise InputError(
            f"archive {archive} can't be unpacked into {directory} ({error.strerror}): free space or mend what is in "
            "the way, then fetch again"
        ) from error
    return counts


@contextmanager
def _members(archive: Path, progress: bool) -> Iterator[list[Member]]:
    """What an archive holds, in its order; readable as long as the context lasts."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield [_zip_member(opened, info) for info in opened.infolist()]
    elif archive.name.endswith(SUFFIXES):
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as opened:
            # A tar has no table of contents: all of it is read once to see what it holds.
            infos = tqdm(opened, f"looking through {archive.name}", unit=" files", disable=not progress)
            members = [_tar_member(opened, info, archive) for info in infos]
            while stream.read(CHUNK):  # to gzip's own end, where its checksum is
                pass
            yield members
    else:
        raise InputError(f"{archive} is no archive of a known kind: give one of {', '.join(SUFFIXES)}")


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(info.external_attr >> 16), "device")  # the file's mode, where the packer wrote it
    if kind == "file" and info.is_dir():
        kind = "folder"
    return Member(info.filename, kind, info.file_size, lambda: opened.open(info))


def _tar_member(opened: tarfile.TarFile, info: tarfile.TarInfo, archive: Path) -> Member:
    if info.issym() or info.islnk():
        kind = "link"
    else:
        kind = "file" if info.isreg() else "folder" if info.isdir() else "device"
    if kind in ("file", "folder") and hasattr(
        tarfile, "data_filter"
    ):  # a second opinion, from Python 3.12 and late 3.10, 3.11
        try:
            tarfile.data_filter(info, str(archive.parent))
        except tarfile.FilterError as error:
            raise _unsafe(archive, info.name, "leads out of the directory") from error
    return Member(info.name, kind, info.size, lambda: opened.extractfile(info))


def _check(member: Member, archive: Path) -> None:
    if member.kind not in ("file", "folder"):
        raise _unsafe(archive, member.name, f"is a {member.kind}")
    path = PurePosixPath(*member.parts)
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(member.name).drive:
        raise _unsafe(archive, member.name, "leads out of the directory")


def _unsafe(archive: Path, name: str, fault: str) -> InputError:
    return InputError(
        f"archive {archive} is not unpacked because its member {name!r} {fault}: delete it and look for its publisher"
    )


def _write(member: Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None  # only files come here
    with source, open(path, "wb") as file:
        shutil.copyfileobj(source, file, CHUNK)
        if file.tell() != member.size:
            raise EOFError(f"{member.name} has {file.tell()} of {member.size} bytes")


def _move(source: Path, target: Path) -> None:
    """Moves a folder into place at once, or entry by entry into one that is there."""
    if not target.exists():
        os.rename(source, target)
        return
    for entry in source.iterdir():
        if entry.is_dir():
            _move(entry, target / entry.name)
        else:
            os.replace(entry, target / entry.name)
