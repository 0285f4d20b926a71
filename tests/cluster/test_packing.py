"""When runs start and end on a cluster that holds fewer than there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.packing import schedule
from idia_core.errors import InvalidInputError


def test_runs_wait_for_the_first_node_that_is_free() -> None:
    """Two nodes, three runs of a node each: the third starts when the shorter of the first two ends."""
    found = schedule([5.0, 3.0, 4.0], [(8,), (8,), (8,)], [8, 8])
    assert (found.starts, found.ends, found.length) == ((0, 0, 3), (5, 3, 7), 7)
    assert found.utilisation_until_last_start == 1


def test_a_run_that_does_not_fit_is_not_overtaken() -> None:
    """While a run over two nodes waits, one that would fit beside the others waits too; the idle time is counted."""
    found = schedule([4.0, 2.0, 1.0], [(8,), (8, 8), (4,)], [8, 8])
    assert found.starts == (0, 4, 6)
    assert found.utilisation_until_last_start == (4 * 8 + 2 * 16) / (6 * 16)


def test_the_parts_of_a_run_are_spread_where_there_is_room() -> None:
    """Two parts of four GPUs take one node each, so that a run of a whole node waits; on one node both fit too."""
    assert schedule([2.0, 1.0], [(4, 4), (8,)], [8, 8]).starts == (0, 2)
    assert schedule([2.0, 1.0], [(4, 4), (4,)], [8]).starts == (0, 2)


def test_runs_that_end_together_free_their_nodes_together() -> None:
    """A run over two nodes starts when both are free, ahead of those behind it."""
    assert schedule([2.0, 2.0, 1.0, 1.0], [(8,), (8,), (8, 8), (8,)], [8, 8]).starts == (0, 0, 2, 3)


def test_a_run_that_no_cluster_state_could_hold_is_refused() -> None:
    """It would wait for ever."""
    with pytest.raises(InvalidInputError, match=r"a run wants 8 \+ 8 GPUs and the nodes have \[8, 4\]"):
        schedule([1.0, 1.0], [(4,), (8, 8)], [8, 4])


def test_runs_that_start_at_once_and_no_runs_waste_nothing() -> None:
    """Before the last start there is no time to waste."""
    assert schedule([2.0, 1.0], [(8,), (1,)], [8, 8]).utilisation_until_last_start == 1
    assert schedule([], [], [8]).length == 0


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8), st.integers(1, 2)), max_size=12))
def test_no_node_is_ever_overfull_and_no_run_waits_without_reason(drawn: list[tuple[int, int, int]]) -> None:
    """At each start the runs that are on take no more than there is, and Graham's bound on the length holds."""
    durations, wanted = [float(d) for d, _, _ in drawn], [(gpus,) * parts for _, gpus, parts in drawn]
    found = schedule(durations, wanted, [8, 8, 8])
    for moment in found.starts:
        on = [
            gpus
            for start, end, gpus in zip(found.starts, found.ends, found.wanted, strict=True)
            if start <= moment < end
        ]
        assert sum(on) <= 24
    assert [end - start for start, end in zip(found.starts, found.ends, strict=True)] == pytest.approx(durations)
    assert found.length <= sum(durations)
