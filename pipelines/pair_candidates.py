"""The first two phases of `pairs`: where each candidate's picture lies, found through the ledger of the download."""

from collections.abc import Iterable, Sequence

import polars as pl
import pyarrow.parquet as pq
from upath import UPath

from idia_core.base_tars import read_tar
from idia_core.candidate_lists import read_candidates
from idia_core.download import LEDGER
from idia_core.errors import InvalidInputError
from idia_core.identities import Role
from idia_core.manifest import WORK
from idia_core.pair_candidates import (
    FOUND,
    LISTED,
    ONE_DOWNLOAD,
    check_counts,
    count_candidates,
    find_pictures,
    list_pictures,
)
from idia_core.recognition import read_record
from idia_core.retrieval import RETRIEVED, CandidateStatus
from idia_core.storage import write_whole
from pipelines.stage import Phase, Split, SplitWriter, StageContext, once, read_parquet

CANDIDATE = ("identity", "place", "url", "caption", "status")
NOT_SELECTED = "not_selected"
"""Counts the candidates of people whose pairs are not wanted."""


def members_of(context: StageContext) -> set[str] | None:
    """The members by the input `selection`; None without it."""
    if "selection" not in context.inputs:
        return None
    roles = context.inputs["selection"].read("identity", "role").to_pylist()
    return {row["identity"] for row in roles if row["role"] == Role.MEMBER}


def candidates_of(context: StageContext) -> pl.DataFrame:
    """The candidates, of `retrieve` or of a list of one's own."""
    return pl.DataFrame(read_candidates(context.inputs["candidates"].files)).select(CANDIDATE)


def retrieved_of(context: StageContext) -> pl.DataFrame:
    """RETRIEVED, by the input of that name, or counted from the candidates without it."""
    if "retrieved" in context.inputs:
        return pl.DataFrame(context.inputs["retrieved"].read(*RETRIEVED.names))
    return count_candidates(candidates_of(context))


def wanted_people(context: StageContext) -> list[str]:
    """Everybody retrieved whose pairs are made, in order: all, or the members, as nobody else is trained on."""
    people, members = set(retrieved_of(context)["identity"].to_list()), members_of(context)
    return sorted(people if members is None else people & members)


def blocks(context: StageContext, people: Sequence[str]) -> list[list[str]]:
    """The people, some at a time."""
    each = context.config.people_per_split
    return [list(people[first : first + each]) for first in range(0, len(people), each)]


def found_file(context: StageContext, block: int) -> UPath:
    """Where the candidates of a block of people are, as FOUND."""
    return context.folder / WORK / f"found/{block:05d}.parquet"


def _ledgers(context: StageContext) -> Iterable[Split]:
    """The parts of the ledger."""
    return [{"ledger": place} for place in range(len(context.inputs["ledger"].files))]


class _Lister:
    """Finds the pictures of a part of the ledger in the tar of that part."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._tars = {tar.stem: tar for tar in context.inputs["tars"].files}

    def __call__(self, split: Split, out: SplitWriter) -> None:
        ledger = self._context.inputs["ledger"].files[split["ledger"]]
        tar = self._tars.get(ledger.stem)
        if tar is None:
            what = f"there is no tar '{ledger.stem}.tar' beside '{ledger.name}'"
            raise InvalidInputError(what, f"stage {self._context.stage}, input tars", ONE_DOWNLOAD)
        part = read_tar({"url": str(tar)})
        if part.damage:
            raise InvalidInputError(part.damage, str(tar), "Run `download` again.")
        listed = list_pictures(pl.DataFrame(read_parquet(ledger, LEDGER.names)), part.samples, str(tar))
        _write(listed, _listed_file(self._context, split["ledger"]))


class _Finder:
    """Writes the candidates of each block of people with what became of their URLs."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        inputs = self._context.inputs
        candidates = candidates_of(self._context).filter(pl.col("status") == CandidateStatus.KEPT)
        if "retrieved" in inputs:
            check_counts(candidates, retrieved_of(self._context))
        people = wanted_people(self._context)
        wanted = candidates.filter(pl.col("identity").is_in(people)).drop("status")
        if wanted.is_empty():
            what = f"nobody has a candidate that is '{CandidateStatus.KEPT}'"
            raise InvalidInputError(what, f"stage {self._context.stage}, input candidates", ONE_DOWNLOAD)
        self._check_people(people, wanted["identity"].unique().to_list())
        found = find_pictures(wanted, self._listed())
        of_person = found.partition_by("identity", as_dict=True)
        for number, mine in enumerate(blocks(self._context, people)):
            rows = [of_person[identity,] for identity in mine if (identity,) in of_person]
            _write(pl.concat([found.clear(), *rows]), found_file(self._context, number))
        out.count(**{"rows_in": candidates.height - wanted.height, NOT_SELECTED: candidates.height - wanted.height})

    def _listed(self) -> pl.DataFrame:
        parts = len(self._context.inputs["ledger"].files)
        files = (_listed_file(self._context, part) for part in range(parts))
        return pl.concat([pl.DataFrame(read_parquet(file, LISTED.names)) for file in files])

    def _check_people(self, people: Sequence[str], with_candidates: Sequence[str]) -> None:
        """Raise `InvalidInputError` for people without an identity, or whom the recogniser cannot know."""
        inputs, where = self._context.inputs, f"stage {self._context.stage}, input"
        if unknown := sorted(set(people) - set(inputs["identities"].read("identity")["identity"].to_pylist())):
            what = f"{len(unknown)} people who were retrieved are not in it, first '{unknown[0]}'"
            raise InvalidInputError(what, f"{where} identities", "Give the people who were retrieved.")
        if "recogniser" in inputs and (
            strange := sorted(set(with_candidates) - set(read_record(inputs["recogniser"].root).identities))
        ):
            what = f"it does not know {len(strange)} of the people, first '{strange[0]}', who could have no pair"
            raise InvalidInputError(what, f"{where} recogniser", "Train it on all, or leave it out.")


def _listed_file(context: StageContext, part: int) -> UPath:
    return context.folder / WORK / f"listed/{part:05d}.parquet"


def _write(rows: pl.DataFrame, path: UPath) -> None:
    schema = FOUND if "identity" in rows.columns else LISTED
    with write_whole(path) as file:
        pq.write_table(rows.to_arrow().cast(schema), file)


LIST_PHASE = Phase("list", _ledgers, _Lister)
FIND_PHASE = Phase("find", once, _Finder)
