"""Official files: published pose checkpoints and ImageNet weights, read as tensors alone and counted as they load."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hdm.errors import InputError
from hdm.models.weights import LoadReport, load_matching

# Share of the file's tensors, in modules that the network has, which it must take. The file of a deeper ResNet stays
# below 0.7; HRNet's ImageNet file has a few more in its last module, and comes to 0.96.
USED = 0.9
# Where a training run's file keeps the network's tensors, among other things.
PLACES = ("state_dict", "best_state_dict", "model")


def load_official(model: nn.Module, path: str | Path) -> LoadReport:
    """Loads a pose checkpoint into a network of the same architecture and number of joints.

    path: `.pth` or `.pth.tar` of the official SimpleBaseline and HRNet repositories, or a checkpoint of this package.
    Returns what matched. Raises InputError, the network left as it was, for a file that is missing, damaged or needs
    code (see `read_tensors`), and where less than 99 % of the network's tensors are in it, one has another shape, the
    head is not whole, or the file is of a larger network of the same kind.
    """
    return load_matching(model, read_tensors(path), f"checkpoint {path}", used_at_least=USED)


def load_imagenet_file(model: nn.Module, path: str | Path) -> LoadReport:
    """Loads an official ImageNet classification file into a network's backbone, which is all but its head.

    path: a torchvision ResNet's file, or that of HRNet's repository for image classification. What such a file calls
    `final_layer` belongs to its classifier, and is not taken for ours.
    Returns what matched of the backbone; raises InputError as `load_official` does, counting the backbone's tensors.
    """
    return load_matching(model, read_tensors(path), f"file {path}", used_at_least=USED, backbone_only=True)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file that torch.save wrote, by name, on the CPU, without the `module.` of parallel training.

    Nothing in the file is run: a pickle that asks for more than tensors and plain values is refused. Raises InputError
    for that, and for a file that is missing, empty, damaged, no checkpoint, or without tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights {path} are not there: give the path of a .pth or .pth.tar file")
    if path.stat().st_size == 0:
        raise InputError(f"weights {path} are an empty file: fetch it again")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        if needed := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"weights {path} are a pickle that needs code ({needed[1]}), which is never run: "
                "save the tensors alone, with torch.save(model.state_dict(), path)"
            ) from error
        raise InputError(
            f"weights {path} can't be read as a checkpoint of tensors alone ({type(error).__name__}): "
            "the file is damaged or of another kind, fetch it again"
        ) from error
    for place in PLACES:
        # HRNet's repository has the network's name under `model`, so only a dictionary counts.
        if isinstance(content, dict) and isinstance(content.get(place), dict):
            content = content[place]
    # No sparse tensors and no meta tensors, which would fail while they are copied.
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    }
    if not tensors:
        raise InputError(f"weights {path} hold no tensors by name: give a file that torch.save wrote of a state_dict")
    return tensors
