"""Input files that could not be read in full: how many a stage may end without."""

from idia_core.errors import InvalidInputError
from idia_core.manifest import FAILED, failed_files, read_receipts
from pipelines.stage import StageContext


def check_failures(context: StageContext, input_name: str) -> None:
    """Raise `InvalidInputError` when more files of an input have failed than the config's `tolerate_failed_inputs`."""
    files, tolerated = context.inputs[input_name].files, context.config.tolerate_failed_inputs
    facts = {fact for receipt in read_receipts(context.folder) for fact in receipt.facts.get(FAILED, ())}
    failed = failed_files(facts)
    if failed and len(failed) >= len(files):
        raise InvalidInputError("no input could be read in full", min(facts), "Check the files.")
    if len(failed) > tolerated:
        what = f"{len(failed)} inputs could not be read in full and {tolerated} may fail; first {min(facts)}"
        fix = f"Fetch them again, or run with --tolerate-failed-inputs {len(failed)}."
        raise InvalidInputError(what, f"stage {context.stage}", fix)
