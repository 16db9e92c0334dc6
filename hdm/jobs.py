"""Training runs one after another in this process, or several at once, each in a process of its own on this machine.

What is where:
- This process says what is started, prints what the runs say, and passes a stop on to them.
- A process trains one run and ends with it, so one that is killed takes no other with it.
- Ctrl-C reaches every process of a terminal. Those of the runs are deaf to it from birth: it is passed on to them, as
  SIGTERM is, once, and then `hdm.train.train` saves the state and stops. One that has nothing to save yet is killed.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any

import torch

from hdm.errors import InputError, Stopped
from hdm.train import CHECKPOINTS, Run, TrainConfig, finished_run, train
from hdm.train.engine import stop_requests

LOOK_S = 0.2  # how often it is looked whether a process has ended
PATIENCE_S = 60.0  # how long a process that has been told to stop may take to save its state

Outcomes = Generator[tuple[str, Run | InputError], None, None]
Log = Callable[[str], None]


def trained(
    coming: Iterable[tuple[str, TrainConfig]],
    *,
    jobs: int = 1,
    checkpoints: Path | str = CHECKPOINTS,
    log: Log = print,
    **options: Any,
) -> Outcomes:
    """Trains runs, up to `jobs` of them at once, and yields the name of each that has ended with what it came to.

    coming: names and settings. The next one is asked for only when there is room for it, so that what is no longer to
        be trained can still be left out.
    jobs: 1 trains in this process. With more, each run has a process of its own with 1 / jobs of this process's
        threads of torch (at least one), no bar, and its name before each line of its log.
    options: further ones of `hdm.train.train`.
    A run that fails, or whose process dies, gives an InputError and leaves the others alone. Raises Stopped on Ctrl-C
    and SIGTERM once all processes have saved their states and ended; a second signal ends them without waiting for the
    step at hand. Close the iterator (`contextlib.closing`) where it may not be read to its end: that stops them too.
    """
    options = {"checkpoints": checkpoints, **options}
    if jobs == 1:
        yield from _in_turn(coming, log, options)
    else:
        yield from _at_once(iter(coming), jobs, log, options)


def _in_turn(coming: Iterable[tuple[str, TrainConfig]], log: Log, options: dict[str, Any]) -> Outcomes:
    for name, config in coming:
        try:
            outcome: Run | InputError = train(config, log=log, **options)
        except InputError as error:
            outcome = error
        yield name, outcome


@dataclass
class _Worker:
    """A process that trains a run, what can be heard of it, whether it has loaded what it needs, and what it came to:
    the folder of its record, or why there is none."""

    name: str
    process: BaseProcess
    says: connection.Connection
    begun: bool = False
    came_to: Path | InputError | None = None


def _at_once(coming: Iterator[tuple[str, TrainConfig]], jobs: int, log: Log, options: dict[str, Any]) -> Outcomes:
    threads = max(1, torch.get_num_threads() // jobs)
    workers: list[_Worker] = []
    stopping = False
    with stop_requests() as stop, _ended(workers):
        while True:
            while len(workers) < jobs and not stop.signal and (run := next(coming, None)):
                workers.append(_start(*run, threads, options))
            if stop.signal and not stopping:
                stopping = True
                log(f"stopping: {len(workers)} runs save their states")
                for worker in workers:
                    _tell_to_stop(worker)
            if not workers:
                break
            connection.wait([worker.says for worker in workers], LOOK_S)
            for worker in list(workers):
                ended = worker.process.exitcode is not None  # asked first: what it said last is then in the pipe
                _listen(worker, log)
                if not ended:
                    continue
                workers.remove(worker)
                came_to = worker.came_to or _died(worker.process)
                if isinstance(came_to, Path):
                    yield worker.name, finished_run(came_to, options["checkpoints"])
                elif not stopping:
                    yield worker.name, came_to
                elif worker.begun:
                    log(f"{worker.name}: {came_to}")
        if stop.signal:
            raise Stopped(
                "stopped; what was at work has its state saved, and the same command goes on from there", stop.signal
            )


def _start(name: str, config: TrainConfig, threads: int, options: dict[str, Any]) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork would have locks of torch's threads that nobody opens
    says, speaks = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(speaks, config, threads, options), name=name)
    ensure_running()  # a helper of Python's; started with the first process, it would make that hear Ctrl-C after all
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # is inherited
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    speaks.close()  # only the process has it now
    return _Worker(name, process, says)


def _work(speaks: connection.Connection, config: TrainConfig, threads: int, options: dict[str, Any]) -> None:
    """What a process does. It sends None once it has begun, a line of its log as text, and at the end the
    folder of the record, or an InputError."""
    torch.set_num_threads(threads)
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: this ends at the next line, as states stay
        try:
            speaks.send(None)
            run = train(config, log=speaks.send, **{**options, "progress": False})
        except (InputError, Stopped) as error:
            speaks.send(InputError(str(error)))
        else:
            speaks.send(run.folder)


def _listen(worker: _Worker, log: Log) -> None:
    """Takes all that a process has said so far."""
    with contextlib.suppress(EOFError):
        while worker.says.poll():
            said = worker.says.recv()
            worker.begun = True
            if isinstance(said, str):
                log(f"{worker.name}: {said}")
            elif said is not None:
                worker.came_to = said


def _tell_to_stop(worker: _Worker) -> None:
    """SIGTERM, but SIGKILL before it has begun: one that is just being made may miss any other signal."""
    if worker.begun:
        worker.process.terminate()
    else:
        worker.process.kill()


def _died(process: BaseProcess) -> InputError:
    """Why there is no word of a process's end."""
    status = process.exitcode or 0
    if status < 0:
        how = f"was ended by signal {-status} ({signal.strsignal(-status)})"
        return InputError(f"its process {how}: start the study again, and the run goes on from its last state")
    return InputError(f"its process ended with exit status {status}: see the error that it printed")


@contextlib.contextmanager
def _ended(workers: list[_Worker]) -> Iterator[None]:
    """However it is left, no process stays behind: each is told to stop, and killed where it does not."""
    try:
        yield
    finally:
        for worker in workers:
            _tell_to_stop(worker)
        for worker in workers:
            worker.process.join(PATIENCE_S)
            worker.process.kill()
            worker.process.join()
