"""Drawing for the generated data set: one shape, a shaded bar with elliptic ends, on a canvas with a depth per pixel.

Long and round a bar is a limb, short it is a head or an eye, flat it is a plank or a spot on the wall. The canvas is
drawn at twice the picture's resolution, so that edges come out smooth, and all positions are real numbers: nothing is
rounded to a pixel before the shape's formula is evaluated at the pixel centres.
"""

import colorsys
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.random import Generator

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]
Range = tuple[float, float]

FINENESS = 2  # canvas pixels along one picture pixel
NOBODY = 0


def draw_colour(rng: Generator, hue: Range, saturation: Range, value: Range, backdrop: Colour | None = None) -> Colour:
    """A random colour from ranges in [0, 1]; where a backdrop is given, of three colours the one least like it."""
    drawn = [
        colorsys.hsv_to_rgb(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))
        for _ in range(1 if backdrop is None else 3)
    ]
    return drawn[0] if backdrop is None else max(drawn, key=lambda colour: math.dist(colour, backdrop))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` of the way from the first to the second."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Bar:
    """A straight bar between two points, with elliptic ends.

    start, end: (x, y, z) in picture pixels; z grows towards the viewer.
    widths: half the bar's width at `start` and at `end`, in picture pixels.
    caps: how far the rounded ends reach beyond `start` and `end`, in picture pixels.
    thickness: half the extent towards the viewer in units of half the width: 1 is round, 0 flat.
    stripes: (strength, number): the colour's brightness swings by this share, this many times along the bar.
    """

    start: Float[ndarray, "3"]
    end: Float[ndarray, "3"]
    widths: tuple[float, float]
    caps: tuple[float, float]
    colour: Colour
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
        """light: unit vector (x, y, z) to where the light comes from; ambient: brightness in its shadow, in [0, 1]."""
        self.height, self.width = background.shape[:2]
        size = (self.width * FINENESS, self.height * FINENESS)
        self.colour = cv2.resize(background.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        self.depth = np.full(self.colour.shape[:2], -np.inf, np.float32)
        self.owner = np.full(self.colour.shape[:2], NOBODY, np.uint8)
        self.bodies: dict[int, Bool[ndarray, "h w"]] = {}
        self.light = light
        self.ambient = ambient

    def draw(self, bar: Bar, owner: int = NOBODY) -> None:
        """Draw a bar wherever nothing nearer has been drawn.

        With s the distance along the bar's axis from `start`, L its length and r the distance across it, a pixel is
        hit where

            u^2 + e^2 < 1,    u = r / half width,    e = min(s, 0) / first cap + max(s - L, 0) / second cap.

        The surface bulges by sqrt(1 - u^2 - e^2) * thickness * half width towards the viewer, and its brightness is
        Lambert's cosine between the light and the normal of the round bar, (u, e, sqrt(1 - u^2 - e^2)).
        """
        # Plain floats: they leave the arrays below in single precision.
        x0, y0 = to_canvas(bar.start[:2]).tolist()
        dx, dy = ((bar.end[:2] - bar.start[:2]) * FINENESS).tolist()
        length = math.hypot(dx, dy)
        # A bar that points at the viewer has no direction in the picture: any will do.
        ax, ay = (dx / length, dy / length) if length > 1e-3 else (0.0, 1.0)
        reach = float(max(*bar.widths, *bar.caps)) * FINENESS
        columns = _window(min(x0, x0 + dx) - reach, max(x0, x0 + dx) + reach, self.depth.shape[1])
        rows = _window(min(y0, y0 + dy) - reach, max(y0, y0 + dy) + reach, self.depth.shape[0])
        if columns.start >= columns.stop or rows.start >= rows.stop:
            return
        x = (np.arange(columns.start, columns.stop) - x0).astype(np.float32)
        y = (np.arange(rows.start, rows.stop) - y0).astype(np.float32)[:, None]

        along, across = x * ax + y * ay, y * ax - x * ay
        share = np.clip(along / max(length, 1e-3), 0, 1)
        half = float(bar.widths[0]) + float(bar.widths[1] - bar.widths[0]) * share
        u = across / (half * FINENESS)
        e = np.minimum(along, 0) / float(bar.caps[0] * FINENESS)
        e += np.maximum(along - length, 0) / float(bar.caps[1] * FINENESS)
        bulge = 1 - u * u - e * e
        hit = bulge > 0
        if owner != NOBODY:
            self.bodies.setdefault(owner, np.zeros(self.depth.shape, bool))[rows, columns] |= hit
        bulge = np.sqrt(np.maximum(bulge, 0))
        z = float(bar.start[2]) + float(bar.end[2] - bar.start[2]) * share + float(bar.thickness) * half * bulge
        hit &= z > self.depth[rows, columns]

        u, e, bulge, share = u[hit], e[hit], bulge[hit], share[hit]
        lx, ly, lz = self.light
        cosine = e * (ax * lx + ay * ly) + u * (ax * ly - ay * lx) + bulge * lz
        brightness = self.ambient + (1 - self.ambient) * np.maximum(cosine, 0)
        strength, number = bar.stripes
        if strength:
            brightness *= 1 + strength * np.sign(np.sin(2 * math.pi * number * share))
        self.colour[rows, columns][hit] = brightness[:, None] * np.array(bar.colour, np.float32)
        self.depth[rows, columns][hit] = z[hit]
        self.owner[rows, columns][hit] = owner

    def picture(self) -> Float[ndarray, "H W 3"]:
        """The colours at the picture's resolution: the mean of the canvas pixels of each picture pixel."""
        return cv2.resize(self.colour, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def shown(self, owner: int) -> Bool[ndarray, "H W"]:
        """True for the picture pixels most of which show this owner; no pixel belongs to two."""
        return self._majority(self.owner == owner)

    def body(self, owner: int) -> Bool[ndarray, "H W"]:
        """True for the picture pixels most of which this owner fills, hidden or not."""
        return self._majority(self.bodies.get(owner, np.zeros(self.depth.shape, bool)))

    def surface(self, points: Float[ndarray, "K 2"]) -> tuple[Float[ndarray, "K"], Int[ndarray, "K"]]:
        """Depth of the nearest surface, and its owner, at the canvas pixels nearest to points of the picture."""
        x, y = np.rint(to_canvas(points)).astype(int).T
        x, y = np.clip(x, 0, self.depth.shape[1] - 1), np.clip(y, 0, self.depth.shape[0] - 1)
        return self.depth[y, x], self.owner[y, x].astype(int)

    def _majority(self, fine: Bool[ndarray, "h w"]) -> Bool[ndarray, "H W"]:
        share = cv2.resize(fine.astype(np.float32), (self.width, self.height), interpolation=cv2.INTER_AREA)
        # Where exactly half is covered, the first of the canvas pixels decides: areas are neither swollen nor shrunk.
        return share + 0.5 / FINENESS**2 * fine[::FINENESS, ::FINENESS] > 0.5


def _window(low: float, high: float, size: int) -> slice:
    """The canvas pixels between two real positions."""
    return slice(max(math.floor(low), 0), min(math.ceil(high) + 1, size))
