"""Networks that turn person crops into one heatmap per joint."""

from hdm.models.build import build_model
from hdm.models.cost import Cost, Memory, model_cost, training_memory
from hdm.models.hrnet import HRNet
from hdm.models.network import PoseNetwork
from hdm.models.official import load_imagenet_file, load_official
from hdm.models.simple_baseline import SimpleBaseline
from hdm.models.weights import LoadReport

__all__ = [
    "Cost",
    "HRNet",
    "LoadReport",
    "Memory",
    "PoseNetwork",
    "SimpleBaseline",
    "build_model",
    "load_imagenet_file",
    "load_official",
    "model_cost",
    "training_memory",
]
