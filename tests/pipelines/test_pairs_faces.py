"""`pairs` with a recogniser: a picture must show the person, as detector and recogniser alone see it."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idia_core.config import Study
from idia_core.drawing import draw_background, draw_face, encode_jpeg, invent_people
from idia_core.errors import InvalidInputError
from idia_core.face_crops import crop_face
from idia_core.face_detection import DetectorConfig, make_detector
from idia_core.identities import IDENTITIES, PICTURES
from idia_core.images import decode_picture
from idia_core.recognition import load_recogniser
from idia_core.storage import as_path
from jobs.run import run_study
from tests.pipelines.audits import QUIET
from tests.pipelines.pair_inputs import (
    ANN,
    BOB,
    EVERYBODY,
    IDA,
    ZOE,
    reasons,
    run,
    table,
    write_candidates,
    write_download,
)
from tests.pipelines.shard_inputs import contents

pytestmark = pytest.mark.usefixtures("local_ray")

SEED, TAUGHT, SHOWN = 4, 16, 6
KNOWN = (ANN, BOB, ZOE)
HAAR = {"kind": "haar"}
RECIPE = {"backbone": "small", "side": 48, "epochs": 16, "batch_size": 8}
DRAWN = dict(zip(EVERYBODY, invent_people(len(EVERYBODY), SEED, "FMFF"), strict=True))


def shot(identity: str, number: int) -> bytes:
    """A picture of a person."""
    return encode_jpeg(draw_face(DRAWN[identity], [SEED, EVERYBODY.index(identity), number]))


def train(root: Path) -> None:
    """A recogniser of three people, at `root`/known."""
    rows = [
        {"identity": who, "picture": f"{i:02}.jpg", "status": "ok", "image": shot(who, i)}
        for who in KNOWN
        for i in range(TAUGHT)
    ]
    (root / "known").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, PICTURES), root / "known/pictures.parquet")
    people = [{"identity": who, "name": who} for who in KNOWN]
    pq.write_table(pa.Table.from_pylist(people, IDENTITIES), root / "known/identities.parquet")
    inputs = {name: f"{root}/known/{name}.parquet" for name in ("pictures", "identities")}
    config: dict[str, Any] = {"inputs": inputs, "held_out": 0.25, "recipe": RECIPE, "detector": HAAR}
    run_study(Study(name="test", out=str(root / "known"), seed=3, stages={"recogniser": config}), QUIET)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - must be up first
    """Candidates of two people: pictures of their own, of each other, of a third, and of nobody."""
    root = tmp_path_factory.mktemp("pairs")
    served = {f"http://x/{who}/{i}": shot(who, 100 + i) for who in (BOB, IDA, ZOE) for i in range(SHOWN)}
    served |= {f"http://x/scene/{i}": encode_jpeg(draw_background([SEED, i])[0]) for i in range(2)}
    write_download(root, served)
    write_candidates(root, {BOB: [*served], ZOE: [url for url in served if f"/{BOB}/" not in url]})
    train(root)
    return root


def verified(root: Path, out: str, **fields: Any) -> None:
    """Run the stage with the recogniser."""
    inputs = {"recogniser": f"{root}/known/recogniser/recogniser"} | fields.pop("inputs", {})
    run(root, out, inputs=inputs, detector=HAAR, **fields)


def seen_alone(root: Path) -> dict[tuple[str, str], str]:
    """Why each candidate is no pair by its faces, nothing for pairs: each picture by itself, without the stage."""
    detector = make_detector(DetectorConfig(kind="haar"))
    judge = load_recogniser(as_path(f"{root}/known/recogniser/recogniser"))
    found = {}
    for identity, url in (
        pl.read_parquet(root / "candidates/*.parquet").filter(pl.col("status") == "kept")[["identity", "url"]].rows()
    ):
        _, _, _, kind, number = url.split("/")
        content = (
            encode_jpeg(draw_background([SEED, int(number)])[0]) if kind == "scene" else shot(kind, 100 + int(number))
        )
        picture, _ = decode_picture(content)
        assert picture is not None
        crops = [crop_face(picture, face.box, judge.margin, judge.side) for face in detector.detect([picture])[0]]
        named = {one.identity for one in judge.recognise(crops)}
        found[identity, url] = "" if identity in named else "other_face" if crops else "no_face"
    return found


def test_pairs_show_the_person(root: Path) -> None:
    """Each verdict is that of detector and recogniser alone, of all three kinds; the funnel counts them."""
    verified(root, "out")
    expected, found = seen_alone(root), reasons(root)
    assert {key: reason for key, (reason, _) in found.items()} == {key: why for key, why in expected.items() if why}
    assert set(expected.values()) == {"", "other_face", "no_face"}
    own = [why for (who, url), why in expected.items() if f"/{who}/" in url]
    assert own.count("") > len(own) / 2
    assert all(expected[BOB, f"http://x/{ZOE}/{i}"] for i in range(SHOWN))
    pairs = table(root, "pairs")
    assert pairs.height == len(expected) - len(found)
    for row in table(root, "funnel").iter_rows(named=True):
        mine = pairs.filter(pl.col("identity") == row["identity"]).height
        assert (row["face_verified"], row["achieved_k"]) == (mine, mine)
        assert row["not_attack_pictures"] == row["kept"]


def test_the_bytes_depend_on_neither_workers_nor_batches_nor_blocks(root: Path) -> None:
    """Nor does whose face it is."""
    verified(root, "out")
    verified(root, "one", resources={"workers": 1})
    assert contents(root / "one/pairs") == contents(root / "out/pairs")
    verified(root, "other", people_per_split=1, detected_at_a_time=3, resources={"cpus": 2})
    for name in ("pairs", "rejected", "funnel"):
        assert table(root, name, "other").equals(table(root, name))


def test_a_recogniser_must_know_the_people(root: Path, tmp_path: Path) -> None:
    """Somebody whom it cannot name could have no pair; who has no candidate need not be known."""
    write_candidates(tmp_path, {IDA: [f"http://x/{IDA}/0"]})
    inputs = {name: f"{tmp_path}/{name}" for name in ("candidates", "retrieved")}
    with pytest.raises(InvalidInputError, match=f"it does not know 1 of the people, first '{IDA}'"):
        verified(root, "bad", inputs=inputs, resources={"workers": 1})
