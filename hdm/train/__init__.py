"""Training: settings, the loop, states that a run goes on from, finished runs."""

from hdm.train.checkpoint import is_running, saved_states
from hdm.train.config import TrainConfig, run_configs
from hdm.train.film import Film, Frame
from hdm.train.loop import train
from hdm.train.run import CHECKPOINTS, Run, finished_run, recorded_run, run_folder, trained_network

__all__ = [
    "CHECKPOINTS",
    "Film",
    "Frame",
    "Run",
    "TrainConfig",
    "finished_run",
    "is_running",
    "recorded_run",
    "run_configs",
    "run_folder",
    "saved_states",
    "train",
    "trained_network",
]
