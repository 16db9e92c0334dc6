"""The manifest that comes with the package, and the record of what was downloaded."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from hdm.data.manifest import (
    KINDS,
    RECORD,
    Asset,
    disagreement,
    is_unpacked,
    read_manifest,
    read_record,
    readable,
    sha256_of,
    write_record,
)
from hdm.errors import InputError

ASSETS = [pytest.param(asset, id=asset.name) for assets in read_manifest().values() for asset in assets]


@pytest.mark.parametrize("asset", ASSETS)
def test_every_entry_says_what_a_user_must_know(asset: Asset) -> None:
    assert asset.bytes > 0 and asset.licence
    assert asset.url or (asset.page and asset.by_hand)
    assert not Path(asset.name).is_absolute() and ".." not in Path(asset.name).parts
    assert bool(asset.unpacks) == bool(asset.unpacked) == asset.name.endswith((".zip", ".tar.gz"))
    digits = re.search(r"-([0-9a-f]{8})\.pth$", asset.name)
    assert asset.sha256_prefix == (digits[1] if digits else None)


def test_names_are_unique_and_kinds_complete() -> None:
    manifest = read_manifest()
    assert tuple(manifest) == KINDS
    for assets in manifest.values():
        assert len({asset.name for asset in assets}) == len(assets)


@pytest.mark.parametrize(
    "text, words",
    [
        ("coco: [", "can't be read"),
        ("", "can't be read"),
        ("coco: [{name: a, about: 1, licence: x, adress: y}]", "unexpected keyword argument 'adress'"),
        ("coco: [{name: a, url: 'http://a'}]", "missing .* required"),
        ("coco: [{name: a, about: 1, licence: x}]", "a in manifest .* has neither url nor page"),
        ("coco: [{name: a, about: 1, licence: x, url: 'file:///etc/passwd'}]", "give one of http or https"),
    ],
)
def test_a_manifest_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "manifest.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as raised:
        read_manifest(path)
    assert str(path) in str(raised.value)


# --- record


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = {name: {"sha256": 64 * name, "url": "http://a", "unpacked": {"b": 3}} for name in ("a", "c")}
    assert read_record(tmp_path) == {}
    write_record(tmp_path, {"a": {"sha256": "older"}})
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": {}}}'])
def test_a_damaged_record(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(InputError, match=f"{RECORD} can't be read .*: restore it, or delete it"):
        read_record(tmp_path)


def test_a_record_that_can_not_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / RECORD).mkdir()
    with pytest.raises(InputError, match="can't be read"):
        read_record(tmp_path)
    with pytest.raises(InputError, match="can't be written"):
        write_record(tmp_path, {})


def test_hashes_that_agree_and_that_do_not() -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    other = hashlib.sha256(b"others").hexdigest()
    plain = Asset("a", 1, "MIT")
    assert disagreement(plain, sha256, {}) is None
    assert disagreement(plain, sha256, {"a": {"sha256": sha256}, "b": {"sha256": other}}) is None
    assert disagreement(plain, sha256, {"a": {"sha256": other, "date": "2026-01-02"}}) == (
        f"that of 2026-01-02 begins {other[:12]}"
    )
    assert disagreement(Asset("a", 1, "MIT", sha256_prefix=sha256[:8].upper()), sha256, {}) is None
    assert disagreement(Asset("a", 1, "MIT", sha256=sha256), sha256, {}) is None
    for published in (Asset("a", 1, "MIT", sha256_prefix=other[:8]), Asset("a", 1, "MIT", sha256=other)):
        assert (disagreement(published, sha256, {}) or "").startswith(f"its publisher's begins {other[:8]}")


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 3000  # more than is read at once
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match="can't be read .No such file"):
        sha256_of(tmp_path / "b")


def test_folders_count_as_unpacked_with_all_their_files(tmp_path: Path) -> None:
    archive = Asset("a.zip", 1, "MIT", unpacks={"images": 3, "annot": 1})
    for name in ("images/1", "images/2", "annot/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert not is_unpacked(archive, tmp_path, {})
    # What was found in the archive counts, not what the manifest believes.
    assert is_unpacked(archive, tmp_path, {"a.zip": {"sha256": "", "unpacked": {"images": 2, "annot": 1}}})
    (tmp_path / "images" / "deeper").mkdir()
    (tmp_path / "images" / "deeper" / "3").touch()
    assert is_unpacked(archive, tmp_path, {})
    assert not is_unpacked(Asset("a.pth", 1, "MIT"), tmp_path, {})


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (12_500_000, "12.5 MB"),
        (19_300_000_000, "19.3 GB"),
        (1_500_000_000_000, "1,500 GB"),
    ],
)
def test_sizes_as_people_say_them(size: int, text: str) -> None:
    assert readable(size) == text


def test_json_of_the_record_is_plain(tmp_path: Path) -> None:
    write_record(tmp_path, {"a": {"sha256": "0"}})
    assert json.loads((tmp_path / RECORD).read_text()) == {"files": {"a": {"sha256": "0"}}}
