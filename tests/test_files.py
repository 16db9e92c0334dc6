"""Files that are there whole or not at all."""

from pathlib import Path

import pytest
from disks import full_disk

from hdm.errors import InputError
from hdm.files import write_whole


def test_folders_are_made_and_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stays_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_whole(path, b"old")

    no_room = pytest.raises(InputError, match=r"file.json can't be written \(File too large\): free space")
    with full_disk(2), no_room:
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
