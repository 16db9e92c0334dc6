"""One training step and one reading of `book/examples/mmpose_hdm.py`, by the python of an environment that has mmpose.

Run as `python mmpose_step.py FOLDER_OF_EXAMPLES`; prints one JSON object.

`mmpose.models` imports all of mmpose at once, also what needs mmdet and the compiled operations of mmcv. Where these
are missing its two outer packages are stood in for by empty ones over the same folders, so that mmpose's own
`HeatmapHead` can be imported; "whole" says whether that was not needed.
"""

import importlib
import json
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import mmpose
import numpy as np
import torch


def open_models() -> bool:
    # Looked for, not tried: an import that fails half way leaves its registrations behind.
    if find_spec("mmdet") and find_spec("mmcv._ext"):
        importlib.import_module("mmpose.models")
        return True
    for name in ("mmpose.models", "mmpose.models.heads", "mmpose.models.heads.heatmap_heads"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(mmpose.__file__).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    head = importlib.import_module("mmpose.models.heads.heatmap_heads.heatmap_head")
    sys.modules["mmpose.models.heads"].HeatmapHead = head.HeatmapHead
    return False


def main() -> None:
    whole = open_models()
    sys.path.insert(0, sys.argv[1])
    import mmpose_hdm
    from mmpose.datasets.transforms import GenerateTarget, PackPoseInputs
    from mmpose.registry import KEYPOINT_CODECS, MODELS

    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    codec = KEYPOINT_CODECS.build(dict(mmpose_hdm.CODEC))
    head = MODELS.build(dict(mmpose_hdm.CONFIG["head"]))
    target, pack = GenerateTarget(encoder=dict(mmpose_hdm.CODEC)), PackPoseInputs()
    samples, truth = [], []
    for _ in range(2):
        keypoints = rng.uniform((8, 8), (180, 240), (1, 17, 2))
        keypoints[0, 3] = (400, 20)  # off the crop
        visible = np.ones((1, 17))
        visible[0, 5] = 0
        given = {
            "transformed_keypoints": keypoints,
            "keypoints_visible": visible,
            "img": np.zeros((256, 192, 3), np.uint8),
        }
        samples.append(pack(target(given))["data_samples"])
        truth.append(keypoints)
    weights = torch.cat([sample.gt_instance_labels.keypoint_weights for sample in samples])
    features = (torch.randn(2, 32, 64, 48),)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        value = head.loss(features, samples)["loss_kpt"]
        losses.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    # Maps that the decoder must read the joints from: each joint's four pixels, as logits of a softmax.
    labels = torch.cat([sample.gt_instance_labels.keypoint_labels for sample in samples])
    x, y = (torch.arange(float(size)) for size in (48, 64))
    near_x = (1 - (x - labels[..., 0, None]).abs()).clamp(min=0)
    near_y = (1 - (y - labels[..., 1, None]).abs()).clamp(min=0)
    maps = (near_y[..., :, None] * near_x[..., None, :] + 1e-12).log()
    found = np.stack([person.keypoints for person in head.decode(maps)])
    error = np.linalg.norm(found - np.stack(truth), axis=-1)[weights.numpy()[:, None] > 0].max()
    print(
        json.dumps(
            {
                "version": mmpose.__version__,
                "whole": whole,
                "labels": list(labels.shape),
                "weights": weights.sum(1).tolist(),
                "losses": losses,
                "error": float(error),
                "stride": codec.stride.tolist(),
            }
        )
    )


if __name__ == "__main__":
    main()
