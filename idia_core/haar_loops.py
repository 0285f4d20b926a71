"""The loops of the Haar cascade: which windows of a scaled picture pass all of its stages.

Axes: S stages, F weak classifiers ("stumps") of all stages, R their rectangles, of which there are up to three, C the
four corners of a rectangle.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from idia_core.compiled import inline, jit, jit_apart

AREA, FLAT = 22.0 * 22.0, 0.1
"""Pixels whose contrast is measured; a window is too flat where they, over the contrast, are so many or more."""
BLOCK, LEFT = 2048, 512
"""Neighbouring windows, and some of those that are left, that are judged at once: as many as stay in the cache."""
LANES = 8
"""Of those that are left so many neighbours are judged together, by vector code: it costs no more than one of them."""
Integers = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.uint32]
Places = npt.NDArray[np.uint64]
"""Both are unsigned, for numba would count a negative one from the end, and ask each time whether it is one."""


class Scaled(NamedTuple):
    """A picture at one scale."""

    sums: Integers
    """The integral's planes, one after another."""
    squares: Integers
    """Likewise of the squared picture."""
    rows: int
    columns: int
    """Places of windows."""
    wide: int
    """What a row of a plane has."""
    plane: int
    """What a plane has."""


class Stumps(NamedTuple):
    """The weak classifiers of all stages."""

    first_S: Integers
    """Where each stage's stumps begin, and where the last one's end."""
    least_S: Floats
    """What the sum of a stage's stumps must be at least."""
    weights_FR: Integers
    """Whole numbers, so that sums of them are exact."""
    stumps_F3: Floats
    """Threshold, and what a feature below and above it adds."""


@jit
def passing(picture: Scaled, stumps: Stumps, corners_3FRC: Integers) -> Places:
    """The places (row * width of a plane + column) of the windows that pass all stages.

    `corners_3FRC` has the plane, row and column of each corner, as seen from a window's place, and after the stumps'
    a rectangle more: that whose contrast is measured.
    """
    count = (picture.rows - 1) * picture.wide + picture.columns
    sums, norms, totals = picture.sums, np.zeros(max(count, LANES), np.float32), np.empty(count, np.float32)
    if count < LANES:
        sums = np.concatenate((sums, np.zeros(LANES, np.int32)))
    at_FRC = np.empty(corners_3FRC.shape[1:], np.uint32)
    _look_up(picture, corners_3FRC, len(at_FRC) - 1, len(at_FRC), at_FRC)
    _measure_contrast(picture.sums, picture.squares, at_FRC[-1, 0], norms[:count])
    _look_up(picture, corners_3FRC, 0, stumps.first_S[1], at_FRC)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        _judge_all(picture.sums[start:], at_FRC, stumps, norms[block], totals[block])
    places = _passed_first(totals, norms, stumps.least_S[0], picture)
    for stage in range(1, len(stumps.least_S)):
        if len(places) > 0:
            _look_up(picture, corners_3FRC, stumps.first_S[stage], stumps.first_S[stage + 1], at_FRC)
            places = _passed(sums, places, at_FRC, stumps, stage, norms)
    return places


@jit
def _look_up(picture: Scaled, corners_3FRC: Integers, first: int, end: int, at_FRC: Offsets) -> None:
    """How far in memory the corners of some stumps' rectangles are."""
    planes, rows, columns = corners_3FRC[0].ravel(), corners_3FRC[1].ravel(), corners_3FRC[2].ravel()
    at, plane, wide = at_FRC.ravel(), np.int32(picture.plane), np.int32(picture.wide)
    for n in range(np.uint64(12 * first), np.uint64(12 * end)):
        at[n] = np.uint32(planes[n] * plane + rows[n] * wide + columns[n])


@jit
def _measure_contrast(sums: Integers, squares: Integers, at: Offsets, norms: Floats) -> None:
    """One over each window's contrast; 0 where it is so flat that it is no face."""
    a, b, c, d = at
    for x in range(np.uint64(len(norms))):
        total = np.float64(np.int32(sums[a + x] - sums[b + x] - sums[c + x] + sums[d + x]))
        square = np.float64(np.int32(squares[a + x] - squares[b + x] - squares[c + x] + squares[d + x]))
        spread = AREA * square - total * total
        norm = np.float32(1 / np.sqrt(max(spread, 1.0)))
        norms[x] = norm if spread > 0 and AREA * np.float64(norm) < FLAT else np.float32(0)


@jit
def _passed_first(totals: Floats, norms: Floats, least: np.float32, picture: Scaled) -> Places:
    """The places of the windows that pass the first stage; OpenCV skips the one after any that fails it."""
    places, passed = np.empty(picture.rows * picture.columns, np.uint64), np.int64(0)
    for row in range(picture.rows):
        skipped = np.int64(0)  # whole numbers, as each branch would be guessed wrongly for many windows
        for x in range(row * picture.wide, row * picture.wide + picture.columns):
            judged, good = np.int64(norms[x] > 0) & (1 - skipped), np.int64(totals[x] >= least)
            places[passed] = x
            passed += judged & good
            skipped = judged & (1 - good)
    return places[:passed]


@jit
def _passed(sums: Integers, places: Places, at_FRC: Offsets, stumps: Stumps, stage: int, norms: Floats) -> Places:
    """Those of the places, in rising order, whose windows pass a later stage; they are moved to the front."""
    starts, kept = np.empty(LEFT + 1, np.uint64), np.int64(0)
    totals = np.empty((2, LEFT // 2 + 1, LANES), np.float32)  # of the even groups and of the odd ones
    for start in range(0, len(places), LEFT):
        block = places[start : start + LEFT]
        groups, group = _group(block, np.uint64(len(norms) - LANES), starts), np.int64(0)
        _judge_groups(sums, starts[:groups], at_FRC, stumps, stage, norms, totals[0], totals[1])
        for place in block:
            group += np.int64(place >= starts[group] + np.uint64(LANES))
            places[kept] = place
            kept += np.int64(totals[group % 2, group // 2, place - starts[group]] >= stumps.least_S[stage])
    return places[:kept]


@jit
def _group(places: Places, last: np.uint64, starts: Places) -> int:
    """Find groups of neighbours, none of which begins after `last`, that hold all the places; returns how many.

    It is an even number: the last group may be there twice.
    """
    groups, end = 0, np.uint64(0)
    for place in places:
        if place >= end:
            starts[groups] = min(place, last)
            end = starts[groups] + np.uint64(LANES)
            groups += 1
    starts[groups] = starts[groups - 1]
    return groups + groups % 2


@inline
def _rectangle(sums: Integers, at_FRC: Offsets, stump: int, number: int, x: Any) -> Any:
    """The sum of the pixels in one of a stump's rectangles."""
    upper = sums[at_FRC[stump, number, 0] + x] - sums[at_FRC[stump, number, 1] + x]
    return upper - sums[at_FRC[stump, number, 2] + x] + sums[at_FRC[stump, number, 3] + x]


@inline
def _two(sums: Integers, at_FRC: Offsets, stumps: Stumps, stump: int, x: Any) -> Any:
    """The feature of a stump of two rectangles."""
    weights_FR = stumps.weights_FR
    first = weights_FR[stump, 0] * _rectangle(sums, at_FRC, stump, 0, x)
    return first + weights_FR[stump, 1] * _rectangle(sums, at_FRC, stump, 1, x)


@inline
def _three(sums: Integers, at_FRC: Offsets, stumps: Stumps, stump: int, x: Any) -> Any:
    """The feature of a stump of three rectangles."""
    third = stumps.weights_FR[stump, 2] * _rectangle(sums, at_FRC, stump, 2, x)
    return _two(sums, at_FRC, stumps, stump, x) + third


@inline
def _vote(value: Any, norm: np.float32, values: tuple[np.float32, np.float32, np.float32]) -> np.float32:
    """What a stump adds, by its threshold and what it has below and above it."""
    return values[1] if np.float32(np.int32(value)) * norm < values[0] else values[2]


@inline
def _values(stumps: Stumps, stump: int) -> tuple[np.float32, np.float32, np.float32]:
    """Numbers, not a row of the array: the compiler would load one of two from there for each window."""
    return stumps.stumps_F3[stump, 0], stumps.stumps_F3[stump, 1], stumps.stumps_F3[stump, 2]


@jit_apart
def _judge_all(sums: Integers, at_FRC: Offsets, stumps: Stumps, norms: Floats, totals: Floats) -> None:
    """The first stage's sum for each window from the first of `sums` on."""
    totals[:] = 0
    for stump in range(stumps.first_S[1]):
        values = _values(stumps, stump)
        if stumps.weights_FR[stump, 2]:
            for x in range(np.uint64(len(totals))):
                totals[x] += _vote(_three(sums, at_FRC, stumps, stump, x), norms[x], values)
        else:
            for x in range(np.uint64(len(totals))):
                totals[x] += _vote(_two(sums, at_FRC, stumps, stump, x), norms[x], values)


@jit_apart
def _judge_groups(
    sums: Integers,
    starts: Places,
    at_FRC: Offsets,
    stumps: Stumps,
    stage: int,
    norms: Floats,
    evens: Floats,
    odds: Floats,
) -> None:
    """The stage's sums for groups of neighbouring windows, of which the first ones are given: totals by group and lane.

    Two groups at once, which share what is looked up for a stump; and so that the compiler finds the loop over the
    lanes too long to write it out before it can make it vector code.
    """
    pairs = len(starts) // 2
    evens[:pairs] = 0
    odds[:pairs] = 0
    for stump in range(stumps.first_S[stage], stumps.first_S[stage + 1]):
        values = _values(stumps, stump)
        if stumps.weights_FR[stump, 2]:
            for pair in range(pairs):
                for lane in range(np.uint64(LANES)):
                    x, y = starts[2 * pair] + lane, starts[2 * pair + 1] + lane
                    evens[pair, lane] += _vote(_three(sums, at_FRC, stumps, stump, x), norms[x], values)
                    odds[pair, lane] += _vote(_three(sums, at_FRC, stumps, stump, y), norms[y], values)
        else:
            for pair in range(pairs):
                for lane in range(np.uint64(LANES)):
                    x, y = starts[2 * pair] + lane, starts[2 * pair + 1] + lane
                    evens[pair, lane] += _vote(_two(sums, at_FRC, stumps, stump, x), norms[x], values)
                    odds[pair, lane] += _vote(_two(sums, at_FRC, stumps, stump, y), norms[y], values)
