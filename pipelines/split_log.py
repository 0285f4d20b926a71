"""What becomes of every split, as lines of JSON beside the sealed outputs: `OUT/logs/STAGE.jsonl`.

On a disk lines are appended as they come. An object store knows no appending: there each phase of a run has an object
of its own, written now and then and at its end.
"""

import json
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from upath import UPath

from idia_core.errors import StorageError
from idia_core.secrets import without_secrets
from idia_core.storage import is_local

LOGS = "logs"
"""The folder; no stage may be called so."""
UPLOAD_SECONDS = 300.0
BUFFER_BYTES = 1 << 16


class SplitLog:
    """The log of one phase of a stage; where it cannot be written, the run goes on without it."""

    def __init__(self, folder: UPath, phase: str) -> None:
        self._stage, self._phase = folder.name, phase
        self._logs = folder.parent / LOGS
        self._file: IO[bytes] | None = None
        self._began, self._uploaded = datetime.now(UTC), time.monotonic()

    def open(self) -> None:
        """Begin to write."""
        with suppress(OSError):
            if is_local(self._logs):
                Path(self._logs.path).mkdir(parents=True, exist_ok=True)
                self._file = Path(self._logs.path, f"{self._stage}.jsonl").open("ab", BUFFER_BYTES)  # noqa: SIM115
            else:
                self._file = tempfile.NamedTemporaryFile(prefix="idia-log-", buffering=BUFFER_BYTES)  # noqa: SIM115

    def close(self) -> None:
        """Write what is left."""
        self.flush(ended=True)
        if self._file:
            with suppress(OSError):
                self._file.close()

    def line(self, event: str, level: str = "info", **fields: Any) -> None:
        """Add a line; `fields` are JSON-like, and those that are None are left out."""
        if self._file is None:
            return
        told = {"time": now(), "level": level, "stage": self._stage, "phase": self._phase, "event": event}
        told |= {name: value for name, value in fields.items() if value is not None}
        with suppress(OSError):
            self._file.write(without_secrets(json.dumps(told, ensure_ascii=False)).encode() + b"\n")

    def flush(self, *, ended: bool = False) -> None:
        """Have what was said so far where others can read it; on an object store not at every call."""
        due = ended or time.monotonic() - self._uploaded >= UPLOAD_SECONDS
        with suppress(OSError, StorageError):
            if self._file:
                self._file.flush()
                if due and not is_local(self._logs) and self._file.tell():
                    self._uploaded = time.monotonic()
                    self._logs.fs.put_file(self._file.name, (self._logs / self._name()).path)

    def _name(self) -> str:
        return f"{self._stage}-{self._began:%Y%m%dT%H%M%S}-{self._phase}.jsonl"


def now() -> str:
    """The time, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
