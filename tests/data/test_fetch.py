"""`fetch` against a real server: whole data sets, interruptions, and files that are not what they should be."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from file_server import FileServer, running_server

from hdm.data.fetch import FetchReport, fetch
from hdm.data.manifest import RECORD, read_record
from hdm.errors import InputError

WEIGHTS = random.Random(2).randbytes(300_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
BOXES = "boxes/person.json"


def zipped(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return raw.getvalue()


IMAGES = {f"val2017/{number}.jpg": random.Random(number).randbytes(2000) for number in range(5)}
ANNOTATIONS = {"annotations/a.json": b"[]", "annotations/b.json": b"{}"}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running_server() as state:
        state.serve("val2017.zip", zipped(IMAGES | {"extra/readme.txt": b"not wanted"}))
        state.serve("annotations.zip", zipped(ANNOTATIONS))
        state.serve("one.pth", WEIGHTS)
        state.serve("two.pth", WEIGHTS[::-1])
        yield state


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdm.data.download.sleep", lambda seconds: None)


def manifest(server: FileServer, folder: Path, **changes: dict[str, Any]) -> Path:
    """A manifest of two archives, a file to be had by hand and two checkpoints; changes by a file's stem."""
    common = {"about": 300_000, "licence": "made here", "sha256": None}
    content: dict[str, list[dict[str, Any]]] = {
        "coco": [
            {"name": "annotations.zip", "unpacks": {"annotations": 2}, "unpacked": 4},
            {"name": "val2017.zip", "unpacks": {"val2017": 5}, "unpacked": 10_000},
            {"name": BOXES, "page": "https://a.page", "by_hand": "a shared folder"},
        ],
        "weights": [{"name": "one.pth"}, {"name": "two.pth"}],
    }
    for entry in [entry for entries in content.values() for entry in entries]:
        entry.update(common)
        if "page" not in entry:
            entry["url"] = server.url(entry["name"])
        entry.update(changes.get(Path(entry["name"]).stem, {}))
    path = folder / "manifest.yml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data"


def get(
    server: FileServer, place: Path, what: str = "weights", *, changes: dict | None = None, **options
) -> FetchReport:
    path = manifest(server, place.parent, **(changes or {}))
    return fetch(what, place, manifest=path, progress=False, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD
    }


# --- as it should be


def test_a_data_set_arrives_and_a_second_call_asks_for_nothing(server: FileServer, place: Path) -> None:
    report = get(server, place, "coco")
    assert contents(place) == IMAGES | ANNOTATIONS
    assert (report.there, report.fetched) == ((), ("annotations.zip", "val2017.zip"))
    assert report.by_hand == (
        f"by hand: open https://a.page (a shared folder) in a browser and save in {place}: {BOXES}",
    )
    assert not report.complete
    record = read_record(place)
    assert record["val2017.zip"]["unpacked"] == {"val2017": 5}
    assert record["val2017.zip"]["sha256"] == hashlib.sha256(server.files["/val2017.zip"].content).hexdigest()
    assert record["val2017.zip"]["size"] == len(server.files["/val2017.zip"].content)
    asked = len(server.asked)
    (place / BOXES).parent.mkdir()
    (place / BOXES).write_text("[]")
    again = get(server, place, "coco")
    assert again.complete and again.there == ("annotations.zip", "val2017.zip", BOXES)
    assert str(again).splitlines()[0] == "annotations.zip: is there"
    assert len(server.asked) == asked


def test_folders_of_somebody_who_has_them_are_not_fetched(server: FileServer, place: Path) -> None:
    for name, content in (IMAGES | ANNOTATIONS).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    assert get(server, place, "coco").there == ("annotations.zip", "val2017.zip")
    assert not server.asked


def test_a_lost_image_is_fetched_again(server: FileServer, place: Path) -> None:
    get(server, place, "coco")
    (place / "val2017" / "3.jpg").unlink()
    assert get(server, place, "coco").fetched == ("val2017.zip",)
    assert contents(place) == IMAGES | ANNOTATIONS


def test_archives_can_be_kept(server: FileServer, place: Path) -> None:
    get(server, place, "coco", keep_archives=True, only=["val2017.zip"])
    assert (place / "val2017.zip").read_bytes() == server.files["/val2017.zip"].content
    shutil.rmtree(place / "val2017")
    asked = len(server.asked)
    get(server, place, "coco", keep_archives=True, only=["val2017.zip"])  # unpacked again from what was kept
    assert len(server.asked) == asked
    assert (place / "val2017" / "0.jpg").read_bytes() == IMAGES["val2017/0.jpg"]


def test_a_part_of_the_manifest(server: FileServer, place: Path) -> None:
    assert get(server, place, only=["two.pth"]).fetched == ("two.pth",)
    assert contents(place) == {"two.pth": WEIGHTS[::-1]}
    assert get(server, place, only=["t*", "one.pth"]).fetched == ("one.pth",)


def test_what_is_misspelt(server: FileServer, place: Path) -> None:
    with pytest.raises(InputError, match="no file of weights is called 'three.pth': choose from one.pth, two.pth"):
        get(server, place, only=["one.pth", "three.pth"])
    with pytest.raises(InputError, match="unknown data 'cocoa': choose one of coco, mpii, weights"):
        get(server, place, "cocoa")
    assert not place.exists()


# --- interruptions


def test_a_killed_process_is_gone_on_with(server: FileServer, place: Path) -> None:
    served = server.serve("one.pth", WEIGHTS, rate=100_000)
    path = manifest(server, place.parent)
    call = f"fetch('weights', {str(place)!r}, only=['one.pth'], manifest=Path({str(path)!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", f"from pathlib import Path\nfrom hdm.data.fetch import fetch\n{call}"],
        stderr=subprocess.DEVNULL,
    )
    part = place / "one.pth.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 50_000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    arrived = part.stat().st_size
    assert 50_000 < arrived < len(WEIGHTS)
    assert part.read_bytes() == WEIGHTS[:arrived]
    served.rate = None
    get(server, place, only=["one.pth"])
    assert contents(place) == {"one.pth": WEIGHTS}
    assert server.ranges == [None, f"bytes={arrived}-"]


def test_a_stop_from_the_keyboard_says_how_to_go_on(
    server: FileServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("one.pth", WEIGHTS, cuts=[100_000])

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt, match="stopped at one.pth; .* goes on"):
        patched.setattr("hdm.data.download.sleep", stop)
        get(server, place)
    assert (place / "one.pth.part").stat().st_size == 100_000
    get(server, place)
    assert contents(place) == {"one.pth": WEIGHTS, "two.pth": WEIGHTS[::-1]}
    assert "bytes=100000-" in server.ranges


def test_a_stop_while_unpacking(server: FileServer, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive that the second call finds may be the user's own: it stays."""

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("hdm.data.archives._move", stop)
        get(server, place, "coco", only=["val2017.zip"])
    assert not (place / "val2017").exists()
    archive = (place / "val2017.zip").read_bytes()
    get(server, place, "coco", only=["val2017.zip"])
    assert contents(place) == IMAGES | {"val2017.zip": archive}
    assert len(server.asked) == 1


# --- files that are not what they should be


@pytest.mark.parametrize("given", ["sha256", "sha256_prefix"])
def test_a_published_hash(server: FileServer, place: Path, given: str) -> None:
    right = SHA256 if given == "sha256" else SHA256[:8]
    get(server, place, changes={"one": {given: right}})
    wrong = right[::-1]
    (place / "two.pth").unlink()
    with pytest.raises(
        InputError, match=f"two.pth has a SHA-256 that begins .* its publisher's begins {wrong[:8]}.*fetch it"
    ):
        get(server, place, changes={"two": {given: wrong}})
    assert contents(place) == {"one.pth": WEIGHTS, "two.pth.bad": WEIGHTS[::-1]}


def test_the_first_download_is_trusted_and_later_ones_are_compared(server: FileServer, place: Path) -> None:
    get(server, place, only=["one.pth"])
    date = read_record(place)["one.pth"]["date"]
    (place / "one.pth").unlink()
    server.serve("one.pth", WEIGHTS[:-1] + b"!")
    with pytest.raises(InputError, match=f"that of {date} begins {SHA256[:12]}: it is now one.pth.bad") as raised:
        get(server, place, only=["one.pth"])
    assert "forget one.pth in the record of downloads" in str(raised.value)
    assert set(contents(place)) == {"one.pth.bad"}
    server.serve("one.pth", WEIGHTS)
    get(server, place, only=["one.pth"])
    assert (place / "one.pth").read_bytes() == WEIGHTS


def test_a_file_that_changed_on_disk(server: FileServer, place: Path) -> None:
    get(server, place)
    (place / "one.pth").write_bytes(WEIGHTS[:1000])
    with pytest.raises(InputError, match="one.pth has a SHA-256 that begins"):
        get(server, place)
    assert get(server, place).fetched == ("one.pth",)
    assert (place / "one.pth").read_bytes() == WEIGHTS


def test_a_file_brought_by_hand_is_remembered(server: FileServer, place: Path) -> None:
    (place / BOXES).parent.mkdir(parents=True)
    (place / BOXES).write_text("[1]")
    get(server, place, "coco")
    (place / BOXES).write_text("[2]")
    with pytest.raises(InputError, match="person.json has a SHA-256"):
        get(server, place, "coco")


def test_one_file_that_is_gone_keeps_no_other_back(server: FileServer, place: Path) -> None:
    del server.files["/one.pth"]
    with pytest.raises(InputError, match="one.pth answers 404"):
        get(server, place)
    assert contents(place) == {"two.pth": WEIGHTS[::-1]}
    del server.files["/two.pth"]
    shutil.rmtree(place)
    with pytest.raises(InputError, match="one.pth answers 404 .*; and .*two.pth answers 404"):
        get(server, place)


def test_a_quota_page_names_the_page_to_open(server: FileServer, place: Path) -> None:
    server.serve("one.pth", b"<html>Quota exceeded</html>", kind="text/html")
    with pytest.raises(InputError, match="web page in place of one.pth .* open https://the.folder in a browser"):
        get(server, place, changes={"one": {"page": "https://the.folder", "by_hand": "the folder"}})
    assert "one.pth" not in contents(place)
    assert set(read_record(place)) == {"two.pth"}


def test_a_damaged_archive_does_not_bind_the_next_one(server: FileServer, place: Path) -> None:
    good = server.files["/val2017.zip"].content
    server.serve("val2017.zip", good[: len(good) // 2])
    with pytest.raises(InputError, match="val2017.zip is damaged .*: delete it and fetch it again"):
        get(server, place, "coco")
    assert not (place / "val2017").exists()
    (place / "val2017.zip").unlink()
    server.serve("val2017.zip", good)
    get(server, place, "coco")
    assert contents(place) == IMAGES | ANNOTATIONS


def test_an_unsafe_archive(server: FileServer, place: Path) -> None:
    server.serve("val2017.zip", zipped(IMAGES | {"../evil.jpg": b"evil"}))
    with pytest.raises(InputError, match="its member '../evil.jpg' leads out of the directory"):
        get(server, place, "coco")
    assert not (place / "val2017").exists() and not list(place.parent.rglob("evil.jpg"))


# --- disk and record


def usage(free: int) -> SimpleNamespace:
    return SimpleNamespace(total=10**12, used=0, free=free)


def test_a_disk_that_is_too_small(server: FileServer, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two archives of 300 kB in turn unpack to 4 bytes and 10 kB: 310 kB at most, and 610 kB where they are kept."""
    asked: list[Path] = []

    def disk(free: int):
        def look(path: Path) -> SimpleNamespace:
            asked.append(path)
            return usage(free)

        monkeypatch.setattr("hdm.data.fetch.shutil.disk_usage", look)

    disk(310_003)
    with pytest.raises(InputError, match=r"data needs about 310 kB and its disk has 310 kB free: free space"):
        get(server, place, "coco")
    disk(600_000)
    with pytest.raises(InputError, match="needs about 610 kB and its disk has 600 kB free"):
        get(server, place, "coco", keep_archives=True)
    assert not server.asked and not place.exists()
    assert set(asked) == {place.parent}  # the folder nearest to it that exists
    disk(310_004)
    get(server, place, "coco")
    disk(0)
    get(server, place, "coco")  # nothing is needed for what is there


def test_what_has_arrived_needs_no_more_space(server: FileServer, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir()
    (place / "one.pth.part").write_bytes(WEIGHTS[:200_000])
    monkeypatch.setattr("hdm.data.fetch.shutil.disk_usage", lambda path: usage(100_000))
    get(server, place, only=["one.pth"])
    assert (place / "one.pth").read_bytes() == WEIGHTS


def test_a_damaged_record_stops_everything(server: FileServer, place: Path) -> None:
    get(server, place)
    (place / RECORD).write_text((place / RECORD).read_text()[:-20])
    (place / "one.pth").unlink()
    asked = len(server.asked)
    with pytest.raises(InputError, match=f"{RECORD} can't be read"):
        get(server, place)
    assert len(server.asked) == asked


def test_a_folder_in_the_place_of_a_file(server: FileServer, place: Path) -> None:
    (place / "one.pth").mkdir(parents=True)
    with pytest.raises(InputError, match="one.pth can't be written .*check the directory"):
        get(server, place)
    (place / "one.pth").rmdir()
    get(server, place)
    assert contents(place) == {"one.pth": WEIGHTS, "two.pth": WEIGHTS[::-1]}


def test_a_record_grows_and_keeps_its_dates(server: FileServer, place: Path) -> None:
    get(server, place, only=["one.pth"])
    record = json.loads((place / RECORD).read_text())
    record["files"]["one.pth"]["date"] = "2020-02-02"
    (place / RECORD).write_text(json.dumps(record))
    get(server, place)
    record = read_record(place)
    assert set(record) == {"one.pth", "two.pth"}
    assert record["one.pth"]["date"] == "2020-02-02" < record["two.pth"]["date"]
    assert record["two.pth"]["url"] == server.url("two.pth")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_the_right_to_write(server: FileServer, place: Path) -> None:
    place.mkdir(mode=0o500)
    with pytest.raises(InputError, match="can't be written"):
        get(server, place)
