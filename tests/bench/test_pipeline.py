"""`hdm bench pipeline`: its clock, its persons, its table and record, and mmpose under another python."""

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pandas as pd
import pytest
import torch

from hdm.bench import pipeline
from hdm.bench.mmpose_pipeline import measure
from hdm.bench.pipeline import bench_pipeline, mmpose_peer, pipeline_table, simulate_steps
from hdm.data import load_persons
from hdm.errors import InputError
from hdm.records import read_benchmark

SOURCES = ["JPEG files", "JPEG files, full-size decoding", "JPEG files, persons shuffled", "crop cache"]


def slow(sizes, seconds):
    """Batches of these sizes, one after each wait."""
    for size, wait in zip(sizes, seconds, strict=True):
        time.sleep(wait)
        yield size


@pytest.fixture
def still_clock(monkeypatch):
    """A clock that only goes on while somebody sleeps, so that a busy machine changes nothing."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.fixture(scope="module")
def benchmark(small_data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("benchmarks")
    folder, table = bench_pipeline(
        small_data,
        input_size=(64, 48),
        persons=48,
        workers=(0, 1),
        batch_size=8,
        rounds=1,
        assume_step_ms=1.0,
        device="cpu",
        directory=directory,
    )
    return directory, folder, table


# --- the clock


def test_clock_leaves_out_what_comes_before_and_after(still_clock):
    # 16 images before, then 32 in 4 x 20 ms; starting up takes long, and so does what comes after.
    rate, _ = measure(slow([8] * 8, [0.2, 0.1, 0.02, 0.02, 0.02, 0.02, 0.3, 0.3]), 16, 32)
    assert rate == pytest.approx(400)


def test_clock_stops_at_the_batch_that_is_enough():
    rate, _ = measure(slow([6, 6, 6, 6], [0, 0.03, 0.03, 0.3]), 5, 10)  # 12 images in 60 ms
    assert 0.7 * 200 < rate <= 200


def test_cpu_time_is_that_of_all_images_and_of_ended_children():
    def batches():
        burn(0.1)
        yield 10
        subprocess.run([sys.executable, "-S", "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
        yield 10
        time.sleep(0.3)
        yield 20

    _, ms = measure(batches(), 10, 10)
    assert 10 <= ms < 14  # 0.4 s for 40 images; waiting is none


@pytest.mark.parametrize(("read_ms", "step_ms", "waits"), [(0, 20, 0), (10, 0, 1), (10, 30, 0.25), (30, 10, 0.75)])
def test_simulated_steps_wait_for_what_is_read_too_late(still_clock, read_ms, step_ms, waits):
    figures = simulate_steps(slow([4] * 12, [0.1, *[read_ms / 1e3] * 11]), step_ms, before=8)
    assert figures["wait_share"] == pytest.approx(waits)
    assert figures["images_per_s"] == pytest.approx(4e3 / (read_ms + step_ms))


# --- the persons


def test_chosen_persons_are_those_of_random_images(small_data, tmp_path):
    whole = load_persons(small_data, "train")
    chosen = pipeline._choose(whole, 20, 3, tmp_path / "a")
    known = {person.annotation_id: person for person in whole.persons}
    assert len(chosen.persons) == 20
    for person in chosen.persons:
        same = known[person.annotation_id]
        assert person.box == same.box
        assert (person.joints == same.joints).all()
        assert person.image_path.read_bytes() == same.image_path.read_bytes()
    # All persons of an image come along, but for the last image.
    per_image = pd.Series([person.image_id for person in whole.persons]).value_counts()
    taken = pd.Series([person.image_id for person in chosen.persons]).value_counts()
    assert (taken < per_image[taken.index]).sum() <= 1
    again, other = (pipeline._choose(whole, 20, seed, tmp_path / str(seed)) for seed in (3, 4))
    ids = [{person.annotation_id for person in data.persons} for data in (chosen, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_a_small_data_set_is_taken_whole(small_data, tmp_path):
    whole = load_persons(small_data, "train")
    chosen = pipeline._choose(whole, 1000, 0, tmp_path / "a")
    assert [p.annotation_id for p in chosen.persons] == [p.annotation_id for p in whole.persons]


# --- table and record


def test_every_source_and_stage_has_its_rows(benchmark):
    _, _, table = benchmark
    simulated = [f"simulated step of 1 ms, {name}" for name in ("JPEG files", "crop cache")]
    runs = table[table["workers"].notna()]
    assert list(zip(runs["source"], runs["workers"], strict=True)) == [
        (name, workers) for name in (*SOURCES, *simulated) for workers in (0, 1)
    ]
    assert (runs["images_per_s"] > 0).all()
    assert runs["wait_share"].notna().equals(runs["source"].str.startswith("simulated"))
    stages = table[table["source"].str.startswith("stage: ")].set_index("source")["ms"]
    assert len(stages) == len(table) - len(runs) == 9
    assert (stages > 0).all()
    assert "times_mmpose" not in table


def test_one_process_takes_as_much_cpu_time_as_time(benchmark):
    _, _, table = benchmark
    alone = table[(table["workers"] == 0) & table["source"].isin(SOURCES)]
    assert (alone["images_per_s_per_core"] == alone["images_per_s"]).all()
    assert (alone["ms"] < 1.5e3 / alone["images_per_s"]).all()  # of a busy machine it may be less


def test_record_says_what_was_measured(benchmark, small_data):
    directory, folder, table = benchmark
    record, saved = read_benchmark("pipeline", "cpu", directory)
    data = load_persons(small_data, "train")
    assert folder.parent == directory / "pipeline"
    assert record["data"] == {"sha256": data.sha256}
    assert record["settings"]["persons"] == len(data.persons) == 30
    assert record["settings"]["images"] == len({person.image_path for person in data.persons})
    assert record["settings"]["augmentation"] == {"rotation": 40.0, "scale": 0.3, "flip": 0.5, "half_body": 0.3}
    assert record["cache"]["bytes"] > record["cache"]["jpeg_bytes"] > 0
    assert record["peer"] is None
    assert saved["ms"].to_numpy() == pytest.approx(table["ms"].to_numpy(), rel=1e-4, nan_ok=True)


def test_ratios_are_to_mmpose_in_the_same_round(monkeypatch):
    monkeypatch.setattr(pipeline, "cores", lambda: 2)
    figures = {
        ("JPEG files", 4): [{"images_per_s": rate, "ms": ms} for rate, ms in ((100, 1), (400, 2), (90, 3))],
        ("mmpose", 4): [{"images_per_s": rate, "ms": ms} for rate, ms in ((50, 8), (100, 6), (10, 12))],
    }
    row = next(pipeline._rows(figures))
    assert row == {
        "source": "JPEG files",
        "workers": 4,
        "images_per_s": 100,
        "images_per_s_per_core": 50,
        "spread": pytest.approx(3.1),
        "ms": 2,
        "times_mmpose": 4,  # of 2, 4 and 9; the ratio of the medians would be 2
        "times_mmpose_cpu": 4,  # of 8, 3 and 4
    }


def test_printed_table_is_blank_where_a_column_says_nothing(benchmark):
    _, _, table = benchmark
    printed = pipeline_table(table)
    assert list(printed.columns) == ["source", "workers", "images/s", "per core", "spread", "ms", "waits"]
    stage = printed[printed["source"] == "stage: reading the file"].iloc[0]
    assert (stage[["workers", "images/s", "per core", "waits"]] == "").all()
    assert float(stage["ms"]) > 0
    assert printed.loc[printed["source"].str.startswith("simulated"), "waits"].str.endswith("%").all()


# --- mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"persons": 7}, "at least the batch size .7 and 8 were given"),
        ({"rounds": 0}, "rounds at least 1"),
        ({"workers": ()}, "workers at least 0"),
        ({"workers": (0, -1)}, "workers at least 0"),
        ({"assume_step_ms": -1.0}, "a step at least 0 ms"),
        ({"batch_size": 31, "persons": 100}, "has 30 persons: give a batch size that is no larger"),
        ({"data": "mpii:data/mpii"}, "reads COCO's layout, not 'mpii:data/mpii'"),
        ({"data": "coco:/no/such/folder"}, "data directory /no/such/folder is not there"),
        ({"peer": Path("/no/such/python")}, "/no/such/python can't be started .No such file"),
        ({"peer": Path("/")}, "--peer / can't be started .Permission denied"),
        ({"peer": Path(sys.executable)}, "exit status 1; ModuleNotFoundError: No module named 'mmpose'"),
    ],
)
def test_mistakes_are_refused_and_leave_no_record(settings, message, small_data, tmp_path):
    arguments = {"data": small_data, "persons": 8, "batch_size": 8, "rounds": 1, "workers": (0,)} | settings
    before = torch.get_num_threads(), cv2.getNumThreads()
    with pytest.raises(InputError, match=message):
        bench_pipeline(arguments.pop("data"), **arguments, directory=tmp_path)
    assert not list(tmp_path.iterdir())
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo hello; sleep 60", "gives no measurement .exit status -9; it says nothing"),
        ("echo '[1]'; sleep 60", "gives no measurement"),
        ("echo '{\"persons\": 3}'; sleep 60", "gives no measurement"),
        ("echo first >&2; echo last >&2; exit 3", "exit status 3; last"),
    ],
)
def test_a_peer_that_does_not_answer_is_named(script, message, tmp_path):
    peer = tmp_path / "python"
    peer.write_text(f"#!/bin/sh\n{script}\n")
    peer.chmod(0o755)
    begin = time.monotonic()
    with pytest.raises(InputError, match=message), mmpose_peer(peer, {"seed": 0}):
        pass
    assert time.monotonic() - begin < 30


def test_a_peer_that_ends_in_between_is_named(tmp_path):
    peer = tmp_path / "python"
    peer.write_text('#!/bin/sh\nread line\necho \'{"persons": 3, "versions": {}}\'\nread line\nexit 5\n')
    peer.chmod(0o755)
    with mmpose_peer(peer, {"seed": 0}) as (ask, facts):
        assert facts == {"persons": 3, "versions": {}}
        with pytest.raises(InputError, match="exit status 5"):
            ask({"workers": 0, "images": 8}, "images_per_s")


# --- mmpose itself


def test_mmpose_reads_the_same_persons(small_data, tmp_path):
    python = os.environ.get("HDM_MMPOSE_PYTHON")
    if not python:
        pytest.skip("HDM_MMPOSE_PYTHON names no python with mmpose")
    _, table = bench_pipeline(
        small_data, persons=24, workers=(0, 1), batch_size=8, rounds=1, peer=Path(python), directory=tmp_path
    )
    record, _ = read_benchmark("pipeline", "gpu" if torch.cuda.is_available() else "cpu", tmp_path)
    assert record["peer"]["persons"] == 24
    assert "mmpose" in record["peer"]["versions"]
    assert record["peer"]["pipeline"][0].startswith("LoadImage")
    rows = table[table["source"] == "mmpose"]
    assert list(rows["workers"]) == [0, 1]
    assert (rows[["times_mmpose", "times_mmpose_cpu"]] == 1).all(axis=None)
    assert (table.loc[table["source"].isin(SOURCES), "times_mmpose_cpu"] > 1).all()
    assert table["source"].str.contains("stage: mmpose TopdownAffine").any()
