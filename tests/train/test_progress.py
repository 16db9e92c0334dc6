"""What a person sees of a run while it works, and what a state remembers of it."""

import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable

import psutil
import pytest
import torch

from hdm.train import Run, TrainConfig
from hdm.train.progress import Clock, Progress, epoch_line, peak_memory_mb, progress_bar, show_progress

CPU = torch.device("cpu")


@pytest.fixture
def nobody_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal, and no notebook either, whatever other tests have imported."""
    monkeypatch.setattr("hdm.train.progress._in_notebook", lambda: False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)


def progress_after(epochs: int, clock: Clock) -> Progress:
    return Progress("id", {"lr": 0.1}, "hash", 9.0, step=7, clock=clock, history=[{"epoch": e} for e in range(epochs)])


# --- the clock ---


def test_a_clock_tells_speed_and_the_share_of_waiting() -> None:
    clock = Clock()
    assert math.isnan(clock.images_per_second) and math.isnan(clock.data_wait)
    clock.add(0.5, 0.1, 8)
    clock.add(1.5, 0.3, 24)
    assert clock.images_per_second == pytest.approx(16)
    assert clock.data_wait == pytest.approx(0.2)


def test_progress_comes_back_from_json() -> None:
    run = progress_after(2, Clock(2.0, 0.5, 32))
    again = Progress.from_dict(json.loads(json.dumps(dataclasses.asdict(run))))
    assert again == run
    assert again.clock.data_wait == 0.25


# --- the bar ---


def test_the_bar_shows_epoch_steps_speed_waiting_memory_and_time_left() -> None:
    bar = progress_bar(20, 10, True)
    bar.start_t -= 30  # five steps in 30 s leave 30 s for the five that are left
    for _ in range(5):
        show_progress(bar, progress_after(2, Clock(2.0, 0.25, 64)), 4, CPU)
    text = str(bar)
    bar.close()
    assert text.startswith("epoch 2/4:  75%")
    assert "15/20" in text
    assert "32 images/s, waits 12.5 %" in text
    assert f"{peak_memory_mb(CPU) / 1000:.1f} GB" in text
    assert re.search(r"\[00:3\d<00:3\d", text), text


def test_no_bar_where_nobody_looks_on(nobody_looks_on: None, capfd: pytest.CaptureFixture[str]) -> None:
    bar = progress_bar(3, 0, None)
    show_progress(bar, progress_after(1, Clock(1.0, 0.0, 8)), 2, CPU)
    bar.close()
    assert bar.disable
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("nobody_looks_on")
def test_a_bar_on_a_terminal_and_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_bar(3, 0, False).disable
    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "isatty", lambda: True)
        assert not progress_bar(3, 0, None).disable
        assert progress_bar(3, 0, False).disable
    with monkeypatch.context() as patch:
        patch.setattr("hdm.train.progress._in_notebook", lambda: True)
        assert not progress_bar(3, 0, None).disable
    assert progress_bar(3, 0, None).disable


@pytest.mark.usefixtures("nobody_looks_on")
def test_a_run_shows_its_bar_when_asked(
    tiny: Callable[..., TrainConfig], run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny(epochs=4, train_limit=24), "shown", progress=True)
    shown = capsys.readouterr().err
    assert re.search(r"epoch \d/4: .*/12 .*images/s, waits .* %, .* GB", shown), shown
    run(tiny(epochs=1), "hidden")
    assert capsys.readouterr().err == ""


# --- the log ---

ROW = {
    "epoch": 3, "objective": "hdm", "train_loss": 1.25, "val_loss": 1.5, "error_px": 8.125, "PCKh@0.5": 61.25,
    "seconds": 12.4, "images_per_second": 98.6, "data_wait": 0.034,
}  # fmt: skip


def test_the_log_line_of_an_epoch() -> None:
    assert epoch_line(ROW, "hdm", 10, "PCKh@0.5") == (
        "hdm: epoch 3/10  hdm 1.2500  validation 1.5000  error 8.12 px  PCKh@0.5 61.250  12 s, 99 images/s, waits 3.4 %"
    )
    untrained = epoch_line({**ROW, "epoch": 0, "objective": "untrained"}, "hdm", 10, "PCKh@0.5")
    assert untrained == "hdm: epoch 0/10  untrained  validation 1.5000  error 8.12 px  PCKh@0.5 61.250  12 s"


def test_memory_is_the_peak_of_this_process_in_megabytes() -> None:
    now = psutil.Process().memory_info().rss / 1e6
    peak = peak_memory_mb(CPU)
    assert 0.99 * now <= peak < 50 * now
    kept = torch.ones(int(1e6 * (peak - now) / 4) + 25_000_000)  # 100 MB more than there ever were
    del kept
    assert 70 < peak_memory_mb(CPU) - peak < 200
