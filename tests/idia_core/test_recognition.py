"""What a recogniser answers, how its threshold is set and its answers are counted, and folders that are refused."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from upath import UPath

from idia_core.classifier import build_network
from idia_core.errors import IdiaError, InvalidInputError, MissingInputError
from idia_core.recognition import (
    ANSWERS,
    PeopleRecogniser,
    RecogniserRecord,
    Recognition,
    accuracy_of,
    answers_of,
    calibrated,
    calibration_of,
    confusions_of,
    load_recogniser,
    threshold_for,
)
from idia_core.storage import sha256_of

PEOPLE = ("Ann Lee", "Bob Ray", "Cleo Day")


def record(threshold: float = 0.5, **fields: object) -> RecogniserRecord:
    """Of a small classifier."""
    told = {"kind": "classifier", "network": "small", "identities": PEOPLE, "side": 64, "margin": 0.1}
    return RecogniserRecord.model_validate({**told, "threshold": threshold, **fields})


def answers(*rows: tuple[str, str, str, float, float]) -> pl.DataFrame:
    """Rows of (identity, role, answer, score, other score)."""
    columns = zip(*rows, strict=True)
    identity, role, answer, score, other = map(list, columns)
    names = [f"{number}.jpg" for number in range(len(rows))]
    told = dict(zip(ANSWERS.names, (identity, names, role, answer, score, other), strict=True))
    return pl.DataFrame(told)


def test_nobody_is_named_below_the_threshold() -> None:
    """The highest score decides; one that only reaches the threshold is enough; the score is told either way."""

    class Fixed:
        def scores(self, crops: list[Image.Image]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return np.array([[0.1, 0.75, 0.15], [0.5, 0.25, 0.25], [0.25, 0.25, 0.4375]], np.float32)[: len(crops)]

    found = PeopleRecogniser(record(), Fixed()).recognise([Image.new("RGB", (4, 4))] * 3)
    assert found == [Recognition("Bob Ray", 0.75), Recognition("Ann Lee", 0.5), Recognition(None, 0.4375)]


def test_the_threshold_lets_no_more_than_the_rate_through() -> None:
    """It is the lowest that does: just above the highest score that must not be named; equal scores go together."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert threshold_for(scores, 0) == math.nextafter(0.9, 1)
    assert threshold_for(scores, 0.2) == math.nextafter(0.8, 1)
    assert threshold_for(scores, 0.39) == math.nextafter(0.8, 1)
    assert threshold_for(scores, 0.6) == math.nextafter(0.6, 1)  # 0.6 * 5 is a little less than 3 to a computer
    assert threshold_for(np.array([0.9, 0.9, 0.1, 0.1]), 0.25) == math.nextafter(0.9, 1)
    assert threshold_for(scores, 1) == threshold_for(np.array([]), 0) == -math.inf
    rng = np.random.default_rng(0)
    many = rng.random(1000)
    assert (many >= threshold_for(many, 0.01)).sum() == 10


def test_a_classifiers_threshold_is_above_wrong_answers_and_strangers() -> None:
    """Right answers set none; the stricter of the two counts; training pictures are not looked at."""
    mine = (
        ("Ann Lee", "test", "Ann Lee", 0.99, 0.01),
        ("Ann Lee", "test", "Bob Ray", 0.7, 0.7),
        ("Bob Ray", "test", "Bob Ray", 0.6, 0.3),
        ("Bob Ray", "train", "Ann Lee", 0.98, 0.98),
    )
    assert calibrated(answers(*mine), "classifier", 0) == math.nextafter(0.7, 1)
    assert calibrated(answers(*mine), "classifier", 0.34) == 0
    strangers = [("Zoë Ball", "stranger", "Ann Lee", score, score) for score in (0.9, 0.8)]
    assert calibrated(answers(*mine, *strangers), "classifier", 0) == math.nextafter(0.9, 1)
    assert calibrated(answers(*mine, *strangers), "classifier", 0.5) == math.nextafter(0.8, 1)
    assert calibrated(answers(*mine, *[(*s[:3], 0.2, 0.2) for s in strangers]), "classifier", 0) == math.nextafter(
        0.7, 1
    )


def test_a_gallerys_threshold_is_above_the_nearest_others() -> None:
    """Each picture is asked about as if its person were not in the gallery, those that were enrolled too."""
    mine = (
        ("Ann Lee", "train", "Ann Lee", 0.99, 0.3),
        ("Ann Lee", "test", "Ann Lee", 0.9, 0.4),
        ("Bob Ray", "test", "Bob Ray", 0.8, -0.2),
    )
    assert calibrated(answers(*mine), "gallery", 0) == math.nextafter(0.4, 1)
    assert calibrated(answers(*mine), "gallery", 0.34) == math.nextafter(0.3, 1)
    assert calibrated(answers(*mine), "gallery", 1) == -1


def test_answers_tell_the_best_and_the_best_of_the_others() -> None:
    """For a stranger all are others."""
    scores = np.array([[0.5, 0.25, 0.125], [0.5, 0.25, 0.125], [0.5, 0.25, 0.125]], np.float32)
    owners = [("Ann Lee", "1", "test"), ("Bob Ray", "2", "test"), ("Zoë Ball", "3", "stranger")]
    rows = answers_of(scores, PEOPLE, owners).to_pylist()
    assert [row["answer"] for row in rows] == ["Ann Lee"] * 3
    assert [(row["score"], row["other_score"]) for row in rows] == [(0.5, 0.25), (0.5, 0.5), (0.5, 0.5)]


def test_answers_are_counted() -> None:
    """Per person and over all; who has no picture has no accuracy; the worst pair comes first."""
    found = answers(
        ("Ann Lee", "test", "Ann Lee", 0.9, 0.1),
        ("Ann Lee", "test", "Bob Ray", 0.8, 0.8),
        ("Ann Lee", "test", "Bob Ray", 0.3, 0.3),
        ("Bob Ray", "test", "Bob Ray", 0.4, 0.1),
        ("Bob Ray", "test", "Ann Lee", 0.9, 0.9),
        ("Bob Ray", "train", "Ann Lee", 0.9, 0.9),
        ("Zoë Ball", "stranger", "Ann Lee", 0.5, 0.5),
        ("Zoë Ball", "stranger", "Ann Lee", 0.4, 0.4),
    )
    accuracy = accuracy_of(found, 0.5, {"Ann Lee": 30, "Bob Ray": 20, "Cleo Day": 0})
    assert [tuple(row.values()) for row in accuracy.to_pylist()] == [
        ("Ann Lee", 30, 3, 1, pytest.approx(1 / 3), 1, 1),
        ("Bob Ray", 20, 2, 1, 0.5, 0, 1),
        ("Cleo Day", 0, 0, 0, None, 0, 0),
    ]
    assert confusions_of(found, 9).to_pylist() == [
        {"identity": "Ann Lee", "taken_for": "Bob Ray", "pictures": 2, "share": pytest.approx(2 / 3)},
        {"identity": "Bob Ray", "taken_for": "Ann Lee", "pictures": 1, "share": 0.5},
    ]
    assert len(confusions_of(found, 1)) == 1
    (row,) = calibration_of(record(), found, accuracy, 0.01).to_pylist()
    told = {name: row[name] for name in ("held_out", "accuracy", "accept_rate", "misname_rate", "strangers")}
    assert told == {"held_out": 5, "accuracy": 0.4, "accept_rate": 0.2, "misname_rate": 0.4, "strangers": 2}
    assert (row["stranger_rate"], row["people"], row["chance"]) == (0.5, 3, pytest.approx(1 / 3))


@pytest.fixture
def folder(tmp_path: Path) -> UPath:
    """A classifier with random weights, as the stage writes one."""
    torch.manual_seed(0)
    torch.save(build_network("small", len(PEOPLE)).state_dict(), tmp_path / "weights.pt")
    made = record(0.0, weights_sha256=sha256_of(UPath(tmp_path / "weights.pt")))
    (tmp_path / "recogniser.json").write_text(made.model_dump_json())
    return UPath(tmp_path)


def test_a_folder_is_loaded(folder: UPath) -> None:
    """With the crops that it wants; at the threshold 0 every crop, of any size, gets a name."""
    recogniser = load_recogniser(folder)
    assert (recogniser.side, recogniser.margin) == (64, 0.1)
    found = recogniser.recognise([Image.new("RGB", size, "grey") for size in ((64, 64), (1, 1), (300, 200))])
    assert [answer.identity in PEOPLE for answer in found] == [True] * 3
    assert recogniser.recognise([]) == []


def test_a_broken_folder_is_told(folder: UPath) -> None:
    """Weights that were changed, cut or are gone, a record that is none, and people that the weights do not know."""
    weights, told = folder / "weights.pt", folder / "recogniser.json"
    content, good = weights.read_bytes(), json.loads(told.read_text())

    def refused(kind: type[IdiaError], complaint: str) -> None:
        with pytest.raises(kind, match=complaint):
            load_recogniser(folder)

    told.write_text(json.dumps(good | {"identities": ["Ann Lee"]}))
    refused(InvalidInputError, "tell 3 people apart, the record 1")
    told.write_text(json.dumps(good | {"network": "resnet50"}))
    refused(InvalidInputError, "do not fit")
    told.write_text(json.dumps(good | {"network": "clip"}))
    refused(InvalidInputError, "not the record of a recogniser")
    told.write_text(json.dumps(good)[:50])
    refused(InvalidInputError, "not the record of a recogniser")
    told.write_text(json.dumps(good))
    weights.write_bytes(content[:-1] + b"x")
    refused(InvalidInputError, "not those of the record")
    weights.unlink()
    refused(MissingInputError, "there is no weights.pt")
    told.unlink()
    refused(MissingInputError, "there is no recogniser.json")
