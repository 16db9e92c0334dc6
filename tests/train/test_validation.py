"""Validation, with a "network" that answers with the annotation, and with persons placed by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdm.data import Person, PersonData, load_persons
from hdm.data.crops import PersonCrops
from hdm.data.skeletons import COCO
from hdm.decode import decode
from hdm.losses import HDMLoss, make_loss
from hdm.models import SimpleBaseline, build_model
from hdm.pixels import apply_affine, box_affine
from hdm.train import TrainConfig
from hdm.train.engine import start_engine
from hdm.train.validation import headline, mean_pose_error_px, scores, validate


class Oracle(SimpleBaseline):
    """Looks up the joints of the next persons, moves them by `offset` heatmap pixels, and splats each onto the four
    pixels around it with bilinear weights; given as logits, so that a softmax returns the splat."""

    def __init__(self, crops: PersonCrops, offset: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__({"backbone": nn.Identity()}, 3, 17, head_channels=8)
        self.joints = torch.stack([crop.joints for crop in crops]) + torch.tensor(offset)
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2] // 4, images.shape[-1] // 4
        x, y = self.joints[self.seen : self.seen + len(images)].unbind(-1)
        self.seen += len(images)

        def profile(place: Tensor, size: int) -> Tensor:
            # A joint up to half a pixel beyond the outermost pixel centres has no splat: it goes to the border pixel.
            distance = torch.arange(size) - place.clamp(0, size - 1).unsqueeze(-1)
            return (1 - distance.abs()).clamp(min=0)

        splat = profile(y, height).unsqueeze(-1) * profile(x, width).unsqueeze(-2)
        return (splat + 1e-12).log()


@pytest.fixture
def config(tiny: Callable[..., TrainConfig]) -> TrainConfig:
    return tiny(loss="hdm", input_size=(128, 96), batch_size=3)


def crops_of(config: TrainConfig) -> PersonCrops:
    return PersonCrops(load_persons(config.data, "val"), config.input_size)


def test_the_annotation_as_heatmaps_comes_back_in_the_picture(config: TrainConfig) -> None:
    crops = crops_of(config)
    result = validate(Oracle(crops), crops, make_loss("hdm"), config)
    assert result.error_px < 1e-3
    assert result.loss < 1e-3
    assert len(result.image_joints) == len(crops) > config.batch_size
    for person, found, visible in zip(crops.data.persons, result.image_joints, result.visible, strict=True):
        shown = visible.bool().numpy()
        assert np.abs(found - person.joints)[shown].max() < 0.05
    metrics = scores(result, crops.data, config)
    assert metrics["AP"] == pytest.approx(1, abs=1e-12)
    assert metrics["PCK@0.05"] == 1
    assert metrics["median_error_px"] < 1e-3


def test_an_offset_in_the_heatmap_is_four_times_that_in_the_crop(config: TrainConfig) -> None:
    """(0.3, -0.4) heatmap pixels are half a one, and so 2 crop pixels; the loss counts heatmap pixels."""
    crops = crops_of(config)
    result = validate(Oracle(crops, offset=(0.3, -0.4)), crops, make_loss("hdm", demanders="dot"), config)
    # At the border of the map the offset is cut.
    errors = torch.linalg.vector_norm(result.predicted - result.joints, dim=-1)[result.visible > 0]
    assert errors.median().item() == pytest.approx(2, abs=1e-3)
    assert result.error_px == pytest.approx(2, abs=0.05)
    assert scores(result, crops.data, config)["median_error_px"] == pytest.approx(2, abs=1e-3)


def test_the_batch_size_changes_nothing(config: TrainConfig) -> None:
    """Also where the last batch is smaller, and where a person's joints are all outside of the crop."""
    data = load_persons(config.data, "val")
    far = replace(data.persons[1], joints=data.persons[1].joints + 10_000)
    crops = PersonCrops(replace(data, persons=(data.persons[0], far, *data.persons[2:])), config.input_size)
    results = [
        validate(Oracle(crops, offset=(1.0, 0.0)), crops, make_loss("hdm"), replace(config, batch_size=size))
        for size in (1, 3, 100)
    ]
    assert not results[0].visible[1].any()
    for other in results[1:]:
        assert other.loss == pytest.approx(results[0].loss, rel=1e-5)
        assert other.error_px == pytest.approx(results[0].error_px, rel=1e-5)
        torch.testing.assert_close(other.predicted, results[0].predicted)


def test_one_process_of_an_engine_sees_everybody(config: TrainConfig) -> None:
    """Of several each takes its share: `tests/train/test_engine.py` starts some."""
    crops = crops_of(config)
    offset = (0.3, -0.4)
    alone = validate(Oracle(crops, offset), crops, make_loss("hdm"), config)
    engine = start_engine(config)
    assert engine.num_processes == 1
    found = validate(Oracle(crops, offset), crops, make_loss("hdm"), config, engine)
    assert scores(found, crops.data, config) == scores(alone, crops.data, config)
    assert (found.loss, len(found.joints)) == (alone.loss, len(crops))


@pytest.mark.parametrize("headlines", [("AP", "error_px"), ("PCKh@0.5", "error_px")])
def test_the_headline_is_the_main_figure_of_the_data_set(headlines: tuple[str, str]) -> None:
    assert headline(dict.fromkeys(reversed(headlines), 0.0)) == headlines[0]


def test_validation_in_the_precision_of_the_run(config: TrainConfig) -> None:
    crops = crops_of(config)
    kinds: list[torch.dtype] = []
    for precision in ("float32", "bfloat16"):
        model = build_model("timm:test_resnet", head_channels=8)
        model.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
        found = validate(model, crops, make_loss("hdm"), replace(config, precision=precision, batch_size=100))
        assert found.predicted.dtype == torch.float32 and np.isfinite(found.loss)
    assert kinds == [torch.float32, torch.bfloat16]


def test_a_loss_that_reads_joints_needs_no_decoder(config: TrainConfig) -> None:
    class ReadsItself(HDMLoss):
        """Adds (0.3, -0.4) heatmap pixels to what it reads: half a one, and so 2 crop pixels."""

        def joints(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
            joints, scores = decode(self.maps(heatmaps), "local")
            return joints + torch.tensor([0.3, -0.4]), scores

    crops = crops_of(config)
    result = validate(Oracle(crops), crops, ReadsItself(), config)
    assert result.error_px == pytest.approx(2, abs=1e-3)


def test_pck_is_relative_to_the_longer_side_of_the_box(config: TrainConfig) -> None:
    """Every joint is off by 6 crop pixels: within a tenth of the box if its longer side has 60 crop pixels or more."""
    crops = crops_of(config)
    result = validate(Oracle(crops), crops, make_loss("hdm"), config)
    moved = replace(result, predicted=result.joints + torch.tensor([3.6, -4.8]))
    rows, columns = config.input_size
    right = total = 0
    for person, visible in zip(crops.data.persons, result.visible, strict=True):
        width, height = person.box[2:]
        # The box times 1.25 touches the crop's border on one axis.
        longer = max(width, height) * min(columns / width, rows / height) / 1.25
        right += int(visible.sum()) * (0.1 * longer >= 6)
        total += int(visible.sum())
    assert scores(moved, crops.data, config)["PCK@0.1"] == pytest.approx(right / total)


# --- the predictor that never looks ---


def placed(*offsets: tuple[float, float], outside: int = 0) -> PersonData:
    """Persons whose box gives a crop of 64 x 32 pixels the scale of the picture: a joint `offset` from the box's centre
    is as far from the crop's. All joints are in one place, but the first `outside` ones, which are beyond the crop,
    each person's somewhere else."""
    persons = []
    for number, offset in enumerate(offsets):
        x, y = 100.0 * number, 50.0
        joints = np.tile([x + 12.3 + offset[0], y + 25.1 + offset[1]], (17, 1))
        joints[:outside] += 500 * (number + 1)
        persons.append(Person(number, number, Path("none.jpg"), (x, y, 25.6, 51.2), joints, np.ones(17, np.float32)))
    return PersonData("coco:made", "train", Path("none.json"), COCO, tuple(persons), {}, "")


def test_the_boxes_above_are_what_they_say() -> None:
    person = placed((0.0, 0.0), (3.0, 4.0)).persons[1]
    crop = apply_affine(box_affine(person.box, (64, 32)), person.joints)
    np.testing.assert_allclose(crop[0], [15.5 + 3, 31.5 + 4])


def test_the_error_of_the_mean_pose(tiny: Callable[..., TrainConfig]) -> None:
    """The training part's mean is (1, 0) from the centre; the others are (3, 4) and (0, 0) away from it."""
    train, val = placed((-1.0, 0.0), (3.0, 0.0)), placed((4.0, 4.0), (1.0, 0.0))
    assert mean_pose_error_px(train, val, tiny()) == pytest.approx(2.5, abs=1e-4)


def test_joints_outside_of_the_crop_do_not_move_the_mean_pose(tiny: Callable[..., TrainConfig]) -> None:
    train = placed((-1.0, 0.0), (3.0, 0.0), outside=5)
    val = placed((4.0, 4.0), (1.0, 0.0), outside=5)
    assert mean_pose_error_px(train, val, tiny()) == pytest.approx(2.5, abs=1e-4)
