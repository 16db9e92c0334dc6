"""What the traps of the benchmarks' protocols cost, measured on real annotations and with trained networks.

COCO's layout is scored with trained networks. MPII needs no pictures: see `hdm.bench.ideal`.
"""

import copy
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from hdm.assess import Trained, network_of_run
from hdm.bench.ideal import NOISE, error_rows, map_rows
from hdm.bench.rows import Row, row_of
from hdm.data import PersonData, load_persons, with_detections
from hdm.inference import Predictions, predict_crops
from hdm.protocols import Rescoring, protocol_scores
from hdm.records import BENCHMARKS, now, provenance, write_benchmark

# As the project's own runs are scored, and with near duplicates dropped, as a detector's boxes need.
PLAIN, SUPPRESSED = Rescoring("joints", 0.0, None), Rescoring("joints", 0.0, 0.9)


def bench_protocol(
    coco: str,
    mpii: str,
    runs: Iterable[Path | str],
    *,
    checkpoints: Path | str = Path("data/checkpoints"),
    directory: Path | str = BENCHMARKS,
    limit: int | None = None,
) -> tuple[Path, pd.DataFrame]:
    """Measures the traps on the validation parts of `coco` and `mpii` and writes a record; its folder and table.

    runs: records of networks trained on COCO's layout, whose weights are in `checkpoints`.
    limit: only the first so many persons of each.
    Columns: data, boxes, predictions (the run, or how they were made up), trap, setting, right (is it the protocol's
    own, or how the network was trained), metric, value (percent), persons.
    """
    mpii_data = load_persons(mpii, "val", check_images=False).head(limit)
    coco_data = load_persons(coco, "val").head(limit)
    networks = [network_of_run(folder, checkpoints) for folder in runs]
    rows = [*map_rows(mpii_data), *error_rows(mpii_data)]
    for network in networks:
        rows.extend(_coco_rows(coco_data, network))
    table = pd.DataFrame(rows)
    record = {
        "benchmark": "protocol",
        "started": now(),
        **provenance(),
        "device": "cpu",
        "settings": {"limit": limit, "noise_head_sizes": NOISE, "networks": [network.weights for network in networks]},
        "data": {"coco_sha256": coco_data.sha256, "mpii_sha256": mpii_data.sha256},
    }
    return write_benchmark(directory, record, table), table


def _coco_rows(data: PersonData, network: Trained) -> Iterator[Row]:
    """Flip test, decoders, pixels, colours, boxes and scores, with one network."""

    def run(used: Trained = network, persons: PersonData = data, flip_test: bool = False) -> Predictions:
        crops, decoder = used.crops(persons), used.decoder
        return predict_crops(used.model, crops, used.loss, decoder=decoder, flip_test=flip_test, progress=True)

    def rows(
        trap: str,
        setting: str,
        right: bool,
        predictions: Predictions,
        persons: PersonData = data,
        rescoring: Rescoring = PLAIN,
    ) -> Iterator[Row]:
        metrics = protocol_scores(persons, predictions, network.input_size, network.convention, rescoring)
        for metric in ("AP", "AP75"):
            yield row_of(persons, network.weights, trap, setting, right, metric, 100 * metrics[metric])

    plain = run()
    yield from rows("flip test", "none", True, plain)
    yield from rows("flip test", f"as {network.convention} needs", True, run(flip_test=True))
    for decoder in ("argmax", "quarter", "dark", "local"):
        found = plain if decoder == network.decoder else run(replace(network, decoder=decoder))
        yield from rows("decoder", decoder, found is plain, found)
    other = "hrnet" if network.convention != "hrnet" else "half_pixel"
    yield from rows("pixels", f"{network.convention}, as trained", True, plain)
    yield from rows("pixels", other, False, run(replace(network, convention=other)))
    turned, raw = copy.deepcopy(network.model), copy.deepcopy(network.model)
    turned.colour = "bgr" if turned.colour == "rgb" else "rgb"
    raw.mean.zero_()
    raw.std.fill_(255.0)  # 0 to 1, as after torchvision's ToTensor alone
    yield from rows("input", "as trained", True, plain)
    yield from rows("input", "red and blue exchanged", False, run(replace(network, model=turned)))
    yield from rows("input", "not normalised", False, run(replace(network, model=raw)))

    with tempfile.TemporaryDirectory() as folder:
        detected = with_detections(data, simulated_boxes(data, Path(folder) / "simulated detector"))
        in_boxes = run(persons=detected)
    yield from rows("boxes", "ground truth", True, plain)
    yield from rows("boxes", "simulated detector", True, in_boxes, detected, SUPPRESSED)
    yield from rows("boxes", "simulated detector, no OKS-NMS", False, in_boxes, detected)
    for persons, predictions in ((data, plain), (detected, in_boxes)):
        for score, threshold in (("max", 0.2), ("max", 0.0), ("mass", 0.2), ("mass", 0.0), ("box", 0.0)):
            setting = "box score alone" if score == "box" else f"{score}, above {threshold:g}"
            rescoring = replace(SUPPRESSED, score=score, threshold=threshold)
            yield from rows("score", setting, (score, threshold) == ("max", 0.2), predictions, persons, rescoring)


def simulated_boxes(data: PersonData, path: Path, seed: int = 0) -> Path:
    """A box file like a detector's, drawn around the annotated persons: every box moved by 5 % and scaled by 10 % of
    its size (standard deviations), a fifth of them found a second time with a lower score, and for every picture one
    box of nobody, of the size of one of its persons, with a low score."""
    rng = np.random.default_rng(seed)
    entries = []

    def add(image_id: int, box: Float[ndarray, "4"], score: float) -> None:
        x, y, width, height = box
        width, height = (np.array([width, height]) * np.exp(rng.normal(0, 0.1, 2))).tolist()
        x, y = (np.array([x, y]) + rng.normal(0, 0.05, 2) * [width, height]).tolist()
        entries.append({"image_id": image_id, "category_id": 1, "bbox": [x, y, width, height], "score": score})

    last: dict[int, tuple[float, float, float, float]] = {}
    for person in data.persons:
        box = np.array(person.box)
        add(person.image_id, box, float(rng.uniform(0.5, 1)))
        if rng.random() < 0.2:
            add(person.image_id, box, float(rng.uniform(0.3, 0.5)))
        last[person.image_id] = person.box
    for image_id, (x, y, width, height) in last.items():
        away = rng.uniform(-2, 2, 2)
        nobody = np.array([x + away[0] * width, y + away[1] * height, width, height])
        add(image_id, nobody, float(rng.uniform(0, 0.5)))
    path.write_text(json.dumps(entries))
    return path
