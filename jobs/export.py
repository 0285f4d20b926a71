"""What `idia export` does: write a table of a study as one file for other tools."""

from rich.console import Console

from idia_core.config import Study
from idia_core.errors import MissingInputError, SealError, UsageError
from idia_core.exchange import export
from idia_core.manifest import missing_files, read_manifest
from idia_core.storage import as_path
from jobs.findings import say
from jobs.plan import table_folder


def export_table(study: Study, table: str, file: str, console: Console) -> None:
    """Write the rows of `stage.table` to a file, whose end tells the format; never over a file that is there.

    Raises `UsageError` for what is no table, for a format that cannot hold it, and for a file that is there or would be
    among the stage's own; `MissingInputError` where the stage is not done, and `SealError` where its files are gone.
    """
    folder, target = table_folder(study, table), as_path(file)
    manifest = read_manifest(folder.parent)
    if manifest is None:
        raise MissingInputError(f"stage '{folder.parent.name}' is not done", str(folder.parent), "Run it first.")
    entries = manifest.files(folder.name)
    if other := [entry.path for entry in entries if not entry.path.endswith(".parquet")]:
        raise UsageError(f"it holds files such as '{other[0]}'", f"table {table}", f"Copy them from {folder}.")
    if not entries:
        raise MissingInputError(f"stage '{folder.parent.name}' wrote nothing to it", f"table {table}")
    if lost := missing_files(folder.parent, entries):
        raise SealError(f"'{lost[0].path}' is gone or cut short", str(folder.parent), "Put it back, or run it again.")
    if target.is_relative_to(folder.parent):
        raise UsageError("the file would be among the stage's own", str(target), "Give another place.")
    if target.exists():
        raise UsageError("there is a file already", str(target), "Give another name, or take it away.")
    rows = export([folder.parent / entry.path for entry in entries], target)
    say(console, f"{rows:,} rows of {table} are in {target}")
