"""The pixel convention, against drawn pictures and against its own inverse."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from hdm.errors import InputError
from hdm.pixels import (
    CONVENTIONS,
    PADDING,
    apply_affine,
    box_affine,
    centred_box,
    crop_to_heatmap,
    crops_to_image,
    heatmap_to_crop,
    inside,
    invert_affine,
    moved_right,
    unflip,
)

SIZE = (256, 192)  # rows, columns of a crop


def blob(rows: int, columns: int, centre: tuple[float, float], sigma: float) -> np.ndarray:
    """A picture (rows, columns) of a round dot whose centre of mass is `centre`, (x, y)."""
    x, y = np.arange(columns) - centre[0], np.arange(rows) - centre[1]
    picture = np.exp(-(x[None] ** 2 + y[:, None] ** 2) / (2 * sigma**2))
    return (picture * (picture > 1e-6)).astype(np.float32)


def centroid(picture: np.ndarray) -> np.ndarray:
    mass = picture.astype(np.float64)
    x, y = np.arange(picture.shape[1]), np.arange(picture.shape[0])
    return np.array([(mass.sum(0) * x).sum(), (mass.sum(1) * y).sum()]) / mass.sum()


def random_views(count: int = 20) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [
        {
            "box": tuple(float(value) for value in (*rng.uniform(-50, 900, 2), *rng.uniform(5, 700, 2))),
            "input_size": [(256, 192), (128, 96), (256, 256), (96, 128)][index % 4],
            "scale": float(rng.uniform(0.65, 1.35)),
            "rotation": float(rng.uniform(-80, 80)),
            "mirror": bool(index % 2),
        }
        for index in range(count)
    ]


# Crop and heatmap


def test_first_heatmap_pixel_is_the_middle_of_its_crop_pixels() -> None:
    # Heatmap pixel 0 stands for crop pixels 0 to 3, whose middle is 1.5.
    assert heatmap_to_crop(np.array([0.0, 0.0]), 4.0) == pytest.approx([1.5, 1.5])
    assert crop_to_heatmap(np.array([5.5, -0.5]), 4.0) == pytest.approx([1.0, -0.5])


@pytest.mark.parametrize("stride", [1.0, 4.0, 8.0])
def test_crop_and_heatmap_are_inverse(stride: float) -> None:
    points = np.random.default_rng(0).uniform(-100, 600, (3, 50, 2))
    assert np.abs(heatmap_to_crop(crop_to_heatmap(points, stride), stride) - points).max() < 1e-6
    tensor = torch.from_numpy(points)
    assert (crop_to_heatmap(heatmap_to_crop(tensor, stride), stride) - tensor).abs().max() < 1e-6


@pytest.mark.parametrize("stride", [2.0, 4.0, 8.0])
def test_mirrored_crop_is_mirrored_heatmap(stride: float) -> None:
    width = 192
    x = np.linspace(-0.5, width - 0.5, 97)
    assert crop_to_heatmap(width - 1 - x, stride) == pytest.approx(width / stride - 1 - crop_to_heatmap(x, stride))


def test_pooled_crop_shows_the_dot_where_the_convention_says() -> None:
    # The mean of 4 x 4 crop pixels is the heatmap pixel that they become.
    crop = blob(128, 96, (40.3, 70.9), sigma=6)
    pooled = crop.reshape(32, 4, 24, 4).mean((1, 3))
    assert centroid(pooled) == pytest.approx(crop_to_heatmap(np.array([40.3, 70.9]), 4.0), abs=1e-3)


# Image and crop


def test_box_centre_is_crop_centre() -> None:
    # COCO's (10, 20, 101, 51) covers the pixels 10 to 110 and 20 to 70.
    for view in ({}, {"rotation": 33.0}, {"scale": 0.7}, {"mirror": True}, {"padding": 2.0, "rotation": -90.0}):
        matrix = box_affine((10.0, 20.0, 101.0, 51.0), SIZE, **view)
        assert apply_affine(matrix, np.array([60.0, 45.0])) == pytest.approx([95.5, 127.5])


def test_wide_box_touches_left_and_right_border() -> None:
    x, y, width, height = box = (30.0, 40.0, 120.0, 60.0)
    matrix = box_affine(box, SIZE, padding=1.0)
    corners = np.array([[x - 0.5, y - 0.5], [x + width - 0.5, y + height - 0.5]])
    zoom = 192 / 120
    assert apply_affine(matrix, corners) == pytest.approx(
        np.array([[-0.5, 127.5 - 30 * zoom], [191.5, 127.5 + 30 * zoom]])
    )


def test_tall_box_touches_upper_and_lower_border() -> None:
    x, y, width, height = box = (30.0, 40.0, 60.0, 200.0)
    matrix = box_affine(box, SIZE, padding=1.0)
    corners = np.array([[x - 0.5, y - 0.5], [x + width - 0.5, y + height - 0.5]])
    zoom = 256 / 200
    assert apply_affine(matrix, corners) == pytest.approx(
        np.array([[95.5 - 30 * zoom, -0.5], [95.5 + 30 * zoom, 255.5]])
    )


@pytest.mark.parametrize("box", [(30.0, 40.0, 120.0, 60.0), (30.0, 40.0, 60.0, 200.0), (0.0, 0.0, 90.0, 120.0)])
def test_padded_box_of_the_crop_aspect_fills_the_crop(box: tuple[float, float, float, float]) -> None:
    x, y, width, height = box
    width, height = max(width, height * 192 / 256), max(height, width * 256 / 192)  # the crop's aspect ratio
    middle = np.array([x + (box[2] - 1) / 2, y + (box[3] - 1) / 2])
    half = np.array([width, height]) * PADDING * 1.1 / 2
    crop = apply_affine(box_affine(box, SIZE, scale=1.1), np.array([middle - half, middle + half]))
    assert crop == pytest.approx(np.array([[-0.5, -0.5], [191.5, 255.5]]))


def test_positive_rotation_is_clockwise_on_screen() -> None:
    box = (0.0, 0.0, 101.0, 101.0)  # centre (50, 50)
    right = apply_affine(box_affine(box, (101, 101), padding=1.0, rotation=90.0), np.array([80.0, 50.0]))
    assert right == pytest.approx([50.0, 80.0])  # y grows downwards: right has become below
    slightly = apply_affine(box_affine(box, (101, 101), padding=1.0, rotation=30.0), np.array([80.0, 50.0]))
    assert slightly == pytest.approx([50 + 30 * np.sqrt(3) / 2, 65.0])


def test_mirror_comes_last() -> None:
    points = np.random.default_rng(1).uniform(0, 200, (30, 2))
    for rotation in (0.0, 25.0):
        plain = apply_affine(box_affine((20.0, 30.0, 50.0, 80.0), SIZE, rotation=rotation), points)
        mirrored = apply_affine(box_affine((20.0, 30.0, 50.0, 80.0), SIZE, rotation=rotation, mirror=True), points)
        assert mirrored == pytest.approx(np.stack([191 - plain[:, 0], plain[:, 1]], -1))


def test_box_may_be_an_array() -> None:
    box = (20.0, 30.0, 50.0, 80.0)
    assert box_affine(np.array(box), SIZE) == pytest.approx(box_affine(box, SIZE))


def test_points_of_any_leading_shape() -> None:
    matrix = box_affine((20.0, 30.0, 50.0, 80.0), SIZE, rotation=10.0)
    points = np.random.default_rng(1).uniform(0, 200, (2, 3, 2))
    mapped = apply_affine(matrix, points)
    assert mapped[1, 2] == pytest.approx(matrix @ [*points[1, 2], 1])
    assert mapped.shape == points.shape


def test_invert_of_a_hand_made_map() -> None:
    # crop = 2 (y, x) + (3, 5)
    matrix = np.array([[0.0, 2.0, 3.0], [2.0, 0.0, 5.0]])
    assert invert_affine(matrix) == pytest.approx(np.array([[0, 0.5, -2.5], [0.5, 0, -1.5]]))


@pytest.mark.parametrize("view", random_views())
def test_image_to_heatmap_and_back(view: dict[str, Any]) -> None:
    points = np.random.default_rng(2).uniform(-100, 1700, (100, 2))
    matrix = box_affine(**view)
    heatmap = crop_to_heatmap(apply_affine(matrix, points), 4.0)
    back = apply_affine(invert_affine(matrix), heatmap_to_crop(heatmap, 4.0))
    assert np.abs(back - points).max() < 1e-3


@pytest.mark.parametrize("view", random_views(8))
def test_drawn_dot_is_where_the_matrix_says(view: dict[str, Any]) -> None:
    dot = (301.3, 207.8)
    matrix = box_affine(**view | {"box": (240.0, 150.0, 110.0, 130.0)})
    picture = blob(480, 640, dot, sigma=3)
    rows, columns = view["input_size"]
    crop = cv2.warpAffine(picture, matrix, (columns, rows), flags=cv2.INTER_LINEAR)
    assert np.abs(centroid(crop) - apply_affine(matrix, np.array(dot))).max() < 0.05


@pytest.mark.parametrize(
    "box",
    [
        (10.0, 10.0, 0.0, 20.0),
        (10.0, 10.0, 20.0, 0.0),
        (10.0, 10.0, -5.0, 20.0),
        (10.0, 10.0, float("nan"), 20.0),
        (float("inf"), 10.0, 20.0, 20.0),
    ],
)
def test_box_without_area(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match=r"person box \[.*\] has no area: give x, y, width > 0"):
        box_affine(box, SIZE)


def test_inside_is_the_area_of_the_pixels() -> None:
    points = np.array([[-0.5, -0.5], [47.5, 63.5], [-0.51, 3], [47.51, 3], [3, -0.51], [3, 63.51], [np.nan, 3]])
    expected = [True, True, False, False, False, False, False]
    assert inside(points, 48, 64).tolist() == expected
    assert inside(torch.from_numpy(points).view(7, 1, 2), 48, 64).squeeze(-1).tolist() == expected


# Conventions


def official_affine(centre: np.ndarray, scale: np.ndarray, rotation: float, size: tuple[int, int]) -> np.ndarray:
    """The map of the official repositories: centre, the point half the region's width above it and the corner of the
    right angle on these go to their counterparts in the crop."""
    width = 200 * scale[0]
    up = np.array([np.sin(rotation) * width / 2, -np.cos(rotation) * width / 2])
    middle, top = np.array([size[1] / 2, size[0] / 2]), np.array([size[1] / 2, size[0] / 2 - size[1] / 2])
    source, target = ([a, b, a + [(b - a)[1], -(b - a)[0]]] for a, b in ((centre, centre + up), (middle, top)))
    return cv2.getAffineTransform(np.float32(source), np.float32(target))


def test_hrnet_is_the_official_affine() -> None:
    """COCO's box (x, y, w, h) is cleaned to (x, y, w - 1, h - 1) there, widened to the crop's shape, times 1.25."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y, width, height = (*rng.uniform(0, 300, 2), *rng.uniform(20, 400, 2))
        rotation, factor = rng.uniform(-80, 80), rng.uniform(0.7, 1.3)
        ours = box_affine((x, y, width, height), SIZE, convention="hrnet", rotation=-rotation, scale=factor)
        w, h = width - 1, height - 1
        centre = np.array([x + w / 2, y + h / 2])
        w, h = max(w, h * SIZE[1] / SIZE[0]), max(h, w * SIZE[0] / SIZE[1])
        theirs = official_affine(centre, np.array([w, h]) / 200 * 1.25 * factor, np.deg2rad(rotation), SIZE)
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_udp_is_the_official_map() -> None:
    """Turn about the centre, then (W - 1) crop pixels for the region's width and (H - 1) for its height."""
    x, y, width, height, angle = 12.5, 40.0, 141.0, 201.0, np.deg2rad(25)
    ours = box_affine((x, y, width, height), SIZE, convention="udp", rotation=25)
    w, h = 150 * 1.25, 200 * 1.25  # 140 x 200 widened to 150 x 200
    points = np.array([[3.0, 8.0], [82.5, 140.0], [200.0, 300.0]]) - [x + 70, y + 100]
    turned = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    expected = (turned + [w / 2, h / 2]) * [191 / w, 255 / h]
    np.testing.assert_allclose(apply_affine(ours, points + [x + 70, y + 100]), expected)


def test_heatmap_coordinates_of_each_convention() -> None:
    points = np.array([[0.0, 0.0], [17.2, 30.0], [191.0, 255.0]])
    expected = {
        "half_pixel": [[-0.375, -0.375], [3.925, 7.125], [47.375, 63.375]],
        "hrnet": [[0, 0], [4.3, 7.5], [47.75, 63.75]],
        "udp": [[0, 0], [17.2 * 47 / 191, 30 * 63 / 255], [47, 63]],
    }
    for convention in CONVENTIONS:
        heatmap = crop_to_heatmap(points, convention=convention, input_size=SIZE)
        np.testing.assert_allclose(heatmap, expected[convention])
        tensor = crop_to_heatmap(torch.from_numpy(points).float(), convention=convention, input_size=SIZE)
        np.testing.assert_allclose(tensor.numpy(), expected[convention], atol=1e-5)


@pytest.mark.parametrize("convention", ["half_pixel", "hrnet", "udp"])
@pytest.mark.parametrize("view", random_views(8))
def test_image_to_heatmap_and_back_in_each_convention(view: dict[str, Any], convention: str) -> None:
    points = np.random.default_rng(1).uniform(-50, 1500, (40, 2))
    matrix = box_affine(**view, convention=convention)
    where = {"convention": convention, "input_size": view["input_size"]}
    heatmap = crop_to_heatmap(apply_affine(matrix, points), **where).astype(np.float32).astype(np.float64)
    assert np.abs(apply_affine(invert_affine(matrix), heatmap_to_crop(heatmap, **where)) - points).max() < 1e-3


def test_one_convention_is_not_another() -> None:
    box = (20.0, 30.0, 101.0, 151.0)
    crops = [apply_affine(box_affine(box, SIZE, convention=name), np.array([60.0, 90.0])) for name in CONVENTIONS]
    assert min(np.abs(a - b).max() for a, b in zip(crops, crops[1:] + crops[:1], strict=True)) > 0.05


@pytest.mark.parametrize(("convention", "left_over"), [("half_pixel", 0.0), ("hrnet", 0.25), ("udp", 0.0)])
def test_a_mirrored_crops_maps_come_back_to_their_place(convention: str, left_over: float) -> None:
    """A network that marks joints where they are is shown a crop and its mirror image: how far apart are its maps?"""
    rows, columns = SIZE
    crop = torch.tensor([[[60.3, 100.0], [130.0, 44.4]]], dtype=torch.float64)  # a right and a left joint
    where = {"convention": convention, "input_size": SIZE}

    def network(joints: torch.Tensor) -> torch.Tensor:
        place = crop_to_heatmap(joints, **where)[0]
        return torch.stack(
            [torch.from_numpy(blob(rows // 4, columns // 4, (float(x), float(y)), 2.0)) for x, y in place]
        )

    mirrored = crop.clone()
    mirrored[..., 0] = columns - 1 - mirrored[..., 0]
    plain, back = network(crop), unflip(network(mirrored[:, [1, 0]])[None], [1, 0], convention)[0]
    for joint in range(2):
        shift = centroid(back[joint].numpy()) - centroid(plain[joint].numpy())
        assert shift == pytest.approx([left_over, 0], abs=2e-3)


def test_hrnet_leaves_the_first_column_as_the_official_code_does() -> None:
    maps = torch.arange(8.0).view(1, 1, 2, 4)
    assert unflip(maps, [0], "hrnet").view(2, 4).tolist() == [[3, 3, 2, 1], [7, 7, 6, 5]]
    assert unflip(maps, [0], "udp").view(2, 4).tolist() == [[3, 2, 1, 0], [7, 6, 5, 4]]


def test_maps_moved_to_the_right_keep_their_first_columns() -> None:
    maps = torch.arange(4.0).view(1, 1, 1, 4)
    moved = [moved_right(maps, columns).flatten().tolist() for columns in (0, 1, 2)]
    assert moved == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 0, 1]]


def test_points_of_several_crops_go_back_each_to_its_place() -> None:
    boxes = [(20.0, 30.0, 50.0, 80.0), (100.0, 5.0, 200.0, 40.0)]
    affines = np.stack([box_affine(box, SIZE, rotation=20) for box in boxes])
    points = np.random.default_rng(3).uniform(0, 200, (2, 5, 2))
    crops = np.stack([apply_affine(affine, joints) for affine, joints in zip(affines, points, strict=True)])
    np.testing.assert_allclose(crops_to_image(affines, crops), points)


@pytest.mark.parametrize("convention", ["half_pixel", "hrnet", "udp"])
def test_a_mirrored_view_shows_the_mirror_image(convention: str) -> None:
    """Under hrnet the image is mirrored before it is cropped: X becomes W - X, elsewhere W - 1 - X."""
    points = np.random.default_rng(2).uniform(0, 100, (9, 2))
    plain, mirrored = (
        apply_affine(box_affine((20.0, 30.0, 50.0, 80.0), SIZE, convention=convention, mirror=mirror), points)
        for mirror in (False, True)
    )
    total = SIZE[1] - (convention != "hrnet")
    np.testing.assert_allclose(mirrored, np.column_stack([total - plain[:, 0], plain[:, 1]]))


def test_a_centred_box_has_its_centre_and_its_distances() -> None:
    matrix = box_affine(centred_box((50.0, 70.0), 30.0, 40.0), SIZE, convention="udp", padding=1.0)
    np.testing.assert_allclose(apply_affine(matrix, np.array([[35.0, 50.0], [65.0, 90.0]])), [[0, 0], [191, 255]])


@pytest.mark.parametrize("convention", ["hrnet", "udp"])
def test_a_box_of_one_pixel_is_shown(convention: str) -> None:
    assert np.isfinite(box_affine((5.0, 6.0, 1.0, 1.0), SIZE, convention=convention)).all()


def test_joints_beyond_the_border_may_count() -> None:
    points = np.array([[-0.5, 3.0], [-2.5, 3.0], [-2.6, 3.0], [9.4, 3.0], [9.6, 3.0], [3.0, 8.5], [3.0, 8.6]])
    assert inside(points, 8, 7, margin=2.0).tolist() == [True, True, False, True, False, True, False]


def test_unknown_conventions() -> None:
    with pytest.raises(InputError, match="unknown pixel convention 'opencv': choose one of half_pixel, hrnet, udp"):
        box_affine((0.0, 0.0, 4.0, 4.0), SIZE, convention="opencv")
    with pytest.raises(InputError, match="unknown pixel convention"):
        crop_to_heatmap(np.zeros(2), convention="align_corners")
    with pytest.raises(InputError, match="unknown pixel convention"):
        unflip(torch.zeros(1, 2, 3, 4), [0, 1], "none")


def test_udp_needs_the_size_of_the_crop() -> None:
    with pytest.raises(InputError, match=r"udp depends on the size of the crop: give input_size \(rows, columns\)"):
        crop_to_heatmap(np.zeros(2), convention="udp")
