"""Networks that know the answer: what is left of their error is that of everything around them."""

import torch
from torch import Tensor, nn

from hdm.data import PersonCrops
from hdm.encode import encode
from hdm.models import PoseNetwork
from hdm.pixels import crop_to_heatmap, heatmap_to_crop


class Oracle(PoseNetwork):
    """Answers with the map that `method` reads the annotated joint from, moved by `offset` heatmap pixels.

    It looks the joints of the next persons up, in the order of `crops`. With a flip test every batch comes twice; the
    second time it marks the mirrored crops' joints where they are: at W - 1 - X, on the map of the partner.
    """

    def __init__(
        self, crops: PersonCrops, method: str, *, offset: tuple[float, float] = (0.0, 0.0), flip_test: bool = False
    ) -> None:
        super().__init__()
        # Unused; but a network has a device, and says how many joints it knows.
        self.final_layer = nn.Conv2d(1, crops.data.skeleton.joints, 1)
        self.crops, self.method, self.flip_test = crops, method, flip_test
        self.joints = torch.stack([crop.joints for crop in crops]) + torch.tensor(offset)
        self.seen, self.mirrored = 0, False

    def forward(self, images: Tensor) -> Tensor:
        stride = self.crops.heatmap_stride
        rows, columns = images.shape[-2] // stride, images.shape[-1] // stride
        joints = self.joints[self.seen : self.seen + len(images)]
        if self.mirrored:
            where = {"convention": self.crops.convention, "input_size": self.crops.input_size}
            crop = heatmap_to_crop(joints, stride, **where)
            crop = torch.stack([images.shape[-1] - 1 - crop[..., 0], crop[..., 1]], -1)
            joints = crop_to_heatmap(crop, stride, **where)[:, self.crops.data.skeleton.flip_order]
        if self.mirrored or not self.flip_test:
            self.seen += len(images)
        self.mirrored = self.flip_test and not self.mirrored
        inside = torch.minimum(joints.clamp(min=0), joints.new_tensor([columns - 1, rows - 1]))
        return encode(inside, (rows, columns), self.method)
