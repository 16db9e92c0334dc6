"""Weights and states on the disk: what was there stays until the new is whole, and damage is known by the name."""

import hashlib
import math
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from disks import full_disk
from torch import Tensor

from hdm.errors import InputError
from hdm.train.checkpoint import (
    is_running,
    newest_state,
    only_here,
    read_state,
    read_tensors,
    saved_states,
    write_state,
    write_tensors,
)


def some_state(value: float) -> dict[str, Any]:
    """Some 40 kB of weights, an optimiser with its moments, and a history."""
    layer = torch.nn.Linear(100, 100)
    torch.nn.init.constant_(layer.weight, value)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2, 100)).sum().backward()
    optimizer.step()
    history = [{"epoch": 0, "train_loss": math.nan}, {"epoch": 1, "train_loss": value}]
    return {"model": layer.state_dict(), "optimizer": optimizer.state_dict(), "history": history, "average": None}


def no_log(line: str) -> None:
    raise AssertionError(f"nothing was to be said: {line}")


# --- tensors ---


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    tensors = {
        "weight": torch.randn(3, 5, 2, 4).to(memory_format=torch.channels_last),
        "bytes": torch.arange(256, dtype=torch.uint8).reshape(2, 128),
        "double": torch.tensor(math.pi, dtype=torch.float64),
        "half": torch.randn(7).bfloat16(),
        "empty": torch.zeros(0, 3),
        "part": torch.arange(12.0).reshape(3, 4)[:, 1],
        "learnt": torch.nn.Parameter(torch.ones(2)),
    }
    notes = {"a": [1, 2.5, None, True], "ü": {"nested": "text"}, "nan": math.nan}
    path = write_tensors(tmp_path / "new" / "folder", "weights", tensors, notes)
    assert path.parent == tmp_path / "new" / "folder"
    loaded, again = read_tensors(path)
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype
    assert math.isnan(again.pop("nan")) and again == {name: notes[name] for name in ("a", "ü")}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_name_tells_the_content(tmp_path: Path) -> None:
    tensors = {"x": torch.arange(4.0)}
    first, same = (write_tensors(tmp_path, "weights", tensors, {"step": 1}) for _ in range(2))
    assert first == same
    assert write_tensors(tmp_path, "weights", tensors, {"step": 2}) != first
    assert write_tensors(tmp_path, "weights", {"x": torch.arange(4.0) + 1}, {"step": 1}) != first


def test_other_programs_can_read_the_weights(tmp_path: Path) -> None:
    path = write_tensors(tmp_path, "weights", {"x": torch.arange(6.0).reshape(2, 3)}, {})
    assert torch.equal(safetensors.torch.load_file(path)["x"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("room", [0, 10_000])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, room: int) -> None:
    path = write_state(tmp_path, 1, some_state(1.0))
    with full_disk(room), pytest.raises(InputError, match="state-000000002-.* can't be written .*: free space or choo"):
        write_state(tmp_path, 2, some_state(2.0))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert read_state(path)["history"][1]["train_loss"] == 1
    write_state(tmp_path, 2, some_state(2.0))
    assert len(saved_states(tmp_path)) == 2


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        write_tensors(tmp_path / "checkpoints", "weights", {"x": torch.ones(2)}, {})
    with (
        pytest.raises(InputError, match="checkpoints can't be written .*: choose another place"),
        only_here(tmp_path / "checkpoints"),
    ):
        pass


# --- states ---


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = some_state(0.1)
    loaded = read_state(write_state(tmp_path, 12, saved))
    assert loaded.keys() == saved.keys()
    assert torch.equal(loaded["model"]["weight"], saved["model"]["weight"])
    assert loaded["history"][1] == {"epoch": 1, "train_loss": 0.1} and math.isnan(loaded["history"][0]["train_loss"])
    assert loaded["average"] is None
    # The optimiser's state counts parameters by whole numbers, which JSON does not have as names.
    fresh = torch.optim.Adam(torch.nn.Linear(100, 100).parameters())
    fresh.load_state_dict(loaded["optimizer"])
    for number, values in saved["optimizer"]["state"].items():
        for name, value in values.items():
            assert torch.equal(fresh.state_dict()["state"][number][name], value)
    assert fresh.param_groups[0]["lr"] == 1e-3


def test_all_kinds_of_values(tmp_path: Path) -> None:
    tree: dict[str, Any] = {
        "a/b": {"c": torch.ones(2)},
        "a": {"b/c": torch.zeros(2)},  # the same path as the one above
        "numbers": [0.1 + 0.2, 1e-300, -0.0, 2**60],
        "tensor": "a text, and no tensor",
        "pairs": [[1, 2], {"tensor": [torch.arange(3), True]}],
        "empty": {},
        "texts": {3: "three", "3": "text"},
    }
    loaded = read_state(write_state(tmp_path, 0, tree))
    flat: list[Tensor] = [loaded["a/b"]["c"], loaded["a"]["b/c"], loaded["pairs"][1]["tensor"][0]]
    assert [value.tolist() for value in flat] == [[1, 1], [0, 0], [0, 1, 2]]
    for name in ("numbers", "tensor", "empty", "texts"):
        assert loaded[name] == tree[name]


def test_the_two_newest_states_are_kept(tmp_path: Path) -> None:
    weights = write_tensors(tmp_path, "weights", {"x": torch.ones(2)}, {})
    for step in (2, 9, 10, 999, 1000):
        write_state(tmp_path, step, {"step": step})
    assert [read_state(path)["step"] for path in saved_states(tmp_path)] == [1000, 999]
    assert weights.exists()
    newest = newest_state(tmp_path, no_log)
    assert newest is not None and newest["step"] == 1000


def test_newest_goes_by_steps_whatever_the_clock_said(tmp_path: Path) -> None:
    first, second = (write_state(tmp_path, step, {"step": step}) for step in (1, 2))
    os.utime(second, (0, 0))
    assert saved_states(tmp_path) == [second, first]


def test_where_there_is_none(tmp_path: Path) -> None:
    assert newest_state(tmp_path, no_log) is None
    assert newest_state(tmp_path / "nowhere", no_log) is None
    with pytest.raises(InputError, match="checkpoint .*weights-00000000.safetensors can't be read"):
        read_tensors(tmp_path / "weights-00000000.safetensors")


# --- damage ---


class Command:
    """As a pickle, this would run a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


def flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "one byte short": lambda whole: whole[:-1],
    "zeros at the end": lambda whole: whole[:-4096] + bytes(4096),
    "a bit in the length of the header": lambda whole: flipped(whole, 0),
    "a bit in the header": lambda whole: flipped(whole, 30),
    "a bit in the tensors": lambda whole: flipped(whole, len(whole) - 9),
    "something else": lambda whole: b"a page that says not found",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write_state(tmp_path, 1, some_state(1.0))
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(InputError, match="checkpoint .*state-000000001-.* is damaged .*: delete it"):
        read_state(path)


def test_a_pickle_is_not_trusted(tmp_path: Path) -> None:
    mark, content = tmp_path / "mark", pickle.dumps(Command(tmp_path / "mark"))
    path = write_state(tmp_path, 1, some_state(1.0))
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        read_state(path)
    path = tmp_path / f"state-000000002-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"  # even by its right name
    path.write_bytes(content)
    with pytest.raises(InputError, match="is none of this project"):
        read_state(path)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()


def test_tensors_of_another_program(tmp_path: Path) -> None:
    content = safetensors.torch.save({"x": torch.ones(2)})
    path = tmp_path / f"weights-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is none of this project .*: delete it"):
        read_tensors(path)


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path) -> None:
    first, second = (write_state(tmp_path, step, {"step": step}) for step in (1, 2))
    second.write_bytes(b"")
    lines: list[str] = []
    assert newest_state(tmp_path, lines.append) == {"step": 1}
    assert len(lines) == 1 and second.name in lines[0] and "the one before it is taken" in lines[0]
    assert saved_states(tmp_path) == [first]
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"no state in {tmp_path} is sound: delete it to start over"):
        newest_state(tmp_path, lines.append)
    assert first.exists()  # a person may want to look


# --- one process at a time ---


def test_a_folder_belongs_to_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    assert not is_running(folder)
    with only_here(folder):
        assert is_running(folder)
        with (
            pytest.raises(InputError, match=rf"another process \({os.getpid()} on .*\) trains this run"),
            only_here(folder),
        ):
            pass
        assert is_running(folder)
    assert not is_running(folder)
    with only_here(folder):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold() -> None:
        with only_here(tmp_path):
            held.set()
            signal.pause()

    child = context.Process(target=hold)
    child.start()
    assert held.wait(30)
    assert is_running(tmp_path)
    with pytest.raises(InputError, match=rf"another process \({child.pid} on "), only_here(tmp_path):
        pass
    child.kill()
    child.join()
    assert not is_running(tmp_path)
    with only_here(tmp_path):
        pass


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    state = write_state(tmp_path, 1, {"step": 1})
    half = tmp_path / f".{state.name}.partial"
    half.write_bytes(b"half a state")
    assert newest_state(tmp_path, no_log) == {"step": 1}
    with only_here(tmp_path):
        assert not half.exists()
    assert newest_state(tmp_path, no_log) == {"step": 1}
