"""Tries a storage: writes a small file there, reads it and deletes it.

python -m jobs.storage_probe URL    prints how long that took; an error is the last line of standard error
"""

import os
import sys
import time
import uuid

from idia_core.storage import as_path

CONTENT = os.urandom(1024)


def main() -> None:
    """The name is one that no stage looks at, and another one each time."""
    began = time.monotonic()
    folder = as_path(sys.argv[1])
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".idia-doctor-{uuid.uuid4().hex}.tmp"
    try:
        file.write_bytes(CONTENT)
        if file.read_bytes() != CONTENT:
            raise SystemExit("what was read is not what was written")
    finally:
        file.unlink(missing_ok=True)
        if missing and not any(folder.iterdir()):
            folder.rmdir()
    sys.stdout.write(f"written, read and deleted in {time.monotonic() - began:.2f} s\n")


if __name__ == "__main__":
    main()
