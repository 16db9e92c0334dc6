"""Downloading from a real server on this machine: whole, in parts, and from one that misbehaves."""

import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import full_disk
from file_server import FileServer, running_server

from hdm.data.download import ATTEMPTS, download, part_of
from hdm.errors import InputError

CONTENT = random.Random(1).randbytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running_server() as state:
        yield state


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "deeper" / "weights.pth"


def get(server: FileServer, target: Path, **options) -> str:
    """Downloads `file` without pauses, and looks that hash and bytes are of one mind."""
    sha256 = download(server.url("file"), target, progress=False, wait_s=0.001, timeout_s=5.0, **options)
    assert hashlib.sha256(part_of(target).read_bytes()).hexdigest() == sha256
    return sha256


def test_a_file_arrives_whole(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT)
    assert get(server, target) == SHA256
    assert part_of(target).read_bytes() == CONTENT
    assert not target.exists()  # that is for the caller, who knows the hash
    assert server.ranges == [None]


def test_an_empty_file(server: FileServer, target: Path) -> None:
    server.serve("file", b"")
    assert get(server, target) == hashlib.sha256().hexdigest()


def test_a_server_that_does_not_tell_the_length(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT, has_length=False)
    assert get(server, target) == SHA256


@pytest.mark.parametrize("there", [1, 300_000, len(CONTENT) - 1])
def test_what_is_there_is_not_sent_again(server: FileServer, target: Path, there: int) -> None:
    server.serve("file", CONTENT)
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:there])
    assert get(server, target) == SHA256
    assert server.ranges == [f"bytes={there}-"]


def test_a_part_that_is_complete_needs_no_byte(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT)
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    assert get(server, target) == SHA256
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_begun_anew(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT)
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + b"more")
    assert get(server, target) == SHA256
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize("there, stated", [(300_000, "bytes 0-699999/700000"), (len(CONTENT), "nonsense")])
def test_a_server_that_sends_another_part(server: FileServer, target: Path, there: int, stated: str) -> None:
    """Or says of a part that it is complete without a word of the length: all is begun anew."""
    server.serve("file", CONTENT, stated=stated)
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:there])
    assert get(server, target) == SHA256
    assert server.ranges == [f"bytes={there}-", None]


def test_a_server_without_ranges_sends_everything_again(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT, ranges=False)
    target.parent.mkdir()
    part_of(target).write_bytes(b"something else")
    assert get(server, target) == SHA256
    assert server.ranges == ["bytes=14-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_ends_early_is_taken_up_again(server: FileServer, target: Path, ranges: bool) -> None:
    server.serve("file", CONTENT, ranges=ranges, cuts=[200_000, 250_000])
    assert get(server, target) == SHA256
    places = [200_000, 450_000] if ranges else [200_000, 250_000]
    assert server.ranges == [None, *(f"bytes={place}-" for place in places)]


def test_each_new_byte_gives_new_patience(server: FileServer, target: Path) -> None:
    """More cuts than attempts, each after some progress."""
    cuts = ATTEMPTS + 3
    server.serve("file", CONTENT, cuts=[50_000] * cuts)
    assert get(server, target) == SHA256
    assert len(server.asked) == cuts + 1


def test_passing_faults_of_the_server(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT, statuses=[503, 500, 429])
    assert get(server, target) == SHA256
    assert len(server.asked) == 4


def test_a_server_that_stays_out_of_order(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT, statuses=[503] * 50)
    with pytest.raises(InputError, match="can't be downloaded .503 Service Unavailable.: check the connection"):
        get(server, target)
    assert len(server.asked) == ATTEMPTS


def test_a_server_that_always_ends_at_the_same_place(server: FileServer, target: Path) -> None:
    """Without ranges it never gets farther, so at some time it is given up, and what arrived is kept."""
    server.serve("file", CONTENT, ranges=False, cuts=[100_000, 80_000] * 50)
    with pytest.raises(InputError, match="the connection ended after"):
        get(server, target)
    assert len(server.asked) == ATTEMPTS
    assert part_of(target).stat().st_size > 0


def test_waiting_grows_with_each_failure(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("hdm.data.download.sleep", waits.append)
    server.serve("file", CONTENT, statuses=[503] * 50)
    with pytest.raises(InputError):
        download(server.url("file"), target, progress=False, wait_s=0.5)
    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_nobody_listens(tmp_path: Path) -> None:
    with running_server() as state:
        url = state.url("file")
    with pytest.raises(InputError, match="can't be downloaded .*refused"):
        download(url, tmp_path / "file", progress=False, wait_s=0.001)


def test_a_silent_connection_times_out(server: FileServer, target: Path) -> None:
    """Of 700,000 bytes at 4,096 per 10 s one piece comes; the next attempt is served at once."""
    served = server.serve("file", CONTENT, rate=409.6)

    def healed(wait: float) -> None:
        served.rate = None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hdm.data.download.sleep", healed)
        assert download(server.url("file"), target, progress=False, timeout_s=0.3) == SHA256
    assert server.ranges == [None, "bytes=4096-"]


def test_a_file_that_is_gone(server: FileServer, target: Path) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"answers 404 (Not Found): open it in a browser, save the file as {target}")
    ):
        get(server, target)
    assert len(server.asked) == 1
    assert not list(target.parent.iterdir())


PAGE = b"\n<!DOCTYPE html><html><title>Quota exceeded</title></html>"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_in_place_of_a_file(server: FileServer, target: Path, kind: str) -> None:
    """And what had arrived before stays."""
    server.serve("file", PAGE, kind=kind, ranges=False)
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    with pytest.raises(InputError, match=r"a web page in place of weights.pth .*: open https://a.page in a browser"):
        get(server, target, page="https://a.page")
    assert part_of(target).read_bytes() == CONTENT[:1000]


def test_another_size_than_expected(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT)
    with pytest.raises(InputError, match=f"has {len(CONTENT)} bytes, not 5: it is another file"):
        get(server, target, size=5)
    with pytest.raises(InputError, match="not 5"):  # and again, with the part complete
        get(server, target, size=5)


def test_a_length_that_is_never_reached(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT, length=len(CONTENT) + 10, ranges=False)
    with pytest.raises(InputError, match=f"the connection ended after {len(CONTENT)} bytes"):
        get(server, target)


def test_a_new_version_of_the_file_is_not_put_behind_the_old_one(server: FileServer, target: Path) -> None:
    """Stopped in the first version, gone on with in a later call, when the server has the second."""
    server.serve("file", CONTENT[::-1], tag='"old"', cuts=[300_000], statuses=[])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hdm.data.download.sleep", lambda wait: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            download(server.url("file"), target, progress=False)
    assert part_of(target).stat().st_size == 300_000
    server.serve("file", CONTENT, tag='"new"')
    assert get(server, target) == SHA256
    assert server.asked[-1] == ("/file", "bytes=300000-", '"old"')
    assert [path.name for path in target.parent.iterdir()] == [part_of(target).name]  # nothing else is left


def test_the_same_version_is_gone_on_with(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT, tag='"one"', cuts=[300_000])
    assert get(server, target) == SHA256
    assert server.asked == [("/file", None, None), ("/file", "bytes=300000-", '"one"')]


def test_a_full_disk_keeps_what_has_arrived(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT)
    with full_disk(400_000), pytest.raises(InputError, match="can't be written .*free space or choose another"):
        get(server, target)
    assert part_of(target).read_bytes() == CONTENT[:400_000]
    assert get(server, target) == SHA256
    assert server.ranges == [None, "bytes=400000-"]


def test_a_folder_that_is_a_file(server: FileServer, target: Path) -> None:
    server.serve("file", CONTENT)
    target.parent.write_text("in the way")
    with pytest.raises(InputError, match="can't be written"):
        get(server, target)


def test_two_downloads_at_once_are_noticed(server: FileServer, target: Path) -> None:
    """Another program adds to the same part while the first download is between two attempts."""
    server.serve("file", CONTENT, cuts=[300_000])

    def meddle(wait: float) -> None:
        with open(part_of(target), "ab") as file:
            file.write(b"theirs")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hdm.data.download.sleep", meddle)
        with pytest.raises(InputError, match="was changed by another program"):
            download(server.url("file"), target, progress=False)
