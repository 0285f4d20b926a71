"""How the processes of a training run are laid out over nodes, and what fits on those that are alive."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from idia_core.errors import ConfigError

Strategy = Literal["STRICT_PACK", "PACK", "SPREAD"]


@dataclass(frozen=True)
class Shape:
    """The nodes that a run asks for, the processes on each, and what a process needs."""

    nodes: int
    processes_per_node: int
    cpus: float
    """Of a process."""
    gpus: float
    """Of a process; 0 on CPU."""
    strategy: Strategy = "STRICT_PACK"
    """Ray's: all on one node (STRICT_PACK), on as few as possible (PACK), or on as many (SPREAD)."""

    def __post_init__(self) -> None:
        """Raise `ConfigError` where no cluster could hold the shape."""
        if self.strategy == "STRICT_PACK" and self.nodes > 1:
            fix = "STRICT_PACK keeps a run on one node; use SPREAD."
            raise ConfigError(f"STRICT_PACK over {self.nodes} nodes is not possible", "placement", fix)

    @property
    def processes(self) -> int:
        """Of all nodes together."""
        return self.nodes * self.processes_per_node

    def bundles(self) -> list[dict[str, float]]:
        """What Ray is to reserve: one bundle a node."""
        needs = {"CPU": self.cpus * self.processes_per_node, "GPU": self.gpus * self.processes_per_node}
        return [{kind: amount for kind, amount in needs.items() if amount > 0} for _ in range(self.nodes)]


def fits(shape: Shape, nodes: Sequence[Mapping[str, float]]) -> bool:
    """Whether nodes with these resources, all of them free, can hold the shape; one node may hold several bundles."""
    bundle = shape.bundles()[0]
    return sum(_times(bundle, node) for node in nodes) >= shape.nodes


def _times(bundle: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How often a node can hold a bundle."""
    # Thrice 0.1 is a hair more than 0.3; Ray itself counts in ten-thousandths.
    return min(math.floor(node.get(kind, 0) / amount + 1e-6) for kind, amount in bundle.items())


def largest_fitting(shape: Shape, nodes: Sequence[Mapping[str, float]]) -> Shape | None:
    """The shape itself if it fits, else the one with the most processes that does, over as few nodes as possible.

    Its processes divide those asked for, so that a whole number of gradients is accumulated for each step and a step
    sees as many pairs as was asked for. None where not even one process fits.
    """
    if fits(shape, nodes):
        return shape
    for processes in range(shape.processes, 0, -1):
        for count in range(1, shape.nodes + 1):
            if shape.processes % processes == 0 and processes % count == 0:
                smaller = replace(shape, nodes=count, processes_per_node=processes // count)
                if fits(smaller, nodes):
                    return smaller
    return None
