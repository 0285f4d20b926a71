"""The loops of the Haar cascade: which windows of a scaled picture pass all of its stages.

Axes: S stages, F weak classifiers ("stumps") of all stages, R their rectangles, of which there are up to three, C the
four corners of a rectangle.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from idia_core.compiled import jit

AREA, FLAT = 22.0 * 22.0, 0.1
"""Pixels whose contrast is measured; a window is too flat where they, over the contrast, are so many or more."""
BLOCK, LEFT = 2048, 512
"""Neighbouring windows, and some of those that are left, that are judged at once: as many as stay in the cache."""
MANY, CROWD = 6, 64
"""Where one window in so many is left, the others are judged too, for neighbours in memory cost little; unless a block
holds fewer than a crowd."""
Integers = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.uint64]
"""Unsigned, for numba would count a negative one from the end, and ask each time whether it is one."""


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
def passing(picture: Scaled, stumps: Stumps, corners_3FRC: Integers) -> Offsets:
    """The places (row * width of a plane + column) of the windows that pass all stages.

    `corners_3FRC` has the plane, row and column of each corner, as seen from a window's place, and after the stumps'
    a rectangle more: that whose contrast is measured.
    """
    count = (picture.rows - 1) * picture.wide + picture.columns
    norms, totals = np.empty(count, np.float32), np.empty(count, np.float32)
    at_FRC = np.empty(corners_3FRC.shape[1:], np.uint64)
    _look_up(picture, corners_3FRC, len(at_FRC) - 1, len(at_FRC), at_FRC)
    _measure_contrast(picture.sums, picture.squares, at_FRC[-1, 0], norms)
    _look_up(picture, corners_3FRC, 0, stumps.first_S[1], at_FRC)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        _judge_all(picture.sums[start:], at_FRC, stumps, 0, norms[block], totals[block])
    places = _passed_first(totals, norms, stumps.least_S[0], picture)
    for stage in range(1, len(stumps.least_S)):
        if len(places) > 0:
            _look_up(picture, corners_3FRC, stumps.first_S[stage], stumps.first_S[stage + 1], at_FRC)
            places = _passed(picture.sums, places, at_FRC, stumps, stage, norms)
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
def _judge_all(sums: Integers, at_FRC: Offsets, stumps: Stumps, stage: int, norms: Floats, totals: Floats) -> None:
    """The stage's sum for each window from the first of `sums` on."""
    values = np.empty(len(totals), np.int32)
    totals[:] = 0
    for stump in range(stumps.first_S[stage], stumps.first_S[stage + 1]):
        _add_for_all(sums, at_FRC[stump], stumps.weights_FR[stump], stumps.stumps_F3[stump], norms, totals, values)


@jit
def _add_for_all(
    sums: Integers,
    at_RC: Offsets,
    weights_R: Integers,
    stump: Floats,
    norms: Floats,
    totals: Floats,
    values: Integers,
) -> None:
    """Add a stump's vote to the totals of neighbouring windows; few arrays in a loop make it vector code."""
    count, one, two, three = len(values), weights_R[0], weights_R[1], weights_R[2]
    a, b, c, d = (sums[at_RC[0, 0] :], sums[at_RC[0, 1] :], sums[at_RC[0, 2] :], sums[at_RC[0, 3] :])
    e, f, g, h = (sums[at_RC[1, 0] :], sums[at_RC[1, 1] :], sums[at_RC[1, 2] :], sums[at_RC[1, 3] :])
    for x in range(count):
        values[x] = one * (a[x] - b[x] - c[x] + d[x]) + two * (e[x] - f[x] - g[x] + h[x])
    if three:
        a, b, c, d = (sums[at_RC[2, 0] :], sums[at_RC[2, 1] :], sums[at_RC[2, 2] :], sums[at_RC[2, 3] :])
        for x in range(count):
            values[x] += three * (a[x] - b[x] - c[x] + d[x])
    threshold, below, above = stump
    for x in range(count):
        totals[x] += below if np.float32(values[x]) * norms[x] < threshold else above


@jit
def _passed_first(totals: Floats, norms: Floats, least: np.float32, picture: Scaled) -> Offsets:
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
def _passed(sums: Integers, places: Offsets, at_FRC: Offsets, stumps: Stumps, stage: int, norms: Floats) -> Offsets:
    """Those of the places, in rising order, whose windows pass a later stage; they are moved to the front."""
    totals, kept = np.empty(LEFT, np.float32), 0
    for start in range(0, len(places), LEFT):
        block = places[start : start + LEFT]
        _judge(sums, block, at_FRC, stumps, stage, norms, totals)
        for n in range(len(block)):
            places[kept] = block[n]
            kept += totals[n] >= stumps.least_S[stage]
    return places[:kept]


@jit
def _judge(
    sums: Integers, block: Offsets, at_FRC: Offsets, stumps: Stumps, stage: int, norms: Floats, totals: Floats
) -> None:
    """The stage's sum for each place of a block."""
    first, span = block[0], block[-1] - block[0] + 1
    if len(block) >= CROWD and len(block) * MANY > span:
        all_totals = np.empty(span, np.float32)
        _judge_all(sums[first:], at_FRC, stumps, stage, norms[first : first + span], all_totals)
        for n in range(len(block)):
            totals[n] = all_totals[block[n] - first]
    else:
        totals[: len(block)] = 0
        left_norms = norms[block]
        for stump in range(stumps.first_S[stage], stumps.first_S[stage + 1]):
            weights, values = stumps.weights_FR[stump], stumps.stumps_F3[stump]
            _add_for_some(sums, block, at_FRC[stump], weights, values, left_norms, totals)


@jit
def _add_for_some(
    sums: Integers, places: Offsets, at_RC: Offsets, weights_R: Integers, stump: Floats, norms: Floats, totals: Floats
) -> None:
    """Add a stump's vote to the totals of the windows at some places."""
    threshold, below, above = stump[0], stump[1], stump[2]
    one, two, three = weights_R[0], weights_R[1], weights_R[2]
    a, b, c, d = at_RC[0, 0], at_RC[0, 1], at_RC[0, 2], at_RC[0, 3]
    e, f, g, h = at_RC[1, 0], at_RC[1, 1], at_RC[1, 2], at_RC[1, 3]
    i, j, k, m = at_RC[2, 0], at_RC[2, 1], at_RC[2, 2], at_RC[2, 3]
    for n in range(len(places)):
        x = places[n]
        value = one * (sums[a + x] - sums[b + x] - sums[c + x] + sums[d + x])
        value += two * (sums[e + x] - sums[f + x] - sums[g + x] + sums[h + x])
        if three != 0:
            value += three * (sums[i + x] - sums[j + x] - sums[k + x] + sums[m + x])
        totals[n] += below if np.float32(np.int32(value)) * norms[n] < threshold else above
