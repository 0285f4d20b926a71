"""The phase of `retrieve` that asks a service: one piece of work, as one process must see to the service's limits."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby

from upath import UPath

from idia_core.manifest import WORK
from idia_core.retrieval import Found, Query, retrieve_person
from idia_core.retrieval_service import RetrievalService, ServiceConfig
from idia_core.storage import write_text
from pipelines.retrieve_config import RetrieveConfig
from pipelines.retrieve_queries import blocks, caption_names, read_queries
from pipelines.stage import Phase, Split, SplitWriter, StageContext


def _all_blocks(context: StageContext) -> Iterable[Split]:
    return [] if context.config.service is None else [{"blocks": len(blocks(context))}]


class _Asker:
    """Asks about all people, and keeps what was found of each, so that an interrupted run asks about nobody again."""

    def __init__(self, context: StageContext) -> None:
        config: RetrieveConfig = context.config
        self._context, self._goal = context, config.goal
        self._connections = config.resources.service.connections
        service = ServiceConfig.model_validate(config.service)
        self._service = RetrievalService(service, config.neighbours, config.resources.service)
        self._names = caption_names(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        self._service.check_index()
        for block in range(split["blocks"]):
            out.report(block / split["blocks"], f"people of block {block}")
            queries = read_queries(self._context, block)
            people = [list(mine) for _, mine in groupby(queries, key=lambda query: query.identity)]
            with ThreadPoolExecutor(self._connections) as pool:
                list(pool.map(partial(self._ask, block), people))

    def _ask(self, block: int, queries: Sequence[Query]) -> None:
        file = _file(self._context, block, queries[0])
        if not file.exists():
            found = retrieve_person(queries, self._service, self._names, self._goal)
            write_text(file, json.dumps(found._asdict()))


def asked(context: StageContext, block: int, queries: Sequence[Query]) -> Found:
    """What the service's answers to a person's questions have brought."""
    return Found(**json.loads(_file(context, block, queries[0]).read_text(encoding="utf-8")))


def _file(context: StageContext, block: int, first: Query) -> UPath:
    """Identities need not be names of files: a person is known by the place of the first question."""
    return context.folder / WORK / f"asked/{block:05d}-{first.place:06d}.json"


ASK_PHASE = Phase("ask", _all_blocks, _Asker, outward=True)
