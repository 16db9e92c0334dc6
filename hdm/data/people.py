"""Jointed figures for the generated data set: a pose in space is drawn at random, then dressed in bars.

Lengths are in units of the figure's standing height. A body's own axes point to its left, down and forward; seen from
the front they are the picture's x, y and z (towards the viewer), so that a figure that faces the viewer has its left at
the right of the picture.

Left and right arms and legs are dressed alike, as on real people: a mirrored figure is again one that could have been
drawn, which is what mirroring during training and testing takes for granted. What tells left from right is which way
the body faces: face or hair, white shirt front or dark rucksack, the bend of knees and elbows, the toes, near limbs
before far ones. Skin, shirts, trousers and shoes each have their own range of colours.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from hdm.data.canvas import Bar, Colour, draw_colour, mix
from hdm.data.skeletons import COCO

# Hue, saturation and value. No cloth is orange or brown: those are skin's.
BRIGHT = ((0.14, 1.0), (0.6, 1.0), (0.6, 1.0))
DARK = ((0.14, 1.0), (0.2, 0.9), (0.12, 0.4))
WHITE = ((0.0, 1.0), (0.0, 0.12), (0.8, 1.0))

SIDES = (1.0, -1.0)  # left and right, as signs on the axis that points to the body's left

# How far in front of a joint the surface of its own flesh and clothes lies at most, in body heights: what lies farther
# in front hides the joint.
COVER = dict(nose=0.03, eye=0.02, ear=0.03, shoulder=0.075, elbow=0.05, wrist=0.04, hip=0.095, knee=0.075, ankle=0.055)


@dataclass(frozen=True)
class Pose:
    """Where a body's joints are, in body heights, relative to the middle of the hips.

    joints: (17, 3) in COCO's order. trunk, pelvis, head: (3, 3), their axes (left, down, forward) as columns.
    neck, skull, hands, toes: points that no data set annotates and that the body is drawn with.
    girth, size: thickness of trunk and limbs, radius of the head.
    """

    joints: Float[ndarray, "17 3"]
    pelvis: Float[ndarray, "3 3"]
    trunk: Float[ndarray, "3 3"]
    head: Float[ndarray, "3 3"]
    neck: Float[ndarray, "3"]
    skull: Float[ndarray, "3"]
    hands: Float[ndarray, "2 3"]
    toes: Float[ndarray, "2 3"]
    girth: float
    size: float

    def pair(self, name: str) -> Float[ndarray, "2 3"]:
        """The left and the right joint of a name."""
        first = COCO.names.index(f"left_{name}")
        return self.joints[first : first + 2]


@dataclass(frozen=True)
class Person:
    """A dressed pose: joints (17, 3), the depth (17,) of its own flesh before each, and the bars to draw."""

    joints: Float[ndarray, "17 3"]
    cover: Float[ndarray, "17"]
    bars: tuple[Bar, ...]

    def placed(self, scale: float, offset: Float[ndarray, "3"]) -> "Person":
        """The same person enlarged by `scale` (body heights to pixels) and moved by `offset`."""
        bars = tuple(bar.placed(scale, offset) for bar in self.bars)
        return Person(self.joints * scale + offset, self.cover * scale, bars)


def sample_person(rng: Generator, backdrop: Colour, *, yaw: float | None = None) -> Person:
    """A person in a random pose and in clothes that mostly stand out from the backdrop; `yaw` as in `sample_pose`."""
    pose = sample_pose(rng, yaw=yaw)
    cover = np.array([COVER[name.split("_")[-1]] for name in COCO.names]) * max(pose.girth, 1.0)
    return Person(pose.joints, cover, tuple(_dress(pose, rng, backdrop)))


def turn(*, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Float[ndarray, "3 3"]:
    """Rotation by `pitch` (head forward), `roll` (head to the left), `yaw` (face to the left) in turn, in degrees."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(np.deg2rad([yaw, pitch, roll])), np.sin(np.deg2rad([yaw, pitch, roll]))
    about_down = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_forward = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    about_left = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return about_down @ about_forward @ about_left


def sample_pose(rng: Generator, *, yaw: float | None = None) -> Pose:
    """A random pose of a random build.

    yaw: which way the body faces in degrees, 0 towards the viewer and 90 to the picture's right; by default drawn: more
        often than not towards the viewer, else away or to a side.
    """
    if yaw is None:
        yaw = rng.uniform(*FACING[rng.choice(len(FACING), p=[share for share, _ in FACING])][1])
    # Few lie down; the rest stand, mostly aslant, and the camera looks down on them a little.
    lying = rng.random() < 0.08
    tilt = rng.choice(SIDES) * rng.uniform(60, 110) if lying else rng.uniform(-40, 40)
    body = turn(roll=tilt) @ turn(pitch=rng.uniform(-5, 20)) @ turn(yaw=yaw)

    girth, size = rng.uniform(1.05, 1.45), rng.uniform(0.07, 0.09)
    shoulder, hip = rng.uniform(0.105, 0.135), rng.uniform(0.07, 0.09)
    spine, arm, leg = rng.uniform(0.27, 0.31), rng.uniform(0.92, 1.08), rng.uniform(0.92, 1.08)

    pelvis = body @ turn(yaw=rng.uniform(-10, 10), pitch=rng.uniform(-5, 15))
    bend = 40 if rng.random() < 0.35 else 12
    trunk = pelvis @ turn(yaw=rng.uniform(-20, 20), pitch=rng.uniform(-0.4, 1) * bend, roll=rng.uniform(-1, 1) * bend)
    head = trunk @ turn(yaw=rng.uniform(-45, 45), pitch=rng.uniform(-20, 30), roll=rng.uniform(-15, 15))

    neck = trunk @ [0, -spine, 0]
    skull = neck + trunk @ [0, -0.035, 0.01] + head @ [0, -1.25 * size, 0]
    joints = np.zeros((17, 3))
    joints[0] = skull + head @ [0, 0.2 * size, 1.05 * size]
    hands, toes = np.zeros((2, 3)), np.zeros((2, 3))
    arms, legs = _sample_arms(rng), _sample_legs(rng)
    for i, side in enumerate(SIDES):
        joints[1 + i] = skull + head @ [0.38 * side * size, -0.15 * size, 0.9 * size]
        joints[3 + i] = skull + head @ [0.98 * side * size, 0, -0.1 * size]

        upper, fore = (trunk @ (direction * [side, 1, 1]) for direction in arms[i])
        joints[5 + i] = neck + trunk @ [side * shoulder, 0.015, 0]
        joints[7 + i] = joints[5 + i] + upper * 0.165 * arm
        joints[9 + i] = joints[7 + i] + fore * 0.145 * arm
        hands[i] = joints[9 + i] + fore * 0.05 * arm

        thigh, shin, foot = (pelvis @ (direction * [side, 1, 1]) for direction in legs[i])
        joints[11 + i] = pelvis @ [side * hip, 0, 0]
        joints[13 + i] = joints[11 + i] + thigh * 0.235 * leg
        joints[15 + i] = joints[13 + i] + shin * 0.235 * leg
        toes[i] = joints[15 + i] + foot * 0.085 + shin * 0.02
    return Pose(joints, pelvis, trunk, head, neck, skull, hands, toes, girth, size)


# How often a body is turned, and how far, in degrees: towards the viewer, away, to its left, to its right.
FACING = ((0.84, (-45, 45)), (0.1, (145, 215)), (0.03, (45, 100)), (0.03, (-100, -45)))
# Ranges in degrees. Arms: how far the upper arm is raised from hanging (180: straight up), whether to the side (0) or
# to the front (90), and the elbow's bend. Legs: how far the thigh swings forward, how far to the side, the knee's bend.
ARMS = {
    "hanging": ((5, 30), (0, 90), (0, 50)),
    "akimbo": ((35, 60), (-10, 15), (75, 110)),
    "sideways": ((60, 115), (-10, 50), (0, 110)),
    "forward": ((35, 110), (50, 100), (0, 120)),
    "raised": ((115, 170), (0, 60), (0, 100)),
}
LEGS = {
    "standing": ((-8, 8), (0, 14), (0, 12)),
    "ahead": ((15, 55), (0, 10), (0, 50)),
    "behind": ((-35, -5), (0, 10), (10, 80)),
    "crouching": ((50, 110), (0, 35), (60, 135)),
    "spread": ((-10, 30), (18, 60), (0, 40)),
}
STANCES = (
    (0.3, ("standing", "standing")),
    (0.3, ("ahead", "behind")),
    (0.15, ("spread", "spread")),
    (0.1, ("crouching", "crouching")),
    (0.1, ("standing", "spread")),
    (0.05, ("crouching", "standing")),
)


def _sample_arms(rng: Generator) -> list[tuple[ndarray, ...]]:
    """For left and right the directions of upper arm and forearm, each (outward, down, forward)."""
    manners = rng.choice(list(ARMS), size=2, p=(0.25, 0.1, 0.28, 0.12, 0.25))
    if rng.random() < 0.3:
        manners[1] = manners[0]
    return [_arm(rng, manner) for manner in manners]


def _arm(rng: Generator, manner: str) -> tuple[ndarray, ...]:
    raised, heading, bend = np.deg2rad([rng.uniform(*limits) for limits in ARMS[manner]])
    upper = np.array([np.sin(raised) * np.cos(heading), np.cos(raised), np.sin(raised) * np.sin(heading)])
    # The elbow bends forward, and more or less up and inward.
    inward = rng.uniform(0.8, 1.2) if manner == "akimbo" else rng.uniform(-0.1, 0.6)
    fold = np.array([-inward, rng.uniform(-1.0, 0.1) * (manner != "akimbo"), rng.uniform(0.3, 1.0)])
    fold -= upper * (upper @ fold)
    fold /= np.linalg.norm(fold)
    return upper, np.cos(bend) * upper + np.sin(bend) * fold


def _sample_legs(rng: Generator) -> list[tuple[ndarray, ...]]:
    """For left and right the directions of thigh, shin and foot, each (outward, down, forward)."""
    stance = STANCES[rng.choice(len(STANCES), p=[share for share, _ in STANCES])][1]
    order = rng.permutation(2)
    return [_leg(rng, stance[i]) for i in order]


def _leg(rng: Generator, manner: str) -> tuple[ndarray, ...]:
    swing, spread, bend = (rng.uniform(*limits) for limits in LEGS[manner])
    return tuple(_swung(angle, spread) for angle in (swing, swing - bend, swing - bend + 75))


def _swung(angle: float, spread: float) -> Float[ndarray, "3"]:
    """Straight down, swung forward by `angle` and outward by `spread` degrees."""
    angle, spread = np.deg2rad([angle, spread])
    return np.array([np.sin(spread), np.cos(spread) * np.cos(angle), np.cos(spread) * np.sin(angle)])


def _section(frame, breadth: float, depth: float, axis) -> tuple[float, float]:
    """Half the width seen across a bar of elliptic section, and its half thickness towards the viewer in units of it.

    An ellipse with half axes a along the unit vector l and b along f, seen along z, is sqrt((a l.p)^2 + (b f.p)^2) wide
    along p; p is the direction in the picture across the bar's axis.
    """
    left, forward = frame[:, 0] * breadth, frame[:, 2] * depth
    angle = np.arctan2(axis[1], axis[0])
    across = np.array([-np.sin(angle), np.cos(angle)])
    width = float(np.hypot(left[:2] @ across, forward[:2] @ across))
    return width, float(np.hypot(left[2], forward[2])) / width


def _slab(frame, start, end, breadths, depths, caps, colour, stripes=(0.0, 0)) -> Bar:
    """A bar of elliptic section: a trunk, a pelvis, a rucksack."""
    (first, thickness), (last, _) = (_section(frame, b, d, end - start) for b, d in zip(breadths, depths, strict=True))
    return Bar(start, end, (first, last), caps, colour, thickness, stripes)


def _limb(start, end, radii, colour, stripes=(0.0, 0)) -> Bar:
    return Bar(start, end, radii, radii, colour, 1.0, stripes)


def _dress(pose: Pose, rng: Generator, backdrop: Colour) -> list[Bar]:
    """The bars of a body in random clothes."""

    skin = mix((0.45, 0.26, 0.16), (1.0, 0.80, 0.66), rng.random())
    shirt, sleeves, hat = (draw_colour(rng, *BRIGHT, backdrop) for _ in range(3))
    trousers, rucksack = (draw_colour(rng, *DARK, backdrop) for _ in range(2))
    white, shoes = draw_colour(rng, *WHITE), draw_colour(rng, *WHITE)
    if rng.random() < 0.4:
        sleeves = shirt
    pattern = (rng.uniform(0.1, 0.25), int(rng.integers(2, 6))) if rng.random() < 0.3 else (0.0, 0)
    g = pose.girth
    bars: list[Bar] = []

    long_sleeves, long_legs = rng.random() < 0.6, rng.random() < 0.7
    arms = zip(pose.pair("shoulder"), pose.pair("elbow"), pose.pair("wrist"), pose.hands, strict=True)
    for shoulder, elbow, wrist, hand in arms:
        bars += [
            _limb(shoulder, elbow, (0.036 * g, 0.030 * g), sleeves),
            _limb(elbow, wrist, (0.028 * g, 0.021 * g), sleeves if long_sleeves else skin),
            _limb(wrist, hand, (0.026, 0.032), skin),
        ]
    legs = zip(pose.pair("hip"), pose.pair("knee"), pose.pair("ankle"), pose.toes, strict=True)
    for hip, knee, ankle, toe in legs:
        bars += [
            _limb(hip, knee, (0.056 * g, 0.040 * g), trousers),
            _limb(knee, ankle, (0.037 * g, 0.025 * g), trousers if long_legs else skin),
            _limb(ankle, toe, (0.034, 0.032), shoes),
        ]

    hips = float(np.linalg.norm(np.subtract(*pose.pair("hip")))) / 2
    chest = float(np.linalg.norm(np.subtract(*pose.pair("shoulder")))) / 2
    middle = pose.trunk @ [0, -0.05, 0]
    up, forward = -pose.trunk[:, 1], pose.trunk[:, 2]
    breadths, depths = (hips + 0.015 * g, chest + 0.005), (0.06 * g, 0.07 * g)
    bars += [
        _slab(pose.pelvis, pose.pelvis @ [0, 0.02, 0], pose.pelvis @ [0, -0.05, 0], (hips + 0.045 * g, hips + 0.02 * g),
              (0.068 * g, 0.062 * g), (0.03, 0.03), trousers),
        _slab(pose.trunk, middle, pose.neck, breadths, depths, (0.03, 0.03), shirt, pattern),
        _limb(pose.neck - up * 0.01, pose.skull, (0.03, 0.028), skin),
    ]  # fmt: skip
    if rng.random() < 0.95:  # an open jacket over a white shirt
        start, end = middle + forward * 0.045 * g, pose.neck + forward * 0.045 * g
        bars.append(_slab(pose.trunk, start, end, (0.06, 0.075), (0.033 * g, 0.038 * g), (0.03, 0.02), white))
    if rng.random() < 0.85:
        start, end = middle + up * 0.06 - forward * 0.085 * g, pose.neck - up * 0.04 - forward * 0.085 * g
        bars.append(_slab(pose.trunk, start, end, (0.09, 0.085), (0.05, 0.04), (0.03, 0.03), rucksack))
    return bars + _head(pose, rng, skin, hat)


def _head(pose: Pose, rng: Generator, skin: Colour, hat: Colour) -> list[Bar]:
    """Skull, ears, eyes, nose, mouth and what is worn or grows on top."""
    r, head = pose.size, pose.head
    left, up, forward = head[:, 0], -head[:, 1], head[:, 2]

    def ball(centre, radius: float, colour: Colour) -> Bar:
        return _limb(centre, centre, (radius, radius), colour)

    def oval(centre, length: float, radius: float, colour: Colour) -> Bar:
        return _limb(centre - up * length, centre + up * length, (radius, radius), colour)

    bars = [oval(pose.skull, 0.25 * r, 0.92 * r, skin), ball(pose.joints[0], 0.17 * r, mix(skin, (0.8, 0.2, 0.1), 0.3))]
    bars += [ball(ear, 0.24 * r, mix(skin, (0.6, 0.2, 0.1), 0.25)) for ear in pose.pair("ear")]
    for eye in pose.pair("eye"):
        bars += [ball(eye, 0.2 * r, (0.97, 0.97, 0.97)), ball(eye + forward * 0.13 * r, 0.12 * r, (0.05, 0.05, 0.08))]
    mouth = pose.skull - up * 0.6 * r + forward * 0.78 * r
    bars.append(_limb(mouth - left * 0.22 * r, mouth + left * 0.22 * r, (0.09 * r, 0.09 * r), (0.6, 0.12, 0.12)))

    dark, fair = (0.08, 0.05, 0.04), ((0.85, 0.68, 0.35), (0.45, 0.2, 0.08), (0.6, 0.6, 0.6))
    hair = mix(dark, fair[rng.integers(3)], rng.random())
    worn = rng.random()
    if worn < 0.92:  # the rest are bald
        cap = hat if worn < 0.2 else hair
        bars.append(oval(pose.skull + up * 0.28 * r - forward * 0.3 * r, 0.2 * r, 0.93 * r, cap))
    if 0.65 < worn < 0.92:  # long hair
        bars.append(oval(pose.skull - up * 0.75 * r - forward * 0.45 * r, 0.5 * r, 0.7 * r, hair))
    return bars
