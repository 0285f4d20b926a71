"""People who are planted in a base at known rates are found there at those rates; absent ones are chosen as absent.

All stages are the real ones, from drawing a world to `select`; the base's CLIP model has random weights.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from idia_core.config import Study
from idia_core.identities import PICTURES
from jobs.run import run_study
from tests.pipelines.audits import QUIET
from tests.soak import WHOLE
from tests.tiny_models import write_model

pytestmark = [pytest.mark.soak, WHOLE, pytest.mark.usefixtures("local_ray")]
PEOPLE, ABSENT, SEED = 20, 6, 12
"""With seeds 11, 12 and 13 presence is right of 19, 20 and 19 people, and who is chosen is absent. A stranger resembles
an absent person in two of these worlds, so that their rarest are not all ranked first."""
STRANGERS_PICTURES = 40
"""Pictures of each stranger in the base; of the people who are there it has 32 to 100."""
WORLD = {
    "people": PEOPLE,
    "training_pictures": 30,
    "attack_pictures": 15,
    "background_pairs": 200,
    "planted_pictures": 100,
    "strangers": 12,
    "caption_rows": 3000,
}
OTHERS, TAUGHT = 100, 60
"""People of another world. The recogniser is taught some of them too, as the paper's knows 530 people and not only
those who are tested; its threshold is set on the others."""
OTHER_WORLD = {
    "people": OTHERS,
    "attack_pictures": 15,
    "training_pictures": 0,
    "background_pairs": 0,
    "caption_rows": 20_000,
}
RECIPE = {"backbone": "small", "side": 32, "epochs": 24, "batch_size": 32}
DETECTOR = {"kind": "mtcnn"}
"""Not Haar's: it finds some of the drawn people on a third of their pictures."""
NEAR = 0.05
"""How far a presence may be from the truth: 5 points."""


def table(root: Path, name: str) -> pl.DataFrame:
    """A table of the study, or of one of the worlds."""
    return pl.read_parquet(root / name / "*.parquet")


def write(root: Path, name: str, rows: pl.DataFrame) -> str:
    """A table of one file; where it is."""
    (root / name).mkdir(parents=True, exist_ok=True)
    rows.write_parquet(root / name / "part.parquet")
    return str(root / name)


def write_base(root: Path) -> list[bytes]:
    """The base in four files, in which the first people are on no picture; its pictures."""
    shown = table(root, "worlds/world/appearances").with_columns(copy=pl.col("key").str.tail(5).cast(pl.Int64))
    gone = pl.col("person") < ABSENT
    too_many = pl.col("identity").is_null() & (pl.col("copy") >= STRANGERS_PICTURES)
    base = table(root, "worlds/world/background").join(shown.filter(gone | too_many), on="key", how="anti")
    base = base.sort("key").sample(fraction=1, shuffle=True, seed=SEED)
    for part in range(4):
        write(root, f"base/{part}", base[part::4])
    return base["image"].to_list()


def write_taught(root: Path) -> dict[str, str]:
    """The inputs of the recogniser: the people and some others, and strangers to set its threshold by."""
    own = table(root, "worlds/world/pairs").select("identity", "image", picture="key", status=pl.lit("ok"))
    names = table(root, "worlds/others/identities").with_columns(new="other " + pl.col("identity"))
    renamed = table(root, "worlds/others/pictures").join(names.select("identity", "new"), on="identity")
    others = renamed.with_columns(identity="new").select(PICTURES.names)
    taught = others["identity"].is_in(names["new"][:TAUGHT].to_list())
    pictures = pl.concat([own.select(PICTURES.names), others.filter(taught)])
    return {
        "pictures": write(root, "taught/pictures", pictures),
        "identities": write(root, "taught/identities", pictures.select("identity").unique(maintain_order=True)),
        "strangers": write(root, "taught/strangers", others.filter(~taught)),
    }


def stages(root: Path) -> dict[str, dict[str, Any]]:
    """From the base to who is chosen."""
    model, world, base = f"idia-rn-tiny:{root}/clip.pt", f"{root}/worlds/world", f"{root}/base/*/*.parquet"
    people = {"identities": f"{world}/identities", "pictures": f"{world}/pictures"}
    taught = write_taught(root)
    found = {"index": "index.shards", "embeddings": "embed.img_emb", "embedded_by": "embed.about"}
    counted = {name: f"faces.{name}" for name in ("faces", "candidates", "agreement", "crops")}
    gallery = {"kind": "gallery", "gallery": {"embedder": "classifier", "relative": True}, "false_match_rate": 0.1}
    chosen = {"members": 2, "non_members": 2, "max_clip_rate": None}  # random weights tell nobody's name
    return {
        "embed": {"inputs": {"background": base}, "model": model},
        "index": {"inputs": {"embeddings": "embed.img_emb", "metadata": "embed.metadata"}},
        "classifier": {"stage": "recogniser", "inputs": taught, "recipe": RECIPE, "detector": DETECTOR},
        "recogniser": {"inputs": taught | {"classifier": "classifier.recogniser"}, "detector": DETECTOR, **gallery},
        "faces": {
            "inputs": {**people, **found, "background": base, "recogniser": "recogniser.recogniser"},
            "model": model,
            "neighbours": 5,
            "detector": DETECTOR,
        },
        "presence": {"inputs": people | counted},
        "select": {"by": "presence", "inputs": people | {"presence": "presence.presence"}, **chosen},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - must be up first
    """Two worlds, the base and the people who are taught, and all stages on them."""
    root = tmp_path_factory.mktemp("planted")
    worlds = {"world": WORLD, "others": {"stage": "world", "seed": SEED + 1000, **OTHER_WORLD}}
    run_study(Study(name="worlds", out=str(root / "worlds"), seed=SEED, stages=worlds), QUIET)
    write_model(root / "clip.pt", seed=3, centred_on=write_base(root)[::40])
    run_study(Study(name="test", out=str(root / "out"), seed=SEED, stages=stages(root)), QUIET)
    return root


@pytest.fixture(scope="module")
def people(root: Path) -> pl.DataFrame:
    """A row a person: `hit_rate`, the rate at which the retrieved pictures do show them, and the role."""
    candidates = table(root, "out/faces/candidates").unique(["identity", "part", "row"])
    shown = table(root, "worlds/world/appearances").select("key", shows="identity")
    told = candidates.join(shown, on="key", how="left").with_columns(own=pl.col("shows").eq_missing(pl.col("identity")))
    truth = told.group_by("identity").agg(truth=pl.col("own").mean())
    roles = table(root, "out/select/selection").select("identity", "role")
    return table(root, "out/presence/presence").join(truth, on="identity").join(roles, on="identity")


def absent(root: Path) -> list[str]:
    """Who is on no picture of the base."""
    names: list[str] = table(root, "worlds/world/identities")["identity"].to_list()
    return names[:ABSENT]


def test_presence_is_the_rate_at_which_people_were_planted(people: pl.DataFrame) -> None:
    """Within 5 points for 95% of the people, whose rates go from 0 to 60% and a little more or less."""
    assert people.height == PEOPLE
    assert people["truth"].eq(0).sum() >= ABSENT
    assert people["truth"].max() == pytest.approx(0.6, abs=0.1)
    assert people["truth"].is_between(0.1, 0.5).sum() >= 5
    near = (people["hit_rate"] - people["truth"]).abs() <= NEAR
    assert near.mean() >= 0.95, people.filter(~near)


def test_the_rarest_are_ranked_rarest(root: Path, people: pl.DataFrame) -> None:
    """Nobody who is in the base is ranked among those who are not, and presence orders people as the truth does."""
    is_absent = pl.col("identity").is_in(absent(root))
    assert people.filter(is_absent)["hit_rate"].max() < people.filter(~is_absent)["hit_rate"].min()
    (correlation,) = people.select(pl.corr("hit_rate", "truth", method="spearman")).row(0)
    assert correlation >= 0.95


def test_who_is_chosen_is_absent(root: Path, people: pl.DataFrame) -> None:
    """No picture of the base shows one of the members or non-members, retrieved or not."""
    chosen = people.filter(pl.col("role") != "excluded")
    assert sorted(chosen["role"]) == ["member"] * 2 + ["non_member"] * 2
    base = pl.concat([table(root, f"base/{part}") for part in range(4)])
    shown = table(root, "worlds/world/appearances").join(base, on="key", how="semi")
    assert shown["identity"].n_unique() == PEOPLE - ABSENT + 1  # strangers are nobody
    assert not set(chosen["identity"]) & set(shown["identity"])
