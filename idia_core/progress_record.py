"""How far a stage is, written beside its receipts now and then, so that it can be seen from anywhere, at any time."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from idia_core.errors import StorageError
from idia_core.manifest import RECEIPTS
from idia_core.storage import write_text

RECORD = "progress"
"""Its name, which is no receipt's."""
EVERY_SECONDS = 10.0
SILENT_SECONDS = 45.0
"""A driver that has not written for so long is taken for gone."""
LEAST_PART = 0.05
"""Of a split: less than that tells nothing of the time left."""


class ProgressRecord(BaseModel):
    """What a driver says of the phase that it runs; times are seconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # of a later version's, too, what is known is read

    phase: str
    splits: int
    """Of the phase."""
    before: int
    """Those that an earlier run had done."""
    done: int
    """With those."""
    fraction: float = 0.0
    """Of the splits that run, the parts that are done, all together."""
    rows: int = 0
    """The `rows_in` of the splits that this run did."""
    counts: dict[str, int] = {}
    """All that these counted, by reason."""
    words: str = ""
    """What the workers say."""
    began: float
    seen: float
    ended: bool = False
    """Whether the driver stopped in good order."""
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)

    def alive(self, now: float) -> bool:
        """Whether its driver seems to be at work; known for sure on its own machine alone."""
        here = self.host == socket.gethostname()
        gone = self.ended or (here and not Path(f"/proc/{self.pid}").exists() and Path("/proc/self").exists())
        return not gone and now - self.seen < SILENT_SECONDS


def write_record(folder: UPath, record: ProgressRecord) -> None:
    """Put a record beside the receipts of a stage's folder; where that fails only what is shown is poorer for it."""
    with suppress(OSError, StorageError):
        write_text(folder / RECEIPTS / RECORD, record.model_dump_json())


def read_record(folder: UPath) -> ProgressRecord | None:
    """The record of a stage that is not sealed; None where no phase of it has begun, or what is there is no record."""
    try:
        return ProgressRecord.model_validate_json((folder / RECEIPTS / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def receipts_of(folder: UPath, phase: str) -> tuple[int, float | None]:
    """How many receipts of a phase are listed, and when the last one was written, if the storage says."""
    there = folder / RECEIPTS
    try:
        found = there.fs.ls(there.path, detail=True, refresh=True)
    except OSError:
        return 0, None
    names = [info for info in found if _is_receipt(str(info["name"]).rpartition("/")[2], phase)]
    times = [when for info in names if (when := _written(info)) is not None]
    return len(names), max(times, default=None)


def _is_receipt(name: str, phase: str) -> bool:
    return name.startswith(f"{phase}-") and name.endswith(".json")


def _written(info: dict[str, object]) -> float | None:
    when = next((info[key] for key in ("mtime", "LastModified", "updated", "created") if info.get(key)), None)
    if isinstance(when, int | float):
        return float(when)
    stamp = getattr(when, "timestamp", None)
    return float(stamp()) if stamp else None


def now() -> float:
    """Seconds since 1970."""
    return time.time()
