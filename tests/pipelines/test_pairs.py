"""`pairs`: which downloaded candidates become pairs, whose, and why the others do not."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from idia_core.config import Study
from idia_core.errors import ConfigError, InvalidInputError
from idia_core.fetch_status import FetchStatus
from idia_core.identities import PAIRS
from idia_core.pair_funnel import FUNNEL, REJECTED
from jobs.run import run_study
from tests.picture_server import TRUTHS, served
from tests.pipelines.audits import QUIET
from tests.pipelines.pair_inputs import (
    ANN,
    BOB,
    IDA,
    ZOE,
    reasons,
    run,
    table,
    write_candidates,
    write_download,
    write_pictures,
    write_selection,
)
from tests.pipelines.shard_inputs import contents, pairs_of, picture

pytestmark = pytest.mark.usefixtures("local_ray")


def mirrored(content: bytes) -> bytes:
    """The picture the other way round."""
    stream = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(content))).save(stream, "JPEG")
    return stream.getvalue()


SERVED: Mapping[str, bytes | FetchStatus] = {
    "http://x/bob0": picture("bob0"),
    "http://x/bob1": picture("bob1"),
    "http://x/gone": FetchStatus.HTTP_ERROR,
    "http://x/bob2": picture("bob2"),
    "http://x/shared": picture("shared"),
    "http://x/zoe0": picture("zoe0", size=64),
    "http://x/smaller": picture("zoe0", size=40),
    "http://x/worse": picture("zoe0", size=64, quality=40),
    "http://x/mirrored": mirrored(picture("zoe0", size=64)),
    "http://x/same": picture("zoe0", size=64),
    "http://x/broken": b"\xff\xd8\xff no picture",
    "http://x/cut": picture("zoe1", size=256)[:-200],
    "http://x/attack": picture("attack", size=48),
    "http://x/slow": FetchStatus.TIMEOUT,
    "http://x/zoe2": picture("zoe2"),
}
KEPT = {
    BOB: ["http://x/bob0", "http://x/bob1", "http://x/gone", "http://x/bob2"],
    IDA: ["http://x/shared", "http://x/zoe0"],
    ZOE: [url for url in SERVED if "bob" not in url and "gone" not in url],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - must be up first
    """Three people with candidates, of all kinds, and one without; four URLs a tar; one run of the stage."""
    root = tmp_path_factory.mktemp("pairs")
    write_download(root, SERVED)
    write_candidates(root, KEPT)
    write_pictures(root, [(ANN, picture("attack", size=64)), (BOB, picture("other attack"))])
    run(root, inputs={"pictures": f"{root}/pictures"}, people_per_split=2)
    return root


def test_each_pair_is_the_persons_own(root: Path) -> None:
    """Its bytes as they lie in the tar, its caption the person's, also where one URL serves two people."""
    pairs = table(root, "pairs")
    assert pq.read_schema(next((root / "out/pairs/pairs").iterdir())).equals(PAIRS)
    assert pairs["key"].is_unique().all()
    found = {(row["identity"], row["caption"]): row["image"] for row in pairs.iter_rows(named=True)}
    kept = {BOB: ("bob0", "bob1", "bob2"), IDA: ("shared", "zoe0"), ZOE: ("shared", "zoe0", "zoe2")}
    assert found == {
        (who, f"{who} at http://x/{name}"): SERVED[f"http://x/{name}"] for who, names in kept.items() for name in names
    }
    shared = pairs.filter(pl.col("caption").str.ends_with("/shared"))
    assert shared["key"].to_list() == ["000000004-000002", "000000004-000003"]


def test_every_other_candidate_has_its_reason(root: Path) -> None:
    """Once; the ledger's status, what it repeats, or which attack picture it shows."""
    assert pq.read_schema(next((root / "out/pairs/rejected").iterdir())).equals(REJECTED)
    found = reasons(root)
    assert {key: reason for key, (reason, _) in found.items()} == {
        (BOB, "http://x/gone"): "http_error",
        (ZOE, "http://x/smaller"): "near_duplicate",
        (ZOE, "http://x/worse"): "near_duplicate",
        (ZOE, "http://x/mirrored"): "near_duplicate",
        (ZOE, "http://x/same"): "identical_file",
        (ZOE, "http://x/broken"): "unreadable",
        (ZOE, "http://x/cut"): "unreadable",
        (ZOE, "http://x/attack"): "attack_picture",
        (ZOE, "http://x/slow"): "timeout",
    }
    assert found[BOB, "http://x/gone"][1] == "404 Not Found"
    assert found[ZOE, "http://x/mirrored"][1].startswith("of place 1, ")
    assert found[ZOE, "http://x/same"][1] == "of place 1"
    assert found[ZOE, "http://x/cut"][1] == "truncated"
    assert found[ZOE, "http://x/attack"][1].startswith(f"{ANN}/0.jpg, near_duplicate, ")
    places = table(root, "rejected").select("identity", "place")
    assert places.rows() == sorted(places.rows())


def test_the_funnel_says_what_is_left_at_each_step(root: Path) -> None:
    """A row for everybody, nobody's pairs included; each number is at most the one before."""
    funnel = table(root, "funnel")
    assert pq.read_schema(next((root / "out/pairs/funnel").iterdir())).equals(FUNNEL)
    assert funnel.rows() == [
        (ANN, 0, 1, 0, 0, 0, 0, 0, None, 0),
        (BOB, 60, 7, 6, 4, 3, 3, 3, None, 3),
        (IDA, 40, 5, 4, 2, 2, 2, 2, None, 2),
        (ZOE, 130, 14, 13, 11, 10, 4, 3, None, 3),
    ]
    assert pl.read_csv(root / "out/pairs/csv/funnel.csv").rows() == funnel.rows()


def test_what_is_dropped_is_counted(root: Path) -> None:
    """By reason; rows in are rows kept and rows dropped; the seal knows the fewest pairs of anybody."""
    seal = run(root, inputs={"pictures": f"{root}/pictures"}, people_per_split=2)
    dropped = {"http_error": 1, "timeout": 1, "near_duplicate": 3, "identical_file": 1, "unreadable": 2}
    expected = dropped | {"attack_picture": 1, "rows_in": 17, "rows_kept": 8, "people_without_pairs": 1}
    assert {name: count for name, count in seal.counts.items() if count} == expected
    assert seal.facts["lowest_achieved_k"] == ("0",)
    assert not (root / "out/pairs/_work").exists()


def test_the_bytes_depend_on_neither_workers_nor_blocks(root: Path) -> None:
    """The files are the same for one worker and two; for other blocks of people the rows are."""
    inputs = {"pictures": f"{root}/pictures"}
    run(root, "one", inputs=inputs, people_per_split=2, resources={"workers": 1})
    assert contents(root / "one/pairs") == contents(root / "out/pairs")
    run(root, "whole", inputs=inputs, people_per_split=100)
    for name in ("pairs", "rejected", "funnel"):
        assert table(root, name, "whole").equals(table(root, name))


def test_with_a_selection_only_members_have_pairs(root: Path) -> None:
    """Candidates of others are counted, and need not have been downloaded."""
    roles = {ANN: "excluded", BOB: "member", IDA: "member", ZOE: "non_member"}
    selection = write_selection(root, roles)
    write_download(root / "members", {url: SERVED[url] for url in (*KEPT[BOB], *KEPT[IDA])})
    places = {name: f"{root}/members/{name}" for name in ("ledger", "tars")}
    seal = run(root, "selected", inputs={"selection": selection} | places)
    assert table(root, "funnel", "selected")["identity"].to_list() == [BOB, IDA]
    assert set(table(root, "pairs", "selected")["identity"]) == {BOB, IDA}
    assert reasons(root, "selected").keys() == {(BOB, "http://x/gone")}
    assert (seal.counts["not_selected"], seal.counts["rows_in"], seal.counts["rows_kept"]) == (11, 17, 5)
    assert seal.facts["lowest_achieved_k"] == ("2",)


def test_without_attack_pictures_none_are_looked_for(root: Path) -> None:
    """The picture that is one of them is a pair, and with a distance of 0 so are near-duplicates."""
    run(root, "loose", max_hash_distance=0)
    assert table(root, "funnel", "loose").filter(pl.col("identity") == ZOE)["not_attack_pictures"].item() > 4
    assert (ZOE, "http://x/attack") not in reasons(root, "loose")
    assert reasons(root, "loose")[ZOE, "http://x/same"][0] == "identical_file"


def test_a_download_of_other_candidates_is_refused(root: Path, tmp_path: Path) -> None:
    """A URL that the ledger does not have, a tar of another part, other counts, and people who are not there."""
    few = dict(list(SERVED.items())[:-1])
    write_download(tmp_path / "few", few)
    one = {"resources": {"workers": 1}}
    place = {name: f"{tmp_path}/few/{name}" for name in ("ledger", "tars")}
    with pytest.raises(InvalidInputError, match="1 of 17 candidates have URLs that are not in it, first http://x/zoe2"):
        run(root, "bad", inputs=place, **one)
    with pytest.raises(InvalidInputError, match="pictures are in the ledger or in the tar and not in both"):
        run(root, "bad", inputs={"ledger": place["ledger"]}, **one)
    (tmp_path / "few/tars/part-00002.tar").unlink()
    with pytest.raises(InvalidInputError, match=r"there is no tar 'part-00002\.tar'"):
        run(root, "bad", inputs=place, **one)
    write_candidates(tmp_path / "other", {BOB: KEPT[BOB][:2]})
    with pytest.raises(InvalidInputError, match=f"'{BOB}' has 4 candidates, and 2 by `retrieved`"):
        run(root, "bad", inputs={"retrieved": f"{tmp_path}/other/retrieved"}, **one)
    people = tmp_path / "one.parquet"
    pl.read_parquet(root / "identities/*.parquet").filter(pl.col("identity") != BOB).write_parquet(people)
    with pytest.raises(InvalidInputError, match=f"1 people who were retrieved are not in it, first '{BOB}'"):
        run(root, "bad", inputs={"identities": str(people)}, **one)


def test_an_edited_list_needs_no_counts(root: Path, tmp_path: Path) -> None:
    """A TSV of one person's candidates gives that person's pairs, and a funnel that begins with what is in it."""
    listed = pl.read_parquet(root / "candidates/*.parquet").filter(identity=BOB, status="kept")
    own = listed.select("identity", "url", "caption")
    own.write_csv(tmp_path / "own.tsv", separator="\t", quote_style="never")
    run(root, "own", inputs={"candidates": str(tmp_path / "own.tsv"), "retrieved": None})
    mine = table(root, "pairs").filter(pl.col("identity") == BOB)
    assert mine.height
    assert table(root, "pairs", "own").equals(mine)
    (row,) = table(root, "funnel", "own").to_dicts()
    assert [row[step] for step in ("retrieved", "name_in_caption", "unique", "kept")] == [len(KEPT[BOB])] * 4
    assert row["achieved_k"] == mine.height


def test_a_tar_that_was_cut_is_refused(root: Path, tmp_path: Path) -> None:
    """As it lacks pictures that the ledger has."""
    write_download(tmp_path, SERVED)
    tar = tmp_path / "tars/part-00001.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(InvalidInputError, match="cut short at byte 3000"):
        run(root, "bad", inputs={"tars": f"{tmp_path}/tars"}, resources={"workers": 1})


def test_nobody_with_candidates_is_an_error(root: Path, tmp_path: Path) -> None:
    """An input that matches nothing is no empty success."""
    write_candidates(tmp_path, {})
    places = {name: f"{tmp_path}/{name}" for name in ("candidates", "retrieved")}
    with pytest.raises(InvalidInputError, match="nobody has a candidate that is 'kept'"):
        run(root, "bad", inputs=places, resources={"workers": 1})
    selection = write_selection(tmp_path, {BOB: "excluded"})
    with pytest.raises(InvalidInputError, match="nobody has a candidate that is 'kept'"):
        run(root, "bad", inputs={"selection": selection}, resources={"workers": 1})


def test_settings_of_faces_need_a_recogniser(root: Path) -> None:
    """They would be of no effect."""
    with pytest.raises(ConfigError, match="detector is for the input `recogniser`"):
        run(root, "bad", detector={"kind": "haar"})


def test_the_funnel_is_what_a_server_did(tmp_path: Path) -> None:
    """To the row, once `download` has asked a server that misbehaves; the pairs are the pictures in its tars."""
    with served() as server:
        kinds = ["good", "not_found", "page", "moved", "cut", "nothing"]
        urls = [server.url(kind, number) for number, kind in enumerate(kinds * 2)]
        again = server.url("double", 0)  # shows what the first one shows
        write_candidates(tmp_path, {BOB: [*urls, again], ZOE: urls[::3]})
        inputs = {name: f"{tmp_path}/{name}" for name in ("candidates", "retrieved", "identities")}
        download = {
            "inputs": {"candidates": inputs["candidates"]},
            "allow_private_addresses": [server.place],
            "urls_per_split": 5,
        }
        pairs = {"inputs": inputs | {"ledger": "download.ledger", "tars": "download.tars"}}
        study = Study(name="test", out=str(tmp_path / "out"), stages={"download": download, "pairs": pairs})
        run_study(study, QUIET)
    statuses = {url: str(TRUTHS[url.split("/")[3]][0]) for url in urls}
    found = {key: reason for key, (reason, _) in reasons(tmp_path).items()}
    expected = {(who, url): statuses[url] for who, mine in ((BOB, urls), (ZOE, urls[::3])) for url in mine}
    lost = {key: status for key, status in expected.items() if status != "ok"}
    assert found == lost | {(BOB, again): "identical_file"}
    left = {row["identity"]: (row["kept"], row["downloaded"], row["achieved_k"]) for row in rows_of(tmp_path)}
    assert left == {ANN: (0, 0, 0), BOB: (13, 5, 4), IDA: (0, 0, 0), ZOE: (4, 4, 4)}
    packed = {content for path in (tmp_path / "out/download/tars").iterdir() for content, _ in pairs_of(path).values()}
    assert set(table(tmp_path, "pairs")["image"]) == packed


def rows_of(root: Path) -> list[dict[str, Any]]:
    """The funnel, row by row."""
    return table(root, "funnel").rows(named=True)
