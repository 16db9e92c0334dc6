"""Studies on a Ray cluster whose nodes are all on this machine: the same numbers, whatever is lost on the way."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from hdm.cluster import Delivery, Task, keep, run_on_ray, train_there
from hdm.errors import InputError
from hdm.records import read_runs
from hdm.study import Study, keys, plan, run_study
from hdm.train import Run, TrainConfig, run_folder, saved_states, trained_network

MEMORY = {"object_store_memory": 80 * 2**20}


@pytest.fixture
def study(small_data: str, one_thread: None) -> Callable[..., Study]:
    """A study of tiny runs, by name what they differ in; some seconds each where `epochs` is 30."""

    def make(epochs: int, **runs: dict[str, Any]) -> Study:
        settings = {
            "data": small_data,
            "model": "timm:test_resnet",
            "head_channels": 8,
            "input_size": (64, 32),
            "epochs": epochs,
            "batch_size": 8,
            "train_limit": 16,
            "val_limit": 4,
            "device": "cpu",
        }
        return Study("cluster", {name: TrainConfig(**settings | changes) for name, changes in runs.items()})

    return make


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    return {"runs": tmp_path / "runs", "checkpoints": tmp_path / "checkpoints"}


def quiet(line: str) -> None:
    pass


def assert_same_numbers(first: dict[str, Run], second: dict[str, Run]) -> None:
    assert list(first) == list(second)
    for name in first:
        for column in ("train_loss", "val_loss", "error_px"):
            pd.testing.assert_series_equal(first[name].epochs[column], second[name].epochs[column], rtol=1e-5)


# --- without a cluster


def test_what_is_done_needs_no_cluster(
    study: Callable[..., Study], places: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = study(1, hdm={"loss": "hdm"}, mse={"loss": "gaussian_mse"})
    alone = run_study(two, log=quiet, **places)
    monkeypatch.setitem(sys.modules, "ray", None)
    lines: list[str] = []
    again = run_on_ray(two, log=lines.append, **places)
    assert {name: run.folder for name, run in again.items()} == {name: run.folder for name, run in alone.items()}
    assert lines == ["2 of 2 runs have a record of these settings and data; not trained again"]
    with pytest.raises(InputError, match=r"Ray is not installed: .*pip install 'hdm\[cluster\]'"):
        run_on_ray(two, reuse=False, log=quiet, **places)


@pytest.mark.parametrize("wrong", [{"gpus_per_run": -1}, {"cpus_per_run": 0}, {"retries": -2}])
def test_amounts_that_make_no_sense(study: Callable[..., Study], places: dict[str, Any], wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} {next(iter(wrong.values()))}.* or more"):
        run_on_ray(study(1, hdm={}), **wrong, **places)


@pytest.mark.parametrize("shared", [True, False])
def test_weights_travel_where_no_disk_is_shared(
    study: Callable[..., Study], places: dict[str, Any], tmp_path: Path, shared: bool
) -> None:
    """What a node does, in this process."""
    pytest.importorskip("ray")
    one = study(1, hdm={"loss": "hdm"})
    key = keys(one.runs)["hdm"]
    mark = tmp_path / "mark"
    if shared:
        mark.touch()
    node = tmp_path / "node"
    task = Task(
        name="hdm",
        config=one.runs["hdm"],
        key=key,
        study=one.name,
        synthetic=None,
        checkpoints=node,
        place=run_folder(node, one.name, "hdm", key),
        mark=mark,
        here=Path.cwd(),
        threads=1,
    )
    delivery = train_there(task)
    assert isinstance(delivery, Delivery)
    assert delivery.record["key"] == key
    assert (node / delivery.weights_file).is_file()
    assert (delivery.weights is None) is shared
    run = keep(delivery, places["runs"], node if shared else places["checkpoints"])
    assert run.folder.parent == places["runs"] / one.name
    pd.testing.assert_series_equal(run.epochs["error_px"], delivery.epochs["error_px"], rtol=1e-5)
    trained_network(run)
    other = Task(**vars(task) | {"key": "00000000"})
    assert "is not what it is on the driver: copy it there anew" in str(train_there(other))


# --- with one


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that takes no runs; each test adds nodes."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args=MEMORY | {"num_cpus": 0, "include_dashboard": False})
        yield made
        made.shutdown()


@pytest.fixture
def two_losses(study: Callable[..., Study]) -> Study:
    """Four runs of some seconds: long enough to be cut in the middle."""
    losses = {"mse": "gaussian_mse", "hdm": "hdm"}
    runs = {f"{name} seed={seed}": {"loss": loss, "seed": seed} for name, loss in losses.items() for seed in (0, 1)}
    return study(12, **runs)


def begun(study: Study, places: dict[str, Any]) -> bool:
    """Has any of the runs a saved state?"""
    return any(
        saved_states(run_folder(places["checkpoints"], study.name, study.runs[name].loss, key))
        for name, key in keys(study.runs).items()
    )


def sessions(result: dict[str, Run]) -> list[int]:
    """In how many goes each run was trained, fewest first."""
    return sorted(len(run.record["sessions"]) for run in result.values())


class Meanwhile:
    """A log that, at its first line, waits until another run has a saved state, and then does something."""

    def __init__(self, study: Study, places: dict[str, Any], act: Callable[[], Any]) -> None:
        self.lines: list[str] = []
        self.study, self.places, self.act = study, places, act

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == 1:
            end = time.monotonic() + 120
            while not begun(self.study, self.places):
                assert time.monotonic() < end, "no run was begun"
                time.sleep(0.05)
            self.act()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lost_node_loses_no_run(cluster: Any, two_losses: Study, places: dict[str, Any], tmp_path: Path) -> None:
    """Of two nodes one is killed when a run is finished and others are at work; the one that is left does the rest."""
    nodes = [cluster.add_node(num_cpus=1, **MEMORY) for _ in range(2)]

    def lose_a_node() -> None:
        assert len(read_runs(places["runs"])) == 1
        cluster.remove_node(nodes.pop(), allow_graceful=False)

    log = Meanwhile(two_losses, places, lose_a_node)
    result = run_on_ray(two_losses, address=cluster.address, log=log, **places)
    records = read_runs(places["runs"], two_losses.name)
    assert sorted(records["key"]) == sorted(keys(two_losses.runs).values())
    assert sessions(result) in ([1, 1, 1, 2], [1, 1, 1, 1])  # the lost one went on from its state, where it had one
    assert [line.partition("]")[0] for line in log.lines] == [f"[{number}/4" for number in (1, 2, 3, 4)]
    assert all("  error " in line and " min  on " in line for line in log.lines)
    assert_same_numbers(result, run_study(two_losses, runs=tmp_path / "a", checkpoints=tmp_path / "a", log=quiet))
    for run in result.values():
        trained_network(run)
    assert not list(places["checkpoints"].glob(".driver-*"))
    cluster.remove_node(nodes.pop())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_worker_is_replaced_and_a_failed_run_is_not(
    cluster: Any, study: Callable[..., Study], places: dict[str, Any]
) -> None:
    two = study(12, wild={"loss": "gaussian_mse", "lr": 1e30}, tame={"loss": "gaussian_mse"})
    node = cluster.add_node(num_cpus=1, **MEMORY)
    tame = Study(two.name, {"tame": two.runs["tame"]})

    def kill_the_worker() -> None:
        workers = [
            child for child in psutil.Process().children(recursive=True) if child.name().startswith("ray::train")
        ]
        assert len(workers) == 1
        workers[0].kill()

    log = Meanwhile(tame, places, kill_the_worker)
    with pytest.raises(InputError, match="1 of 2 runs of study cluster failed, .*: wild .*learning rate"):
        run_on_ray(two, address=cluster.address, retries=1, log=log, **places)
    assert [line.partition("  ")[0] for line in log.lines] == ["[1/2] wild", "[2/2] tame"]
    assert sessions(run_on_ray(tame, log=quiet, **places)) == [2]
    cluster.remove_node(node)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stopped_driver_goes_on(cluster: Any, two_losses: Study, places: dict[str, Any]) -> None:
    """Ctrl-C at the driver: runs at work save their states, and the next start does no more than the rest."""
    node = cluster.add_node(num_cpus=2, **MEMORY)
    with pytest.raises(InputError, match="no node has 3 CPUs and 0 GPUs for a run, only .*2 CPUs and 0 GPUs"):
        run_on_ray(two_losses, address=cluster.address, cpus_per_run=3, log=quiet, **places)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on_ray(two_losses, address=cluster.address, log=Meanwhile(two_losses, places, stop), **places)
    states = plan(two_losses, **places)["state"].tolist()
    assert "done" in states
    assert "cut" in states
    assert "running" not in states
    result = run_on_ray(two_losses, address=cluster.address, log=quiet, **places)
    assert list(result) == list(two_losses.runs)
    assert sessions(result) == [1] * (4 - states.count("cut")) + [2] * states.count("cut")
    cluster.remove_node(node)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_cluster_at_an_address(study: Callable[..., Study], places: dict[str, Any]) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="there is no Ray cluster at '127.0.0.1:1' .*: start one with `ray start"):
        run_on_ray(study(1, hdm={}), address="127.0.0.1:1", log=quiet, **places)
