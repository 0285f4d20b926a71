"""The demo as a newcomer runs it: it must be right about who was in the training data, for any seed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from idia_core.drawing import draw_face, invent_people
from idia_core.names import invent_names
from tests.soak import soak_count

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent


def rates(out: Path) -> pd.DataFrame:
    """The rates at the most attack pictures, by model."""
    table = pd.read_parquet(out / "evaluate/rates")
    everybody = table[(table["group"] == "all") & (table["images"] == 15)]
    return everybody.set_index("model")


def run_demo(out: Path, *words: str) -> None:
    """Run `idia demo` to its end."""
    done = subprocess.run(
        [*IDIA, "demo", "--out", str(out), *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def assert_right(out: Path) -> None:
    """The bars: at K = 25 nearly everybody is found and nearly nobody accused; at K = 1 clearly fewer are found."""
    found = rates(out)
    assert found.loc["K025", "tpr_mean"] >= 0.95, found
    assert found.loc["K025", "fpr_mean"] <= 0.05, found
    assert found.loc["K001", "tpr_mean"] <= found.loc["K025", "tpr_mean"] - 0.3, found
    votes = pd.read_parquet(out / "attack/votes")
    assert votes.groupby("model")["identity"].nunique().to_dict() == {"K001": 48, "K005": 48, "K025": 48}
    assert len(pd.read_parquet(out / "attack/names")) == 1000


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(soak_count(6)))
def test_the_demo_tells_members_from_others(seed: int, tmp_path: Path) -> None:
    """24 members and 24 others, 1,000 names; another seed is another world: other people, pictures and captions."""
    run_demo(tmp_path / "out", "--seed", str(seed))
    assert_right(tmp_path / "out")


@pytest.mark.slow
def test_the_demo_runs_on_your_own_people(tmp_path: Path) -> None:
    """PNG and JPEG mixed, one picture of each broken: half become members and are found, nobody is accused."""
    sexes = ["F", "M"] * 3
    names = invent_names(6, 77)
    for place, person in enumerate(invent_people(6, 77, sexes)):
        folder = tmp_path / "people" / names[place].replace(" ", "_")
        folder.mkdir(parents=True)
        for i in range(32):
            Image.fromarray(draw_face(person, [77, place, i])).save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
        (folder / "broken.jpg").write_bytes(np.random.default_rng(place).bytes(500))
    run_demo(tmp_path / "out", "--people", str(tmp_path / "people"))
    verdicts = pd.read_parquet(tmp_path / "out/judge/verdicts").set_index("identity")
    roles = pd.read_parquet(tmp_path / "out/select/selection").set_index("identity")["role"]
    assert roles.value_counts().to_dict() == {"member": 3, "non_member": 3}
    assert (verdicts["images_failed"] == 1).all()
    assert verdicts["member"][roles == "member"].sum() >= 2
    assert not verdicts["member"][roles == "non_member"].any()
