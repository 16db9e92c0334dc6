"""Drawing for the generated data set: one shape, a shaded bar with elliptic ends, on a canvas with a depth for every pixel.

Long and round a bar is a limb, short it is a head or an eye, flat it is a plank or a spot on the wall. The canvas is
drawn at twice the picture's resolution, so that edges come out smooth, and all positions are real numbers: nothing is
rounded to a pixel before the shape's formula is evaluated at the pixel centres.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

FINENESS = 2  # canvas pixels along one picture pixel
NOBODY = 0


@dataclass(frozen=True)
class Bar:
    """A straight bar between two points, with elliptic ends.

    start, end: (x, y, z) in picture pixels; z grows towards the viewer.
    widths: half the bar's width at `start` and at `end`, in picture pixels.
    caps: how far the rounded ends reach beyond `start` and `end`, in picture pixels.
    thickness: half the extent towards the viewer in units of half the width: 1 is round, 0 flat.
    colour: red, green and blue in [0, 1].
    stripes: (strength, number): the colour's brightness swings by this share, this many times along the bar.
    """

    start: Float[ndarray, "3"]
    end: Float[ndarray, "3"]
    widths: tuple[float, float]
    caps: tuple[float, float]
    colour: tuple[float, float, float]
    thickness: float = 1.0
    stripes: tuple[float, int] = (0.0, 0)

    def placed(self, scale: float, offset: Float[ndarray, "3"]) -> "Bar":
        """The same bar enlarged by `scale` about the origin and then moved by `offset`."""
        return replace(
            self,
            start=self.start * scale + offset,
            end=self.end * scale + offset,
            widths=(self.widths[0] * scale, self.widths[1] * scale),
            caps=(self.caps[0] * scale, self.caps[1] * scale),
        )


def to_canvas(points):
    """Picture pixels to canvas pixels, pixel centres at whole numbers in both: x -> (x + 0.5) * fineness - 0.5."""
    return (points + 0.5) * FINENESS - 0.5


class Canvas:
    """A picture in the making.

    colour: (H', W', 3) red, green, blue at `FINENESS` times the picture's resolution.
    depth: (H', W') z of the nearest surface in picture pixels.
    owner: (H', W') whom that surface belongs to; `NOBODY` for the scenery.
    bodies: for each owner (H', W'), True where anything of theirs lies, also where something nearer hides it.
    """

    def __init__(
        self,
        background: Float[ndarray, "H W 3"],
        light: tuple[float, float, float] = (0.0, 0.0, 1.0),
        ambient: float = 1.0,
    ):
        """light: where the light comes from, a unit vector (x, y, z); ambient: brightness out of the light, in [0, 1]."""
        self.height, self.width = background.shape[:2]
        size = (self.width * FINENESS, self.height * FINENESS)
        self.colour = cv2.resize(background.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        self.depth = np.full(self.colour.shape[:2], -np.inf, np.float32)
        self.owner = np.full(self.colour.shape[:2], NOBODY, np.uint8)
        self.bodies: dict[int, Bool[ndarray, "H W"]] = {}
        self.light = light
        self.ambient = ambient

    def draw(self, bar: Bar, owner: int = NOBODY) -> None:
        """Draw a bar wherever nothing nearer has been drawn.

        With s the distance along the bar's axis from `start`, of length L, and r the distance across it, a pixel is hit where

            u^2 + e^2 < 1,    u = r / half width,    e = min(s, 0) / first cap + max(s - L, 0) / second cap.

        The surface bulges by sqrt(1 - u^2 - e^2) * thickness * half width towards the viewer, and its brightness is
        Lambert's cosine between the light and the normal of the round bar, (u, e, sqrt(1 - u^2 - e^2)).
        """
        x0, y0 = to_canvas(bar.start[:2])
        dx, dy = (bar.end[:2] - bar.start[:2]) * FINENESS
        length = float(np.hypot(dx, dy))
        # A bar that points at the viewer has no direction in the picture: any will do.
        ax, ay = (dx / length, dy / length) if length > 1e-3 else (0.0, 1.0)
        reach = max(*bar.widths, *bar.caps) * FINENESS
        columns = _window(min(x0, x0 + dx) - reach, max(x0, x0 + dx) + reach, self.depth.shape[1])
        rows = _window(min(y0, y0 + dy) - reach, max(y0, y0 + dy) + reach, self.depth.shape[0])
        if columns.start >= columns.stop or rows.start >= rows.stop:
            return
        x = np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(x0)
        y = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(y0))[:, None]

        along = x * np.float32(ax) + y * np.float32(ay)
        across = y * np.float32(ax) - x * np.float32(ay)
        share = np.clip(along / np.float32(max(length, 1e-3)), 0, 1)
        half = np.float32(bar.widths[0]) + np.float32(bar.widths[1] - bar.widths[0]) * share
        u = across / (half * FINENESS)
        e = np.minimum(along, 0) / np.float32(bar.caps[0] * FINENESS)
        e += np.maximum(along - np.float32(length), 0) / np.float32(bar.caps[1] * FINENESS)
        bulge = 1 - u * u - e * e
        hit = bulge > 0
        if owner != NOBODY:
            self.bodies.setdefault(owner, np.zeros(self.depth.shape, bool))[rows, columns] |= hit
        bulge = np.sqrt(np.maximum(bulge, 0))
        z = np.float32(bar.start[2]) + np.float32(bar.end[2] - bar.start[2]) * share
        z += np.float32(bar.thickness) * half * bulge
        hit &= z > self.depth[rows, columns]

        u, e, bulge, share = u[hit], e[hit], bulge[hit], share[hit]
        lx, ly, lz = (np.float32(value) for value in self.light)
        cosine = (
            (e * np.float32(ax) - u * np.float32(ay)) * lx + (e * np.float32(ay) + u * np.float32(ax)) * ly + bulge * lz
        )
        brightness = np.float32(self.ambient) + np.float32(1 - self.ambient) * np.maximum(cosine, 0)
        strength, number = bar.stripes
        if strength:
            brightness *= 1 + np.float32(strength) * np.sign(np.sin(2 * np.pi * number * share, dtype=np.float32))
        self.colour[rows, columns][hit] = brightness[:, None] * np.array(bar.colour, np.float32)
        self.depth[rows, columns][hit] = z[hit]
        self.owner[rows, columns][hit] = owner

    def picture(self) -> Float[ndarray, "H W 3"]:
        """The colours at the picture's resolution: the mean of the canvas pixels of each picture pixel."""
        return cv2.resize(self.colour, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def shown(self, owner: int) -> Bool[ndarray, "H W"]:
        """True for the picture pixels at least half of which shows this owner."""
        return self._half_covered(self.owner == owner)

    def body(self, owner: int) -> Bool[ndarray, "H W"]:
        """True for the picture pixels at least half of which this owner fills, hidden or not."""
        empty = np.zeros(self.depth.shape, bool)
        return self._half_covered(self.bodies.get(owner, empty))

    def surface(self, points: Float[ndarray, "K 2"]) -> tuple[Float[ndarray, "K"], Int[ndarray, "K"]]:
        """Depth of the nearest surface, and its owner, at the canvas pixels nearest to picture points inside the canvas."""
        x, y = np.rint(to_canvas(points)).astype(int).T
        x, y = np.clip(x, 0, self.depth.shape[1] - 1), np.clip(y, 0, self.depth.shape[0] - 1)
        return self.depth[y, x], self.owner[y, x].astype(int)

    def _half_covered(self, fine: Bool[ndarray, "H W"]) -> Bool[ndarray, "h w"]:
        size = (self.width, self.height)
        return cv2.resize(fine.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5


def _window(low: float, high: float, size: int) -> slice:
    """The canvas pixels between two real positions."""
    return slice(max(int(np.floor(low)), 0), min(int(np.ceil(high)) + 1, size))


def mix(first, second, share: float) -> tuple[float, float, float]:
    """The colour `share` of the way from the first to the second."""
    return tuple(float(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def contrasting(
    draw: Callable[[], tuple[float, float, float]], backdrop: tuple[float, float, float], tries: int = 3
) -> tuple[float, float, float]:
    """The one of a few drawn colours that is farthest from the backdrop's."""
    return max((draw() for _ in range(tries)), key=lambda colour: np.linalg.norm(np.subtract(colour, backdrop)))
