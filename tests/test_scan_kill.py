"""A scan whose workers or driver are killed at any moment ends with the bytes of one that was left alone."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idia_core.synthetic import plant_captions
from tests.kills import Phase, Undisturbed, kill_amid, kill_at_random, undisturbed
from tests.soak import soak_count

pytestmark = pytest.mark.soak
NAMES = ("Jon Hamm", "Johannes B. Kerner", "Zoë Zeta-Jones", "Sting", "Ann Lee")
SLOW_NAME = "Ann (Lee|Mai)"
"""Its special characters have it tried on every caption, so that a split takes long enough to be killed in."""
FILES, ROWS = 24, 100_000
MATCH = Phase("scan", "match", FILES, seconds=1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 24 files with 100,000 captions each, every one four times, in an order of the file's own."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "captions").mkdir()
    captions, _ = plant_captions(NAMES, ROWS // 4, seed=3)
    for number in range(FILES):
        turned = pa.concat_tables([captions.slice(100 * number), captions.slice(0, 100 * number)])
        pq.write_table(pa.concat_tables([turned] * 4), folder / f"captions/{number:02d}.parquet", row_group_size=30_000)
    (folder / "names.txt").write_text("\n".join([*NAMES, SLOW_NAME]), encoding="utf-8")
    inputs = f"{{captions: {folder}/captions, identities: {folder}/names.txt}}"
    text = f"name: kill\nout: out\nstages:\n  scan:\n    inputs: {inputs}\n    resources: {{retries: 100}}\n"
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def alone(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run to which nothing happens."""

    def words(out: Path) -> list[str]:
        return ["run", str(study), "--set", f"out={out}"]

    run = undisturbed(words, tmp_path_factory.mktemp("undisturbed") / "out", ("scan",))
    assert len([path for path in run.contents if path.startswith("scan/matches/")]) == FILES
    return run


def test_killed_drivers_change_nothing(tmp_path: Path, alone: Undisturbed) -> None:
    """SIGKILL at ten random moments, each followed by another run: every byte is as it should be."""
    for found in kill_at_random(alone, tmp_path, soak_count(10), random.Random(19)):
        assert found == alone.contents


@pytest.mark.parametrize("seed", range(soak_count(4)))
def test_kills_amid_the_search_change_nothing(seed: int, tmp_path: Path, alone: Undisturbed) -> None:
    """A worker and the driver die, then a worker of the next run, which ends well with every byte as it should be."""
    assert kill_amid(alone, tmp_path, MATCH, random.Random(seed)) == alone.contents
