"""A trained network on a benchmark: weights and a data set in, the table that a paper would print out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from hdm.data import COCO, MPII, PersonCrops, PersonData, Skeleton, load_persons, with_detections
from hdm.data.crops import Cache
from hdm.data.skeletons import skeleton_from
from hdm.errors import InputError
from hdm.inference import choose_device, predict_crops
from hdm.losses import GaussianMSE
from hdm.models import PoseNetwork, build_model, load_official
from hdm.pixels import STRIDE
from hdm.protocols import Rescoring, has_ap, pixel_scores, protocol_scores, write_predictions
from hdm.published import read_published
from hdm.train import finished_run
from hdm.train.checkpoint import read_tensors
from hdm.train.run import network_of, read_weights

# How the score of a person may be defined; the first is the official one.
RESCORINGS = (
    Rescoring("joints", 0.2),
    Rescoring("max", 0.0),
    Rescoring("mass", 0.0),
    Rescoring("box", 0.0),
)


@dataclass(frozen=True)
class Trained:
    """A trained network and how it is used.

    loss: turns the network's raw output into maps, or reads the joints itself.
    weights: the name of the file or run that they come from.
    trained_on: the skeleton of its training data, where the weights say so.
    """

    model: PoseNetwork
    loss: nn.Module
    weights: str
    input_size: tuple[int, int]
    convention: str = "hrnet"
    decoder: str = "quarter"
    heatmap_stride: int = STRIDE
    trained_on: Skeleton | None = None

    @property
    def joints(self) -> int:
        """K, as many as the network has maps."""
        return self.model.final_layer.out_channels  # type: ignore[union-attr, return-value]

    @property
    def skeleton(self) -> Skeleton:
        """That of the training data; where it is not known, COCO's or MPII's by the number of joints, and of another
        number of joints one without limbs and mirror images."""
        known = {skeleton.joints: skeleton for skeleton in (COCO, MPII)}
        names = tuple(f"joint_{number}" for number in range(1, self.joints + 1))
        return self.trained_on or known.get(self.joints) or Skeleton("unknown", names, flip_pairs=(), edges=())

    def crops(self, data: PersonData, cache: Cache | None = None) -> PersonCrops:
        """The persons of a data set as this network takes them; `cache` as in `PersonCrops`."""
        return PersonCrops(
            data, self.input_size, convention=self.convention, heatmap_stride=self.heatmap_stride, cache=cache
        )


def official_network(
    name: str, weights: Path | str, *, joints: int, input_size: tuple[int, int], colour: str | None = None
) -> Trained:
    """A network of the official repositories with a checkpoint of theirs, used as they do: `hrnet` pixels, quarter
    shift, and pixels in the order blue, green, red for ResNets (`colour` decides otherwise).

    Raises InputError for an unknown network and for weights that are not its own (`hdm.models.load_official`).
    """
    colour = colour or ("bgr" if name.startswith("resnet") else "rgb")
    model = build_model(name, joints=joints, colour=colour)
    load_official(model, weights)
    sigma = input_size[0] / 128  # 2 at 256 rows, 3 at 384
    return Trained(model, GaussianMSE(sigma), Path(weights).name, input_size)


def network_of_run(folder: Path | str, checkpoints: Path | str = Path("data/checkpoints")) -> Trained:
    """The network of a run record, used as its settings say. Raises InputError where its weights are not here."""
    run = finished_run(folder, checkpoints)
    tensors, notes = read_weights(run)
    return _as_trained(tensors, notes, run.record["run_id"], run.record["settings"])


def network_of_weights(path: Path | str) -> Trained:
    """The network of a weights file of this project, used as the settings inside it say.

    Raises InputError for a file that is missing, damaged or another kind of file.
    """
    tensors, notes = read_tensors(Path(path))
    if "settings" not in notes or "final_layer.bias" not in tensors:
        raise InputError(f"{path} holds no trained network: give a run's weights-*.safetensors, or its record's folder")
    return _as_trained(tensors, notes, Path(path).name, notes["settings"])


def load_network(checkpoint: Path | str) -> Trained:
    """The network of a run record's folder or of a weights file, whichever it is."""
    if Path(checkpoint).is_dir():
        return network_of_run(checkpoint)
    if Path(checkpoint).suffix in (".pth", ".tar", ".pt"):
        raise InputError(f"{checkpoint} does not say what network it belongs to: name the model too")
    return network_of_weights(checkpoint)


def _as_trained(
    tensors: Mapping[str, Tensor], notes: Mapping[str, Any], name: str, settings: Mapping[str, Any]
) -> Trained:
    model, loss = network_of(tensors, settings)
    rows, columns = settings["input_size"]
    convention, stride = settings.get("convention", "half_pixel"), settings.get("heatmap_stride", STRIDE)
    skeleton = skeleton_from(notes["skeleton"]) if "skeleton" in notes else None  # earlier versions do not say
    return Trained(model, loss, name, (rows, columns), convention, settings["decoder"], stride, skeleton)


def assess(
    network: Trained,
    source: str,
    *,
    boxes: Path | str | None = None,
    flip_test: bool = True,
    rescorings: tuple[Rescoring, ...] = RESCORINGS,
    predictions: Path | str | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Runs a network on the validation part of `source` and scores it by the data set's protocol.

    boxes: a detector's box file (COCO's layout only); without one, ground-truth boxes, which miss and invent nobody.
        The table names the source in every row.
    rescorings: one row each on COCO's layout; MPII's protocol has no scores, and its table one row.
    predictions: write the file that the official evaluation takes, ranked by the first of `rescorings`.
        Joints without an OKS-AP (`hdm.data.categories`) have one row too, of pixel errors in the crop and PCK.
    limit: only the first so many persons or boxes.
    Raises InputError for a network of other joints than the data's, and boxes of a detector where nothing but the
    distance to annotated joints can be measured.
    """
    data = load_persons(source, "val")
    _check_joints(network, data)
    data = _boxes(data, boxes).head(limit)
    where = choose_device(device)
    found = predict_crops(
        network.model.to(where),
        network.crops(data),
        network.loss.to(where),
        decoder=network.decoder,
        flip_test=flip_test,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    how = (network.input_size, network.convention)
    if predictions is not None:
        write_predictions(predictions, data, found, *how, rescorings[0])
    rows, columns = network.input_size
    label = {
        "weights": network.weights,
        "input": f"{rows}x{columns}",
        # Other joints in COCO's layout are not COCO's: nobody shall take the one's scores for the other's.
        "data": f"{data.kind if data.kind != 'coco' or data.skeleton.name == 'coco' else data.skeleton.name} val",
        "persons": len(data.persons),
        "boxes": data.boxes,
        "flip test": "yes" if flip_test else "no",
        "decoder": network.decoder,
    }
    if data.kind != "mpii" and not has_ap(data):
        pixels = pixel_scores(data, found, *how)
        shares = {name: 100 * value for name, value in pixels.items() if name.startswith("PCK")}
        return pd.DataFrame([label | pixels | shares])
    if data.kind == "mpii":
        return pd.DataFrame([label | protocol_scores(data, found, *how)])
    return pd.DataFrame(
        [
            label
            | {"score": rescoring.score, "above": rescoring.threshold}
            | {name: 100 * value for name, value in protocol_scores(data, found, *how, rescoring).items()}
            for rescoring in rescorings
        ]
    )


def published_rows(model: str, input_size: tuple[int, int], table: pd.DataFrame) -> pd.DataFrame:
    """What others print for a network, an input size and a box source, beside a table of `assess`; none for generated
    data, for ground-truth boxes, and outside of the project's folder."""
    dataset = {"coco val": "coco val2017", "mpii val": "mpii val"}.get(table["data"].iloc[0])
    try:
        known = read_published()
    except InputError:
        return pd.DataFrame()
    same = (known["dataset"] == dataset) & (known["model"] == model)
    same &= known["input_size"] == "x".join(map(str, input_size))
    same &= known["boxes"].map(lambda name: _same_boxes(name, table["boxes"].iloc[0]))
    same &= known["metric"].isin(table.columns)
    rows = ["work", "method", "boxes", "flip_test", "source"]
    return known[same].pivot(index=rows, columns="metric", values="printed").fillna("").reset_index()


def _same_boxes(published: str, ours: str) -> bool:
    """`AP_H_56` stands for the file COCO_val2017_detections_AP_H_56_person.json."""
    return published in ours or ours in published


def _boxes(data: PersonData, boxes: Path | str | None) -> PersonData:
    if boxes is None:
        return data
    if data.kind == "mpii":
        raise InputError("MPII's persons come with a centre and a scale: a box file is for COCO's layout")
    if not has_ap(data):
        raise InputError(
            f"the category of {data.annotation_file} has no 'sigmas', without which a detector's boxes can't be "
            "scored: add them, or leave the box file out"
        )
    return with_detections(data, boxes)


def _check_joints(network: Trained, data: PersonData) -> None:
    """Raises InputError where a network's joints are not the data's: by name where both are known, else by number."""
    names = data.skeleton.names if network.trained_on is None else network.trained_on.names
    if network.joints != data.skeleton.joints or names != data.skeleton.names:
        raise InputError(
            f"{network.weights} reads {network.joints} joints of skeleton {network.skeleton.name!r}, and {data.source} "
            f"has {data.skeleton.joints} of {data.skeleton.name!r}: a network is scored on the joints it was trained on"
        )
