"""Pictures of the built-in world's people: drawn faces, shaded and varied, that real face detectors find.

What changes from picture to picture is decided here; the head itself is drawn in head.py and hair.py.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from idia_core.drawing.easel import Easel, Shot
from idia_core.drawing.hair import draw_hair_behind
from idia_core.drawing.head import draw_head, skin_colour
from idia_core.drawing.people import Person
from idia_core.drawing.shapes import (
    BLACK,
    SIDE_RANGE_PX,
    WHITE,
    Colour,
    Picture,
    add_grain,
    ellipse,
    fill,
    gradient,
    mix,
    muted,
    rounded,
)
from idia_core.errors import InvalidInputError


def draw_face(person: Person, seed: Sequence[int]) -> Picture:
    """An RGB picture [side, side, 3] of the person, side 128 to 256 pixels; a pure function of its arguments.

    Pose, light, expression, clothing, background, blur and noise come from the seed alone.
    """
    rng = np.random.default_rng(np.random.SeedSequence(list(seed)))
    shot = _take_shot(rng)
    easel = Easel(_draw_backdrop(shot.side, rng), person, shot)
    draw_hair_behind(easel)
    _draw_body(easel, rng)
    draw_head(easel)
    return _develop(easel.picture, shot, rng)


def encode_jpeg(picture: Picture, quality: int = 90) -> bytes:
    """An RGB picture [H, W, 3] as the bytes of a JPEG file. Raises InvalidInputError where it is no such picture."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        fix = "Give an RGB array [H, W, 3] of uint8."
        raise InvalidInputError(f"{picture.dtype} {picture.shape} is not a picture", "encode_jpeg", fix)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return encoded.tobytes()


def _take_shot(rng: np.random.Generator) -> Shot:
    """A random camera, light and expression."""
    side = int(rng.integers(SIDE_RANGE_PX[0], SIDE_RANGE_PX[1] + 1))
    smiling, talking, blinking = rng.random(3) < (0.6, 0.35, 0.04)
    return Shot(
        side=side,
        scale=side * float(rng.uniform(0.29, 0.36)),
        centre=(side * float(rng.uniform(0.45, 0.55)), side * float(rng.uniform(0.47, 0.53))),
        roll=float(np.clip(rng.normal(0, 0.06), -0.14, 0.14)),
        yaw=float(np.clip(rng.normal(0, 0.13), -0.28, 0.28)),
        pitch=float(rng.uniform(-0.04, 0.04)),
        light=(float(rng.uniform(-0.9, 0.9)), float(rng.uniform(-0.8, -0.1))),
        smile=float(rng.uniform(0.4, 1.0) if smiling else rng.uniform(-0.3, 0.3)),
        mouth_open=float(rng.uniform(0.3, 1.0)) if talking else 0.0,
        brow_raise=float(rng.uniform(-0.02, 0.05)),
        lids=0.08 if blinking else float(rng.uniform(0.75, 1.0)),
        gaze=float(rng.uniform(-0.3, 0.3)),
    )


def _draw_backdrop(side: int, rng: np.random.Generator) -> Picture:
    """A background, most often out of focus: a gradient with a few shapes in it."""
    top = muted(rng, 90, 225, 40)
    picture = gradient(side, top, mix(muted(rng, 60, 215, 40), top, 0.3))
    for _ in range(int(rng.integers(0, 7))):
        x, y, size, tall = rng.uniform((-0.1, -0.1, 0.05, 0.5), (1.1, 1.1, 0.35, 2.0))
        shape = ellipse(x, y, size, size * tall, steps=int(rng.choice((4, 24)))) * side
        fill(picture, shape, mix(top, muted(rng, 40, 245, 50), 0.55))
    if rng.random() < 0.75:
        small = cv2.resize(picture, (side // 4, side // 4), interpolation=cv2.INTER_AREA)
        soft = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.5, 2.5)))
        picture = np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return picture


def _draw_body(easel: Easel, rng: np.random.Generator) -> None:
    """Neck, shoulders and whatever is worn in this picture."""
    skin = skin_colour(easel.person)
    cloth = muted(rng, 50, 215, 55)
    wide = float(rng.uniform(1.3, 1.55))
    half = np.array([[0.3, 1.1], [0.5, 1.25], [wide * 0.85, 1.42], [wide, 1.75], [wide + 0.05, 4]])
    easel.fill(np.vstack([half, half[::-1] * (-1, 1)]), cloth, on_face=False)
    for flip in (-1, 1):
        # A sleeve's shadow gives the shoulders some roundness.
        sleeve = np.array([[wide * 0.8, 4], [wide * 0.72, 2.1], [wide * 0.86, 1.62], [wide, 1.75], [wide + 0.05, 4]])
        easel.fill(sleeve * (flip, 1), mix(cloth, BLACK, 0.18), on_face=False)
    neck = np.array([[-0.36, 0.5], [0.36, 0.5], [0.36, 1.15], [0.42, 1.3], [0, 1.62], [-0.42, 1.3], [-0.36, 1.15]])
    easel.fill(rounded(neck), mix(skin, (60, 20, 10), 0.14), on_face=False)
    shadow = np.array([[-0.36, 0.6], [0.36, 0.6], [0.35, 1.08], [0, 1.32], [-0.35, 1.08]])
    easel.fill(rounded(shadow), mix(skin, (60, 20, 10), 0.36), on_face=False)
    _draw_collar(easel, cloth, wide, rng)


def _draw_collar(easel: Easel, cloth: Colour, wide: float, rng: np.random.Generator) -> None:
    """A round neckline, a shirt's collar, a jacket's lapels or stripes."""
    edge = mix(cloth, WHITE if sum(cloth) < 330 else BLACK, float(rng.uniform(0.25, 0.45)))
    cut = int(rng.integers(4))
    if cut == 0:
        easel.stroke(
            np.array([[-0.42, 1.2], [-0.3, 1.45], [0, 1.56], [0.3, 1.45], [0.42, 1.2]]), edge, 0.09, on_face=False
        )
    elif cut in (1, 2):
        flap = (
            [[0, 1.58], [0.38, 1.12], [0.58, 1.34], [0.28, 1.8]]
            if cut == 1
            else [[0, 2.2], [0.36, 1.14], [0.72, 1.4], [0.3, 2.0]]
        )
        for flip in (-1, 1):
            easel.fill(np.array(flap) * (flip, 1), edge, on_face=False)
    else:
        for y in (1.62, 1.87, 2.12, 2.37):
            easel.stroke(
                np.array([[-wide * 0.8, y + 0.06], [0, y + 0.02], [wide * 0.8, y + 0.06]]), edge, 0.07, on_face=False
            )


def _develop(picture: Picture, shot: Shot, rng: np.random.Generator) -> Picture:
    """The finished picture: exposure, warm or cold light, focus and grain of this shot."""
    warmth = float(rng.uniform(-0.05, 0.05))
    gains = float(rng.uniform(0.84, 1.05)) * np.array([1 + warmth, 1, 1 - warmth])
    table = np.clip(np.arange(256)[:, None] * gains + float(rng.uniform(-8, 10)), 0, 255).astype(np.uint8)
    picture = np.asarray(cv2.LUT(picture, table[None]), dtype=np.uint8)
    blur = float(rng.uniform(-0.8, 0.9)) * shot.side / 200
    if blur > 0.25:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), dtype=np.uint8)
    return add_grain(picture, rng, float(rng.uniform(0, 8)))
