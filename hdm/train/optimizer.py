"""Adam, and its learning rate at each step."""

import math

import torch
from torch import nn

from hdm.train.config import TrainConfig


def make_optimizer(model: nn.Module, loss: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    """Adam over all parameters of the network and of the loss, in one group and without weight decay: the official
    recipes' files ask for 1e-4, but their `get_optimizer` passes it to SGD alone."""
    return torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=config.lr)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The learning rate of a step (from 0): a linear rise over the share `warm_up`, then `cosine` or `step` decay."""
    rise = config.warm_up * steps
    if step < rise:
        return config.lr * (step + 1) / (rise + 1)
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(step >= drop * steps for drop in config.drops)
    return config.lr * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise))) / 2
