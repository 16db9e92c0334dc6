"""How long something takes and how much memory it needs, measured so that two numbers of one run can be compared.

Everything that is compared runs in turn, round after round, so that whatever else the machine does falls on all alike.
"""

import time
from collections.abc import Callable, Mapping
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile


def time_in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, limit_s: float
) -> dict[str, list[float]]:
    """Milliseconds of each call in each round, after one round that does not count.

    A call whose uncounted run took more than a tenth of `limit_s` runs only as often as fits into `limit_s`, at least
    once; CUDA events time a GPU.
    """
    first = {name: _milliseconds(call, device) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if turn == 0 or first[name] <= 100 * limit_s or (turn + 1) * first[name] <= 1000 * limit_s:
                times[name].append(_milliseconds(call, device))
    return times


def _milliseconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def peak_memory_mb(call: Callable[[], object], device: torch.device) -> float:
    """The most memory that torch holds during a call beyond what it held before, in MB (10^6 bytes).

    Arrays of other libraries (numpy, JAX) are not seen; NaN where torch's profiler does not tell.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    try:  # the profiler's public tables sum over time
        events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
        changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    except AttributeError:
        return float("nan")
    return max(accumulate(changes), default=0) / 1e6
