"""The settings of one training run."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hdm.decode import check_decoder
from hdm.errors import InputError
from hdm.losses import make_loss
from hdm.models.network import COLOURS
from hdm.pixels import check_convention
from hdm.protocols import SCORES


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


# Settings that records of the first version do not have.
LATER_SETTINGS = (
    *("colour", "convention", "half_body"),
    *("flip_test", "score", "score_threshold", "nms"),
)
# What a setting of each type may hold.
KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", _is_whole),
    int | None: ("a whole number or nothing", lambda value: value is None or _is_whole(value)),
    float: ("a number (in YAML: 1.0e-3, as 1e-3 is text there)", _is_number),
    float | None: ("a number or nothing", lambda value: value is None or _is_number(value)),
    tuple[int, int]: (
        "a list of two whole numbers",
        lambda value: _is_list(value) and len(value) == 2 and all(map(_is_whole, value)),
    ),
    tuple[float, ...]: ("a list of numbers", lambda value: _is_list(value) and all(map(_is_number, value))),
    dict[str, Any]: ("a mapping", lambda value: isinstance(value, dict)),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run depends on. An unknown setting, or a value of the wrong kind or size, is an InputError.

    data: `coco:DIR`, `mpii:DIR` or `synthetic:DIR`; its train part trains, its val part validates with ground-truth
        boxes.
    train_limit, val_limit: only the first so many persons.
    model, pretrained, head_channels, backbone_stride, colour: see `hdm.models.build_model`.
    input_size: (rows, columns) of the crop in pixels, multiples of 32. convention: of pixels, see `hdm.pixels`.
    loss, loss_settings: see `hdm.losses.make_loss`.
    warm_start: share of the steps, from the first, that minimise cross-entropy on the `subpixel` demanders instead.
    decoder: see `hdm.decode.decode`; a loss that reads the joints itself (`simcc`, `rle`) makes no use of it.
    flip_test: read joints from the average of a crop's and its mirror image's maps.
    score, score_threshold, nms: how COCO's persons are ranked, see `hdm.protocols.Rescoring`.
    epochs, batch_size: length. The last, incomplete batch of an epoch is left out where there is more than one.
    lr: peak learning rate of Adam (no weight decay, as the official code in effect uses it).
    schedule: `cosine` to zero, or `step`: times 0.1 at each of `drops` (shares of the epochs).
    warm_up: share of the steps over which the learning rate rises from zero.
    rotation, scale, flip, half_body: see `hdm.data.augment.Augmentation`.
    seed: of weights, order and views. device: `auto`, `cpu`, `cuda`. amp: bf16 autocast for network, float32 for loss.
    workers: processes that read images; 0 reads in the training process.
    """

    data: str
    model: str = "resnet18"
    pretrained: bool = False
    head_channels: int = 256
    backbone_stride: int = 32
    colour: str = "rgb"
    input_size: tuple[int, int] = (256, 192)
    convention: str = "half_pixel"
    loss: str = "hdm"
    loss_settings: dict[str, Any] = field(default_factory=dict)
    warm_start: float = 0.0
    decoder: str = "local"
    flip_test: bool = False
    score: str = "joints"
    score_threshold: float = 0.0
    nms: float | None = None
    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-3
    schedule: str = "cosine"
    drops: tuple[float, ...] = (0.65, 0.86)
    warm_up: float = 0.05
    rotation: float = 40.0
    scale: float = 0.3
    flip: float = 0.5
    half_body: float = 0.0
    seed: int = 0
    train_limit: int | None = None
    val_limit: int | None = None
    device: str = "auto"
    amp: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, _of_kind(entry, getattr(self, entry.name)))
        make_loss(self.loss, **self.loss_settings)
        check_convention(self.convention)
        check_decoder(self.decoder)
        positive = ("head_channels", "epochs", "batch_size", "lr", "train_limit", "val_limit")
        shares = ("warm_start", "warm_up", "flip", "half_body")
        checks = [
            (all(side > 0 and side % 32 == 0 for side in self.input_size),
             f"input_size {self.input_size} must be (rows, columns), both multiples of 32"),
            (self.colour in COLOURS, f"unknown colour {self.colour!r}: choose one of {', '.join(COLOURS)}"),
            (self.score in SCORES, f"unknown score {self.score!r}: choose one of {', '.join(SCORES)}"),
            (self.nms is None or 0 < self.nms <= 1, f"nms {self.nms} must be above 0 and at most 1, or nothing"),
            (self.schedule in ("cosine", "step"), f"unknown schedule {self.schedule!r}: choose cosine or step"),
            (self.device in ("auto", "cpu", "cuda"), f"unknown device {self.device!r}: choose auto, cpu or cuda"),
            (all(0 <= drop <= 1 for drop in self.drops),
             f"drops {self.drops} must be shares of the epochs, from 0 to 1"),
            ("reduction" not in self.loss_settings, "loss_settings must leave out reduction: training needs the mean"),
            (self.workers >= 0, f"workers {self.workers} must be 0 or more"),
            (self.seed >= 0, f"seed {self.seed} must be 0 or more"),
            (self.rotation >= 0 and 0 <= self.scale < 1, "rotation must be at least 0 and scale from 0 to below 1"),
            *((getattr(self, name) is None or getattr(self, name) > 0, f"{name} {getattr(self, name)} must be positive")
              for name in positive),
            *((0 <= getattr(self, name) <= 1, f"{name} {getattr(self, name)} must be from 0 to 1") for name in shares),
        ]  # fmt: skip
        for sound, message in checks:
            if not sound:
                raise InputError(f"setting {message}")

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "TrainConfig":
        """A config from a mapping, such as a profile's `train` section; InputError for a name that is no setting."""
        entries = {entry.name: entry for entry in dataclasses.fields(cls)}
        for name in settings:
            if name not in entries:
                near = difflib.get_close_matches(str(name), entries, 1)
                raise InputError(
                    f"unknown setting {name!r}"
                    + (f": did you mean {near[0]!r}?" if near else f": known are {', '.join(entries)}")
                )
        if "data" not in settings:
            raise InputError("setting 'data' is missing: give coco:DIR, mpii:DIR or synthetic:DIR")
        return cls(**{name: _of_kind(entries[name], value) for name, value in settings.items()})

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values; of the data directory only the name: a record holds no path of a machine."""
        settings = json.loads(json.dumps(dataclasses.asdict(self)))
        kind, _, place = self.data.partition(":")
        settings["data"] = f"{kind}:{place.rstrip('/').rpartition('/')[2]}"
        return settings

    def key(self, data_sha256: str = "") -> str:
        """Eight characters that name the run: equal for equal settings and data, wherever and however fast it runs."""
        settings = self.as_dict()
        # A setting that came with a later version changes no key while it has the value that earlier versions had.
        later = {entry.name: entry.default for entry in dataclasses.fields(self) if entry.name in LATER_SETTINGS}
        for name in ("device", "workers", *(name for name, default in later.items() if settings[name] == default)):
            settings.pop(name)
        text = json.dumps([settings, data_sha256], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def _of_kind(entry: dataclasses.Field, value: Any) -> Any:
    """The value in the setting's own type: YAML and JSON have no tuples and may write 1 for 1.0, and equal settings
    shall be equal. Raises InputError where it is of another kind."""
    kind, fits = KINDS[entry.type]
    if not fits(value):
        raise InputError(f"setting {entry.name} {value!r} must be {kind}")
    if isinstance(value, list):
        return tuple(value)
    return float(value) if entry.type in (float, float | None) and value is not None else value


def run_configs(profile: dict[str, Any]) -> dict[str, TrainConfig]:
    """The runs of a profile by name: its `data` and `train` sections with each entry of `runs` on top."""
    for section in ("data", "runs"):
        if not profile.get(section):
            raise InputError(f"the profile has no section {section!r}: see book/profiles for how one looks")
    shared = {"data": profile["data"], **(profile.get("train") or {})}
    return {name: TrainConfig.from_dict({**shared, **(settings or {})}) for name, settings in profile["runs"].items()}
