"""`hdm bench step`: phases of a step, shares of it, real runs beside it, and the record."""

import time

import pytest
import torch

from hdm.bench import step
from hdm.bench.step import PHASES, Step, _real_run, bench_step, step_table
from hdm.decode import DECODERS
from hdm.errors import InputError
from hdm.records import read_benchmark
from hdm.train import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TINY = {"model": "timm:test_resnet", "input_size": (64, 32), "batch_size": 4, "device": "cpu"}
LOSSES = ["gaussian_mse", "hdm", "simcc"]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    directory = tmp_path_factory.mktemp("benchmarks")
    folder, table = bench_step(
        ["timm:test_resnet"],
        [(64, 32), (64, 64)],
        LOSSES,
        ["float32"],
        batch_size=4,
        rounds=2,
        device="cpu",
        directory=directory,
    )
    return directory, folder, table


# --- one step


def test_phases_are_those_parts_of_a_step_that_they_are_called() -> None:
    """Each part is made slow in turn."""
    timed = Step(TrainConfig("synthetic:none", loss="hdm", **TINY), CPU, lambda: None)
    timed()
    learner = timed.engine.unwrap_model(timed.learner)
    slow = {
        "forward": (learner.model, "prepare"),
        "loss": (learner.loss, "forward"),
        "optimizer": (timed.optimizer.optimizer, "step"),
    }
    for name, (owner, method) in slow.items():
        with pytest.MonkeyPatch.context() as patch:
            plain = getattr(owner, method)

            def wait_first(*values, call=plain, **named):
                time.sleep(0.3)
                return call(*values, **named)

            patch.setattr(owner, method, wait_first)
            begin = time.perf_counter()
            timed()
            whole = 1e3 * (time.perf_counter() - begin)
        last = timed.phases()[-1]
        assert sum(last.values()) == pytest.approx(whole, rel=0.05)
        assert [phase for phase in PHASES if last[phase] >= 290] == [name]
    layer = learner.model.get_submodule("final_layer")
    handle = layer.register_full_backward_hook(lambda *call: time.sleep(0.3))
    timed()
    handle.remove()
    assert [phase for phase, ms in timed.phases()[-1].items() if ms >= 290] == ["backward"]
    assert len(timed.phases()) == 5


def test_a_step_learns() -> None:
    """It is a real one: its loss falls on the noise that it sees again and again."""
    timed = Step(TrainConfig("synthetic:none", loss="gaussian_mse", lr=0.01, **TINY), CPU, lambda: None)
    losses = [float(timed()) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]


# --- the table


@pytest.mark.slow
def test_steps_have_rows_with_phases_that_add_up(benchmark) -> None:
    _, _, table = benchmark
    steps = table[table["kind"] == "step"]
    assert steps["loss"].tolist() == LOSSES * 2
    assert steps["size"].tolist() == ["64x32"] * 3 + ["64x64"] * 3
    phases = steps[[f"{name}_ms" for name in PHASES]]
    assert (phases > 0).all(axis=None)
    assert (steps["images_per_s"] * steps["ms"]).to_numpy() == pytest.approx(4000)
    assert steps["loss_share"].between(0, 1).all()
    wide, tall = (steps[steps["size"] == size]["memory_mb"].iloc[0] for size in ("64x64", "64x32"))
    assert wide > tall > 0


@pytest.mark.slow
def test_decoders_and_metrics_have_rows(benchmark) -> None:
    _, _, table = benchmark
    beside = table[table["kind"].isin(["decoding", "metric"])]
    assert beside["what"].tolist() == [*DECODERS, "pixel error", "PCK"] * 2  # OKS-AP needs annotations
    assert (beside[["ms", "share_of_step"]] > 0).all(axis=None)


def test_shares_are_medians_over_rounds(tmp_path, monkeypatch) -> None:
    """With times that are known: steps of 100, 200 and 400 ms, whose losses take 10, 10 and 40 ms; decoders and metrics
    1, 4 and 4 ms, and so shares of 1, 2 and 1 %."""
    monkeypatch.setattr(step, "time_in_turn", known_times)
    phases = [{"forward": 1.0, "loss": loss, "backward": 2.0, "optimizer": 3.0} for loss in (500.0, 10.0, 10.0, 40.0)]
    monkeypatch.setattr(Step, "phases", lambda self: phases)
    _, table = bench_step(
        ["timm:test_resnet"], [(64, 32)], LOSSES[:2], ["float32"], batch_size=2, device="cpu", directory=tmp_path
    )
    steps = table[table["kind"] == "step"]
    assert steps["ms"].tolist() == [200, 200]
    assert steps["images_per_s"].tolist() == [10, 10]
    assert steps["loss_ms"].tolist() == [10, 10]
    assert steps["loss_share"].tolist() == pytest.approx([0.1, 0.1])  # of 10, 5 and 10 %
    beside = table[table["kind"].isin(["decoding", "metric"])]
    assert beside["ms"].tolist() == [4] * (len(DECODERS) + 2)
    assert beside["share_of_step"].tolist() == pytest.approx([0.01] * len(beside))
    together = table[table["kind"] == "together"]
    assert together["what"].tolist() == ["loss, quarter, metrics", "loss, local, metrics"]
    assert together["ms"].tolist() == [22, 22]  # of 13, 22 and 52: a loss, a decoder and two metrics
    assert together["share_of_step"].tolist() == pytest.approx([0.13, 0.13])  # of 13, 11 and 13 %


def known_times(calls, rounds, device, limit_s):
    return {what: [100.0, 200.0, 400.0] if what.startswith("step ") else [1.0, 4.0, 4.0] for what in calls}


def test_decoders_run_beside_the_first_precision_only(tmp_path) -> None:
    _, table = bench_step(
        ["timm:test_resnet"],
        [(64, 64)],
        ["hdm"],
        ["bfloat16", "float32"],
        batch_size=2,
        rounds=1,
        device="cpu",
        directory=tmp_path,
    )
    assert table[table["kind"] == "step"]["precision"].tolist() == ["bfloat16", "float32"]
    assert set(table[table["kind"] != "step"]["precision"]) == {"bfloat16"}


@pytest.mark.slow
def test_record_says_where_and_how(benchmark) -> None:
    directory, folder, table = benchmark
    record, saved = read_benchmark("step", "cpu", directory)
    assert folder.parent == directory / "step"
    assert record["settings"]["rounds"] == 2
    assert record["data"] is None
    assert {"commit", "hardware", "versions", "started"} <= set(record)
    assert saved["kind"].tolist() == table["kind"].tolist()
    assert saved["ms"].to_numpy() == pytest.approx(table["ms"].to_numpy(), rel=1e-4, nan_ok=True)


@pytest.mark.slow
def test_printed_table(benchmark) -> None:
    _, _, table = benchmark
    printed = step_table(table)
    assert printed["loss"].tolist()[:3] == LOSSES
    assert printed.loc[printed["kind"] == "step", "loss share"].str.endswith("%").all()
    assert (printed.loc[printed["kind"] == "decoding", "images/s"] == "").all()


# --- with a data set


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_runs_and_a_validation(small_data, tmp_path) -> None:
    _, table = bench_step(
        ["timm:test_resnet"], [(64, 32)], ["hdm"], ["float32"],
        batch_size=4, rounds=2, data=small_data, persons=16, val_persons=6, memory_epochs=3, device="cpu",
        directory=tmp_path,
    )  # fmt: skip
    metrics = table[table["kind"] == "metric"]
    assert metrics["what"].tolist() == ["pixel error", "PCK", "OKS-AP of 6 persons"]
    validation = table[table["kind"] == "validation"].set_index("what")
    assert validation.index.tolist() == ["network", "local", "scores"]
    assert validation.loc["network", "share_of_forward"] == 1
    assert (validation["persons"] == 6).all()
    trained = table[table["kind"] == "training"]
    assert trained["workers"].tolist() == [0, 2]
    assert trained["data_wait"].between(0, 1).all() and (trained["images_per_s"] > 0).all()
    memory = table[table["kind"] == "memory"]
    assert memory["epoch"].tolist() == [0, 1, 2, 3]
    assert memory["memory_mb"].is_monotonic_increasing
    assert step_table(table).query("kind == 'memory'")["epoch"].tolist() == ["1"]


@pytest.mark.slow
def test_memory_of_a_run_is_its_own(small_data) -> None:
    """Not that of the process that started it."""
    held = torch.ones(500_000_000)  # 2 GB
    config = TrainConfig(small_data, epochs=1, head_channels=8, train_limit=4, val_limit=2, **TINY)
    (_, last) = _real_run("memory", config)
    assert last["memory_mb"] < held.nbytes / 1e6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rounds": 0}, "numbers of at least 1"),
        ({"models": []}, "at least one model, size, loss and precision"),
        ({"data": "mpii:somewhere"}, "reads COCO's layout, not 'mpii:somewhere'"),
        ({"data": "coco:nowhere"}, "data directory nowhere is not there"),
        ({"losses": ["hmd"]}, "unknown loss 'hmd'"),
        ({"sizes": [(250, 192)]}, "multiples of 32"),
        ({"precisions": ["float16"], "device": "cpu"}, "float16 needs a GPU"),
    ],
)
def test_bad_input_is_one_sentence(settings, words, tmp_path) -> None:
    with pytest.raises(InputError, match=words):
        bench_step(**settings, directory=tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
