"""The loops of the Haar cascade: which windows of a scaled picture pass all of its stages.

Axes: S stages, F weak classifiers ("stumps") of all stages, R their rectangles, of which there are up to three.
"""

import numpy as np
import numpy.typing as npt

from idia_core.compiled import jit

AREA, FLAT = 22.0 * 22.0, 0.1
"""Pixels whose contrast is measured; a window is too flat where they, over the contrast, are so many or more."""
BLOCK = 4096
"""Windows that are judged at once: as many as stay in the cache."""
FEW = 8
"""Windows; fewer are judged one by one through all the stages that remain."""
Integers = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.uint64]
"""Unsigned, for numba would count a negative one from the end, and ask each time whether it is one."""


@jit
def _look_up(corners_R4: Integers, of_row: Offsets, of_column: Offsets, at_R4: Offsets) -> None:
    """How far in memory the four corners of a stump's rectangles are, by what each row and column adds."""
    for r in range(len(corners_R4)):
        left, top, right, bottom = corners_R4[r, 0], corners_R4[r, 1], corners_R4[r, 2], corners_R4[r, 3]
        at_R4[r, 0] = of_row[top] + of_column[left]
        at_R4[r, 1] = of_row[top] + of_column[right]
        at_R4[r, 2] = of_row[bottom] + of_column[left]
        at_R4[r, 3] = of_row[bottom] + of_column[right]


@jit
def passing(
    sums: Integers,
    squares: Integers,
    shape: npt.NDArray[np.int64],
    of_row: Offsets,
    of_column: Offsets,
    measured: Integers,
    corners_FR4: Integers,
    first_S: Integers,
    least_S: Floats,
    weights_FR: Integers,
    stumps_F3: Floats,
) -> Offsets:
    """The places (row * width of a plane + column) of the windows that pass all stages."""
    rows, columns, wide = shape
    count = (rows - 1) * wide + columns
    norms, totals = np.empty(count, np.float32), np.zeros(count, np.float32)
    at_R4 = np.zeros((3, 4), np.uint64)
    _look_up(measured, of_row, of_column, at_R4)
    _measure_contrast(sums, squares, at_R4[0], norms)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        for stump in range(first_S[1]):
            _look_up(corners_FR4[stump], of_row, of_column, at_R4)
            _add_for_all(sums[start:], at_R4, weights_FR[stump], stumps_F3[stump], norms[block], totals[block])
    places = _passed_first(totals, norms, least_S[0], shape)
    for stage in range(1, len(least_S)):
        if len(places) < FEW:
            kept = [
                place
                for place in places
                if _survives(
                    place,
                    norms[place],
                    sums,
                    stage,
                    of_row,
                    of_column,
                    corners_FR4,
                    first_S,
                    least_S,
                    weights_FR,
                    stumps_F3,
                )
            ]
            return np.array(kept, np.uint64)
        totals = np.zeros(len(places), np.float32)
        left_norms = norms[places]
        for stump in range(first_S[stage], first_S[stage + 1]):
            _look_up(corners_FR4[stump], of_row, of_column, at_R4)
            _add_for_some(sums, places, at_R4, weights_FR[stump], stumps_F3[stump], left_norms, totals)
        places = places[totals >= least_S[stage]]
    return places


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
def _add_for_all(
    sums: Integers, at_R4: Offsets, weights_R: Integers, stump: Floats, norms: Floats, totals: Floats
) -> None:
    """Add a stump's vote to the totals of all windows from the first on; few arrays in a loop make it vector code."""
    count = len(norms)
    values = np.zeros(count, np.int32)
    for r in range(3 if weights_R[2] else 2):
        weight = weights_R[r]
        a, b, c, d = (sums[at_R4[r, 0] :], sums[at_R4[r, 1] :], sums[at_R4[r, 2] :], sums[at_R4[r, 3] :])
        for x in range(count):
            values[x] += weight * (a[x] - b[x] - c[x] + d[x])
    threshold, below, above = stump
    for x in range(count):
        totals[x] += below if np.float32(values[x]) * norms[x] < threshold else above


@jit
def _passed_first(totals: Floats, norms: Floats, least: np.float32, shape: npt.NDArray[np.int64]) -> Offsets:
    """The places of the windows that pass the first stage; OpenCV skips the one after any that fails it."""
    rows, columns, wide = shape
    places, passed = np.empty(rows * columns, np.uint64), 0
    for row in range(rows):
        x, end = row * wide, row * wide + columns
        while x < end:
            if norms[x] > 0:
                if totals[x] >= least:
                    places[passed] = x
                    passed += 1
                else:
                    x += 1
            x += 1
    return places[:passed]


@jit
def _add_for_some(
    sums: Integers, places: Offsets, at_R4: Offsets, weights_R: Integers, stump: Floats, norms: Floats, totals: Floats
) -> None:
    """Add a stump's vote to the totals of the windows at some places."""
    threshold, below, above = stump[0], stump[1], stump[2]
    one, two, three = weights_R[0], weights_R[1], weights_R[2]
    a, b, c, d = at_R4[0, 0], at_R4[0, 1], at_R4[0, 2], at_R4[0, 3]
    e, f, g, h = at_R4[1, 0], at_R4[1, 1], at_R4[1, 2], at_R4[1, 3]
    i, j, k, m = at_R4[2, 0], at_R4[2, 1], at_R4[2, 2], at_R4[2, 3]
    for n in range(len(places)):
        x = places[n]
        value = one * (sums[a + x] - sums[b + x] - sums[c + x] + sums[d + x])
        value += two * (sums[e + x] - sums[f + x] - sums[g + x] + sums[h + x])
        if three != 0:
            value += three * (sums[i + x] - sums[j + x] - sums[k + x] + sums[m + x])
        totals[n] += below if np.float32(np.int32(value)) * norms[n] < threshold else above


@jit
def _survives(
    x: np.uint64,
    norm: np.float32,
    sums: Integers,
    stage: int,
    of_row: Offsets,
    of_column: Offsets,
    corners_FR4: Integers,
    first_S: Integers,
    least_S: Floats,
    weights_FR: Integers,
    stumps_F3: Floats,
) -> bool:
    """Whether the window at a place passes all stages from this one on."""
    for later in range(stage, len(least_S)):
        total = np.float32(0)
        for stump in range(first_S[later], first_S[later + 1]):
            value = 0
            for r in range(3 if weights_FR[stump, 2] else 2):
                left, top = of_column[corners_FR4[stump, r, 0]], x + of_row[corners_FR4[stump, r, 1]]
                right, bottom = of_column[corners_FR4[stump, r, 2]], x + of_row[corners_FR4[stump, r, 3]]
                a, b, c, d = sums[top + left], sums[top + right], sums[bottom + left], sums[bottom + right]
                value += weights_FR[stump, r] * (a - b - c + d)
            below = np.float32(np.int32(value)) * norm < stumps_F3[stump, 0]
            total += stumps_F3[stump, 1] if below else stumps_F3[stump, 2]
        if total < least_S[later]:
            return False
    return True
