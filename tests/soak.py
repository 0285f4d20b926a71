"""How much of the soak is run."""

import os

import pytest

SHARE = float(os.environ.get("IDIA_SOAK", "1"))
WHOLE = pytest.mark.skipif(SHARE < 1, reason="a part of the soak that is only run when all of it is")


def soak_count(full: int) -> int:
    """How often a soak test does what it does: `full` times, of which IDIA_SOAK is the share, and at least once."""
    return max(1, round(full * SHARE))
