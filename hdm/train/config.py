"""The settings of one training run."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hdm.data.batches import ORDERS
from hdm.decode import check_decoder
from hdm.errors import InputError, hint
from hdm.losses import make_loss
from hdm.models.build import HEATMAP_STRIDES
from hdm.models.network import COLOURS
from hdm.pixels import STRIDE, check_convention
from hdm.protocols import SCORES


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


# What a run's numbers do not depend on: where and how fast it runs. A run may go on with others.
PLACE_SETTINGS = ("device", "workers", "cache", "save_minutes")
# Settings that earlier versions did not have, with the value that says what these did.
LATER_SETTINGS: dict[str, Any] = {
    "colour": "rgb",
    "convention": "half_pixel",
    "half_body": 0.0,
    "flip_test": False,
    "score": "joints",
    "score_threshold": 0.0,
    "nms": None,
    "precision": "float32",
    "accumulate": 1,
    "sync_batch_norm": False,
    "compile": False,
    "clip": None,
    "ema": 0.0,
    "keep": "last",
    "order": "persons",
    "drop_last": True,
    "reduced": False,
    "skip_unreadable": False,
    "held_out": 0.0,
    "label_noise": 0.0,
    "follow": False,
    "heatmap_stride": 4,
}
PRECISIONS = ("float32", "bfloat16", "float16")
# What a setting of each type may hold.
KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", _is_whole),
    int | None: ("a whole number or nothing", lambda value: value is None or _is_whole(value)),
    float: ("a number (in YAML: 1.0e-3, as 1e-3 is text there)", _is_number),
    str | None: ("text or nothing", lambda value: value is None or isinstance(value, str)),
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
    held_out: share of the train part's pictures that does not train but validates instead of the val part, which is
        not looked at; it has pixel errors and PCK only, as the protocols are defined on the val part. For choosing
        settings.
    train_limit, val_limit: only the first so many persons.
    label_noise: standard deviation, per axis, of a shift of every training joint, in shares of the longer side of the
        person box; drawn once for each joint.
    model, pretrained, head_channels, backbone_stride, heatmap_stride, colour: see `hdm.models.build_model`.
    input_size: (rows, columns) of the crop in pixels, multiples of `backbone_stride`.
    convention: of pixels, see `hdm.pixels`.
    loss, loss_settings: see `hdm.losses.make_loss`.
    warm_start: share of the steps, from the first, that minimise cross-entropy on the `subpixel` demanders instead.
    decoder: see `hdm.decode.decode`; a loss that reads the joints itself (`simcc`, `rle`) makes no use of it.
    flip_test: read joints from the average of a crop's and its mirror image's maps.
    score, score_threshold, nms: how COCO's persons are ranked, see `hdm.protocols.Rescoring`.
    epochs: passes over the training part. drop_last: leave out the last, incomplete batch of an epoch where there is
        more than one batch.
    batch_size: persons of one step, of all processes together. accumulate: in how many parts each process takes its
        share, one after the other: less memory, the same gradient but for batch norm, which sees a part.
    lr: peak learning rate of Adam (no weight decay, as the official code in effect uses it).
    schedule: `cosine` to zero, or `step`: times 0.1 at each of `drops` (shares of the epochs).
    warm_up: share of the steps over which the learning rate rises from zero.
    clip: largest norm of a step's gradient, or nothing.
    ema: decay of an exponential moving average of the weights, which then is what is validated and kept; 0 for none.
    keep: which weights the run ends with, those of the `last` epoch, or of the `best` by the validation part's AP or
        PCKh@0.5, as the official code does; its score is then no longer one of held-out persons.
    rotation, scale, flip, half_body: see `hdm.data.augment.Augmentation`.
    order: how an epoch is shuffled, all `persons`, or `images` with the persons of one in nearby steps, so that each
        picture is decoded once, see `hdm.data.batches`. reduced: decode large persons' pictures at a reduced size.
    skip_unreadable: go on without the persons of a training picture that can't be read, and count them in the record.
    follow: keep loss and error of every validated joint at every epoch, for `hdm.evaluate.consistency`, and read the
        last maps by every decoder and every definition of the score (`hdm.train.follow`).
    seed: of weights, order and views.
    precision: of the network, `float32`, `bfloat16` or, with a GPU, `float16` with a scaled loss; the loss itself is
        always in float32. compile: the network by `torch.compile`.
    sync_batch_norm: batch norm over the shares of all processes.
    device: `auto`, `cpu`, `cuda`. workers: processes that read images; 0 reads in the training process.
    cache: a folder made by `hdm cache`, to read crops from. save_minutes: how often, beside the end of an epoch, the
        state is saved.
    """

    data: str
    model: str = "resnet18"
    pretrained: bool = False
    head_channels: int = 256
    backbone_stride: int = 32
    heatmap_stride: int = STRIDE
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
    accumulate: int = 1
    clip: float | None = None
    ema: float = 0.0
    keep: str = "last"
    rotation: float = 40.0
    scale: float = 0.3
    flip: float = 0.5
    half_body: float = 0.0
    order: str = "images"
    drop_last: bool = True
    reduced: bool = True
    skip_unreadable: bool = False
    follow: bool = False
    seed: int = 0
    train_limit: int | None = None
    val_limit: int | None = None
    held_out: float = 0.0
    label_noise: float = 0.0
    precision: str = "float32"
    compile: bool = False
    sync_batch_norm: bool = False
    device: str = "auto"
    workers: int = 0
    cache: str | None = None
    save_minutes: float = 10.0

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, _of_kind(entry, getattr(self, entry.name)))
        loss = make_loss(self.loss, **self.loss_settings)
        check_convention(self.convention)
        check_decoder(self.decoder)
        positive = ("head_channels", "epochs", "batch_size", "lr", "train_limit", "val_limit", "accumulate", "clip")
        shares = ("warm_start", "warm_up", "flip", "half_body")
        choices = {
            "colour": COLOURS,
            "heatmap_stride": HEATMAP_STRIDES,
            "score": SCORES,
            "schedule": ("cosine", "step"),
            "keep": ("last", "best"),
            "order": ORDERS,
            "precision": PRECISIONS,
            "device": ("auto", "cpu", "cuda"),
        }
        checks = [
            (all(side > 0 and side % self.backbone_stride == 0 for side in self.input_size),
             f"input_size {self.input_size} must be (rows, columns), both multiples of {self.backbone_stride} (the "
             "backbone_stride)"),
            (0 <= self.held_out < 1, f"held_out {self.held_out} must be from 0 to below 1"),
            (self.label_noise >= 0, f"label_noise {self.label_noise} must be 0 or more"),
            (not (self.follow and hasattr(loss, "joints")), f"follow reads heatmaps, and {self.loss} has none"),
            (not self.follow or self.keep == "last", "follow goes with keep last: it describes the last epoch"),
            (self.nms is None or 0 < self.nms <= 1, f"nms {self.nms} must be above 0 and at most 1, or nothing"),
            *((getattr(self, name) in known,
               f"unknown {name} {getattr(self, name)!r}: choose {', '.join(map(str, known[:-1]))} or {known[-1]}")
              for name, known in choices.items()),
            (0 <= self.ema < 1, f"ema {self.ema} must be from 0 to below 1"),
            (self.save_minutes > 0, f"save_minutes {self.save_minutes} must be positive"),
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
                raise InputError(f"unknown setting {name!r}{hint(name, entries)}")
        if "data" not in settings:
            raise InputError("setting 'data' is missing: give coco:DIR, mpii:DIR or synthetic:DIR")
        return cls(**{name: _of_kind(entries[name], value) for name, value in settings.items()})

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values; of directories only the name: a record holds no path of a machine."""
        settings = json.loads(json.dumps(dataclasses.asdict(self)))
        kind, _, place = self.data.partition(":")
        settings["data"] = f"{kind}:{Path(place).name}"
        settings["cache"] = self.cache and Path(self.cache).name
        return settings

    def key(self, data_sha256: str = "") -> str:
        """Eight characters that name the run: equal for equal settings and data, wherever and however fast it runs."""
        settings = self.as_dict()
        unchanged = [name for name, earlier in LATER_SETTINGS.items() if settings[name] == earlier]
        for name in (*PLACE_SETTINGS, *unchanged):
            del settings[name]
        settings["amp"] = False  # what `precision` replaced
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
