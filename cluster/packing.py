"""When runs start and end that wait for GPUs in a queue: a simulation of how `train` starts its runs."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from idia_core.errors import InvalidInputError


@dataclass(frozen=True)
class Schedule:
    """The start and the end of each run, in the order given, counted from 0 in the unit of the durations."""

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    wanted: tuple[int, ...]
    """GPUs of each run."""
    gpus: int
    """Of all nodes."""

    @property
    def length(self) -> float:
        """Until the last run ends."""
        return max(self.ends, default=0.0)

    @property
    def utilisation_until_last_start(self) -> float:
        """The part of the GPUs' time that runs use before the last of them starts; 1 where all start at once."""
        last = max(self.starts, default=0.0)
        if last == 0:
            return 1.0
        runs = zip(self.starts, self.ends, self.wanted, strict=True)
        return sum((min(end, last) - start) * gpus for start, end, gpus in runs) / (last * self.gpus)


def schedule(durations: Sequence[float], wanted: Sequence[Sequence[int]], nodes: Sequence[int]) -> Schedule:
    """Start every run in its order as soon as it fits: none overtakes another, so that no large one waits for ever.

    `wanted` are the GPUs that a run takes on each of its nodes, `(8,)` or `(8, 8)`, `nodes` the GPUs of each node.
    Raises `InvalidInputError` for a run that the nodes could not hold even alone.
    """
    free, waiting, clock = list(nodes), list(range(len(durations))), 0.0
    starts, ends = [0.0] * len(durations), [0.0] * len(durations)
    running = list[tuple[float, int, list[int]]]()
    while waiting:
        for run in list(waiting):
            if (places := _places(wanted[run], free)) is None:
                break
            waiting.remove(run)
            starts[run], ends[run] = clock, clock + durations[run]
            _take(wanted[run], places, free, sign=-1)
            heapq.heappush(running, (ends[run], run, places))
        if not running:
            what = f"a run wants {' + '.join(map(str, wanted[waiting[0]]))} GPUs and the nodes have {list(nodes)}"
            raise InvalidInputError(what, "the schedule", "Give it fewer processes or more nodes.")
        clock = running[0][0]
        while running and running[0][0] == clock:
            _, run, places = heapq.heappop(running)
            _take(wanted[run], places, free, sign=1)
    return Schedule(tuple(starts), tuple(ends), tuple(map(sum, wanted)), sum(nodes))


def _places(bundles: Sequence[int], free: Sequence[int]) -> list[int] | None:
    """The node of each bundle, the first that has room and none of the others, if there is one; None where none has."""
    left, places = list(free), list[int]()
    for bundle in bundles:
        fitting = [node for node, gpus in enumerate(left) if gpus >= bundle]
        if not fitting:
            return None
        places.append(min(fitting, key=lambda node: (node in places, node)))
        left[places[-1]] -= bundle
    return places


def _take(bundles: Sequence[int], places: Sequence[int], free: list[int], *, sign: int) -> None:
    for bundle, node in zip(bundles, places, strict=True):
        free[node] += sign * bundle
