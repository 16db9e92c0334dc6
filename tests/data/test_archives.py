"""Unpacking: what is taken, what is refused, and what an interruption leaves."""

import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hdm.data import archives
from hdm.data.archives import unpack
from hdm.errors import InputError

FILES = {
    "images/a.jpg": random.Random(1).randbytes(3000),
    "images/deeper/b.jpg": b"",
    "images/..c.jpg": b"two dots that lead nowhere",
    "annot/valid.json": b"[1, 2]",
    "notes.txt": b"not asked for",
    "extra/d.jpg": b"nor this",
}


def zipped(path: Path, *more: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("images") if hasattr(archive, "mkdir") else archive.writestr("images/", b"")
        for name, content in FILES.items():
            archive.writestr(name, content)
        for info in more:
            archive.writestr(info, b"target")
    return path


def tarred(path: Path, *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("./images")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in FILES.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            info.mode = 0
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return path


MAKERS: dict[str, Callable[..., Path]] = {"a.zip": zipped, "a.tar.gz": tarred, "a.tgz": tarred}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def wanted(*folders: str) -> dict[str, bytes]:
    return {name: content for name, content in FILES.items() if name.split("/")[0] in folders}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("folders", [("images", "annot"), ("annot",)])
def test_the_folders_asked_for_come_out(tmp_path: Path, name: str, folders: tuple[str, ...]) -> None:
    archive = MAKERS[name](tmp_path / name)
    counts = unpack(archive, tmp_path / "out", folders, progress=False)
    assert counts == {folder: len(wanted(folder)) for folder in folders}
    assert contents(tmp_path / "out") == wanted(*folders)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(folders)  # nothing hidden is left


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_that_is_there_is_added_to(tmp_path: Path, name: str) -> None:
    archive = MAKERS[name](tmp_path / name)
    mine = tmp_path / "out" / "images" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    mine.with_name("a.jpg").write_bytes(b"half of the picture")
    unpack(archive, tmp_path / "out", ["images"], progress=False)
    assert contents(tmp_path / "out") == wanted("images") | {"images/mine.jpg": b"mine"}


def test_a_folder_that_is_not_in_the_archive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no folder train2017"):
        unpack(zipped(tmp_path / "a.zip"), tmp_path, ["images", "train2017"], progress=False)
    with pytest.raises(InputError, match="holds no folder notes.txt"):
        unpack(zipped(tmp_path / "a.zip"), tmp_path, ["notes.txt"], progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip"}


# --- members that are refused


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_info(name: str, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


EVIL: dict[str, tuple[str, tarfile.TarInfo | zipfile.ZipInfo, str]] = {
    "tar, up": ("a.tar.gz", tar_info("../evil"), "'../evil' leads out"),
    "tar, up and down": ("a.tar.gz", tar_info("images/../../evil"), "leads out"),
    "tar, up inside": ("a.tar.gz", tar_info("images/../evil"), "leads out"),
    "tar, absolute": ("a.tar.gz", tar_info("/tmp/evil"), "'/tmp/evil' leads out"),
    "tar, backslashes": ("a.tar.gz", tar_info("images\\..\\..\\evil"), "leads out"),
    "tar, drive": ("a.tar.gz", tar_info("C:/evil"), "'C:/evil' leads out"),
    "tar, symbolic link": (
        "a.tar.gz",
        tar_info("images/evil", tarfile.SYMTYPE, "/etc/passwd"),
        "'images/evil' is a link",
    ),
    "tar, link inside": ("a.tar.gz", tar_info("images/evil", tarfile.SYMTYPE, "a.jpg"), "is a link"),
    "tar, hard link": ("a.tar.gz", tar_info("images/evil", tarfile.LNKTYPE, "images/a.jpg"), "is a link"),
    "tar, device": ("a.tar.gz", tar_info("images/evil", tarfile.CHRTYPE), "is a device"),
    "tar, pipe": ("a.tar.gz", tar_info("images/evil", tarfile.FIFOTYPE), "is a device"),
    "zip, up": ("a.zip", zip_info("../evil"), "'../evil' leads out"),
    "zip, up inside": ("a.zip", zip_info("images/../../evil"), "leads out"),
    "zip, absolute": ("a.zip", zip_info("/tmp/evil"), "leads out"),
    "zip, drive": ("a.zip", zip_info("C:\\evil"), "leads out"),
    "zip, share": ("a.zip", zip_info("\\\\host\\share\\evil"), "leads out"),
    "zip, symbolic link": ("a.zip", zip_info("images/evil", stat.S_IFLNK), "'images/evil' is a link"),
    "zip, device": ("a.zip", zip_info("images/evil", stat.S_IFCHR), "is a device"),
}


@pytest.mark.parametrize("fault", EVIL)
@pytest.mark.parametrize("own_check_alone", [True, False])
def test_an_archive_with_an_unsafe_member_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, own_check_alone: bool
) -> None:
    """Though the member is the last one, and lies in a folder that was not asked for."""
    if own_check_alone:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    name, info, words = EVIL[fault]
    archive = MAKERS[name](tmp_path / name, info)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=words) as raised:
        unpack(archive, out, ["annot"], progress=False)
    assert str(archive) in str(raised.value)
    assert not list(out.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {name, "out"}


# --- damage and interruption


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_an_archive_that_is_cut_short(tmp_path: Path, name: str, share: float) -> None:
    archive = MAKERS[name](tmp_path / name)
    raw = archive.read_bytes()
    archive.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(InputError, match="is damaged .*: delete it and fetch it again"):
        unpack(archive, tmp_path, ["images", "annot"], progress=False)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith(".")} == set()


@pytest.mark.parametrize("name", MAKERS)
def test_a_byte_that_changed_on_the_way(tmp_path: Path, name: str) -> None:
    archive = MAKERS[name](tmp_path / name)
    raw = bytearray(archive.read_bytes())
    place = raw.index(FILES["images/a.jpg"][1000:1020]) if name == "a.zip" else len(raw) // 2
    raw[place] ^= 255
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="is damaged"):
        unpack(archive, tmp_path, ["images"], progress=False)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("name", MAKERS)
def test_no_archive_at_all(tmp_path: Path, name: str) -> None:
    archive = tmp_path / name
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="is damaged"):
        unpack(archive, tmp_path, ["images"], progress=False)
    other = tmp_path / "a.rar"
    other.touch()
    with pytest.raises(InputError, match="no archive of a known kind: give one of .zip"):
        unpack(other, tmp_path, ["images"], progress=False)


def test_a_path_that_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file")
    with pytest.raises(InputError, match="can't be unpacked into"):
        unpack(zipped(tmp_path / "a.zip"), tmp_path, ["images"], progress=False)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("step", ["_write", "_move"])
def test_an_interruption_leaves_no_half_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: str
) -> None:
    archive = MAKERS[name](tmp_path / name)
    real, calls = getattr(archives, step), []

    def stopping(*args) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(archives, step, stopping)
        unpack(archive, tmp_path / "out", ["images", "annot"], progress=False)
    visible = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert visible == (set() if step == "_write" else {"images"})
    for folder in visible:
        assert contents(tmp_path / "out" / folder) == {
            path.removeprefix(f"{folder}/"): content for path, content in wanted(folder).items()
        }
    unpack(archive, tmp_path / "out", ["images", "annot"], progress=False)
    assert contents(tmp_path / "out") == wanted("images", "annot")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"images", "annot"}
