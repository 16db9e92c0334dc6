"""`hdm bench transport`: its table, its record, and the other libraries' solvers."""

import pytest
import torch

from hdm.bench import bench_transport, speed_table
from hdm.bench.peers import installed_peers
from hdm.bench.transport import BASELINE, LOSSES, STEP, example_heatmaps
from hdm.cli import main
from hdm.errors import InputError
from hdm.losses import HDMLoss
from hdm.records import read_benchmark

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    directory = tmp_path_factory.mktemp("benchmarks")
    folder, table = bench_transport(
        [(16, 12), (24, 24)], [2, 1], joints=3, rounds=2, threads=1, device="cpu", directory=directory
    )
    return directory, folder, table


def test_every_method_has_a_row_for_every_size(benchmark):
    _, _, table = benchmark
    methods = [name for name, _, _ in LOSSES] + list(installed_peers())
    assert len(table) == 4 * len(methods) + 2
    for (height, _, _), rows in table.groupby(["height", "width", "batch"]):
        # 12 columns are no multiple of 8, so that no network makes such maps.
        assert list(rows["method"]) == (methods if height == 16 else [*methods, STEP])
    assert (table["ms"] > 0).all()
    assert (table["fastest_ms"] <= table["ms"]).all()


def test_ratio_is_to_gaussian_mse(benchmark):
    _, _, table = benchmark
    assert (table.loc[table["method"] == BASELINE, ["ratio", "fastest_ratio"]] == 1).all(axis=None)
    rows = table[table["batch"] == 2].set_index(["height", "method"])
    for height in (16, 24):
        fastest = rows.loc[height]["fastest_ms"]
        expected = fastest["HDM, subpixel, exact"] / fastest[BASELINE]
        assert rows.loc[(height, "HDM, subpixel, exact"), "fastest_ratio"] == pytest.approx(expected)


def test_a_training_step_takes_longer_than_its_loss(benchmark):
    _, _, table = benchmark
    ms = table[(table["height"] == 24) & (table["batch"] == 2)].set_index("method")["ms"]
    assert ms[STEP] > 5 * ms["HDM, subpixel, exact"]


def test_errors_are_those_of_the_methods(benchmark):
    _, _, table = benchmark
    error = table.set_index("method")["error"]
    assert error["HDM, subpixel, exact"].max() < 1e-4
    assert error["HDM, subpixel, exact, squared cost"].max() < 1e-4
    assert error["HDM, subpixel, Sinkhorn, blur 1 px"].min() > 1e-3
    assert error[[BASELINE, "HDM, nearest", "HDM, dot"]].isna().all()


def test_record_says_where_and_how(benchmark):
    directory, folder, table = benchmark
    record, saved = read_benchmark("transport", "cpu", directory)
    assert folder.parent == directory / "transport"
    assert record["device"] == "cpu"
    assert record["settings"] == {"joints": 3, "rounds": 2, "limit_s": 20.0, "threads": 1, "seed": 0}
    assert {"commit", "hardware", "versions", "started"} <= set(record)
    assert list(saved["method"]) == list(table["method"])
    assert saved["ms"].to_numpy() == pytest.approx(table["ms"].to_numpy(), rel=1e-4)


def test_printed_table_gives_memory_in_maps(benchmark):
    _, _, table = benchmark
    printed = speed_table(table)
    assert list(printed.columns) == ["map", "batch", "method", "ms", "times MSE", "at best", "error", "memory"]
    assert printed.loc[printed["method"].str.startswith("HDM"), "memory"].str.endswith(" maps").all()
    assert (printed.loc[printed["method"].str.contains("emd2"), "memory"] == "").all()
    assert printed["map"].iloc[0] == "16x12"


def test_what_would_take_too_long_is_not_run(tmp_path):
    _, table = bench_transport(
        [(12, 9)], [1, 64], joints=4, rounds=1, limit_s=0.02, threads=1, device="cpu", directory=tmp_path
    )
    large = set(table.loc[table["batch"] == 64, "method"])
    assert "POT emd2, dual as gradient" not in large
    assert BASELINE in large


def test_number_of_threads_is_put_back(tmp_path):
    before = torch.get_num_threads()
    with pytest.raises(InputError, match="must be at least 1"):
        bench_transport([(12, 9)], [0], directory=tmp_path)
    bench_transport([(6, 5)], [1], joints=1, rounds=1, threads=before + 1, device="cpu", directory=tmp_path)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", sorted(installed_peers()))
def test_peers_solve_the_same_problem(name):
    logits, dots = example_heatmaps(2, 3, (12, 9))
    logits.requires_grad_()
    values = installed_peers()[name](logits, dots)
    expected = HDMLoss(reduction="none")(logits.detach(), dots, torch.ones(2, 3)).flatten()
    exact = "emd2" in name
    assert values.numpy() == pytest.approx(expected.numpy(), rel=1e-4 if exact else 0.35, abs=1e-4 if exact else 0.6)
    other = logits.detach().clone().requires_grad_()
    HDMLoss()(other, dots, torch.ones(2, 3)).backward()
    cosine = torch.cosine_similarity(logits.grad.flatten(), other.grad.flatten(), 0)
    assert float(cosine) > (0.99 if exact else 0.8)


def test_examples_are_maps_of_three_stages():
    logits, dots = example_heatmaps(2, 6, (64, 48), seed=3)
    height = logits.flatten(2).amax(-1).flatten()
    assert logits.shape == (2, 6, 64, 48)
    assert (dots >= 0).all()
    assert (dots <= torch.tensor([47, 63])).all()
    for stage, (low, high) in enumerate([(2, 6), (6, 13), (10, 25)]):
        assert (height[stage::3] > low).all()
        assert (height[stage::3] < high).all()


def test_command_prints_the_table_and_says_where_the_record_is(tmp_path, capsys):
    options = "--sizes 8x6 --batches 1 --joints 2 --rounds 1 --threads 1 --device cpu --benchmarks"
    assert main(["bench", "transport", *options.split(), str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "times MSE" in output
    assert "HDM, subpixel, exact" in output
    assert f"record {tmp_path}" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "64"], "'64' is no size: give rows x columns, such as 64x48"),
        (["--sizes", "0x4"], "must be at least 1"),
        (["--batches", "0"], "must be at least 1"),
        (["--rounds", "0"], "must be at least 1"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_ends_with_status_2(arguments, message, tmp_path, capsys):
    try:
        status = main(["bench", "transport", "--benchmarks", str(tmp_path), *arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_missing_record_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="no benchmark 'transport' on a gpu: make one with `hdm bench transport`"):
        read_benchmark("transport", "gpu", tmp_path)


def test_full_disk_leaves_no_record(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.rename", fail)
    with pytest.raises(InputError, match="can't be written .No space left on device"):
        bench_transport([(6, 5)], [1], joints=1, rounds=1, threads=1, device="cpu", directory=tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
