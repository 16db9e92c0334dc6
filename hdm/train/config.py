"""The settings of one training run."""

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from hdm.decode import DECODERS
from hdm.errors import InputError
from hdm.losses import make_loss


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run depends on. An unknown setting or a value that can't be is an InputError.

    data: `coco:DIR` or `synthetic:DIR`; its train part trains, its val part validates with ground-truth boxes.
    train_limit, val_limit: only the first so many persons.
    model, pretrained, head_channels: see `hdm.models.build_model`.
    input_size: (rows, columns) of the crop in pixels, multiples of 32.
    loss, loss_settings: see `hdm.losses.make_loss`.
    warm_start: share of the steps, from the first, that minimise cross-entropy on the `subpixel` demanders instead.
    decoder: see `hdm.decode.decode`.
    epochs, batch_size: length. The last, incomplete batch of an epoch is left out where there is more than one.
    lr: peak learning rate of Adam (no weight decay, as the official code in effect uses it).
    schedule: `cosine` to zero, or `step`: times 0.1 at each of `drops` (shares of the epochs).
    warm_up: share of the steps over which the learning rate rises from zero.
    rotation, scale, flip: see `hdm.data.augment.Augmentation`.
    seed: of weights, order and views. device: `auto`, `cpu`, `cuda`. amp: bf16 autocast for network, float32 for loss.
    workers: processes that read images; 0 reads in the training process.
    """

    data: str
    model: str = "resnet18"
    pretrained: bool = False
    head_channels: int = 256
    input_size: tuple[int, int] = (256, 192)
    loss: str = "hdm"
    loss_settings: dict[str, Any] = field(default_factory=dict)
    warm_start: float = 0.0
    decoder: str = "local"
    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-3
    schedule: str = "cosine"
    drops: tuple[float, ...] = (0.65, 0.86)
    warm_up: float = 0.05
    rotation: float = 40.0
    scale: float = 0.3
    flip: float = 0.5
    seed: int = 0
    train_limit: int | None = None
    val_limit: int | None = None
    device: str = "auto"
    amp: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", tuple(self.input_size))
        object.__setattr__(self, "drops", tuple(self.drops))
        make_loss(self.loss, **self.loss_settings)
        positive = ("head_channels", "epochs", "batch_size", "lr")
        shares = ("warm_start", "warm_up", "flip")
        checks = [
            (len(self.input_size) == 2 and all(side > 0 and side % 32 == 0 for side in self.input_size),
             f"input_size {self.input_size} must be (rows, columns), both multiples of 32"),
            (self.decoder in DECODERS, f"unknown decoder {self.decoder!r}: choose one of {', '.join(DECODERS)}"),
            (self.schedule in ("cosine", "step"), f"unknown schedule {self.schedule!r}: choose cosine or step"),
            (self.device in ("auto", "cpu", "cuda"), f"unknown device {self.device!r}: choose auto, cpu or cuda"),
            (self.workers >= 0, f"workers {self.workers} must be 0 or more"),
            (self.rotation >= 0 and 0 <= self.scale < 1, "rotation must be at least 0 and scale from 0 to below 1"),
            *((getattr(self, name) > 0, f"{name} {getattr(self, name)} must be positive") for name in positive),
            *((0 <= getattr(self, name) <= 1, f"{name} {getattr(self, name)} must be from 0 to 1") for name in shares),
        ]  # fmt: skip
        for sound, message in checks:
            if not sound:
                raise InputError(f"setting {message}")

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "TrainConfig":
        """A config from a mapping, such as a profile's `train` section. Raises InputError for a name that is no setting."""
        names = [entry.name for entry in dataclasses.fields(cls)]
        for name in settings:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                raise InputError(
                    f"unknown setting {name!r}"
                    + (f": did you mean {near[0]!r}?" if near else f": known are {', '.join(names)}")
                )
        if "data" not in settings:
            raise InputError("setting 'data' is missing: give coco:DIR or synthetic:DIR")
        return cls(**settings)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, with the data directory reduced to its name: a record holds no path of a machine."""
        settings = json.loads(json.dumps(dataclasses.asdict(self)))
        kind, _, place = self.data.partition(":")
        settings["data"] = f"{kind}:{place.rstrip('/').rpartition('/')[2]}"
        return settings

    def key(self, data_sha256: str = "") -> str:
        """Eight characters that name the run: equal for equal settings and data, wherever and however fast it runs."""
        settings = self.as_dict()
        for name in ("device", "workers"):
            settings.pop(name)
        text = json.dumps([settings, data_sha256], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_configs(profile: dict[str, Any]) -> dict[str, TrainConfig]:
    """The runs of a profile by name: its `data` and `train` sections with each entry of `runs` on top."""
    shared = {"data": profile["data"], **profile.get("train", {})}
    return {name: TrainConfig.from_dict({**shared, **settings}) for name, settings in profile["runs"].items()}
