"""`retrieve`: whose pairs are found in an index or by a service, and what is counted."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from upath import UPath

from idia_core.config import Study
from idia_core.errors import ConfigError, DuplicateNameError, InvalidInputError, MissingInputError, UsageError
from idia_core.manifest import Manifest, read_manifest
from idia_core.spellings import strict_pattern
from idia_core.storage import as_path, find_files
from jobs.run import run_study
from pipelines.retrieve import STAGE
from pipelines.retrieve_config import RetrieveConfig
from pipelines.stage import Preview, ResolvedInput, StageContext
from tests.knn_service import KnnService, knn_service
from tests.pipelines.audits import QUIET
from tests.retrieval_base import ANN, BOB, IDA, NAMES, ROWS, SMITH, ZOE, caption, clip, write_index

pytestmark = pytest.mark.usefixtures("local_ray")
NEIGHBOURS, WANTED = 150, 30


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - must be up first
    """The base."""
    root = tmp_path_factory.mktemp("retrieve")
    write_index(root)
    return root


@pytest.fixture
def service(root: Path) -> Iterator[KnnService]:
    """A service over the same index."""
    with knn_service(root / "made/index", clip(root)) as made:
        yield made


def run(root: Path, out: Path, inputs: dict[str, str | None] | None = None, **fields: Any) -> Manifest:
    """Run the stage; an input that is None is not given, nor is the index where there is a service."""
    people = {"identities": f"{root}/people/identities", "pictures": f"{root}/people/pictures"}
    given: dict[str, str | None] = people | {"index": None if "service" in fields else f"{root}/made/index/shards"}
    given |= inputs or {}
    settings: dict[str, Any] = {"model": f"idia-rn-tiny:{root}/tiny.pt", "neighbours": NEIGHBOURS, "wanted": WANTED}
    settings |= {"people_per_split": 2, "shards_per_split": 2} | fields
    settings["inputs"] = {name: place for name, place in given.items() if place is not None}
    run_study(Study(name="test", out=str(out), stages={"retrieve": settings}), QUIET)
    manifest = read_manifest(as_path(str(out / "retrieve")))
    assert manifest is not None
    return manifest


def asked_of(service: KnnService, **settings: Any) -> dict[str, Any]:
    """The fields that ask the service, by one request after another."""
    return {
        "service": {"url": service.url, "index_name": "base"},
        "resources": {"service": {"connections": 1, "retries": 0, **settings}},
    }


def table(out: Path, name: str) -> pl.DataFrame:
    """A table of the stage."""
    return pl.read_parquet(out / f"retrieve/{name}/*.parquet")


def contents(out: Path) -> dict[str, bytes]:
    """All that the stage wrote, but its manifest."""
    files = [path for path in (out / "retrieve").rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def done(root: Path) -> Path:
    """An undisturbed run over the index."""
    run(root, root / "done")
    return root / "done"


def expected(root: Path, name: str) -> tuple[list[tuple[str, int, str, str]], dict[str, int]]:
    """Picture, rank, URL and caption of a person's candidates, and counts, as a loop over all rows finds them."""
    base_ND = np.concatenate([np.load(root / f"base/img_emb/img_emb_{part}.npy") for part in (0, 1)]).astype(np.float32)
    pictures = pl.read_parquet(root / "people/pictures/*.parquet").filter(pl.col("identity") == name).sort("picture")
    pattern, longer = strict_pattern([name]), strict_pattern([SMITH])
    found, seen, counts = (
        list[tuple[str, int, str, str]](),
        set[int](),
        dict.fromkeys(("pictures", "named", "other"), 0),
    )
    for picture, content in pictures.select("picture", "image").iter_rows():
        if len(content) <= 200 or len(found) >= WANTED:
            continue
        counts["pictures"] += 1
        query_D = clip(root).encode_images([Image.open(io.BytesIO(content))])[0]
        for rank, row in enumerate(np.argsort(-(base_ND @ query_D), kind="stable")[:NEIGHBOURS].tolist(), 1):
            text, url = caption(row), f"http://x/{row % 560}"
            if row in seen or not pattern.search(text or ""):
                seen.add(row)
                continue
            seen.add(row)
            if name == ANN and not pattern.search(longer.sub("|", text or "")):
                counts["other"] += 1
                continue
            counts["named"] += 1
            if all(url != one[2] and text != one[3] for one in found):
                found.append((picture, rank, url, str(text)))
    return found, counts | {"retrieved": len(seen)}


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_what_a_plain_loop_finds(root: Path, done: Path, name: str) -> None:
    """Person by person: whom nobody finds, who has three pairs, whose name is in another's, whom captions repeat."""
    found, counts = expected(root, name)
    mine = table(done, "candidates").filter(pl.col("identity") == name)
    assert list(mine.select("picture", "rank", "url", "caption").iter_rows()) == found
    assert mine["place"].to_list() == list(range(len(found)))
    assert mine["status"].to_list() == ["kept" if place < WANTED else "spare" for place in range(len(found))]
    assert mine["sha256"].null_count() == len(found)
    row = table(done, "retrieved").row(by_predicate=pl.col("identity") == name, named=True)
    assert (row["pictures"], row["retrieved"]) == (counts["pictures"], counts["retrieved"])
    assert (row["name_in_caption"], row["other_people"]) == (counts["named"], counts["other"])
    assert row["unique"] == len(found) == row["name_in_caption"] - row["duplicate_url"] - row["duplicate_caption"]
    assert row["kept"] == min(len(found), WANTED)


def test_what_the_people_are_for(done: Path) -> None:
    """The cases that the base was made for are in it."""
    rows = {row["identity"]: row for row in table(done, "retrieved").iter_rows(named=True)}
    assert (rows[IDA]["kept"], rows[IDA]["pictures"], rows[ZOE]["kept"]) == (0, 3, 3)
    assert rows[ANN]["other_people"] > 0
    assert rows[BOB]["duplicate_caption"] > 0
    assert rows[SMITH]["kept"] == WANTED
    assert rows[SMITH]["pictures"] < 3
    assert rows[ANN]["pictures"] == 2  # of three, one broken


def test_tables_and_counts(root: Path, done: Path) -> None:
    """Sorted, a row for everybody, as CSV too; the manifest tells what became of every row; no work is left."""
    candidates, retrieved = table(done, "candidates"), table(done, "retrieved")
    assert candidates.equals(candidates.sort("identity", "place"))
    assert retrieved["identity"].to_list() == sorted(NAMES)
    assert table(done, "retrievable").rows() == list(retrieved.select("identity", "kept").iter_rows())
    assert pl.read_csv(done / "retrieve/csv/retrieved.csv").equals(retrieved)
    manifest = read_manifest(as_path(str(done / "retrieve")))
    assert manifest is not None
    counts = manifest.counts
    assert (counts["rows_in"], counts["rows_kept"]) == (retrieved["retrieved"].sum(), retrieved["kept"].sum())
    reasons = ("no_name", "duplicate_url", "duplicate_caption", "other_people", "no_url", "spare")
    assert counts["rows_in"] - counts["rows_kept"] == sum(counts[reason] for reason in reasons)
    assert (counts["truncated"], counts["people_without_pairs"]) == (1, 1)
    assert 0 < counts["null_caption"] <= ROWS // 50
    assert {path.partition("/")[2].partition("/")[0] for path in contents(done)} == {
        *("candidates", "retrieved", "retrievable", "csv")
    }
    run(root, done)  # sealed: nothing to do, and nothing missing


def test_the_same_bytes_with_one_worker(root: Path, done: Path, tmp_path: Path) -> None:
    """As with as many as there are CPUs."""
    run(root, tmp_path, resources={"workers": 1, "cpus": 2})
    assert contents(tmp_path) == contents(done)


def test_however_work_is_cut(root: Path, done: Path, tmp_path: Path) -> None:
    """The same candidates of everybody; whichever folder of the index's is given."""
    run(root, tmp_path, {"index": f"{root}/made/index"}, shards_per_split=1, people_per_split=5)
    for name in ("candidates", "retrieved", "retrievable"):
        assert table(tmp_path, name).equals(table(done, name))


def test_a_service_gives_the_same_bytes(root: Path, done: Path, tmp_path: Path, service: KnnService) -> None:
    """One request for each picture that is needed and no more; four people at a time are found the same."""
    run(root, tmp_path / "one", **asked_of(service))
    assert contents(tmp_path / "one") == contents(done)
    assert len(service.asked) == table(done, "retrieved")["pictures"].sum()
    run(root, tmp_path / "four", **asked_of(service, connections=4))
    assert contents(tmp_path / "four") == contents(done)


def test_a_service_may_embed_pictures(root: Path, done: Path, tmp_path: Path, service: KnnService) -> None:
    """They are sent as they are, or upright; a broken one is not sent. No model is needed here."""
    manifest = run(root, tmp_path, by="picture", model=None, **asked_of(service))
    assert table(tmp_path, "candidates").equals(table(done, "candidates"))
    assert all("image" in question for question in service.asked)
    assert manifest.counts["truncated"] == 1


def test_texts_instead_of_pictures(root: Path, tmp_path: Path, service: KnnService) -> None:
    """Each text with the name in it is a question, to an index and to a service; pictures are not needed."""
    asked: dict[str, Any] = {"by": "text", "texts": ["{}", "a photo of {}"], "inputs": {"pictures": None}}
    run(root, tmp_path / "index", **asked)
    run(root, tmp_path / "service", **asked, **asked_of(service))
    assert contents(tmp_path / "index") == contents(tmp_path / "service")
    candidates = table(tmp_path / "index", "candidates")
    assert set(candidates.filter(pl.col("identity") == SMITH)["picture"]) <= {SMITH, f"a photo of {SMITH}"}
    assert {question["text"] for question in service.asked} >= {IDA, f"a photo of {IDA}"}


def test_a_service_that_stops_half_way(root: Path, done: Path, tmp_path: Path, service: KnnService) -> None:
    """The run ends with an error; the next one asks about nobody again who was done, and ends with the same bytes."""
    needed = table(done, "retrieved")["pictures"].sum()
    service.allowed = needed // 2
    with pytest.raises(InvalidInputError, match="the service refuses the request: status 400"):
        run(root, tmp_path, **asked_of(service))
    assert not (tmp_path / "retrieve/manifest.json").exists()
    service.allowed = 1 << 30
    run(root, tmp_path, **asked_of(service))
    assert contents(tmp_path) == contents(done)
    assert needed <= len(service.asked) < needed + 3  # the pictures of one person, at most, twice


def test_excluded_people_are_not_looked_for(root: Path, done: Path, tmp_path: Path) -> None:
    """Nor those who are not in the selection; they have a row, and their names still are theirs."""
    roles = {ANN: "member", SMITH: "excluded", ZOE: "non_member", IDA: "member"}
    selection = pl.DataFrame({"identity": list(roles), "role": list(roles.values())})
    selection.write_parquet(tmp_path / "selection.parquet")
    run(root, tmp_path, {"selection": str(tmp_path / "selection.parquet")})
    old, new = table(done, "retrieved"), table(tmp_path, "retrieved")
    searched = pl.col("identity").is_in([ANN, ZOE, IDA])
    assert new.filter(searched).equals(old.filter(searched))
    assert new.filter(~searched).select(pl.exclude("identity")).sum_horizontal().to_list() == [0, 0]


def test_more_are_kept_where_links_are_dead(root: Path, done: Path, tmp_path: Path) -> None:
    """Twice as many, in the same order, with as many pictures as that needs."""
    run(root, tmp_path, oversample=2.0)
    mine = pl.col("identity") == SMITH
    more, fewer = table(tmp_path, "candidates").filter(mine), table(done, "candidates").filter(mine)
    assert (more["status"] == "kept").sum() == min(2 * WANTED, more.height) > WANTED
    assert more["url"].to_list()[: fewer.height] == fewer["url"].to_list()


def test_the_paper_s_rule(root: Path, tmp_path: Path) -> None:
    """Under it a longer name counts for the shorter one, and spellings do not."""
    run(root, tmp_path, strict=False)
    rows = {row["identity"]: row for row in table(tmp_path, "retrieved").iter_rows(named=True)}
    assert rows[ANN]["other_people"] == rows[BOB]["kept"] == rows[ZOE]["kept"] == 0
    assert any("Ann Lee Smith" in text for text in table(tmp_path, "candidates").filter(identity=ANN)["caption"])


def test_the_preview(root: Path, service: KnnService) -> None:
    """How many people and questions there are, of whom they are asked, and how long a rate makes them take."""
    about = {name: f"{root}/people/{name}" for name in ("identities", "pictures")} | {"index": f"{root}/made/index"}

    def preview(names: tuple[str, ...], **fields: Any) -> Preview:
        patterns = {name: STAGE.inputs[name].patterns for name in names}
        inputs = {
            name: ResolvedInput(name, UPath(about[name]), tuple(find_files(about[name], patterns[name], "test")), "")
            for name in names
        }
        config = RetrieveConfig.model_validate({"model": "m", "wanted": 10, "oversample": 1.1} | fields)
        assert STAGE.preview
        return STAGE.preview(StageContext("retrieve", config, inputs, UPath(root)))

    (row,) = preview(("identities", "pictures", "index")).rows
    assert row == {"people": 5, "questions": 15, "neighbours": 999, "wanted": 11, "shards": 5}
    asked = asked_of(service, requests_per_second=0.01)
    found = preview(("identities",), by="text", texts=["{}", "a {}"], **asked)
    assert found.rows == [{"people": 5, "questions": 10, "neighbours": 999, "wanted": 11, "service": service.url}]
    assert found.notes[1] == "At 0.01 requests a second they take 0.3 hours."
    with pytest.raises(InvalidInputError, match="neither an index nor a service"):
        preview(("identities", "pictures"))


def test_settings_that_do_not_fit(root: Path, tmp_path: Path, service: KnnService) -> None:
    """Are said in a line before anything is embedded."""
    with pytest.raises(ConfigError, match="the model that the base was embedded with is not given"):
        run(root, tmp_path, model=None)
    with pytest.raises(ConfigError, match="by: picture is for a service"):
        run(root, tmp_path, by="picture")
    with pytest.raises(ConfigError, match="each once and with"):
        run(root, tmp_path, by="text", texts=["a photo"])
    with pytest.raises(InvalidInputError, match="an index and a service are given"):
        run(root, tmp_path, {"index": f"{root}/made/index/shards"}, **asked_of(service))
    with pytest.raises(InvalidInputError, match="neither an index nor a service is given"):
        run(root, tmp_path, {"index": None})
    with pytest.raises(InvalidInputError, match="by: embedding needs the input `pictures`"):
        run(root, tmp_path, {"pictures": None})
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_service_that_has_not_the_index(root: Path, tmp_path: Path, service: KnnService) -> None:
    """Is told by its name, before it is asked anything."""
    fields = asked_of(service) | {"service": {"url": service.url, "index_name": "bases"}}
    with pytest.raises(UsageError, match=r"has no index 'bases'.*Did you mean 'base'"):
        run(root, tmp_path, **fields)
    assert service.asked == []


def test_inputs_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    """No URLs in the metadata, an index of another model, two people of one name, a folder without an index."""
    people = pl.read_parquet(root / "people/identities/*.parquet")
    twice = pl.concat([people, people[:1].with_columns(identity=pl.lit("another"))])
    twice.write_parquet(tmp_path / "twice.parquet")
    with pytest.raises(DuplicateNameError, match=r"'Ann Lee' is given twice \(identity Ann Lee and identity another\)"):
        run(root, tmp_path, {"identities": str(tmp_path / "twice.parquet")})
    about = {"model": ["other"], "sha256": ["ab"]}
    pl.DataFrame(about).write_parquet(tmp_path / "about.parquet")
    with pytest.raises(InvalidInputError, match=r"embedded with other weights, those of 'other' \(stage retrieve"):
        run(root, tmp_path, {"embedded_by": str(tmp_path / "about.parquet")})
    with pytest.raises(MissingInputError, match="no file matches"):
        run(root, tmp_path, {"index": f"{root}/people"})
    shard = tmp_path / "shard"
    (shard / "metadata").mkdir(parents=True)
    (shard / "image.index").write_bytes((root / "made/index/shards/00000/image.index").read_bytes())
    pl.DataFrame({"image_path": ["a"], "caption": ["b"]}).write_parquet(shard / "metadata/0.parquet")
    with pytest.raises(InvalidInputError, match=r"no column 'URL' or 'url' .* It has: image_path, caption"):
        run(root, tmp_path, {"index": str(shard)})
