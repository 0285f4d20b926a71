"""Background pairs of the built-in world: pictures without people, and captions that say what is in them.

Points are arrays [n, 2] of (x, y) in pixels, or in an object's own units (x to the right, y down, about -1 to 1).
Colours are RGB.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from idia_core.drawing.objects import COLOURS, FIXED, OBJECTS, Shape
from idia_core.drawing.shapes import (
    SIDE_RANGE_PX,
    Colour,
    Picture,
    add_grain,
    clipped,
    ellipse,
    fill,
    gradient,
    mix,
    stroke,
)

# A setting is (sky above, sky below, ground, decoration); the ground begins at the horizon.
SETTINGS: dict[str, tuple[Colour, Colour, Colour, str]] = {
    "by the sea": ((118, 180, 226), (214, 234, 242), (46, 112, 168), "waves"),
    "on a beach": ((122, 192, 236), (226, 240, 244), (232, 210, 160), "sun"),
    "in front of mountains": ((150, 190, 226), (230, 236, 240), (104, 148, 84), "mountains"),
    "in a city at night": ((16, 20, 52), (60, 52, 104), (44, 46, 58), "city"),
    "in a meadow": ((140, 202, 240), (222, 240, 246), (112, 176, 84), "tufts"),
    "in the desert": ((244, 196, 132), (252, 232, 190), (220, 170, 104), "dunes"),
    "in the snow": ((170, 188, 212), (222, 230, 238), (244, 248, 252), "flakes"),
    "at sunset": ((92, 64, 128), (250, 156, 90), (74, 62, 80), "sun"),
    "on a table": ((214, 204, 190), (232, 224, 212), (150, 104, 66), "boards"),
    "in a striped room": ((204, 214, 206), (220, 226, 214), (160, 130, 104), "stripes"),
    "under the stars": ((10, 14, 38), (38, 44, 84), (30, 46, 44), "stars"),
    "in the rain": ((120, 130, 142), (168, 176, 184), (96, 104, 104), "rain"),
    "in the forest": ((168, 204, 178), (208, 226, 202), (76, 104, 60), "trunks"),
}

_FORMS = (
    "a picture of {things} {place}",
    "{things} {place}",
    "a drawing of {things} {place}",
    "here you can see {things} {place}",
    "{place}: {things}",
    "an illustration showing {things} {place}",
    "{things}, painted {place}",
    "my favourite print, {things} {place}",
    "poster with {things} {place}",
    "postcard: {things} {place}",
    "a simple scene with {things} {place}",
    "{things} seen {place} last summer",
    "a quiet day {place} and {things}",
    "wallpaper, {things} {place}",
    "children's book page with {things} {place}",
    "{things} standing out {place}",
    "we found {things} {place}",
    "stock image of {things} {place}, no people",
)
_NUMBERS = ("", "two", "three")
_PLURALS = {"fish": "fish", "butterfly": "butterflies", "cactus": "cacti", "ice cream": "ice creams"}


def draw_background(seed: Sequence[int]) -> tuple[Picture, str]:
    """A picture [side, side, 3] without people, side 128 to 256 pixels, and a caption that says what is in it.

    A pure function of the seed.
    """
    rng = np.random.default_rng(np.random.SeedSequence(list(seed)))
    side = int(rng.integers(SIDE_RANGE_PX[0], SIDE_RANGE_PX[1] + 1))
    place = str(rng.choice(list(SETTINGS)))
    picture = _draw_setting(place, side, rng)
    names = [str(name) for name in rng.choice(list(OBJECTS), size=int(rng.integers(1, 3)), replace=False)]
    phrases = [_draw_group(picture, name, slot, len(names), rng) for slot, name in enumerate(names)]
    picture = add_grain(picture, rng, float(rng.uniform(0, 12)))
    if rng.random() < 0.25:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 1.2))), dtype=np.uint8)
    form = str(rng.choice(_FORMS))
    return picture, form.format(things=" and ".join(phrases), place=place)


def _draw_group(picture: Picture, name: str, slot: int, slots: int, rng: np.random.Generator) -> str:
    """Draw one to three of an object in its part of the picture and say so in words."""
    side = picture.shape[0]
    colour_name = str(rng.choice(list(COLOURS)))
    number = int(rng.choice(3, p=[0.7, 0.2, 0.1])) if slots == 1 else 0
    room = side / (slots * (number + 1))
    for place in range(number + 1):
        size = min(room * 0.48, side * 0.34) * float(rng.uniform(0.7, 1.0))
        centre_x = room * (slot * (number + 1) + place + 0.5) + float(rng.uniform(-0.06, 0.06)) * room
        centre_y = side * float(rng.uniform(0.5, 0.68))
        _draw_object(picture, OBJECTS[name], COLOURS[colour_name], (centre_x, centre_y, size), bool(rng.integers(2)))
    if number:
        return f"{_NUMBERS[number]} {colour_name} {_PLURALS.get(name, name + 's')}"
    return f"{'an' if colour_name == 'orange' else 'a'} {colour_name} {name}"


def _draw_object(
    picture: Picture, shapes: list[Shape], main: Colour, place: tuple[float, float, float], mirrored: bool
) -> None:
    """Draw an object's shapes with its centre and size (half a side) in pixels, on a soft shadow."""
    centre_x, centre_y, size = place
    palette = {**FIXED, "main": main, "dark": mix(main, (0, 0, 0), 0.28), "light": mix(main, (255, 255, 255), 0.35)}
    unit = np.array([-size if mirrored else size, size])
    for kind, numbers, role in shapes:
        if kind == "disc":
            x, y, radius_x, radius_y = numbers
            points = ellipse(x, y, radius_x, radius_y)
        elif kind == "box":
            left, top, right, bottom = numbers
            points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        else:
            points = np.asarray(numbers[1:] if kind == "line" else numbers).reshape(-1, 2)
        pixels = points * unit + (centre_x, centre_y)
        if kind == "line":
            stroke(picture, pixels, palette[role], numbers[0] * size)
        else:
            fill(picture, pixels, palette[role])


def _draw_setting(place: str, side: int, rng: np.random.Generator) -> Picture:
    """Sky, ground and what belongs to the place."""
    above, below, ground, decoration = SETTINGS[place]
    tint = rng.integers(-14, 15, size=3)
    picture = gradient(side, clipped(np.add(above, tint)), clipped(np.add(below, tint)))
    horizon = round(side * float(rng.uniform(0.55, 0.75)))
    if decoration in ("mountains", "city", "trunks", "sun", "stripes", "dunes"):
        _decorate_sky(picture, decoration, horizon, rng)
    picture[horizon:] = gradient(side, ground, mix(ground, (0, 0, 0), 0.25))[: side - horizon]
    if decoration in ("waves", "tufts", "boards", "flakes", "stars", "rain"):
        _scatter(picture, decoration, horizon, rng)
    return picture


def _decorate_sky(picture: Picture, decoration: str, horizon: int, rng: np.random.Generator) -> None:
    """Draw what stands on or above the horizon."""
    side = picture.shape[0]
    if decoration == "sun":
        x = side * float(rng.uniform(0.15, 0.85))
        fill(picture, ellipse(x, side * 0.2, side * 0.1, side * 0.1), (255, 226, 130))
        return
    for left in np.linspace(-0.1, 1.0, 8) * side:
        width, height = side * float(rng.uniform(0.06, 0.16)), horizon * float(rng.uniform(0.3, 0.75))
        base = np.array([[left, horizon], [left + width, horizon]])
        if decoration in ("mountains", "dunes"):
            rise = height * (1.0 if decoration == "mountains" else 0.25)
            points = np.vstack([base + np.array([[-width, 0], [width, 0]]), [[left + width / 2, horizon - rise]]])
            shade = (126, 140, 164) if decoration == "mountains" else (206, 158, 100)
            fill(picture, points, mix(shade, (255, 255, 255), float(rng.uniform(0, 0.25))))
            continue
        top = 0.0 if decoration in ("trunks", "stripes") else horizon - height
        tone = {"trunks": (96, 74, 54), "stripes": (186, 198, 188), "city": (30, 32, 62)}[decoration]
        fill(picture, np.vstack([base, [[left + width, top], [left, top]]]), tone)
        if decoration == "city":
            for x, y in rng.uniform((left, top), (left + width, horizon), size=(6, 2)):
                fill(picture, ellipse(x, y, side * 0.008, side * 0.011, steps=4), (250, 220, 130))


def _scatter(picture: Picture, decoration: str, horizon: int, rng: np.random.Generator) -> None:
    """Draw many small marks: waves, tufts of grass, boards, snow flakes, stars or rain."""
    side = picture.shape[0]
    top, bottom = (
        (horizon, side)
        if decoration in ("waves", "tufts", "boards")
        else (0, side if decoration != "stars" else horizon)
    )
    shift, colour = {
        "waves": ((0.08, 0.0), (120, 176, 214)),
        "tufts": ((0.0, -0.03), (72, 132, 58)),
        "boards": ((0.5, 0.0), (116, 78, 48)),
        "flakes": ((0.003, 0.0), (255, 255, 255)),
        "stars": ((0.003, 0.0), (255, 244, 204)),
        "rain": ((-0.02, 0.07), (196, 206, 216)),
    }[decoration]
    for x, y in rng.uniform((0, top), (side, bottom), size=(26, 2)):
        stroke(picture, np.array([[x, y], [x + shift[0] * side, y + shift[1] * side]]), colour, side / 100)
