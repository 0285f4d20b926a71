"""The attack: its votes do not depend on how it runs, on where the model is, or on what was asked before."""

import json
from pathlib import Path

import polars as pl
import pytest

from idia_core.errors import BudgetError, IdiaError
from tests.pipelines.audits import NAMES, TEMPLATES, attack, tables, write_people
from tests.servers import proxy, served_model
from tests.tiny_models import write_model

VOTES = ("names", "asked", "votes", "similarities", "panel_votes", "text_embeddings")


pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five drawn people, a panel of four, and a model with random weights."""
    folder = tmp_path_factory.mktemp("attack")
    write_people(folder / "people", NAMES, seed=1)
    write_people(folder / "panel", ("Una Fell", "Max Orr", "BOB RAY", "Kit Vane"), seed=2)
    write_model(folder / "tiny.pt")
    return folder


@pytest.fixture(scope="module")
def plain(root: Path) -> Path:
    """An attack as it is, with the panel; its folder."""
    attack(root, "plain", [f"idia-rn-tiny:{root}/tiny.pt"], inputs=panel(root))
    return root / "plain"


def panel(root: Path) -> dict[str, str]:
    """The inputs that add the panel."""
    return {"panel_identities": str(root / "panel/identities"), "panel_pictures": str(root / "panel/pictures")}


def read(folder: Path, table: str, stage: str = "attack") -> pl.DataFrame:
    """A table of a finished attack."""
    return pl.read_parquet(folder / stage / table / "*.parquet")


def test_there_is_one_vote_for_every_picture_and_template(plain: Path) -> None:
    """The broken picture has none and is counted; every answer is one of the names that could be chosen."""
    votes, names, asked = (read(plain, table) for table in ("votes", "names", "asked"))
    assert votes.height == 14 * len(TEMPLATES)
    assert votes.unique(["identity", "image", "template"]).height == votes.height
    assert names.height == 20
    assert set(NAMES) == set(names.filter("tested")["name"])
    assert set(votes["predicted"]) <= set(names["name"])
    assert asked.select("identity", "sex", "pool", "pictures").rows() == [
        (name, "FM"[place % 2], "all", 3) for place, name in enumerate(NAMES)
    ]
    verdicts = read(plain, "verdicts", "judge")
    assert verdicts["images_failed"].to_list() == [1, 0, 0, 0, 0]


def test_the_panel_is_asked_but_for_people_who_are_tested(plain: Path) -> None:
    """'BOB RAY' is Bob Ray; the others vote under the names' one pool, and are whom p_face compares with."""
    votes = read(plain, "panel_votes")
    assert set(votes["identity"]) == {"Una Fell", "Max Orr", "Kit Vane"}
    assert set(votes["pool"]) == {"all"}
    assert votes.height == 8 * len(TEMPLATES)
    assert not set(read(plain, "names")["name"]) & {"Una Fell", "Max Orr", "Kit Vane"}
    # Of the sex of a woman there are two more in the audit and, of three in the panel, Una Fell.
    assert read(plain, "verdicts", "judge").filter(identity="Ann Lee")["others"].item() == 3


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_no_byte(root: Path, plain: Path, workers: int) -> None:
    """All tables of the attack are the same, also where nothing comes from the cache."""
    fields = {"inputs": panel(root), "resources": {"workers": workers, "text_cache": None}}
    attack(root, f"workers{workers}", [f"idia-rn-tiny:{root}/tiny.pt"], **fields)
    assert tables(root / f"workers{workers}", *VOTES) == tables(plain, *VOTES)


@pytest.mark.parametrize("pieces", [{"people_per_split": 1}, {"people_per_split": 3, "batch_size": 2}])
def test_the_size_of_the_pieces_changes_no_vote(root: Path, plain: Path, pieces: dict[str, int]) -> None:
    """However people and pictures are put together, the rows are the same; cosines may differ in their last bits."""
    out = f"pieces{pieces['people_per_split']}"
    attack(root, out, [f"idia-rn-tiny:{root}/tiny.pt"], inputs=panel(root), **pieces)
    for table in ("votes", "panel_votes"):
        assert read(root / out, table).equals(read(plain, table))
    ours, theirs = (read(folder, "similarities")["cosine"].to_numpy() for folder in (root / out, plain))
    assert abs(ours - theirs).max() < 1e-6


def test_a_black_box_gives_the_votes_of_the_model_behind_it(root: Path, plain: Path) -> None:
    """The real server on this machine's own address, asked over HTTP; it tells no cosines."""
    with served_model(f"idia-rn-tiny:{root}/tiny.pt") as url:
        attack(root, "box", [url], inputs=panel(root))
    for table in ("votes", "panel_votes"):
        assert read(root / "box", table).drop("model").equals(read(plain, table).drop("model"))
    assert read(root / "box", "similarities").is_empty()
    assert not (root / "box/attack/text_embeddings").exists()


def test_a_black_box_is_not_asked_what_its_budget_does_not_cover(root: Path) -> None:
    """15 pictures with 3 templates are 45 questions; nothing is sent, so nothing needs to be there."""
    with pytest.raises(BudgetError, match="45 questions would be asked of a black box that may get 44"):
        attack(root, "dear", ["http://127.0.0.1:9"], resources={"questions": 44})


def test_what_a_black_box_answered_is_not_asked_again(root: Path) -> None:
    """It refuses half-way; of 42 questions in 15 requests, the second run puts only those that were not answered."""
    with served_model(f"idia-rn-tiny:{root}/tiny.pt") as url, proxy(url) as between:
        between.allowed = 6
        with pytest.raises(IdiaError, match="enough"):
            attack(root, "refused", [between.url], resources={"connections": 1})
        between.allowed = 15
        attack(root, "refused", [between.url], resources={"connections": 1})
        assert between.passed == 15
        assert read(root / "refused", "votes").height == 14 * len(TEMPLATES)
    assert not list((root / "refused").rglob("answers"))


def test_an_audit_of_other_people_embeds_only_their_names(root: Path, tmp_path: Path) -> None:
    """The decoys' prompts come from the cache; an audit of the same people embeds nothing at all."""
    cache, others = tmp_path / "cache", ("Una Fell", "Max Orr", "Kit Vane")
    model, resources = [f"idia-rn-tiny:{root}/tiny.pt"], {"text_cache": str(cache)}
    write_people(tmp_path / "others", others, seed=3)
    attack(root, "first", model, resources=resources)
    kept = embedded(cache)
    assert kept == sorted(read(root / "first", "names")["name"])
    attack(root, "again", model, resources=resources, people_per_split=2)
    assert embedded(cache) == kept
    people = {name: str(tmp_path / "others" / name) for name in ("identities", "pictures")}
    attack(root, "second", model, resources=resources, inputs=people, candidates=18)
    assert embedded(cache) == sorted([*kept, *others])


def embedded(cache: Path) -> list[str]:
    """The names whose prompts a cache holds, with every time that they were embedded."""
    return sorted(name for file in cache.rglob("*.json") for name in json.loads(file.read_text())["names"])


def test_a_changed_checkpoint_is_another_model(root: Path, tmp_path: Path) -> None:
    """The same path with other weights is not taken for what was asked before."""
    write_model(tmp_path / "m.pt", seed=1)
    attack(root, "changed", [f"idia-rn-tiny:{tmp_path}/m.pt"])
    first = read(root / "changed", "models", "models")["sha256"].item()
    write_model(tmp_path / "m.pt", seed=2)
    attack(root, "changed", [f"idia-rn-tiny:{tmp_path}/m.pt"])
    assert read(root / "changed", "models", "models")["sha256"].item() != first
