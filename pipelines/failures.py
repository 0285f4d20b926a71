"""Input files that could not be read in full: how many a stage may end without."""

from collections.abc import Sequence

from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.manifest import FAILED, failed_files, read_receipts
from pipelines.stage import StageContext


def check_failures(context: StageContext, files: Sequence[UPath]) -> None:
    """Raise `InvalidInputError` when more of the files have failed than `tolerate_failed_inputs`, or all of them."""
    tolerated = context.config.tolerate_failed_inputs
    facts = {fact for receipt in read_receipts(context.folder) for fact in receipt.facts.get(FAILED, ())}
    failed = failed_files(facts)
    if failed and len(failed) >= len(files):
        raise InvalidInputError("no input could be read in full", min(facts), "Check the files.")
    if len(failed) > tolerated:
        what = f"{len(failed)} inputs could not be read in full and {tolerated} may fail; first {min(facts)}"
        fix = f"Fetch them again, or run with --tolerate-failed-inputs {len(failed)}."
        raise InvalidInputError(what, f"stage {context.stage}", fix)
