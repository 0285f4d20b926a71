"""The drawn head of one person in one shot: skin and shading, features and glasses.

Lengths are in head units (see easel.py). Colours are RGB.
"""

import cv2
import numpy as np

from idia_core.drawing.easel import Easel
from idia_core.drawing.hair import HAIR, draw_hair
from idia_core.drawing.people import Person
from idia_core.drawing.shapes import BLACK, WHITE, Colour, Points, clipped, ellipse, fill, mix, rounded

_SKIN_TONES = ((252, 220, 202), (244, 202, 174), (230, 178, 142), (200, 144, 108), (158, 106, 78), (116, 77, 58))
_IRIS: dict[str, Colour] = {
    "brown": (92, 56, 32),
    "hazel": (134, 100, 48),
    "green": (74, 124, 78),
    "blue": (66, 116, 176),
    "grey": (112, 128, 140),
}
_FRAMES: dict[str, Colour] = {"round": (160, 118, 56), "square": (52, 54, 74), "half-rim": (122, 40, 52)}
_INK: Colour = (30, 20, 20)
_SHADOW: Colour = (70, 22, 12)

# Shadows on skin are warmer than grey: red falls less than blue. 128 leaves a channel as it is.
_WARM_SHADE = np.clip(128 + (np.arange(256)[:, None] - 128) * np.array([0.8, 1.02, 1.12]), 0, 255).astype(np.uint8)
_NINE = np.linspace(-1, 1, 9)
_FIFTEEN = np.linspace(-1, 1, 15)
_SIDES = (-1, 1)


def skin_colour(person: Person) -> Colour:
    """The person's flat skin colour."""
    place = person.skin * (len(_SKIN_TONES) - 1)
    index = min(int(place), len(_SKIN_TONES) - 2)
    tone = mix(_SKIN_TONES[index], _SKIN_TONES[index + 1], place - index)
    return clipped(np.add(tone, (2, 2 * person.undertone, -7 * person.undertone)))


def draw_head(easel: Easel) -> None:
    """Draw all of the head but the hair behind it."""
    skin, hair = skin_colour(easel.person), HAIR[easel.person.hair_colour]
    _draw_ears(easel, skin)
    outline = _outline(easel.person)
    easel.fill(outline, skin, on_face=False)
    _draw_blush(easel, skin)
    _draw_beard(easel, hair, skin)
    _shade(easel, outline)
    _draw_marks(easel, skin)
    _draw_eyes(easel, skin)
    _draw_brows(easel, hair, skin)
    _draw_nose(easel, skin)
    _draw_mouth(easel, skin)
    draw_hair(easel, hair, skin)
    _draw_glasses(easel)


def _outline(person: Person, grow: float = 0.0) -> Points:
    """The head's outline, from the crown clockwise; `grow` widens its lower half."""
    angle = np.linspace(-np.pi / 2, 1.5 * np.pi, 48, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    # A superellipse: the exponent of the lower half makes the chin pointed or the jaw square.
    power = np.where(sin > 0, 2 / (1.75 + 1.1 * person.jaw), 2 / 2.2)
    swell = 1 + grow * np.clip(2 * sin, 0, 1)
    x = np.sign(cos) * np.abs(cos) ** power * person.face_width
    y = np.sign(sin) * np.abs(sin) ** power
    return np.stack([x * swell, y * swell], axis=1)


def _draw_ears(easel: Easel, skin: Colour) -> None:
    """Ears and earrings; the ear on the side that the head turns towards hides behind it."""
    size = easel.person.ear_size
    for flip in _SIDES:
        x = flip * (easel.person.face_width + 0.02) - easel.shot.yaw * 0.35
        easel.fill(ellipse(x, 0.08, size * 0.7, size * 1.25), mix(skin, _SHADOW, 0.12), on_face=False)
        easel.fill(ellipse(x, 0.08, size * 0.4, size * 0.8), mix(skin, _SHADOW, 0.3), on_face=False)
        if easel.person.earrings:
            easel.fill(ellipse(x + flip * 0.03, 0.08 + size * 1.4, 0.055, 0.07), (240, 204, 96), on_face=False)


def _draw_blush(easel: Easel, skin: Colour) -> None:
    """Redder cheeks, plainest on light skin."""
    share = 0.14 - 0.1 * easel.person.skin
    for flip in _SIDES:
        easel.fill(ellipse(flip * 0.42, 0.34, 0.19, 0.14), mix(skin, (222, 84, 76), share / 2))
        easel.fill(ellipse(flip * 0.42, 0.34, 0.13, 0.1), mix(skin, (222, 84, 76), share))


def _shade(easel: Easel, outline: Points) -> None:
    """Multiply the face by soft shadows (sockets, sides, under nose, lip) and lights (forehead, nose, cheeks)."""
    person, shot = easel.person, easel.shot
    nose = person.nose_length
    step_x, step_y = shot.light[0] * 24 / shot.scale, shot.light[1] * 20 / shot.scale
    place = np.arange(shot.side, dtype=np.float32)
    level = (place - shot.centre[0]) * step_x + ((place - shot.centre[1]) * step_y)[:, None] + 129
    shade = np.clip(level, 70, 142).astype(np.uint8)
    rim = easel.pixels(outline)
    cv2.polylines(shade, [np.rint(rim).astype(np.int32)], True, 92, max(1, round(shot.scale * 0.14)))
    spots = (
        (ellipse(-person.eye_distance, -0.04, 0.24, 0.15, steps=16), 84),
        (ellipse(person.eye_distance, -0.04, 0.24, 0.15, steps=16), 84),
        (ellipse(0, nose + 0.06, person.nose_width * 1.1, 0.05, steps=12), 84),
        (ellipse(0, 0.79, 0.15, 0.04, steps=12), 98),
        (ellipse(0, -0.5, 0.36, 0.16, steps=16), 140),
        (ellipse(0, 0.1, 0.05, nose - 0.12, steps=12), 148),
        (ellipse(-0.42, 0.32, 0.14, 0.1, steps=12), 142),
        (ellipse(0.42, 0.32, 0.14, 0.1, steps=12), 142),
    )
    for points, value in spots:
        cv2.fillPoly(shade, [np.rint(easel.pixels(points, on_face=True)).astype(np.int32)], value)
    window = (round(shot.scale * 0.12) | 1,) * 2
    soft = cv2.blur(cv2.blur(shade, window), window)
    mask = np.zeros((shot.side, shot.side), dtype=np.uint8)
    fill(mask, rim, (255,))
    flat = np.full_like(shade, 128)
    cv2.copyTo(soft, mask, flat)
    tinted = cv2.LUT(cv2.cvtColor(flat, cv2.COLOR_GRAY2BGR), _WARM_SHADE[None])
    cv2.multiply(easel.picture, tinted, easel.picture, 1 / 128)


def _draw_beard(easel: Easel, hair: Colour, skin: Colour) -> None:
    """The person's beard, under the shading and behind the mouth."""
    person = easel.person
    full = person.beard == "full"
    lip, wide = _mouth_y(person), person.mouth_width + 0.05
    colour = mix(hair, BLACK, 0.12) if person.beard != "stubble" else mix(skin, mix(hair, (40, 40, 48), 0.4), 0.4)
    if full or person.beard == "stubble":
        lower = _outline(person, 0.06 if full else 0.0)
        lower = lower[lower[:, 1] > 0]
        top = lip - 0.17
        cheek = np.array([[0.97, 0.0], [0.86, 0.2], [0.7, top + 0.06], [0.5, top + 0.1], [0.2, top], [0, top + 0.02]])
        inner = np.vstack([cheek[:-1] * (-1, 1), cheek[::-1]]) * (person.face_width, 1)
        easel.fill(np.vstack([lower, inner]), colour, on_face=False)
    if full or person.beard in ("moustache", "goatee"):
        half = np.array([[0, -0.16], [0.35, -0.16], [0.7, -0.1], [1.15, 0.07], [0.8, 0.03], [0.4, -0.03], [0, -0.03]])
        shape = np.vstack([half, half[::-1] * (-1, 1)]) * (wide, 1) + (0, lip)
        easel.fill(rounded(shape, 1), mix(colour, BLACK, 0.12))
    if person.beard == "goatee":
        easel.fill(rounded([[-0.2, 0.78], [0.2, 0.78], [0.24, 0.95], [0.1, 1.12], [-0.1, 1.12], [-0.24, 0.95]]), colour)


def _mouth_y(person: Person) -> float:
    """The height of the mouth's line, a little above halfway from nose to chin."""
    return 0.6 + (person.nose_length - 0.38) * 0.5


def _draw_eyes(easel: Easel, skin: Colour) -> None:
    """Whites, irises, lights and lids."""
    for flip in _SIDES:
        slant = np.radians(easel.person.eye_slant) * -flip
        turn = np.array([[np.cos(slant), np.sin(slant)], [-np.sin(slant), np.cos(slant)]])
        _draw_eye(easel, skin, turn, np.array([flip * easel.person.eye_distance, -0.02]))


def _draw_eye(easel: Easel, skin: Colour, turn: Points, centre: Points) -> None:
    """One eye round its centre, turned by its slant."""
    shot, wide = easel.shot, easel.person.eye_size
    tall = wide * 0.52 * shot.lids
    arch = 1 - _NINE**2
    upper = np.stack([_NINE * wide, -tall * arch], axis=1)
    lower = np.stack([_NINE * wide, 0.8 * tall * arch], axis=1)
    easel.fill(np.vstack([upper, lower[::-1]]) @ turn + centre, (244, 240, 236))
    if shot.lids > 0.5:
        middle = np.array([shot.gaze * wide * 0.5, -0.1 * tall])
        ball = ellipse(middle[0], middle[1], wide * 0.5, wide * 0.5, steps=20)
        # The lids cover the parts of the iris that lie above and below the opening.
        bulge = tall * (1 - (ball[:, 0] / wide) ** 2)
        ball[:, 1] = np.maximum(np.minimum(ball[:, 1], 0.8 * bulge), -bulge)
        easel.fill(ball @ turn + centre, _IRIS[easel.person.eye_colour])
        x, y = middle @ turn + centre
        easel.fill(ellipse(x, y, wide * 0.25, wide * 0.25, steps=12), (12, 10, 12))
        easel.fill(ellipse(x + 0.035, y - 0.03, wide * 0.12, wide * 0.12, steps=8), WHITE)
    crease = mix(skin, _SHADOW, 0.5)
    easel.stroke(upper @ turn + centre, _INK, 0.04)
    easel.stroke(lower[1:-1] @ turn + centre, crease, 0.016)
    easel.stroke(upper[1:-1] @ turn + centre - (0, 0.07), crease, 0.016)


def _draw_brows(easel: Easel, hair: Colour, skin: Colour) -> None:
    """Brows as tapered bands."""
    person = easel.person
    colour = mix(mix(hair, BLACK, 0.3), skin, 0.12)
    tilt = np.tan(np.radians(person.brow_angle))
    y = -0.27 - easel.shot.brow_raise - _NINE * 0.2 * tilt - 0.04 * (1 - _NINE**2)
    half = person.brow_thickness * (0.5 - 0.3 * np.maximum(_NINE, 0) ** 2)
    for flip in _SIDES:
        x = flip * (person.eye_distance + _NINE * 0.2)
        easel.fill(np.stack([np.append(x, x[::-1]), np.append(y - half, (y + half)[::-1])], axis=1), colour)


def _draw_nose(easel: Easel, skin: Colour) -> None:
    """The bridge's shadow on the side away from the light, the wings and the nostrils."""
    tip, wide = easel.person.nose_length, easel.person.nose_width
    away = -1 if easel.shot.light[0] > 0 else 1
    bridge = np.array([[0.07, 0.0], [0.08, tip * 0.6], [wide * 0.8, tip - 0.04]]) * (away, 1)
    easel.stroke(bridge, mix(skin, _SHADOW, 0.22), 0.025)
    base = np.stack([_NINE * wide, tip + 0.07 - 0.06 * _NINE**2 - 0.03 * _NINE**4], axis=1)
    easel.stroke(base, mix(skin, _SHADOW, 0.42), 0.025)
    for flip in _SIDES:
        easel.fill(ellipse(flip * wide * 0.5, tip + 0.03, 0.04, 0.022, steps=10), mix(skin, _SHADOW, 0.75))
    easel.fill(ellipse(0, tip - 0.05, 0.035, 0.03, steps=10), mix(skin, WHITE, 0.3))


def _draw_mouth(easel: Easel, skin: Colour) -> None:
    """Lips, and teeth where the mouth is open."""
    person, shot = easel.person, easel.shot
    arch = 1 - _FIFTEEN**2
    x = _FIFTEEN * person.mouth_width * (1 + 0.12 * shot.smile)
    line = _mouth_y(person) + shot.smile * (0.02 - 0.07 * _FIFTEEN**2)
    gap = shot.mouth_open * 0.11 * arch
    bow = person.lip_thickness * arch * (0.8 + 0.35 * np.abs(_FIFTEEN))

    def band(top: Points, bottom: Points) -> Points:
        return np.stack([np.append(x, x[::-1]), np.append(top, bottom[::-1])], axis=1)

    lips = mix(mix(skin, (160, 64, 60), 0.5), (198, 34, 56), person.lip_redness * 0.75)
    easel.fill(band(line - bow, line + gap + person.lip_thickness * 1.3 * arch), lips)
    easel.fill(band(line - bow, line), mix(lips, BLACK, 0.15))
    if shot.mouth_open:
        easel.fill(band(line, line + gap), (74, 20, 24))
        easel.fill(band(line, line + np.minimum(0.7 * gap, 0.055)), (246, 242, 236))
    easel.stroke(np.stack([x, line], axis=1), mix(lips, (30, 0, 0), 0.65), 0.022)


def _draw_marks(easel: Easel, skin: Colour) -> None:
    """Freckles, always in the same places, and a mole."""
    person = easel.person
    for number in range(person.freckles):
        # The golden angle spreads them evenly over both cheeks.
        radius, angle = 0.19 * np.sqrt((number // 2 + 0.5) / 12), number // 2 * 2.4
        x = (-1) ** number * 0.36 + radius * np.cos(angle)
        easel.fill(
            ellipse(x, 0.27 + 0.7 * radius * np.sin(angle), 0.018, 0.016, steps=6), mix(skin, (120, 54, 24), 0.4)
        )
    if person.mole_radius:
        mole = ellipse(person.mole_x, person.mole_y, person.mole_radius, person.mole_radius, steps=10)
        easel.fill(mole, mix(skin, (40, 16, 10), 0.85))


def _draw_glasses(easel: Easel) -> None:
    """Frames, bridge and temples of the person's glasses."""
    person = easel.person
    if person.glasses == "none":
        return
    wide, colour = 0.235, _FRAMES[person.glasses]
    for flip in _SIDES:
        x = flip * (person.eye_distance + 0.01)
        if person.glasses == "round":
            rim = ellipse(x, 0.0, wide * 0.92, wide * 0.9)
        else:
            rim = np.array([[x - wide, -0.14], [x + wide, -0.14], [x + wide * 0.9, 0.19], [x - wide * 0.9, 0.19]])
        if person.glasses == "half-rim":
            easel.stroke(np.vstack([rim[3:] - (0, 0.12), rim[:2], rim[2:3] - (0, 0.12)]), colour, 0.05)
        else:
            easel.stroke(np.vstack([rim, rim[:1]]), colour, 0.028)
        easel.stroke(np.array([[x + flip * wide, -0.08], [flip * person.face_width * 0.99, -0.06]]), colour, 0.035)
    inner = person.eye_distance + 0.01 - wide
    easel.stroke(np.array([[-inner, -0.06], [0, -0.09], [inner, -0.06]]), colour, 0.035)
