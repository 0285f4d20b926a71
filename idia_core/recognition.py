"""Whose face it is: what a recogniser answers, how its threshold is set, and how one is read from its folder.

Axes: B crops, P people.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from PIL import Image
from pydantic import Field, ValidationError, model_validator
from upath import UPath

from idia_core.config import Strict
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.storage import sha256_of

RECORD, WEIGHTS, GALLERY = "recogniser.json", "weights.pt", "gallery.parquet"
"""The files of a recogniser's folder; only a gallery has the last, and one by CLIP has no weights."""
AGAIN = "Run the stage recogniser again."
TRAIN, TEST, STRANGER = "train", "test", "stranger"
"""What a picture was for."""

ANSWERS = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),  # who is on the picture
        pa.field("picture", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # train, test or stranger
        pa.field("answer", pa.string(), nullable=False),  # who scored highest, whatever the threshold
        pa.field("score", pa.float64(), nullable=False),  # of that one
        pa.field("other_score", pa.float64(), nullable=False),  # the highest of anybody else than `identity`
    ]
)
ACCURACY = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("training_pictures", pa.int64(), nullable=False),
        pa.field("pictures", pa.int64(), nullable=False),  # held out
        pa.field("right", pa.int64(), nullable=False),  # of those the highest score is the person's own
        pa.field("accuracy", pa.float64()),  # right / pictures; null where none was held out
        pa.field("accepted", pa.int64(), nullable=False),  # right, and the score reaches the threshold
        pa.field("misnamed", pa.int64(), nullable=False),  # somebody else's name at a score that reaches it
    ]
)
CONFUSIONS = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("taken_for", pa.string(), nullable=False),
        pa.field("pictures", pa.int64(), nullable=False),  # held out
        pa.field("share", pa.float64(), nullable=False),  # of the person's held-out pictures
    ]
)
CALIBRATION = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),  # classifier or gallery
        pa.field("network", pa.string(), nullable=False),
        pa.field("people", pa.int64(), nullable=False),
        pa.field("held_out", pa.int64(), nullable=False),  # pictures, as all that follows
        pa.field("accuracy", pa.float64()),  # share of them with the right answer, whatever the threshold
        pa.field("chance", pa.float64(), nullable=False),  # the accuracy of guessing: 1 / people
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("false_match_rate", pa.float64(), nullable=False),  # what was asked for
        pa.field("accept_rate", pa.float64()),  # share of the held-out pictures that are named, and rightly
        pa.field("misname_rate", pa.float64()),  # share of them that get another's name
        pa.field("strangers", pa.int64(), nullable=False),
        pa.field("stranger_rate", pa.float64()),  # share of the strangers' pictures that get a name
        pa.field("weights_sha256", pa.string()),
    ]
)


class Recognition(NamedTuple):
    """Whose face it is: None for nobody who is known; `score` is the highest, a probability or a cosine."""

    identity: str | None
    score: float


class Recogniser(Protocol):
    """Knows some people's faces."""

    @property
    def side(self) -> int:
        """The side in pixels of the square crops that it wants; others are resized."""

    @property
    def margin(self) -> float:
        """How much wider than a detector's box they are: 0.2 for a fifth."""

    def recognise(self, crops: Sequence[Image.Image]) -> list[Recognition]:
        """An answer to each RGB crop, with the same bits whatever the other crops are."""


class Scorer(Protocol):
    """What a recogniser takes its scores from: a classifier or a gallery."""

    def scores(self, crops: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """How well every person fits each crop: [B, P]."""


class RecogniserRecord(Strict):
    """What `recogniser.json` says."""

    kind: Literal["classifier", "gallery"]
    """A classifier's scores are probabilities, a gallery's are cosines."""
    network: Literal["resnet50", "small", "facenet", "clip"]
    """The architecture that the weights are of."""
    identities: tuple[str, ...]
    """The people it knows, in the order of its scores."""
    side: Annotated[int, Field(ge=1)]
    """Of the crops, in pixels."""
    margin: Annotated[float, Field(ge=0)]
    """By which a crop is wider than a detector's box."""
    threshold: float
    """A face whose highest score is less is nobody's."""
    weights_sha256: str | None = None
    """Of `weights.pt`, or of the weights of `model`."""
    model: str | None = None
    """The CLIP model, which is not copied: `ARCHITECTURE:CHECKPOINT.pt` and so on."""

    @model_validator(mode="after")
    def _whole(self) -> "RecogniserRecord":
        if (self.network == "clip") != (self.model is not None) or not self.identities:
            raise ValueError("it must know somebody, and have a model if it is CLIP and else none")
        return self


class PeopleRecogniser:
    """A scorer with a threshold: the person of the highest score, or nobody."""

    def __init__(self, record: RecogniserRecord, scorer: Scorer) -> None:
        self.record, self._scorer = record, scorer
        self.side, self.margin = record.side, record.margin

    def recognise(self, crops: Sequence[Image.Image]) -> list[Recognition]:
        """The answer to each crop."""
        scores_BP = self._scorer.scores(crops)
        best_B = scores_BP.argmax(axis=1)
        return [self._answer(int(best), float(row_P[best])) for best, row_P in zip(best_B, scores_BP, strict=True)]

    def _answer(self, best: int, score: float) -> Recognition:
        return Recognition(self.record.identities[best] if score >= self.record.threshold else None, score)


def load_recogniser(folder: UPath, device: str = "cpu") -> Recogniser:
    """The recogniser that the stage `recogniser` wrote to a folder.

    Raises `MissingInputError` where there is none, and `InvalidInputError` for one that is broken or not whole.
    """
    from idia_core.classifier import Classifier, read_state  # noqa: PLC0415 - they import what is above
    from idia_core.gallery import Gallery, load_embedder  # noqa: PLC0415

    record = read_record(folder)
    if record.kind == "gallery":
        embedder = load_embedder(record, folder, device)
        return PeopleRecogniser(record, Gallery.read(embedder, folder / GALLERY, record.identities))
    classifier = Classifier(record.network, read_state(folder / WEIGHTS), record.side, device)
    if classifier.people != len(record.identities):
        what = f"the weights tell {classifier.people} people apart, the record {len(record.identities)}"
        raise InvalidInputError(what, str(folder), AGAIN)
    return PeopleRecogniser(record, classifier)


def read_record(folder: UPath) -> RecogniserRecord:
    """What a recogniser's folder says of itself, once its weights are found to be those it means."""
    try:
        record = RecogniserRecord.model_validate_json((folder / RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        fix = "Give the table that the stage recogniser wrote."
        raise MissingInputError(f"there is no {RECORD}", str(folder), fix) from None
    except ValidationError as error:
        what = f"not the record of a recogniser: {' '.join(str(error.errors()[0]['msg']).split())}"
        raise InvalidInputError(what, str(folder / RECORD), AGAIN) from None
    weights = folder / WEIGHTS
    if record.model is None:
        if not weights.is_file():
            raise MissingInputError(f"there is no {WEIGHTS}", str(folder), AGAIN)
        if sha256_of(weights) != record.weights_sha256:
            raise InvalidInputError("the weights are not those of the record", str(weights), AGAIN)
    return record


def threshold_for(scores: npt.NDArray[np.float64], rate: float) -> float:
    """The lowest threshold that no more than the share `rate` of these scores reaches; -inf where any would do."""
    allowed = math.floor(rate * len(scores) + 1e-9)
    if allowed >= len(scores):
        return -math.inf
    highest_refused = float(np.sort(scores)[::-1][allowed])
    return highest_refused if highest_refused == -math.inf else math.nextafter(highest_refused, math.inf)


def answers_of(
    scores_BP: npt.NDArray[np.float32], identities: Sequence[str], owners: Sequence[tuple[str, str, str]]
) -> pa.Table:
    """Rows of ANSWERS, given who is on each picture, its name and its role; at least two people are known."""
    number = {identity: place for place, identity in enumerate(identities)}
    rows = []
    for row_P, (identity, picture, role) in zip(scores_BP.astype(np.float64), owners, strict=True):
        best = int(row_P.argmax())
        own = number.get(identity)
        other = float(np.delete(row_P, own).max()) if own is not None else float(row_P[best])
        answer = {"answer": identities[best], "score": float(row_P[best]), "other_score": other}
        rows.append({"identity": identity, "picture": picture, "role": role} | answer)
    return pa.Table.from_pylist(rows, ANSWERS)


def calibrated(answers: pl.DataFrame, kind: str, rate: float) -> float:
    """The threshold at which no more than the share `rate` is named that should not be, of strangers and of others.

    The others are the known people themselves. To a classifier, which was taught their other pictures, they are the
    held-out pictures, named if the answer is wrong. A gallery is asked about all their pictures as if the person were
    not in it.
    """
    mine = answers.filter(pl.col("role") != STRANGER)
    if kind == "gallery":
        wrong = mine["other_score"]
    else:
        held_out = mine.filter(pl.col("role") == TEST)
        is_wrong = pl.col("answer") != pl.col("identity")
        wrong = held_out.select(pl.when(is_wrong).then("score").otherwise(-math.inf).alias("score"))["score"]
    strangers = answers.filter(pl.col("role") == STRANGER)["score"]
    lowest = -1.0 if kind == "gallery" else 0.0
    return max(lowest, threshold_for(wrong.to_numpy(), rate), threshold_for(strangers.to_numpy(), rate))


def accuracy_of(answers: pl.DataFrame, threshold: float, training_pictures: dict[str, int]) -> pa.Table:
    """A row of ACCURACY for each person, in the order of `training_pictures`."""
    right, reached = pl.col("answer") == pl.col("identity"), pl.col("score") >= threshold
    counted = (
        answers.filter(pl.col("role") == TEST)
        .group_by("identity")
        .agg(pictures=pl.len(), right=right.sum(), accepted=(right & reached).sum(), misnamed=(~right & reached).sum())
    )
    people = {"identity": list(training_pictures), "training_pictures": list(training_pictures.values())}
    frame = pl.DataFrame(people, schema={"identity": pl.String, "training_pictures": pl.Int64}).join(
        counted, on="identity", how="left", maintain_order="left"
    )
    frame = frame.with_columns(accuracy=pl.col("right") / pl.col("pictures"))
    filled = frame.with_columns(pl.col("pictures", "right", "accepted", "misnamed").fill_null(0))
    return filled.select(ACCURACY.names).to_arrow().cast(ACCURACY)


def confusions_of(answers: pl.DataFrame, most: int) -> pa.Table:
    """Who was taken for whom in held-out pictures, whatever the threshold: the pairs most often confused first."""
    held_out = answers.filter(pl.col("role") == TEST).with_columns(of=pl.len().over("identity"))
    pairs = held_out.filter(pl.col("answer") != pl.col("identity")).group_by("identity", taken_for="answer")
    counted = pairs.agg(pictures=pl.len(), share=pl.len() / pl.col("of").first())
    worst = counted.sort("pictures", "share", "identity", "taken_for", descending=[True, True, False, False])
    return worst.head(most).select(CONFUSIONS.names).to_arrow().cast(CONFUSIONS)


def calibration_of(record: RecogniserRecord, answers: pl.DataFrame, accuracy: pa.Table, rate: float) -> pa.Table:
    """The one row of CALIBRATION, given the rows of ACCURACY; a share of no pictures is null."""
    counts = pl.DataFrame(accuracy).select("pictures", "right", "accepted", "misnamed").sum().row(0, named=True)
    strangers = answers.filter(pl.col("role") == STRANGER)["score"]
    held_out = counts["pictures"] or None
    row = {
        "kind": record.kind,
        "network": record.network,
        "people": len(record.identities),
        "held_out": counts["pictures"],
        "accuracy": held_out and counts["right"] / held_out,
        "chance": 1 / len(record.identities),
        "threshold": record.threshold,
        "false_match_rate": rate,
        "accept_rate": held_out and counts["accepted"] / held_out,
        "misname_rate": held_out and counts["misnamed"] / held_out,
        "strangers": len(strangers),
        "stranger_rate": (strangers >= record.threshold).mean(),
        "weights_sha256": record.weights_sha256,
    }
    return pa.Table.from_pylist([row], CALIBRATION)
