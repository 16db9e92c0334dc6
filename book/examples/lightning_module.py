"""HDM in a LightningModule, trained on generated people (`pip install lightning`)."""

from tempfile import TemporaryDirectory

import lightning
import torch
from hdm.data import Crop, PersonCrops, load_persons, make_synthetic
from hdm.decode import decode
from hdm.evaluate import localisation_error
from hdm.losses import CrossEntropy, HDMLoss
from hdm.models import PoseNetwork, build_model
from hdm.pixels import STRIDE, heatmap_to_crop
from torch import Tensor
from torch.utils.data import DataLoader

SIZE = (64, 64)  # rows and columns of a crop


class PoseModule(lightning.LightningModule):
    """A pose network under HDM, after cross-entropy for a share of the steps."""

    def __init__(self, network: PoseNetwork, warm_start: float = 0.5, lr: float = 2e-3):
        super().__init__()
        self.network, self.warm_start, self.lr = network, warm_start, lr
        self.start, self.hdm = CrossEntropy(), HDMLoss()

    def training_step(self, crops: Crop, number: int) -> Tensor:
        warm = self.global_step < self.warm_start * self.trainer.estimated_stepping_batches
        loss = self.start if warm else self.hdm
        heatmaps = self.network(self.network.prepare(crops.image))
        value = loss(heatmaps, crops.joints, crops.visible)
        self.log(f"train/{'cross_entropy' if warm else 'hdm'}", value)
        return value

    def validation_step(self, crops: Crop, number: int) -> None:
        heatmaps = self.network(self.network.prepare(crops.image))
        found, _ = decode(self.hdm.maps(heatmaps), "local")
        found, joints = (
            heatmap_to_crop(points, STRIDE) for points in (found, crops.joints)
        )
        error = localisation_error(found, joints, crops.visible)
        # Lightning averages over batches; each counts by the joints that it has.
        self.log("error_px", error, batch_size=int(crops.visible.sum()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def main(data: str | None = None, epochs: int = 4) -> tuple[float, float]:
    """Trains a tiny network on `data`, by default on people generated for it.

    Returns the mean error before and after, in crop pixels.
    """
    lightning.seed_everything(0, verbose=False)
    with TemporaryDirectory() as folder:
        if data is None:
            data = f"synthetic:{make_synthetic(folder, images=60, progress=False)}"
        train, val = (
            PersonCrops(load_persons(data, part), SIZE) for part in ("train", "val")
        )
        batches = DataLoader(train, batch_size=8, shuffle=True, drop_last=True)
        rest = DataLoader(val, batch_size=16)
        network = build_model("timm:test_resnet", head_channels=16, backbone_stride=16)
        module = PoseModule(network)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        before = trainer.validate(module, rest, verbose=False)[0]["error_px"]
        trainer.fit(module, batches)
        return before, trainer.validate(module, rest, verbose=False)[0]["error_px"]


if __name__ == "__main__":
    print("mean error before and after, in crop pixels: {:.2f}, {:.2f}".format(*main()))
