"""How much of the soak is run."""

import os


def soak_count(full: int) -> int:
    """How often a soak test does what it does: `full` times, of which IDIA_SOAK is the share, and at least once."""
    return max(1, round(full * float(os.environ.get("IDIA_SOAK", "1"))))
