"""Person crops: where joints and pixels go, what a view depends on, and what is said about files that are no images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hdm.data import Person, PersonData, load_persons
from hdm.data.augment import Augmentation, View
from hdm.data.crops import STRIDE, Crop, PersonCrops, read_image, show_person
from hdm.data.pictures import Region, read_picture, warp_into
from hdm.data.skeletons import COCO
from hdm.errors import InputError
from hdm.pixels import apply_affine, heatmap_to_crop, invert_affine

SIZE = (96, 64)  # rows, columns


def person_of(path: Path, box: tuple[float, float, float, float], joints: np.ndarray, visible: np.ndarray) -> Person:
    return Person(1, 1, path, box, joints, visible.astype(np.float32))


def data_of(*persons: Person) -> PersonData:
    return PersonData("coco:made", "train", Path("made.json"), COCO, persons, {}, "")


def crop_of(person: Person, view: View, **settings) -> Crop:
    """The crop of a person under a view, sampled from the whole picture."""
    shown = show_person(person, SIZE, view, COCO.flip_order, **settings)
    picture = read_picture(person.image_path)
    pixels = np.empty((*SIZE, 3), np.uint8)
    warp_into(pixels, picture, shown.affine, Region(0, 0, picture.shape[1], picture.shape[0]))
    joints, visible = (torch.from_numpy(values).float() for values in (shown.joints, shown.visible))
    return Crop(torch.from_numpy(pixels).permute(2, 0, 1), joints, visible, torch.from_numpy(shown.affine), 0)


@pytest.fixture
def spotted(tmp_path: Path) -> tuple[Person, np.ndarray]:
    """A person whose joints are discs of radius 4 and 17 different colours on grey; their colours (17, 3)."""
    levels = (0, 127, 255)
    colours = np.array([(r, g, b) for r in levels for g in levels for b in levels if (r, g, b) != (127, 127, 127)][:17])
    columns, rows = np.meshgrid(30 + 20 * np.arange(4), 25 + 22 * np.arange(5))
    joints = np.stack([columns.ravel(), rows.ravel()], axis=1)[:17].astype(float)
    picture = np.full((150, 120, 3), 127, np.uint8)
    for (x, y), colour in zip(joints.astype(int).tolist(), colours.tolist(), strict=True):
        cv2.circle(picture, (x, y), 4, colour, thickness=-1)
    path = tmp_path / "spotted.png"  # without loss
    cv2.imwrite(str(path), picture[..., ::-1])
    return person_of(path, (20.0, 15.0, 80.0, 110.0), joints, np.ones(17)), colours


def views(count: int) -> list[View]:
    rng = np.random.default_rng(1)
    return [
        View(float(rng.uniform(-180, 180)), float(rng.uniform(0.7, 1.4)), bool(rng.random() < 0.5))
        for _ in range(count)
    ]


def test_pixels_and_joints_go_to_the_same_place(spotted: tuple[Person, np.ndarray]) -> None:
    """Under any turn and size the pixel at a joint has the colour of that joint's disc; mirrored, of its partner's."""
    person, colours = spotted
    seen = 0
    for view in views(40):
        crop = crop_of(person, view)
        x, y = heatmap_to_crop(crop.joints, STRIDE).round().long().T
        shown = crop.visible > 0
        expected = colours[COCO.flip_order] if view.mirror else colours
        # Joints at the very border of the heatmap round to a pixel outside of the crop.
        shown &= (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
        found = crop.image[:, y[shown], x[shown]].T
        np.testing.assert_array_equal(found, expected[shown])
        seen += int(shown.sum())
    assert seen > 300


def test_a_mirror_image_has_its_left_wrist_where_the_right_one_was(spotted: tuple[Person, np.ndarray]) -> None:
    person, _ = spotted
    left, right = COCO.names.index("left_wrist"), COCO.names.index("right_wrist")
    plain, mirrored = (crop_of(person, View(mirror=mirror)) for mirror in (False, True))
    torch.testing.assert_close(mirrored.image, plain.image.flip(-1), atol=1, rtol=0)
    width = SIZE[1] // STRIDE
    expected = plain.joints[right] * torch.tensor([-1.0, 1.0]) + torch.tensor([width - 1.0, 0.0])
    torch.testing.assert_close(mirrored.joints[left], expected, atol=1e-5, rtol=0)
    assert mirrored.joints[left, 0] != plain.joints[left, 0]


def test_mirroring_takes_visibility_along(spotted: tuple[Person, np.ndarray]) -> None:
    person, _ = spotted
    left, right = COCO.names.index("left_wrist"), COCO.names.index("right_wrist")
    one_sided = replace(person, visible=(np.arange(17) == left).astype(np.float32))
    crop = crop_of(one_sided, View(mirror=True))
    assert crop.visible.nonzero().flatten().tolist() == [right]


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_joints_go_back_to_the_image(small_data: str, augmentation: Augmentation | None) -> None:
    data = load_persons(small_data, "train")
    for crop in PersonCrops(data, SIZE, augmentation=augmentation):
        person = data.persons[crop.index]
        back = apply_affine(invert_affine(crop.affine.numpy()), heatmap_to_crop(crop.joints.double(), STRIDE).numpy())
        mirrored = torch.linalg.det(crop.affine[:, :2]) < 0
        joints, visible = (
            values[COCO.flip_order] if mirrored else values for values in (person.joints, person.visible)
        )
        assert np.abs(back - joints)[visible > 0].max() < 1e-3
        np.testing.assert_array_less(crop.visible.numpy(), visible + 1e-6)  # nothing appears that was not labelled


def test_a_crop_shows_every_annotated_joint_of_a_generated_person(small_data: str) -> None:
    data = load_persons(small_data, "val")
    for crop in PersonCrops(data, SIZE):
        np.testing.assert_array_equal(crop.visible, data.persons[crop.index].visible)


def test_joints_outside_of_the_crop_do_not_count(tmp_path: Path) -> None:
    """The crop of a box of 64 x 96 / 1.25 pixels has the picture's scale, so its border is known to the pixel."""
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((200, 200, 3), 90, np.uint8))
    box = (100 - 25.6 + 0.5, 100 - 38.4 + 0.5, 51.2, 76.8)  # centre (100, 100)
    joints = np.full((17, 2), 100.0)
    joints[:4] = [[100 - 31.9, 100], [100 - 32.1, 100], [100, 100 + 47.9], [100, 100 + 48.1]]
    crop = PersonCrops(data_of(person_of(path, box, joints, np.ones(17))), SIZE)[0]
    assert crop.visible[:5].tolist() == [1, 0, 1, 0, 1]
    # 31.9 pixels left of the centre of a crop 64 wide: 0.1 pixels from its left edge, which is at heatmap x = -0.5.
    assert crop.joints[0, 0].item() == pytest.approx(-0.5 + 0.1 / 4, abs=1e-4)


def test_a_view_that_shows_no_joint_is_replaced(tmp_path: Path) -> None:
    """One joint in the corner of the box: a third of the random views turn it out of the crop."""
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((100, 100, 3), 90, np.uint8))
    joints, visible = np.full((17, 2), 0.0), np.zeros(17)
    joints[15], visible[15] = (74.0, 94.0), 1
    person = person_of(path, (25.0, 5.0, 50.0, 90.0), joints, visible)
    crops = PersonCrops(data_of(person), SIZE, augmentation=Augmentation())
    plain = PersonCrops(data_of(person), SIZE)[0]
    replaced = 0
    for epoch in range(100):
        crops.epoch = epoch
        crop = crops[0]
        assert crop.visible.sum() == 1
        replaced += torch.equal(crop.affine, plain.affine)
    assert replaced > 10


# --- what a view depends on ---


def crops_of(source: str, seed: int = 3, epoch: int = 0) -> PersonCrops:
    crops = PersonCrops(load_persons(source, "train").head(10), SIZE, augmentation=Augmentation(), seed=seed)
    crops.epoch = epoch
    return crops


def test_a_view_depends_on_seed_epoch_and_index_alone(small_data: str) -> None:
    forwards = [crop.affine for crop in crops_of(small_data)]
    backwards = crops_of(small_data)
    for index in reversed(range(10)):
        np.random.standard_normal(3)  # what else is drawn does not matter
        assert torch.equal(backwards[index].affine, forwards[index])
    for other in (crops_of(small_data, seed=4), crops_of(small_data, epoch=1)):
        assert not any(torch.equal(crop.affine, forwards[crop.index]) for crop in other)


def test_without_augmentation_epochs_are_alike(small_data: str) -> None:
    crops = PersonCrops(load_persons(small_data, "val"), SIZE)
    before = crops[0]
    crops.epoch = 5
    assert torch.equal(crops[0].image, before.image)


@pytest.mark.parametrize("stride", [2, 8])
def test_the_stride_changes_the_unit_of_the_joints_alone(small_data: str, stride: int) -> None:
    data = load_persons(small_data, "val")
    usual, other = (PersonCrops(data, SIZE, heatmap_stride=each) for each in (4, stride))
    for a, b in zip(usual, other, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.allclose((a.joints + 0.5) * 4, (b.joints + 0.5) * stride, atol=1e-4)
        assert torch.equal(a.visible, b.visible)  # the outermost pixels of both maps reach to the crop's border
    with pytest.raises(InputError, match=f"input size 128 x 97 must be positive multiples of {stride}"):
        PersonCrops(data, (128, 97), heatmap_stride=stride)


@pytest.mark.parametrize("size", [(0, 64), (64, -4), (66, 64), (64, 63), (2, 64)])
def test_input_size_must_fit_the_stride(small_data: str, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"input size {size[0]} x {size[1]} must be positive multiples of 4"):
        PersonCrops(load_persons(small_data, "val"), size)


# --- files ---


def jpeg(shape: tuple[int, int] = (60, 80)) -> bytes:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def png() -> bytes:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "can't be read .*No such file"),
    "a folder": (Path.mkdir, "can't be read .*directory"),
    "empty": (lambda path: path.write_bytes(b""), "is not an image .0 bytes"),
    "text": (lambda path: path.write_text("not found"), "is not an image"),
    "half a JPEG": (lambda path: path.write_bytes(jpeg()[: len(jpeg()) // 2]), "is cut short"),
    "a JPEG without its end": (lambda path: path.write_bytes(jpeg()[:-2]), "is cut short"),
    "JPEG markers around nothing": (lambda path: path.write_bytes(b"\xff\xd8rubbish\xff\xd9"), "is not an image"),
    "half a PNG": (lambda path: path.write_bytes(png()[: len(png()) // 2]), "is not an image"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_file_that_is_no_whole_image(tmp_path: Path, fault: str) -> None:
    make, words = BAD_FILES[fault]
    path = tmp_path / "picture.jpg"
    make(path)
    person = person_of(path, (0.0, 0.0, 40.0, 40.0), np.full((17, 2), 20.0), np.ones(17))
    with pytest.raises(InputError, match=words) as raised:
        PersonCrops(data_of(person), SIZE)[0]
    assert str(path) in str(raised.value)


def test_colours_are_red_green_blue_and_grey_pictures_have_three_channels(tmp_path: Path) -> None:
    person = person_of(tmp_path / "a.png", (0.0, 0.0, 4.0, 4.0), np.zeros((17, 2)), np.ones(17))
    cv2.imwrite(str(person.image_path), np.full((4, 6, 3), (10, 20, 200), np.uint8))  # OpenCV writes blue first
    np.testing.assert_array_equal(read_image(person), np.full((4, 6, 3), (200, 20, 10)))
    cv2.imwrite(str(person.image_path), np.full((4, 6), 77, np.uint8))
    np.testing.assert_array_equal(read_image(person), np.full((4, 6, 3), 77))


def test_the_turn_that_a_camera_wrote_is_ignored(tmp_path: Path) -> None:
    """Annotations are in the pixels as stored, so an EXIF orientation (here 6: turn by 90 degrees) must not act."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    plain = jpeg((60, 80))
    turned = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (80, 60, 3)  # the tag is a real one
    person = person_of(tmp_path / "a.jpg", (0.0, 0.0, 4.0, 4.0), np.zeros((17, 2)), np.ones(17))
    person.image_path.write_bytes(turned)
    assert read_image(person).shape == (60, 80, 3)


def test_a_picture_of_one_pixel(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    cv2.imwrite(str(path), np.full((1, 1, 3), 255, np.uint8))
    crop = PersonCrops(data_of(person_of(path, (0.0, 0.0, 1.0, 1.0), np.zeros((17, 2)), np.ones(17))), (32, 24))[0]
    # The pixel's centre is the crop's; its light fades to black on the way to the neighbours' centres.
    assert crop.image[:, 15:17, 11:13].min() > 230
    assert crop.image[:, [0, 0, -1, -1], [0, -1, 0, -1]].max() < 40
    torch.testing.assert_close(crop.joints[0], torch.tensor([2.5, 3.5]))
    assert crop.visible.all()


def test_a_picture_smaller_than_the_box_is_black_around(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    cv2.imwrite(str(path), np.full((20, 10, 3), 255, np.uint8))
    # Centre of picture and box are (4.5, 9.5); 64 x 96 / 1.25 pixels: the crop has the picture's scale.
    box = (4.5 - 25.6 + 0.5, 9.5 - 38.4 + 0.5, 51.2, 76.8)
    crop = PersonCrops(data_of(person_of(path, box, np.full((17, 2), 9.5), np.ones(17))), SIZE)[0]
    white = torch.zeros(96, 64, dtype=torch.bool)
    white[38:58, 27:37] = True
    assert torch.equal(crop.image[0] > 127, white)


def test_a_box_of_no_area_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(InputError, match="no area"):
        PersonCrops(data_of(person_of(path, (1.0, 1.0, 0.0, 3.0), np.zeros((17, 2)), np.ones(17))), SIZE)[0]


# --- several persons read at once ---


def test_a_batch_holds_the_crops_of_its_persons(small_data: str) -> None:
    crops = crops_of(small_data, epoch=2)
    wanted = [7, 0, 3, 3]
    batch, reasons = crops.read(wanted, 2)
    assert reasons == [] and batch.index.tolist() == wanted
    for row, index in enumerate(wanted):
        for name, value in crops[index]._asdict().items():
            assert torch.equal(torch.as_tensor(getattr(batch, name)[row]), torch.as_tensor(value)), name


def test_a_batch_lies_in_memory_as_networks_like_it(small_data: str) -> None:
    crops = crops_of(small_data)
    batch, _ = crops.read(range(4))
    assert batch.image.shape == (4, 3, *SIZE) and batch.image.dtype == torch.uint8
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert (batch.joints.dtype, batch.visible.dtype, batch.affine.dtype) == (
        torch.float32,
        torch.float32,
        torch.float64,
    )


def test_nobody_makes_an_empty_batch(small_data: str) -> None:
    batch, reasons = crops_of(small_data).read([])
    assert [value.shape for value in batch] == [(0, 3, *SIZE), (0, 17, 2), (0, 17), (0, 2, 3), (0,)]
    assert reasons == []


def test_a_picture_is_decoded_once_for_all_its_persons(
    spotted: tuple[Person, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, _ = spotted
    other = tmp_path / "other.png"
    other.write_bytes(person.image_path.read_bytes())
    shifted = replace(person, box=(30.0, 20.0, 50.0, 60.0))
    crops = PersonCrops(data_of(person, replace(person, image_path=other), shifted, person), SIZE)
    calls, decode = [], cv2.imdecode

    def counted(*arguments):
        calls.append(1)
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", counted)
    batch, _ = crops.read([0, 1, 2, 3])
    assert len(calls) == 2
    assert torch.equal(batch.image[0], batch.image[3]) and torch.equal(batch.image[0], batch.image[1])
    assert not torch.equal(batch.image[0], batch.image[2])


def test_persons_of_unreadable_pictures_can_be_left_out(spotted: tuple[Person, np.ndarray], tmp_path: Path) -> None:
    person, _ = spotted
    cut, missing = (replace(person, image_path=tmp_path / name) for name in ("cut.jpg", "missing.jpg"))
    cut.image_path.write_bytes(jpeg()[:-2])
    crops = PersonCrops(data_of(person, cut, missing, replace(person, box=(30.0, 20.0, 50.0, 60.0)), cut), SIZE)
    with pytest.raises(InputError, match="cut.jpg is cut short"):
        crops.read(range(5))
    batch, reasons = crops.read([4, 3, 2, 1, 0], skip_unreadable=True)
    assert batch.index.tolist() == [3, 0]
    for row, index in enumerate([3, 0]):
        for name, value in crops[index]._asdict().items():
            assert torch.equal(torch.as_tensor(getattr(batch, name)[row]), torch.as_tensor(value)), name
    faults = [("cut.jpg", "is cut short"), ("missing.jpg", "can't be read"), ("cut.jpg", "is cut short")]
    assert [missing.file for missing in reasons] == [file for file, _ in faults]
    for missing, (file, fault) in zip(reasons, faults, strict=True):
        assert f"{tmp_path}/{file} {fault}" in missing.reason
    nobody, reasons = crops.read([1, 2], skip_unreadable=True)
    assert len(nobody.image) == len(nobody.index) == 0 and len(reasons) == 2


def large_person(tmp_path: Path) -> Person:
    """A person four and a half times as high as the crop, in a smooth picture."""
    y, x = np.mgrid[:600, :500]
    picture = np.stack([128 + 100 * np.sin(x / 40), 128 + 100 * np.cos(y / 50), 128 + 100 * np.sin((x + y) / 60)], -1)
    cv2.imwrite(str(tmp_path / "large.jpg"), picture.round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])
    joints = np.random.default_rng(2).uniform((120, 80), (380, 480), (17, 2))
    return person_of(tmp_path / "large.jpg", (110.0, 70.0, 280.0, 420.0), joints, np.ones(17))


def test_a_reduced_picture_changes_the_crop_of_a_large_person_little(tmp_path: Path) -> None:
    data = data_of(large_person(tmp_path))
    full, reduced = (PersonCrops(data, SIZE, reduced=reduced)[0] for reduced in (False, True))
    difference = (full.image.int() - reduced.image.int()).abs()
    assert 0 < difference.float().mean() < 1 and difference.max() <= 5  # it is another picture, and shows the same
    for name in ("joints", "visible", "affine"):
        assert torch.equal(getattr(full, name), getattr(reduced, name))


def test_persons_of_one_picture_may_need_it_at_two_sizes(tmp_path: Path) -> None:
    large = large_person(tmp_path)
    small = replace(large, box=(200.0, 200.0, 60.0, 90.0))
    batch, _ = PersonCrops(data_of(small, large), SIZE, reduced=True).read([0, 1])
    assert torch.equal(batch.image[0], PersonCrops(data_of(small), SIZE)[0].image)
    assert torch.equal(batch.image[1], PersonCrops(data_of(large), SIZE, reduced=True)[0].image)


# --- conventions, margins and half bodies ---


@pytest.mark.parametrize("convention", ["half_pixel", "hrnet", "udp"])
def test_pixels_and_joints_go_to_the_same_place_in_each_convention(
    spotted: tuple[Person, np.ndarray], convention: str
) -> None:
    person, colours = spotted
    for view in views(10):
        crop = crop_of(person, view, convention=convention)
        order = COCO.flip_order if view.mirror else range(17)
        where = heatmap_to_crop(crop.joints, convention=convention, input_size=SIZE)
        inner = (where >= 3).all(-1) & (where <= torch.tensor([SIZE[1] - 4, SIZE[0] - 4])).all(-1)
        for k in torch.nonzero(inner).flatten().tolist():
            x, y = where[k].round().long().tolist()
            assert np.abs(crop.image[:, y, x].numpy().astype(int) - colours[order[k]]).max() < 40


def test_a_margin_lets_joints_beyond_the_border_count(spotted: tuple[Person, np.ndarray]) -> None:
    """The heatmap has 16 columns; the joint is 3 pixels to the right of its border, 15.5."""
    person, _ = spotted
    inner = crop_of(person, View())
    affine = invert_affine(inner.affine.numpy())
    joints = person.joints.copy()
    joints[4] = apply_affine(affine, heatmap_to_crop(np.array([18.5, 10.0])))
    moved = replace(person, joints=joints)
    for margin, counts in ((0.0, 0), (2.9, 0), (3.1, 1)):
        crop = crop_of(moved, View(), margin=margin)
        assert crop.visible[4] == counts
        assert crop.visible[[0, 1, 2, 3]].tolist() == inner.visible[[0, 1, 2, 3]].tolist()


def test_half_a_person_is_shown_larger(spotted: tuple[Person, np.ndarray]) -> None:
    person, _ = spotted
    data = data_of(person)
    whole = PersonCrops(data, SIZE, augmentation=Augmentation(0.0, 0.0, 0.0))[0]
    halves = PersonCrops(data, SIZE, augmentation=Augmentation(0.0, 0.0, 0.0, half_body=1.0))
    affines = set()
    for epoch in range(12):
        halves.epoch = epoch
        affines.add(tuple(halves[0].affine.flatten().tolist()))
    assert len(affines) == 2  # of the upper or the lower half
    assert min(affine[0] for affine in affines) > whole.affine[0, 0]


def test_an_unknown_convention_is_refused_at_once(small_data: str) -> None:
    with pytest.raises(InputError, match="unknown pixel convention 'none'"):
        PersonCrops(load_persons(small_data, "val"), SIZE, convention="none")
