"""`pairs`: pairs of people out of what was downloaded, and a funnel of what was lost where (paper, Section 5.2)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from idia_core.exchange import PATTERNS
from idia_core.identities import PAIRS, attackable
from idia_core.leakage import MAX_DISTANCE, AttackPictures
from idia_core.pair_candidates import FOUND
from idia_core.pair_funnel import FUNNEL, REJECTED, Candidate, Fault, PairSieve, fewest_first, funnel_row
from idia_core.sources import PLACE_COLUMNS, SampleReader
from pipelines.face_looking import FaceLookingConfig, detector_files, face_search, recogniser_input
from pipelines.pair_candidates import FIND_PHASE, LIST_PHASE, blocks, found_file, retrieved_of, wanted_people
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once, read_parquet

ABOUT_FACES = ("detector", "detected_at_a_time", "device")
NOBODY, LOWEST = "people_without_pairs", "lowest_achieved_k"
PICTURE = ("identity", "picture", "status", "image")


class PairsConfig(FaceLookingConfig):
    """Settings of `pairs`."""

    max_hash_distance: int = Field(default=MAX_DISTANCE, ge=0, le=256)
    """Bits of 256 in which the perceptual hashes of near-duplicates may differ."""
    people_per_split: int = Field(default=8, ge=1)
    """People whose pairs are made in one piece of work."""

    @model_validator(mode="after")
    def _faces_are_looked_at(self) -> Self:
        if "recogniser" not in self.inputs and (given := self.model_fields_set.intersection(ABOUT_FACES)):
            raise ValueError(f"{min(given)} is for the input `recogniser`, without which no face is looked at")
        return self


class _Pairer:
    """Makes the pairs of a block of people."""

    def __init__(self, context: StageContext) -> None:
        config: PairsConfig = context.config
        self._context, self._reader = context, SampleReader(context.folder)
        self._verified = "recogniser" in context.inputs
        faces = face_search(context) if self._verified else None
        attack = AttackPictures(_attack_pictures(context), config.max_hash_distance)
        self._sieve = PairSieve(attack, config.max_hash_distance, faces)
        self._retrieved = {row["identity"]: row for row in retrieved_of(context).iter_rows(named=True)}
        everybody = sorted(context.inputs["identities"].read("identity")["identity"].to_pylist())
        self._numbers = {identity: number for number, identity in enumerate(everybody)}

    def __call__(self, split: Split, out: SplitWriter) -> None:
        file = found_file(self._context, split["block"])
        found = pl.DataFrame(read_parquet(file, FOUND.names))
        pairs, rejected, funnel = [list[dict[str, Any]]() for _ in range(3)]
        people = found.partition_by("identity", as_dict=True)
        for done, identity in enumerate(split["identities"]):
            rows = people.get((identity,), found.clear())
            candidates = self._candidates(rows)
            faults = self._sieve.sift(candidates)
            pairs += self._pairs(rows, candidates, faults)
            rejected += _rejected(rows, faults)
            funnel.append(funnel_row(self._retrieved[identity], faults, verified=self._verified))
            out.report(done / len(split["identities"]), f"{len(pairs):,} pairs")
        out.table("pairs", pa.Table.from_pylist(pairs, PAIRS))
        out.table("rejected", pa.Table.from_pylist(rejected, REJECTED))
        out.table("funnel", pa.Table.from_pylist(funnel, FUNNEL))
        out.count(rows_in=found.height, rows_kept=len(pairs), **Counter(row["reason"] for row in rejected))
        out.count(**{NOBODY: sum(not row["achieved_k"] for row in funnel)})

    def _candidates(self, rows: pl.DataFrame) -> list[Candidate]:
        """The candidates with their pictures, which stay in their tars as long as they are local."""
        fetched = rows.filter(pl.col("source").is_not_null())
        no_caption = {PLACE_COLUMNS[2]: pl.col("picture_at"), PLACE_COLUMNS[3]: pl.lit(0)}
        pictures = iter(self._reader.read(fetched.with_columns(**no_caption)) if fetched.height else ())
        return [
            Candidate(
                row["identity"],
                row["place"],
                row["status"],
                row["detail"],
                None if row["source"] is None else next(pictures)[0],
            )
            for row in rows.iter_rows(named=True)
        ]

    def _pairs(
        self, rows: pl.DataFrame, candidates: Sequence[Candidate], faults: Sequence[Fault | None]
    ) -> Iterator[dict[str, Any]]:
        """Rows of PAIRS; a key has the number of the URL and that of the person, as a URL may serve several people."""
        for row, candidate, fault in zip(rows.iter_rows(named=True), candidates, faults, strict=True):
            if fault is None:
                key = f"{row['number']:09d}-{self._numbers[row['identity']]:06d}"
                about = {"identity": row["identity"], "caption": row["caption"]}
                yield {"key": key, **about, "image": bytes(candidate.picture or b"")}


def _rejected(rows: pl.DataFrame, faults: Sequence[Fault | None]) -> Iterator[dict[str, Any]]:
    for row, fault in zip(rows.select("identity", "place", "url").iter_rows(named=True), faults, strict=True):
        if fault:
            yield row | {"reason": str(fault.reason), "detail": fault.detail}


def _attack_pictures(context: StageContext) -> Iterator[tuple[str, bytes]]:
    """Every attack picture of the input `pictures`, whoever's, a file in memory at a time; none without it."""
    for file in context.inputs["pictures"].files if "pictures" in context.inputs else ():
        for row in attackable(read_parquet(file, PICTURE)).to_pylist():
            yield f"{row['identity']}/{row['picture']}", row["image"]


class _Summer:
    """Writes the funnel as a CSV too, and notes the fewest pairs that anybody has."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        funnel = self._context.table("funnel")
        out.csv("funnel", funnel)
        out.note(LOWEST, str(fewest_first(funnel)[0]["achieved_k"]))


def _blocks(context: StageContext) -> Iterable[Split]:
    """Some people each."""
    parts = blocks(context, wanted_people(context))
    return [{"block": number, "identities": mine} for number, mine in enumerate(parts)]


STAGE = Stage(
    name="pairs",
    version=1,
    summary="make pairs of downloaded candidates",
    config=PairsConfig,
    inputs={
        "candidates": Input("candidates, as retrieve writes them, or a list (identity, url, caption)", PATTERNS),
        "retrieved": Input("what retrieve counted of each person, if it was retrieve", optional=True),
        "ledger": Input("what download says of each URL"),
        "tars": Input("the pictures that download fetched", patterns=("*.tar",)),
        "identities": Input("people (identity, name)"),
        "selection": Input("whose pairs are made (identity, role): members'; everybody's without it", optional=True),
        "pictures": Input("attack pictures, to keep them out (identity, picture, status, image)", optional=True),
        "recogniser": recogniser_input(optional=True),
    },
    phases=(LIST_PHASE, FIND_PHASE, Phase("pair", _blocks, _Pairer), Phase("sum", once, _Summer)),
    tables=("pairs", "funnel", "rejected", "csv"),
    named_files=detector_files,
)
