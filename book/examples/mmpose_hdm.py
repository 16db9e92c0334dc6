"""HDM in mmpose 1.x: a loss, the codec that feeds and reads it, and the head between them.

In a config: `custom_imports = dict(imports=["mmpose_hdm"])`; `CONFIG` shows the rest.
"""

import numpy as np
import torch
from hdm.decode import decode
from hdm.losses import HDMLoss
from mmpose.codecs.base import BaseKeypointCodec
from mmpose.models.heads import HeatmapHead
from mmpose.registry import KEYPOINT_CODECS, MODELS
from torch import Tensor


@MODELS.register_module()
class HDM(HDMLoss):
    """`HDMLoss` under a name that a config can give; its settings are the config's."""


@KEYPOINT_CODECS.register_module()
class DotAnnotation(BaseKeypointCodec):
    """Joints as coordinates in heatmap pixels, in the place of heatmaps with Gaussians.

    input_size, heatmap_size: (columns, rows), as mmpose writes sizes.
    """

    def __init__(self, input_size: tuple[int, int], heatmap_size: tuple[int, int]) -> None:
        super().__init__()
        self.stride = np.array(input_size) / np.array(heatmap_size)
        self.heatmap_size = np.array(heatmap_size)

    def encode(
        self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None = None
    ) -> dict:
        """Keypoints (N, K, 2) in crop pixels to labels (N, K, 2) and weights (N, K)."""
        if keypoints_visible is None:
            keypoints_visible = np.ones(keypoints.shape[:2])
        labels = (keypoints + 0.5) / self.stride - 0.5
        # A joint off the map cannot be reached; its weight is 0.
        inside = ((labels >= -0.5) & (labels <= self.heatmap_size - 0.5)).all(-1)
        weights = inside & (keypoints_visible > 0.5)
        return {
            "keypoint_labels": labels.astype(np.float32),
            "keypoint_weights": weights.astype(np.float32),
        }

    def decode(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distributions (K, H, W) to keypoints (1, K, 2) in crop pixels, scores (1, K)."""
        joints, scores = decode(torch.from_numpy(encoded)[None], "local")
        return (joints.numpy() + 0.5) * self.stride - 0.5, scores.numpy()


@MODELS.register_module()
class DotHead(HeatmapHead):
    """mmpose's head; the loss gets coordinates, the decoder what the loss reads."""

    def loss(
        self, feats: tuple[Tensor], batch_data_samples: list, train_cfg: dict | None = None
    ) -> dict:
        """The loss of a batch, averaged over its labelled joints, in heatmap pixels."""
        heatmaps = self.forward(feats)
        labels = [sample.gt_instance_labels for sample in batch_data_samples]
        joints = torch.cat([label.keypoint_labels for label in labels])
        weights = torch.cat([label.keypoint_weights for label in labels])
        if not weights.any():  # nothing to learn, but other processes wait for a gradient
            return {"loss_kpt": heatmaps.sum() * 0}
        return {"loss_kpt": self.loss_module(heatmaps, joints, weights)}

    def decode(self, batch_outputs: Tensor) -> list:
        """The joints of a batch of raw maps, from the suppliers of the loss."""
        return super().decode(self.loss_module.maps(batch_outputs))


# (columns, rows) here, as everywhere in mmpose
CODEC = {"type": "DotAnnotation", "input_size": (192, 256), "heatmap_size": (48, 64)}
CONFIG = {
    "train_pipeline_target": {"type": "GenerateTarget", "encoder": CODEC},
    "head": {
        "type": "DotHead",
        "in_channels": 32,
        "out_channels": 17,
        "deconv_out_channels": None,
        "loss": {"type": "HDM", "suppliers": "softmax"},
        "decoder": CODEC,
    },
}
