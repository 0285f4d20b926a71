"""Workers that their driver has lost, and that do not know it: they get in nobody's way."""

import sys
from pathlib import Path

import pytest
from ray import cloudpickle
from upath import UPath

from idia_core.config import Resources, StageConfig
from idia_core.errors import BusyError
from idia_core.manifest import FINGERPRINT, RECEIPTS
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.stage import Phase, Split, SplitWriter, StageContext, once

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def context_of(root: Path, found: str | None) -> StageContext:
    """A stage of the fingerprint `mine`, in a folder that has another one, or none."""
    folder = root / "stage"
    (folder / RECEIPTS).mkdir(parents=True)
    if found:
        (folder / RECEIPTS / FINGERPRINT).write_text(found)
    return StageContext("test", StageConfig(), {}, UPath(folder), fingerprint="mine")


class Writer:
    """Writes a file."""

    def __init__(self, context: StageContext) -> None:
        del context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        out.write("table/file", b"content")


def run(context: StageContext) -> int:
    """Run the phase; how many receipts there are."""
    run_phase(Phase("write", once, Writer), context, Resources(), Progress())
    return len(list((context.folder / RECEIPTS).glob("*.json")))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("found", [None, "another"])
def test_a_split_of_a_stage_that_is_sealed_or_begun_anew_has_no_receipt(tmp_path: Path, found: str | None) -> None:
    """Its worker finds no fingerprint, or another, beside the receipts."""
    context = context_of(tmp_path, found)
    with pytest.raises(BusyError, match="done by another worker"):
        run(context)
    assert not list((context.folder / RECEIPTS).glob("*.json"))


@pytest.mark.usefixtures("local_ray")
def test_a_split_of_a_stage_that_runs_has_one(tmp_path: Path) -> None:
    """The fingerprint is that of the run."""
    assert run(context_of(tmp_path, "mine")) == 1


def test_two_who_do_the_same_split_do_not_share_a_scratch_folder(tmp_path: Path) -> None:
    """What one has put there stays when the other comes and goes."""
    first, second = (SplitWriter(UPath(tmp_path), "split", 0, lambda *_: None) for _ in range(2))
    with first.scratch() as mine:
        (mine / "file").write_text("content")
        with second.scratch() as other:
            assert not list(other.iterdir())
        assert (mine / "file").read_text() == "content"
    assert not list(tmp_path.iterdir())
