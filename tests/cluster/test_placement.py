"""How a run's processes are laid out over nodes, and what fits on those that are left."""

import pytest

from cluster.placement import Shape, fits, largest_fitting
from idia_core.errors import ConfigError

GPU_NODE = {"CPU": 64.0, "GPU": 8.0}


def test_a_bundle_is_what_the_processes_of_a_node_need() -> None:
    """Amounts are of all processes of the node; without GPUs none are named, which Ray would refuse."""
    assert Shape(2, 4, cpus=6, gpus=1, strategy="SPREAD").bundles() == [{"CPU": 24, "GPU": 4}] * 2
    assert Shape(1, 2, cpus=1, gpus=0).bundles() == [{"CPU": 2}]


def test_strict_pack_over_several_nodes_is_refused() -> None:
    """The error says what to use instead."""
    with pytest.raises(ConfigError, match="STRICT_PACK keeps a run on one node; use SPREAD"):
        Shape(2, 4, cpus=6, gpus=1)


@pytest.mark.parametrize(
    ("shape", "nodes", "whether"),
    [
        (Shape(1, 8, 6, 1), [GPU_NODE], True),
        (Shape(1, 8, 6, 1), [{"CPU": 64.0, "GPU": 4.0}] * 2, False),  # eight GPUs, but not on one node
        (Shape(2, 4, 6, 1, "SPREAD"), [{"CPU": 64.0, "GPU": 4.0}] * 2, True),
        (Shape(2, 4, 6, 1, "SPREAD"), [GPU_NODE], True),  # two bundles on one node
        (Shape(1, 8, 6, 1), [{"CPU": 40.0, "GPU": 8.0}], False),  # 48 CPUs are needed
        (Shape(1, 8, 6, 1), [{"CPU": 64.0}], False),
        (Shape(1, 3, 0.1, 0), [{"CPU": 0.3}], True),  # 3 x 0.1 > 0.3 in floating point
        (Shape(1, 1, 1, 0), [], False),
    ],
)
def test_a_shape_fits_where_nodes_can_hold_all_its_bundles(
    shape: Shape, nodes: list[dict[str, float]], whether: bool
) -> None:
    """Every bundle is on one node, and a node may hold several."""
    assert fits(shape, nodes) is whether


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([GPU_NODE] * 2, Shape(2, 8, 6, 1, "SPREAD")),
        ([{"CPU": 256.0, "GPU": 16.0}], Shape(2, 8, 6, 1, "SPREAD")),
        ([GPU_NODE], Shape(1, 8, 6, 1, "SPREAD")),
        ([GPU_NODE, {"CPU": 64.0, "GPU": 7.0}], Shape(1, 8, 6, 1, "SPREAD")),  # 14 or 15 do not divide 16
        ([{"CPU": 64.0, "GPU": 7.0}] * 2, Shape(2, 4, 6, 1, "SPREAD")),
        ([{"CPU": 64.0, "GPU": 3.0}], Shape(1, 2, 6, 1, "SPREAD")),
        ([{"CPU": 64.0}], None),
    ],
)
def test_a_run_goes_on_with_the_most_processes_that_divide_those_asked_for(
    nodes: list[dict[str, float]], expected: Shape | None
) -> None:
    """Sixteen processes on two nodes become eight, four, two or none, on as few nodes as can hold them."""
    assert largest_fitting(Shape(2, 8, 6, 1, "SPREAD"), nodes) == expected
