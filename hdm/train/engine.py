"""What the loop stands on: device, precision and processes from Hugging Face Accelerate, and stopping in good order."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, is_initialized
from jaxtyping import Float, UInt8
from torch import Tensor, distributed, nn

from hdm.errors import InputError
from hdm.inference import choose_device
from hdm.models import PoseNetwork
from hdm.train.config import TrainConfig

MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
# Two signals this close are one request: `timeout` and schedulers signal a whole group of processes, and one of these
# that passes its own on (`hdm.jobs`) does so a moment later.
SAME_REQUEST_S = 0.5


def start_engine(config: TrainConfig, tensorboard: Path | str | None = None) -> Accelerator:
    """The device, precision and processes of a run: one process, or those that `accelerate launch` or
    `notebook_launcher` has started.

    tensorboard: a folder for TensorBoard's files. Raises InputError for a device or precision that is not there.
    """
    device = choose_device(config.device)
    if config.precision == "float16" and device.type == "cpu":
        raise InputError("precision float16 needs a GPU: use bfloat16 or float32 on a CPU")
    _forget()
    if tensorboard is not None and find_spec("tensorboard") is None:  # Accelerate would go on without
        raise InputError("TensorBoard is not installed: pip install tensorboard")
    # A head of the loss's own has no part in the steps of a warm start.
    unused = DistributedDataParallelKwargs(find_unused_parameters=config.warm_start > 0)
    try:
        return Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=MIXED[config.precision],
            kwargs_handlers=[unused],
            log_with=None if tensorboard is None else "tensorboard",
            project_dir=None if tensorboard is None else str(tensorboard),
        )
    except (ValueError, ImportError) as error:
        raise InputError(f"precision {config.precision} does not work on {device}: {error}") from error


@contextlib.contextmanager
def engine_released() -> Iterator[None]:
    """At its end another run of this process may have another device or precision, or several processes."""
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    """Accelerate keeps device and precision for the life of a process, and `notebook_launcher` refuses to start where
    it has any."""
    if is_initialized():
        AcceleratorState._reset_state(reset_partial_state=not distributed.is_initialized())


class Learner(nn.Module):
    """Network and loss as one module, so that their gradients are averaged over processes together.

    forward(images, joints, visible, warm): the mean loss of a part of a batch, the warm start's where `warm` is set;
    0 where no joint of the part is visible.
    """

    def __init__(self, model: PoseNetwork, loss: nn.Module, warm_loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss, self.warm_loss = model, loss, warm_loss

    def objective(self, warm: bool) -> nn.Module:
        """The loss of a step."""
        return self.warm_loss if warm else self.loss

    def forward(
        self,
        images: UInt8[Tensor, "B 3 h w"],
        joints: Float[Tensor, "B K 2"],
        visible: Float[Tensor, "B K"],
        warm: bool,
    ) -> Float[Tensor, ""]:
        heatmaps = self.model(self.model.prepare(images))
        # Whatever the precision of the network, a transport problem needs all digits.
        with torch.autocast(heatmaps.device.type, enabled=False):
            heatmaps = heatmaps.float()
            objective = self.objective(warm)
            if not bool((visible > 0).any()):
                # Every weight takes part, the loss's own too, or other processes would wait for its gradient.
                return sum((weight.sum() * 0 for weight in objective.parameters()), heatmaps.sum() * 0)
            return objective(heatmaps, joints, visible)


def mean_over(loss: nn.Module, visible: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """What a loss's mean divides by: the sum of the weights, if it has no say of its own."""
    return loss.mean_over(visible) if hasattr(loss, "mean_over") else visible.sum()  # type: ignore[operator]


class SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor; its gradient is the sum of every process's gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return SumOverProcesses.forward(ctx, gradient)


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the rows of all processes: torch's own knows GPUs only.

    mean = sum x / n and variance = sum (x - mean)^2 / n over rows, heights and widths of all processes; the running
    variance has n - 1.
    """

    def forward(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        if not self.training:
            return super().forward(input)
        x = input.float()
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        sums = SumOverProcesses.apply(torch.cat([x.sum((0, 2, 3)), count]))
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = x - mean.view(1, -1, 1, 1)
        variance = SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / n
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)


def sync_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Lets every batch norm of a network see the rows of all processes; names and weights stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm


def everywhere(engine: Accelerator, *flags: float) -> list[float]:
    """For each number the largest that any process has, so that all of them do the same."""
    if engine.num_processes == 1:
        return list(flags)
    values = torch.tensor(flags, dtype=torch.float64, device=engine.device)
    distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values.tolist()


class StopRequest:
    """What has been asked for while a run works: `signal` is 0 until someone stops it."""

    def __init__(self) -> None:
        self.signal = 0
        self.came = 0.0
        self.at_once = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """A signal arrives: the loop looks at `signal` after each step, or is broken off at a second one, or where
        `at_once` says that nothing can be lost. One that comes within `SAME_REQUEST_S` of the first is its echo."""
        if self.signal and time.monotonic() - self.came < SAME_REQUEST_S:
            return
        asked_before, self.signal, self.came = self.signal, number, time.monotonic()
        if asked_before or self.at_once:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def breaking_off(self, allowed: bool = True) -> Iterator[None]:
        """Within, a signal breaks off what is being done, where that is allowed: several processes stop together, or
        those that go on would wait for ever."""
        self.at_once = allowed
        try:
            if allowed and self.signal:
                raise KeyboardInterrupt
            yield
        finally:
            self.at_once = False


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Takes SIGINT (Ctrl-C, a notebook's stop button) and SIGTERM as requests to stop after the step at hand. Signals
    reach the main thread only; elsewhere there are none to take. One that comes too late to stop anything is passed on
    at the end, as there may be more to stop than this run."""
    request = StopRequest()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.signal(number, request.receive)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if request.signal:
        signal.raise_signal(request.signal)
