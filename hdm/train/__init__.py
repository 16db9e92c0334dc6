"""Training: settings, the loop, checkpoints."""

from hdm.train.config import TrainConfig, run_configs
from hdm.train.loop import train

__all__ = ["TrainConfig", "run_configs", "train"]
