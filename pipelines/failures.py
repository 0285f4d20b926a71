"""Input files that could not be read in full: how many a stage may end without."""

from collections.abc import Sequence

from upath import UPath

from idia_core.base_samples import BasePart
from idia_core.errors import InvalidInputError
from idia_core.manifest import FAILED, failed_files, read_receipts
from pipelines.stage import Split, SplitWriter, StageContext


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


def note_damage(part: BasePart, split: Split, out: SplitWriter, tolerated: int) -> None:
    """Write into the receipt what is worth knowing of a split's file, and that it is damaged if it is.

    Raises `InvalidInputError` for a damaged file where none may be.
    """
    for note in part.notes:
        out.note("notes", note)
    if part.damage is None:
        return
    if not tolerated:
        fix = "Fetch it again, or run with --tolerate-failed-inputs 1 to use what can be read of it."
        raise InvalidInputError(part.damage, split["url"], fix)
    out.note(FAILED, f"{split['url']}: {part.damage}")
