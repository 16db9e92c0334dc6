"""What a network costs: parameters, multiply-adds for one crop, and memory of a training step."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hdm.errors import InputError


@dataclass(frozen=True)
class Cost:
    """parameters: numbers that training changes. multiply_adds: for one crop, see `model_cost`."""

    parameters: int
    multiply_adds: int

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.1f} M parameters, {self.multiply_adds / 1e9:.3f} G multiply-adds"


def model_cost(model: nn.Module, input_size: tuple[int, int]) -> Cost:
    """Parameters of a network, and multiply-adds of one crop of `input_size` (rows, columns).

    A convolution with c inputs and C outputs in g groups, a kernel of k pixels and p output pixels counts p k c C / g;
    a transposed one counts its input pixels; a linear layer, or another product of matrices, counts every product.
    Normalisation, activations, sums and resizing count nothing.

    The "GFLOPs" in the README of the HRNet repository are multiply-adds too, but divided by 1024^3 and with transposed
    convolutions counted by their output pixels, four times as much: it says 12.4 for SimpleBaseline with ResNet-101 at
    256 x 192, where this counts 9.06e9.
    The network is neither run nor changed: a copy without numbers (torch's meta device) stands in for it.
    """
    rows, columns = input_size
    if rows < 1 or columns < 1:
        raise InputError(f"input size {rows} x {columns} has no pixels: give (rows, columns)")
    shell = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shell(torch.zeros(1, 3, rows, columns, device="meta"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)


@dataclass(frozen=True)
class Memory:
    """Bytes that a training step holds at once. fixed: whatever the batch. per_crop: for each crop in it."""

    fixed: int
    per_crop: int


def training_memory(model: nn.Module, input_size: tuple[int, int]) -> Memory:
    """What a step of training with Adam in float32 needs, for crops of `input_size` (rows, columns).

    fixed: weights, gradients and Adam's two averages, 16 bytes a parameter. per_crop: all that the forward pass saves
    for the backward pass. Not counted: workspaces of convolutions, gradients of activations, the loss, and what the
    allocator leaves unused. The network is neither run nor changed, as in `model_cost`.
    """
    rows, columns = input_size
    shell = copy.deepcopy(model).to("meta").train()
    own = {tensor.untyped_storage()._cdata for tensor in (*shell.parameters(), *shell.buffers())}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:  # one activation may be saved by several operations
            saved[storage._cdata] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = shell(torch.zeros(2, 3, rows, columns, device="meta"))
    del result  # until here its graph has kept what was saved
    fixed = 16 * sum(parameter.numel() for parameter in model.parameters())
    return Memory(fixed, sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) // 2)
