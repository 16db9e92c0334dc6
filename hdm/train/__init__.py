"""Training: settings, the loop, checkpoints."""

from hdm.train.config import TrainConfig, run_configs
from hdm.train.loop import Run, finished_run, train, trained_network

__all__ = ["Run", "TrainConfig", "finished_run", "run_configs", "train", "trained_network"]
