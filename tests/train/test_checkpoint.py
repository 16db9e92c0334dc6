"""Checkpoints: the old one stays until the new one is whole."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hdm.errors import InputError
from hdm.train.checkpoint import load_checkpoint, save_checkpoint


def state(value: float) -> dict:
    """Some 40 kB of weights, an optimiser with its moments, and a history."""
    layer = torch.nn.Linear(100, 100)
    torch.nn.init.constant_(layer.weight, value)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2, 100)).sum().backward()
    optimizer.step()
    history = [{"epoch": 0, "train_loss": float("nan")}, {"epoch": 1, "train_loss": value}]
    return {"model": layer.state_dict(), "optimizer": optimizer.state_dict(), "history": history, "finished": False}


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = state(0.5)
    path = tmp_path / "quick" / "hdm" / "last.pt"
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert torch.equal(loaded["model"]["weight"], saved["model"]["weight"])
    assert loaded["history"][1] == {"epoch": 1, "train_loss": 0.5}
    fresh = torch.optim.Adam(torch.nn.Linear(100, 100).parameters())
    fresh.load_state_dict(loaded["optimizer"])
    assert fresh.state_dict()["state"][0]["step"] == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_where_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "last.pt") is None


def test_the_newer_one_takes_the_place(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for value in (1.0, 2.0):
        save_checkpoint(path, {"value": value})
    assert load_checkpoint(path) == {"value": 2.0}


@pytest.mark.parametrize("room", [0, 10_000])
def test_a_full_disk_leaves_the_old_one(tmp_path: Path, room: int) -> None:
    """The operating system refuses what goes beyond `room` bytes, as a full disk does."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, state(1.0))
    whole = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(InputError, match="last.pt can't be written .*: free space or choose another directory"):
            save_checkpoint(path, state(2.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == whole
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]
    save_checkpoint(path, state(2.0))
    loaded = load_checkpoint(path)
    assert loaded is not None and loaded["history"][1]["train_loss"] == 2


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        save_checkpoint(tmp_path / "checkpoints" / "last.pt", {"value": 1})


def test_a_write_that_was_cut_off_by_a_kill_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"value": 1})
    path.with_suffix(".partial").write_bytes(b"half a checkpoint")
    assert load_checkpoint(path) == {"value": 1}
    save_checkpoint(path, {"value": 2})
    assert load_checkpoint(path) == {"value": 2}


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "something else": lambda whole: b"a page that says not found",
    "another pickle": lambda whole: b"\x80\x02cos\nsystem\n.",  # would run a command if it were trusted
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, state(1.0))
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(InputError, match="checkpoint .*last.pt is damaged .*: delete it to start over"):
        load_checkpoint(path)
