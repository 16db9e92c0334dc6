"""Timing in turn, and peak memory."""

import time

import pytest
import torch

from hdm.bench.timing import peak_memory_mb, time_in_turn

CPU = torch.device("cpu")


def test_everything_runs_once_uncounted_and_then_in_turn():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = time_in_turn(calls, rounds=3, device=CPU, limit_s=1.0)
    assert order == ["a", "b"] * 4
    assert [len(times[name]) for name in calls] == [3, 3]


def test_times_are_milliseconds():
    times = time_in_turn({"wait": lambda: time.sleep(0.02)}, rounds=3, device=CPU, limit_s=1.0)
    assert 20 <= min(times["wait"]) < 200


def test_slow_calls_run_as_often_as_the_limit_allows():
    times = time_in_turn({"slow": lambda: time.sleep(0.1), "fast": int}, rounds=8, device=CPU, limit_s=0.35)
    assert 1 <= len(times["slow"]) <= 3
    assert len(times["fast"]) == 8


def test_peak_memory_sees_what_is_freed_again():
    before = torch.ones(1_000_000)  # 4 MB that are there already

    def call() -> torch.Tensor:
        kept = torch.ones(5_000_000)  # 20 MB
        del kept
        return before + torch.ones(12_500_000).sum()  # 50 MB

    assert peak_memory_mb(call, CPU) == pytest.approx(50, abs=5)
