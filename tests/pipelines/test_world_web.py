"""The built-in world's web: drawn, embedded by the world's own model, indexed, and found again by its URLs."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from idia_core.config import Study
from idia_core.errors import ConfigError, InvalidInputError
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from idia_core.perceptual_hash import as_hashes, nearest, perceptual_hash
from jobs.run import run_study
from tests.pipelines.audits import QUIET
from tests.pipelines.shard_inputs import contents
from tests.pipelines.test_world import draw
from tests.tiny_models import write_model

pytestmark = pytest.mark.usefixtures("local_ray")
PEOPLE, PAIRS, DEAD, OTHERS = 2, 7, 3, 10
EACH = PAIRS + 6
"""Links of each person."""
WEB = {"pairs": PAIRS, "link_rot": 0.4, "others": OTHERS, "site": "http://site.example:8000"}
WORLD = {"people": PEOPLE, "training_pictures": 0, "attack_pictures": 3, "background_pairs": 10, "caption_rows": 1500}
MODEL, WEIGHTS = "idia-rn-tiny", {"weights": "world.model"}


def study(out: Path, **changes: dict[str, Any]) -> Study:
    """From the world to the pairs that are retrieved."""
    found = {"index": "index_web.shards", "embedded_by": "embed_web.about"}
    people = {"identities": "world.identities", "pictures": "world.pictures"}
    stages: dict[str, dict[str, Any]] = {
        "world": {**WORLD, "web": WEB, "model": True, "labelled_pictures": 2},
        "embed_web": {"stage": "embed", "model": MODEL, "inputs": {**WEIGHTS, "background": "world.web"}},
        "index_web": {
            "stage": "index",
            "inputs": {"embeddings": "embed_web.img_emb", "metadata": "embed_web.metadata"},
            "rows_per_shard": 10,
        },
        "retrieve": {"model": MODEL, "inputs": {**WEIGHTS, **found, **people}, "neighbours": 100},
    }
    stages = {name: stage | changes.get(name, {}) for name, stage in stages.items()}
    return Study(name="test", out=str(out), stages=stages)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - must be up first
    """What the study wrote."""
    out: Path = tmp_path_factory.mktemp("web") / "out"
    run_study(study(out), QUIET)
    return out


def table(out: Path, name: str) -> pl.DataFrame:
    """A table, `stage/table`."""
    return pl.concat([pl.read_parquet(file) for file in sorted((out / name).glob("**/*.parquet"))])


def test_every_link_is_in_the_web_and_its_truth_beside(out: Path) -> None:
    """Row by row; what a server has is there as files, under the paths of the URLs."""
    web, links = table(out, "world/web"), table(out, "world/links")
    assert web.select("key", "url").equals(links.select("key", "url"))
    assert (web.height, web["key"].n_unique()) == (PEOPLE * EACH + OTHERS, web.height)
    people = dict(table(out, "world/identities").select("identity", "name").rows())
    for caption, identity in zip(web["caption"], links["identity"], strict=True):
        assert identity is None or people[identity] in caption
    site = {
        f"{WEB['site']}/{path.relative_to(out / 'world/site')}": path.read_bytes()
        for path in (out / "world/site").rglob("*.*")
    }
    served = links.filter(pl.col("answers") != "gone")
    assert site.keys() == set(served["url"])
    images = dict(web.select("url", "image").rows())
    for url, answers in served.select("url", "answers").rows():
        assert (site[url] == images[url]) is (answers != "page")
        assert site[url].startswith(b"<!DOCTYPE html" if answers == "page" else b"\xff\xd8")
    assert served.filter(pl.col("answers") == "page").height == PEOPLE


def test_pictures_are_what_the_truth_says(out: Path) -> None:
    """A copy and an attack picture are encoded anew, not the same file; all others are new."""
    rows = table(out, "world/web").join(table(out, "world/links"), on=["key", "url"])
    attack = table(out, "world/pictures")
    own = rows.filter(pl.col("shows") == "person", pl.col("repeats").is_null())["image"].to_list()

    def nearest_bits(image: bytes, among: list[bytes]) -> int:
        hashes = [perceptual_hash(Image.open(io.BytesIO(one))) for one in (image, *among)]
        assert all(hashes)
        return int(nearest(as_hashes(hashes[:1]), as_hashes(hashes[1:]))[1][0])  # type: ignore[arg-type]

    for shows, among in (("copy", own), ("attack_picture", attack["image"].to_list())):
        found = rows.filter(pl.col("shows") == shows)["image"].to_list()
        assert len(found) == PEOPLE
        assert all(image not in among and nearest_bits(image, among) <= 6 for image in found)
    new = rows.filter(pl.col("repeats").is_null() | (pl.col("repeats") != "url"))["image"]
    assert new.n_unique() == new.len()
    assert not set(new) & {*attack["image"], *table(out, "world/faces")["image"]}


def test_labelled_pictures_are_others_too(out: Path) -> None:
    """Two of each person, as attack pictures are."""
    faces = table(out, "world/faces")
    assert faces.group_by("identity").len()["len"].to_list() == [2, 2]
    assert faces.columns == table(out, "world/pictures").columns


def test_urls_come_through_embedding_and_index(out: Path) -> None:
    """Under the name that clip-retrieval knows; every row's is that of its key."""
    urls = dict(table(out, "world/web").select("key", "url").rows())
    for place in ("embed_web/metadata", "index_web/shards"):
        rows = table(out, place)
        assert dict(rows.select("image_path", "url").rows()) == urls


def test_the_worlds_own_model_embeds(out: Path) -> None:
    """It is told by its hash, and gives these very embeddings."""
    weights = out / "world/model/weights.pt"
    about = table(out, "embed_web/about").row(0, named=True)
    assert about["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert about["model"] == f"idia-rn-tiny:{weights}"
    first = min((out / "embed_web/img_emb").iterdir())
    image = table(out, "world/web")["image"][0]
    expected_D = ClipModel(ModelReference.parse(about["model"])).encode_images([Image.open(io.BytesIO(image))])[0]
    np.testing.assert_array_equal(np.load(first)[0], expected_D.astype(np.float16))


def test_everybodys_links_are_retrieved(out: Path) -> None:
    """All whose captions name them, but those that repeat a URL or a caption."""
    links = table(out, "world/links")
    counts = table(out, "retrieve/retrieved")
    assert (
        counts.select("name_in_caption", "duplicate_url", "duplicate_caption", "unique").rows()
        == [(PAIRS + 5, 1, 1, PAIRS + 3)] * PEOPLE
    )
    candidates = table(out, "retrieve/candidates")
    named = links.filter(pl.col("identity").is_not_null()).unique("url")
    assert candidates.join(named, on=["identity", "url"], how="semi").height == candidates.height == 2 * (PAIRS + 3)


def test_a_world_without_a_web_is_as_it_was(out: Path, tmp_path: Path) -> None:
    """No table has another byte; and the web is the same when it is drawn again."""
    plain = draw(tmp_path / "plain", **WORLD)
    with_it = contents(out / "world")
    assert {path: digest for paths in plain.values() for path, digest in paths.items()}.items() <= with_it.items()
    run_study(study(tmp_path / "again"), QUIET, ["world"])
    assert contents(tmp_path / "again/world") == with_it


def test_of_a_base_that_tells_some_urls_the_others_are_null(out: Path, tmp_path: Path) -> None:
    """Where a file of the base has none, in the metadata there is no such column, and in the index none is told."""
    rows = pq.read_table(next((out / "world/web").glob("*00000.parquet")))
    (tmp_path / "base").mkdir()
    pq.write_table(rows.slice(0, 3), tmp_path / "base/0.parquet")
    pq.write_table(rows.slice(3, 3).drop_columns("url"), tmp_path / "base/1.parquet")
    embed = {"inputs": {"background": f"{tmp_path}/base", "weights": f"{out}/world/model"}, "model": "idia-rn-tiny"}
    index = {"inputs": {"embeddings": "embed.img_emb", "metadata": "embed.metadata"}}
    run_study(Study(name="test", out=str(tmp_path / "out"), stages={"embed": embed, "index": index}), QUIET)
    one, other = sorted((tmp_path / "out/embed/metadata").iterdir())
    assert pq.read_schema(other).names == pq.read_schema(one).names[:-1]
    assert table(tmp_path / "out", "index/shards")["url"].to_list() == [*rows["url"].to_pylist()[:3], None, None, None]


def test_weights_that_are_not_one_models_are_told(out: Path, tmp_path: Path) -> None:
    """Two names for the weights, and two checkpoints."""
    for number in range(2):
        write_model(tmp_path / f"weights/{number}.pt", number)
    inputs = {"background": f"{out}/world/web", "weights": f"{tmp_path}/weights"}
    config = {"inputs": inputs, "model": "idia-rn-tiny", "resources": {"workers": 1}}
    with pytest.raises(InvalidInputError, match="2 files, and a model is in one"):
        run_study(Study(name="test", out=str(tmp_path / "out"), stages={"embed": config}), QUIET)
    config |= {"model": "idia-rn-tiny:other.pt"}
    with pytest.raises(ConfigError, match=r"'idia-rn-tiny:other\.pt' names other weights \(stage embed, input weights"):
        run_study(Study(name="test", out=str(tmp_path / "out"), stages={"embed": config}), QUIET)


def test_other_weights_are_noticed_by_whoever_asks(out: Path, tmp_path: Path) -> None:
    """The base was embedded by others, and the two cannot be compared."""
    other = {"inputs": study(out).stages["retrieve"]["inputs"] | {"weights": str(write_model(tmp_path / "o.pt", 9))}}
    with pytest.raises(InvalidInputError, match="the base was embedded with other weights"):
        run_study(study(out, retrieve=other), QUIET, ["retrieve"])
