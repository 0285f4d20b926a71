"""`recogniser`: people are told apart by a trained classifier or a gallery, strangers are nobody, the bytes repeat."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from facenet_pytorch import InceptionResnetV1
from PIL import Image
from upath import UPath

from idia_core.config import Study
from idia_core.drawing import draw_face, encode_jpeg, invent_people
from idia_core.errors import ConfigError, InvalidInputError
from idia_core.identities import IDENTITIES, PICTURES
from idia_core.manifest import read_manifest
from idia_core.recognition import ANSWERS, Recognition, load_recogniser
from jobs.run import run_study
from tests.pipelines.audits import QUIET
from tests.tiny_models import write_model

pytestmark = pytest.mark.usefixtures("local_ray")

NAMES = ("Ann Lee", "Bob Ray", "Cleo Day", "Dan Fox", "Eve Orr", "Finn Oak")
STRANGERS = ("Gus Elm", "Hal Ash", "Ivy Bay")
EACH, SEED = 16, 4
RECIPE = {"backbone": "small", "side": 48, "epochs": 16, "batch_size": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people and strangers; one person has a broken picture, one has none, and one of the strangers is known."""
    folder = tmp_path_factory.mktemp("recogniser")
    people = invent_people(len(NAMES) + len(STRANGERS), SEED, "FMFMFMFMF")
    rows = [
        {"identity": name, "picture": f"{number:02}.jpg", "status": "ok", "image": drawn(person, place, number)}
        for place, (name, person) in enumerate(zip(NAMES + STRANGERS, people, strict=True))
        for number in range(EACH)
    ]
    rows += [{"identity": NAMES[0], "picture": "98.jpg", "status": "ok", "image": rows[0]["image"][:300]}]
    rows += [{"identity": NAMES[0], "picture": "99.jpg", "status": "missing", "image": None}]
    mine, others = [r for r in rows if r["identity"] in NAMES], [r for r in rows if r["identity"] in STRANGERS]
    write(folder / "pictures", [*mine, *others[:2]], PICTURES)
    write(folder / "strangers", [*others, mine[0]], PICTURES)
    identities = [{"identity": name, "name": name} for name in (*NAMES, "Ned Nil")]
    write(folder / "identities", identities, IDENTITIES)
    return folder


def drawn(person: Any, place: int, number: int) -> bytes:
    """A picture of a person."""
    return encode_jpeg(draw_face(person, [SEED, place, number]))


def write(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """A table of two files."""
    folder.mkdir(parents=True)
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        pq.write_table(pa.Table.from_pylist(part, schema), folder / f"part-{number}.parquet", row_group_size=20)


def run(root: Path, out: str, inputs: dict[str, str] | None = None, **fields: Any) -> Path:
    """Run the stage; the folder of its tables."""
    given = {name: str(root / name) for name in ("pictures", "identities", "strangers")} | (inputs or {})
    config = {"inputs": given, "held_out": 0.25, "people_per_split": 2} | fields
    run_study(Study(name="test", out=str(root / out), seed=3, stages={"recogniser": config}), QUIET)
    return root / out / "recogniser"


def table(folder: Path, name: str) -> pl.DataFrame:
    """A table that the stage wrote."""
    return pl.read_parquet(folder / name / "*.parquet")


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file of the tables."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def classifier(root: Path) -> Path:
    """A small classifier of the drawn people."""
    return run(root, "classifier", recipe=RECIPE)


def test_a_classifier_names_four_times_as_many_as_chance(classifier: Path) -> None:
    """Of the pictures of each person that it was not taught; no stranger is named; what is refused is told."""
    (told,) = table(classifier, "calibration").to_dicts()
    assert (told["people"], told["held_out"], told["strangers"]) == (len(NAMES), 4 * len(NAMES), EACH * len(STRANGERS))
    assert told["accuracy"] >= 4 * told["chance"]
    assert told["stranger_rate"] <= 0.01
    accuracy = table(classifier, "accuracy")
    assert accuracy["identity"].to_list() == [*NAMES, "Ned Nil"]
    assert accuracy["training_pictures"].to_list() == [EACH - 4] * len(NAMES) + [0]
    assert accuracy["right"].sum() == round(told["accuracy"] * told["held_out"])
    answers = table(classifier, "answers").filter(pl.col("role") == "test")
    wrong = answers.filter(pl.col("answer") != pl.col("identity"))
    assert table(classifier, "confusions")["pictures"].sum() == wrong.height
    losses = table(classifier, "losses")
    assert losses["epoch"].to_list() == list(range(1, RECIPE["epochs"] + 1))
    assert losses["loss"][-1] < losses["loss"][0] / 2


def test_every_picture_is_counted(classifier: Path) -> None:
    """Broken and missing ones, those of people who are not asked for, and strangers who are known."""
    manifest = read_manifest(UPath(classifier))
    assert manifest is not None
    shown = EACH * len(NAMES + STRANGERS)
    dropped = {"truncated": 1, "missing": 1, "unknown_identity": 2, "known_person": 1}
    assert manifest.counts == {"rows_in": shown + 5, "rows_kept": shown} | dropped
    weights = hashlib.sha256((classifier / "recogniser/weights.pt").read_bytes()).hexdigest()
    assert manifest.facts == {"weights_sha256": (weights,)}
    assert not (classifier / "_work").exists()


def recognised(folder: Path) -> tuple[list[Recognition], list[tuple[str | None, float]]]:
    """What the loaded recogniser answers to the held-out and the strangers' crops, and what the stage's tables say."""
    recogniser = load_recogniser(UPath(folder / "recogniser"))
    rows = table(folder, "crops").join(table(folder, "answers"), on=["identity", "picture", "role"])
    rows = rows.filter(pl.col("role") != "train")
    crops = [Image.open(io.BytesIO(image)) for image in rows["image"]]
    threshold = table(folder, "calibration")["threshold"][0]
    expected = rows.select(pl.when(pl.col("score") >= threshold).then("answer").alias("answer"), pl.col("score")).rows()
    return recogniser.recognise(crops), expected


def test_the_folder_is_all_that_is_needed(classifier: Path) -> None:
    """Its answers to the stage's own crops are those of the stage's tables."""
    found, expected = recognised(classifier)
    assert found == expected
    assert {identity for identity, _ in expected} > {None}  # some are named, and others not


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_workers(root: Path, classifier: Path) -> None:
    """One worker, two or more: the same files, the classifier's weights among them."""
    again = run(root, "again", recipe=RECIPE, resources={"workers": 1, "cpus": 2})
    assert contents(again) == contents(classifier)
    assert len(contents(again)) > 8


@pytest.mark.parametrize("keep", ["mean", pytest.param("all", marks=pytest.mark.slow)])
def test_a_gallery_of_the_classifiers_embeddings(root: Path, classifier: Path, keep: str) -> None:
    """They were taught these people, so the nearest is mostly the right one, and the folder stands alone."""
    gallery = {"embedder": "classifier", "keep": keep, "relative": keep == "all"}
    inputs = {"classifier": str(classifier / "recogniser")}
    folder = run(root, f"gallery-{keep}", inputs, kind="gallery", gallery=gallery, false_match_rate=0.05)
    (told,) = table(folder, "calibration").to_dicts()
    assert told["accuracy"] >= 4 * told["chance"]
    assert told["stranger_rate"] <= 0.05
    assert 0 < told["accept_rate"] <= told["accuracy"]
    kept = pq.read_table(folder / "recogniser/gallery.parquet")
    assert len(kept) == (len(NAMES) if keep == "mean" else (EACH - 4) * len(NAMES))
    others = table(folder, "answers").filter(pl.col("role") != "stranger")["other_score"]
    assert (others >= told["threshold"]).sum() <= 0.05 * len(others)
    found, expected = recognised(folder)
    assert found == expected
    assert {identity for identity, _ in expected} > {None}


def test_facenet_runs_through_a_gallery(root: Path) -> None:
    """With random weights, which know nobody; the file is copied."""
    torch.manual_seed(0)
    torch.save(InceptionResnetV1().state_dict(), root / "facenet.pt")
    pictures = pq.read_table(root / "pictures").filter(
        pa.compute.less(pq.read_table(root / "pictures")["picture"], "02")
    )
    write(root / "few", pictures.to_pylist(), PICTURES)
    gallery = {"embedder": "facenet", "weights": str(root / "facenet.pt")}
    inputs = {name: str(root / "few") for name in ("pictures", "strangers")}
    folder = run(root, "facenet", inputs, kind="gallery", gallery=gallery, threshold=0.0, people_per_split=9)
    assert (folder / "recogniser/weights.pt").read_bytes() == (root / "facenet.pt").read_bytes()
    assert table(folder, "answers").filter(pl.col("role") == "test").height == len(NAMES)
    recogniser = load_recogniser(UPath(folder / "recogniser"))
    assert recogniser.side == 160
    assert recogniser.recognise([Image.new("RGB", (50, 50))])[0].identity in NAMES  # the threshold was set to 0


def test_clip_runs_through_a_gallery(root: Path) -> None:
    """Its weights stay where they are."""
    checkpoint = write_model(root / "clip.pt")
    gallery = {"embedder": "clip", "model": f"idia-rn-tiny:{checkpoint}"}
    folder = run(root, "clip", kind="gallery", gallery=gallery, false_match_rate=0.5)
    assert sorted(path.name for path in (folder / "recogniser").iterdir()) == ["gallery.parquet", "recogniser.json"]
    found, expected = recognised(folder)
    assert found == expected
    assert {identity for identity, _ in expected} > {None}


def test_faces_are_cut_out_by_a_detector(root: Path) -> None:
    """The largest of each picture, as faces will be cut out later; a picture without one is counted."""
    checkpoint = write_model(root / "clip.pt")
    gallery = {"embedder": "clip", "model": f"idia-rn-tiny:{checkpoint}"}
    folder = run(root, "detector", kind="gallery", gallery=gallery, detector={"kind": "haar", "min_face": 24})
    crops = table(folder, "crops")
    found, whole = crops.filter(pl.col("status") == "ok"), table(root / "clip/recogniser", "crops")
    assert found.height > 0.6 * crops.height
    assert set(crops["status"]) <= {"ok", "no_face", "truncated", "missing"}
    both = found.join(whole, on=["identity", "picture"])
    assert (both["image"] != both["image_right"]).mean() > 0.9


def test_wrong_settings_are_told(root: Path) -> None:
    """An embedder without its input, and people with too few pictures."""
    with pytest.raises(ConfigError, match="takes the input `classifier`"):
        run(root, "wrong0", kind="gallery", gallery={"embedder": "classifier"})
    with pytest.raises(ConfigError, match="takes the settings of a gallery"):
        run(root, "wrong1", kind="gallery")
    write(root / "one", [{"identity": "Ann Lee", "name": "Ann Lee"}] * 2, IDENTITIES)
    with pytest.raises(InvalidInputError, match="1 people have a picture to learn from"):
        run(root, "wrong2", {"identities": str(root / "one")})


@pytest.mark.slow
@pytest.mark.skipif("IDIA_FACES" not in os.environ, reason="IDIA_FACES names no folder of six people's faces")
def test_real_faces_are_told_apart(root: Path) -> None:
    """Trained on 30 pictures a person, it names four times as many of the other 10 rightly as chance would."""
    recipe = {"backbone": "small", "epochs": 60, "batch_size": 16}
    fields = {"held_out": 0.25, "recipe": recipe}
    people = {"inputs": {"people": os.environ["IDIA_FACES"]}}
    inputs = {"pictures": "people.pictures", "identities": "people.identities"}
    stages = {"people": people, "recogniser": {"inputs": inputs} | fields}
    run_study(Study(name="test", out=str(root / "real"), stages=stages), QUIET)
    (told,) = table(root / "real/recogniser", "calibration").to_dicts()
    assert (told["people"], told["held_out"]) == (6, 60)
    assert told["accuracy"] >= 4 * told["chance"]
    assert ANSWERS.names == table(root / "real/recogniser", "answers").columns
