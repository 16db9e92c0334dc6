"""The same maps after every epoch: what a network paints of one joint of a few persons while it learns."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdm.data import PersonData
from hdm.data.crops import Crop
from hdm.decode import decode
from hdm.errors import InputError
from hdm.models import PoseNetwork
from hdm.train.config import TrainConfig
from hdm.train.reading import make_val_crops


@dataclass(frozen=True)
class Frame:
    """One joint of N persons after an epoch of a run: maps (N, H, W), and in heatmap pixels the annotated `joints`
    (N, 2) and those `found` by the run's decoder (N, 2)."""

    config: TrainConfig
    epoch: int
    maps: Float[Tensor, "N H W"]
    joints: Float[Tensor, "N 2"]
    found: Float[Tensor, "N 2"]


@dataclass
class Film:
    """Collects a frame after each epoch, given to `train` or `run_study` as `after_epoch`.

    The `persons` first persons of `data` are shown whose joint of this name is visible; all runs must crop them alike.
    """

    data: PersonData
    joint: str
    persons: int = 2
    frames: list[Frame] = field(default_factory=list)

    def __call__(self, config: TrainConfig, epoch: int, model: PoseNetwork, loss: nn.Module) -> None:
        """Takes the frame of one epoch. Raises InputError for an unknown joint and where nobody shows it."""
        number = self._number()
        crops = self._crops(config, number)
        images = torch.stack([crop.image for crop in crops]).to(next(model.parameters()).device)
        joints = torch.stack([crop.joints[number] for crop in crops])
        with torch.no_grad():
            maps = loss.maps(model(model.prepare(images)))  # type: ignore[operator]
        maps = maps[:, [number]].float().cpu()
        found, _ = decode(maps, config.decoder)
        self.frames.append(Frame(config, epoch, maps[:, 0], joints, found[:, 0]))

    def _number(self) -> int:
        names = list(self.data.skeleton.names)
        if self.joint not in names:
            raise InputError(f"unknown joint {self.joint!r}: the data has {', '.join(names)}")
        return names.index(self.joint)

    def _crops(self, config: TrainConfig, number: int) -> Sequence[Crop]:
        crops = make_val_crops(self.data, config)
        shown = (index for index in range(len(crops)) if crops.show(index).visible[number])
        chosen = [crops[index] for index, _ in zip(shown, range(self.persons), strict=False)]
        if not chosen:
            raise InputError(f"no person of the data shows the joint {self.joint!r}: name another one")
        return chosen
