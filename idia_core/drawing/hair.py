"""Hair: what lies behind the head, the crown, and long locks. Lengths are in head units (see easel.py)."""

import numpy as np

from idia_core.drawing.easel import Easel
from idia_core.drawing.people import Person
from idia_core.drawing.shapes import BLACK, WHITE, Colour, Points, ellipse, mix, rounded

HAIR: dict[str, Colour] = {
    "black": (36, 32, 38),
    "dark brown": (70, 46, 34),
    "brown": (116, 76, 48),
    "auburn": (138, 56, 36),
    "ginger": (208, 108, 44),
    "blond": (230, 192, 116),
    "silver": (150, 152, 162),
    "white": (234, 232, 226),
}
_SIDES = (-1, 1)


def draw_hair_behind(easel: Easel) -> None:
    """Draw what lies behind head and shoulders: long hair, or a bun."""
    person = easel.person
    hair = HAIR[person.hair_colour]
    dark = mix(hair, BLACK, 0.28)
    if person.hair_style == "bun":
        easel.fill(ellipse(0, -1.16, 0.32, 0.28), dark, on_face=False)
        easel.fill(ellipse(-0.05, -1.2, 0.22, 0.17), hair, on_face=False)
    if person.hair_length > 0:
        end, wide = _hair_end(person), person.face_width + 0.16 + 0.14 * person.hair_length
        half = np.array([[0, -1.14], [0.6, -1.1], [0.95, -0.7], [1, 0], [1.08, end * 0.6], [1, end], [0.5, end + 0.1]])
        easel.fill(rounded(np.vstack([half, half[::-1] * (-1, 1)]) * (wide, 1)), dark, on_face=False)


def _hair_end(person: Person) -> float:
    """How far down long hair falls."""
    return 0.45 + 1.15 * person.hair_length


_VOLUME = {"receding": 0.03, "buzz": 0.03, "short": 0.13, "curly": 0.2, "afro": 0.42, "quiff": 0.1, "bun": 0.06}


def _hairline(style: str, u: Points) -> Points:
    """The height of the hair's lower edge over the forehead, at u from -1 (left temple) to 1."""
    side = np.abs(u)
    if style == "receding":
        return -0.6 - 0.34 * np.sin(np.minimum(side * 1.25, 1) * np.pi) + 0.45 * side**6
    if style == "parted":
        left, right = np.maximum(-0.35 - u, 0), np.maximum(u + 0.35, 0)
        return -0.78 + 1.1 * left**1.5 + 0.42 * right**1.3
    if style == "fringe":
        return -0.46 + 0.025 * np.sin(u * 14) + 0.24 * side**6
    if style == "curtains":
        return -0.86 + 0.72 * side**1.1
    wave = 0.03 if style in ("short", "curly", "afro") else 0.0
    return -0.68 + wave * np.sin(u * 11) + 0.5 * side**5


def _hair_top(person: Person) -> Points:
    """The hair's outer edge from the left temple over the crown to the right one."""
    style, volume = person.hair_style, _VOLUME.get(person.hair_style, 0.15)
    angle = np.linspace(np.pi * 1.0, np.pi * 2.0, 73)
    radius = np.ones(73)
    if style in ("curly", "afro"):
        radius += 0.07 * np.abs(np.sin(angle * 7.0)) * np.abs(np.sin(angle)) ** 0.5
    if style == "quiff":
        radius += 0.24 * np.exp(-(((angle - 1.42 * np.pi) / 0.62) ** 6))
    # The hair thins out towards the ears, so that no corner sticks out there.
    share = np.linspace(0, 1, 73)
    taper = np.sqrt(np.minimum(1, 6 * np.minimum(share, 1 - share)))
    width = person.face_width + 0.02 + volume * 0.7 * taper
    return np.stack([width * np.cos(angle) * radius, (1 + volume * taper) * np.sin(angle) * radius], axis=1)


def draw_hair(easel: Easel, hair: Colour, skin: Colour) -> None:
    """The hair on top and at the sides, with its strands or curls."""
    person, shot = easel.person, easel.shot
    style = person.hair_style
    if style == "bald":
        easel.fill(ellipse(0.2 * np.sign(shot.light[0]), -0.78, 0.18, 0.07), mix(skin, WHITE, 0.25), on_face=False)
        return
    colour = mix(hair, skin, 0.3) if style == "buzz" else hair
    u = np.linspace(-1, 1, 73)
    line = np.stack([u * person.face_width + shot.yaw * 0.5 * (1 - u**2), _hairline(style, u) + shot.pitch], axis=1)
    top = _hair_top(person)
    easel.fill(np.vstack([top, line[::-1]]), colour, on_face=False)
    for flip in _SIDES:
        easel.fill(
            np.array([[1.01, -0.3], [0.9, -0.3], [0.92, -0.05], [0.97, 0.14]]) * (person.face_width * flip, 1),
            colour,
            on_face=False,
        )
        if person.hair_length > 0:
            _draw_lock(easel, colour, flip)
    if style in ("curly", "afro"):
        for number in range(5, 70, 5):
            x, y = top[number] + (line[number] - top[number]) * (0.3 + 0.4 * (number % 2))
            easel.stroke(ellipse(x, y, 0.08, 0.07, steps=12)[:9], mix(colour, WHITE, 0.12), 0.03, on_face=False)
    elif style not in ("buzz", "receding"):
        lit = 1 if shot.light[0] > 0 else -1
        for number in range(9, 67, 6):
            strand = top[number] + (line[number] - top[number]) * np.array([[0.12], [0.35], [0.6], [0.88]])
            strand[1:3, 0] += 0.04 * np.sign(strand[1:3, 0])
            shine = 0.14 if lit * strand[0, 0] > 0 else -0.14
            easel.stroke(strand, mix(colour, WHITE if shine > 0 else BLACK, abs(shine)), 0.025, on_face=False)


def _draw_lock(easel: Easel, colour: Colour, flip: int) -> None:
    """Long hair that falls in front of one ear."""
    wide, end = easel.person.face_width, _hair_end(easel.person)
    points = [
        [wide * 0.86, -0.5],
        [wide + 0.1, -0.6],
        [wide + 0.2, 0.1],
        [wide + 0.24, end],
        [wide + 0.06, end + 0.1],
        [wide * 0.96, 0.35],
    ]
    easel.fill(rounded(points) * (flip, 1), colour, on_face=False)
    for shift in (0.03, 0.11):
        easel.stroke(
            np.array([[wide + shift, -0.2], [wide + shift + 0.05, 0.2], [wide + shift + 0.04, end - 0.1]]) * (flip, 1),
            mix(colour, BLACK, 0.18),
            0.022,
            on_face=False,
        )
