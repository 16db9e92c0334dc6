"""A trained network as an ONNX file that says of itself how it is used: `hdm export`.

    images (B, 3, h, w)  -->  heatmaps (B, K, H, W), maps (B, K, H, W)

images: crops of persons as floats in [0, 1], red first; B is free, h and w are the network's. Order of colours, mean
and standard deviation are seen to within the graph. heatmaps: the network's raw output. maps: what the loss makes of it
(`loss.maps`), which is what a decoder reads; for a network trained on Gaussians the two are the same.

Everything else that a user needs stands in the file's metadata, see `metadata`.
"""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdm import __version__
from hdm.assess import Trained
from hdm.errors import InputError
from hdm.files import write_whole
from hdm.pixels import PADDING

OPSET = 17  # of ONNX, 2022: what PyTorch 2.4 writes by itself
TOLERANCE = 1e-4  # of the largest value of the maps, or of 1 where that is more
CHECKED_BATCHES = (1, 3)


def export_onnx(network: Trained, path: Path | str, *, opset: int = OPSET, check: bool = True) -> Path:
    """Writes a network to an ONNX file, whole or not at all; returns its path.

    network: of `hdm.assess.load_network` or `official_network`.
    opset: version of ONNX's operators, for runtimes that know only older or newer ones.
    check: run the file by onnxruntime on random images, in batches of two sizes, and refuse it where its maps differ
        from PyTorch's by more than 1e-4 (of their largest value, where that is above 1).
    Raises InputError for a loss that reads joints without heatmaps, a network or an opset that PyTorch can't export, a
    file that does not compute what the network does, and where the extra `export` is not installed.

    PyTorch's older exporter, by tracing, is used: it works from 2.4 on, writes one file, needs no package
    more, and takes less time than the newer one. Its weakness, that branches which depend on values get lost, is what
    `check` is for.
    """
    onnx, _ = _libraries()
    if hasattr(network.loss, "joints"):
        raise InputError(
            f"{network.weights} was trained with a loss that reads joints without heatmaps "
            f"({type(network.loss).__name__}): only networks that are read from heatmaps can be exported"
        )
    graph = onnx.load_from_string(_traced(network, opset))
    onnx.helper.set_model_props(graph, metadata(network))
    content = graph.SerializeToString()
    if check:
        check_onnx(network, content)
    write_whole(Path(path), content)
    return Path(path)


def metadata(network: Trained) -> dict[str, str]:
    """What a file says of itself, as text; numbers, lists and tables are JSON.

    about: the graph in words. colour, mean, std: the order of the channels that the network sees and their statistics
        (0 to 255), which the graph applies.
    input_size: (rows, columns) of a crop; convention, padding: how a box becomes one (`hdm.pixels.box_affine`).
    heatmap_stride: crop pixels per heatmap pixel; decoder, sigma: how joints are read (`hdm.decode.decode`).
    joint_names, flip_pairs, edges: of the K joints, in the order of the maps.
    loss, weights, hdm: what the network was trained with, where the weights are from, and the version of this package.
    """
    model, skeleton = network.model, network.skeleton
    values: dict[str, Any] = {
        "about": "images: crops of persons, RGB in [0, 1], normalised in the graph; heatmaps: the raw output; "
        "maps: what the decoder reads. Joints are (x, y) in heatmap pixels, pixel centres at whole numbers.",
        "colour": model.colour,
        "mean": [round(value, 4) for value in model.mean.flatten().tolist()],
        "std": [round(value, 4) for value in model.std.flatten().tolist()],
        "input_size": list(network.input_size),
        "convention": network.convention,
        "padding": PADDING,
        "heatmap_stride": network.heatmap_stride,
        "decoder": network.decoder,
        "sigma": getattr(network.loss, "sigma", 2.0),
        "joint_names": list(skeleton.names),
        "flip_pairs": [list(pair) for pair in skeleton.flip_pairs],
        "edges": [list(pair) for pair in skeleton.edges],
        "loss": repr(network.loss),
        "weights": network.weights,
        "hdm": __version__,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def check_onnx(network: Trained, content: bytes) -> None:
    """Raises InputError where an ONNX file's content, run by onnxruntime, does not give the network's maps."""
    _, onnxruntime = _libraries()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    graph, generator = _FromPixels(network), torch.Generator().manual_seed(0)
    for batch in CHECKED_BATCHES:
        images = torch.rand(batch, 3, *network.input_size, generator=generator)
        with torch.no_grad():
            expected = graph(images)
        found = session.run(["heatmaps", "maps"], {"images": images.numpy()})
        for name, right, value in zip(("heatmaps", "maps"), expected, map(torch.from_numpy, found), strict=True):
            difference = float((right - value).abs().max()) if right.shape == value.shape else float("inf")
            allowed = TOLERANCE * max(1.0, float(right.abs().max()))
            if not difference <= allowed:
                raise InputError(
                    f"the exported network is another: in a batch of {batch} its {name} differ by {difference:.2g} "
                    f"from PyTorch's, where {allowed:.2g} is allowed: nothing was written, try another opset"
                )


class _FromPixels(nn.Module):
    """The network between pixels in [0, 1] and the maps that a decoder reads."""

    def __init__(self, network: Trained) -> None:
        super().__init__()
        self.model, self.loss = network.model.cpu(), network.loss.cpu()
        self.eval()  # as a whole: after an export, PyTorch puts it back into the mode that it was in

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> tuple[Float[Tensor, "B K H W"], Float[Tensor, "B K H W"]]:
        heatmaps = self.model(self.model.prepare(255 * images))
        return heatmaps, self.loss.maps(heatmaps)  # type: ignore[operator]


def _traced(network: Trained, opset: int) -> bytes:
    """The content of an ONNX file, as PyTorch writes it."""
    names, images = ("images", "heatmaps", "maps"), torch.zeros(2, 3, *network.input_size)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "network.onnx"
        # Of the older exporter's age, and of checks of the images' size, which the file's shapes take over.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _FromPixels(network),
                (images,),
                file,
                input_names=names[:1],
                output_names=names[1:],
                dynamic_axes={name: {0: "B"} for name in names},
                opset_version=opset,
                dynamo=False,
            )
        except (RuntimeError, ValueError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{network.weights} can't be exported with opset {opset} ({first}): "
                "choose another opset, or a network of other layers"
            ) from error
        return file.read_bytes()


def _libraries() -> tuple[Any, Any]:
    """onnx and onnxruntime. Raises InputError where they are not installed."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(f"an export needs onnx and onnxruntime ({error}): pip install 'hdm[export]'") from error
    return onnx, onnxruntime
