"""`retrieve`: pairs of each person in a base of billions, by one picture after another (paper, Section 5.1)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import pyarrow as pa

from idia_core.identities import attackable
from idia_core.retrieval import CANDIDATE_PAIRS, NO_URL, RETRIEVABLE, RETRIEVED, CandidateStatus, Found, retrieve_person
from idia_core.retrieval_index import PATTERNS
from pipelines.given_model import WEIGHTS, model_files
from pipelines.retrieve_config import RetrieveConfig
from pipelines.retrieve_index import INDEX_PHASES, searched_index
from pipelines.retrieve_queries import (
    EMBED_PHASE,
    blocks,
    caption_names,
    check_inputs,
    folders_of,
    looked_for,
    read_queries,
)
from pipelines.retrieve_service import ASK_PHASE, asked
from pipelines.stage import Input, Phase, Preview, Split, SplitWriter, Stage, StageContext, once

NOT_NAMED, NOBODY = "no_name", "people_without_pairs"
NOTHING = Found([], {})


def _numbered_blocks(context: StageContext) -> Iterable[Split]:
    return [{"block": number, "identities": identities} for number, identities in enumerate(blocks(context))]


class _Chooser:
    """Writes the candidates of a block of people, and what was counted of each."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._config = context, context.config
        self._names = caption_names(context) if self._config.service is None else None
        self._looked_for = looked_for(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        found = self._found(split["block"])
        rows, counts = list[dict[str, Any]](), list[dict[str, Any]]()
        for identity in split["identities"]:
            person = found.get(identity, NOTHING)
            rows += [row | {"identity": identity} for row in person.candidates]
            columns = {name: person.counts.get(name, 0) for name in (*RETRIEVED.names, NO_URL) if name != "identity"}
            counts.append({"identity": identity} | columns)
        out.table("candidates", pa.Table.from_pylist(rows, CANDIDATE_PAIRS))
        retrieved = pa.Table.from_pylist(counts, RETRIEVED)
        out.table("retrieved", retrieved)
        out.table("retrievable", pa.table([retrieved["identity"], retrieved["kept"]], RETRIEVABLE))
        without = sum(not row["kept"] and row["identity"] in self._looked_for for row in counts)
        out.count(**_counts(counts), **{NOBODY: without})

    def _found(self, block: int) -> dict[str, Found]:
        """What was found of each person who has questions."""
        queries = read_queries(self._context, block)
        people = {identity: list(mine) for identity, mine in groupby(queries, key=lambda query: query.identity)}
        if self._names is None:
            return {identity: asked(self._context, block, mine) for identity, mine in people.items()}
        index, goal = searched_index(self._context, block), self._config.goal
        return {identity: retrieve_person(mine, index, self._names, goal) for identity, mine in people.items()}


def _counts(people: list[dict[str, Any]]) -> Counter[str]:
    """The base rows in and kept, and those that are not, by reason; a row counts for everybody it was retrieved for."""
    total = Counter[str]()
    for row in people:
        total.update({name: count for name, count in row.items() if name != "identity"})
    named = total["name_in_caption"] + total["other_people"] + total[NO_URL]
    reasons = {reason: total[reason] for reason in ("duplicate_url", "duplicate_caption", "other_people", NO_URL)}
    reasons |= {NOT_NAMED: total["retrieved"] - named, str(CandidateStatus.SPARE): total["unique"] - total["kept"]}
    return Counter(rows_in=total["retrieved"], rows_kept=total["kept"], **reasons)


class _Summer:
    """Writes what was counted of everybody as a CSV too."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        out.csv("retrieved", self._context.table("retrieved"))


def _preview(context: StageContext) -> Preview:
    """How much is asked, of whom."""
    check_inputs(context)
    config: RetrieveConfig = context.config
    people = looked_for(context)
    questions = len(people) * len(config.texts)
    if config.by != "text":
        pictures = attackable(context.inputs["pictures"].read("identity", "status"))["identity"].to_pylist()
        questions = sum(identity in people for identity in pictures)
    base = {"service": config.service.url} if config.service else {"shards": len(folders_of(context))}
    row = {"people": len(people), "questions": questions, "neighbours": config.neighbours, "wanted": config.goal} | base
    notes = [f"A person is asked about until there are {config.goal} candidates: these are the most questions."]
    if config.service and (rate := config.resources.service.requests_per_second):
        notes.append(f"At {rate:g} requests a second they take {questions / rate / 3600:.1f} hours.")
    return Preview([row], notes)


def _named_files(config: RetrieveConfig) -> Mapping[str, str]:
    return model_files(config.inputs, config.model)


STAGE = Stage(
    name="retrieve",
    version=1,
    summary="retrieve people's pairs from a base",
    config=RetrieveConfig,
    inputs={
        "identities": Input("people (identity, name, aliases)"),
        "pictures": Input("the pictures to ask with (identity, picture, status, image)", optional=True),
        "selection": Input("who is looked for (identity, role); everybody without it", optional=True),
        "index": Input("the base's index: image.index and metadata, or folders of them", PATTERNS, optional=True),
        "embedded_by": Input("the model that embedded the base (model, sha256)", optional=True),
        "weights": WEIGHTS,
    },
    phases=(
        EMBED_PHASE,
        *INDEX_PHASES,
        ASK_PHASE,
        Phase("choose", _numbered_blocks, _Chooser),
        Phase("sum", once, _Summer),
    ),
    tables=("candidates", "retrieved", "retrievable", "csv"),
    named_files=_named_files,
    preview=_preview,
)
