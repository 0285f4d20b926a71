"""The tables of an audit as `audit.json` holds them, and back as `judge` takes them.

Axes: P pictures of one person, N templates, Q pictures of all people, K candidate names of a pool.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from idia_core.attack import ASKED, PANEL, PANEL_VOTES, VOTES
from idia_core.audit_json import AuditFile, Matrix, PanelPerson, PanelVotes, Person, Pool, Votes
from idia_core.candidates import CANDIDATE_NAMES
from idia_core.errors import InvalidInputError
from idia_core.nulls import Audit
from idia_core.tallies import ballots


class _Cast(NamedTuple):
    """What one model answered about one person under one pool; `images` are the rows."""

    model: str
    pool: str
    identity: str
    images: list[str]
    votes: Matrix


def pools_of(names: pa.Table) -> tuple[Pool, ...]:
    """The pools of a table of candidate names, each in the table's order."""
    grouped = pl.DataFrame(names).group_by("pool", maintain_order=True)
    return tuple(
        Pool(pool=str(pool), names=tuple(rows["name"]), sexes=tuple(rows["sex"]), tested=tuple(rows["tested"]))
        for (pool,), rows in grouped
    )


def votes_of(
    votes: pa.Table, people: Sequence[Person], pools: Sequence[Pool], templates: Sequence[str]
) -> tuple[Votes, ...]:
    """The votes on those people as matrices, by model and in the people's order.

    Raises InvalidInputError for a vote for a name, a picture or a template that is not known.
    """
    pool_of = pl.DataFrame({"identity": [p.identity for p in people], "pool": [p.pool for p in people]})
    mine = pl.DataFrame(votes).join(pool_of, on="identity")
    place = {person.identity: place for place, person in enumerate(people)}
    number = {p.identity: {picture.picture: i for i, picture in enumerate(p.pictures)} for p in people}
    found = sorted(_matrices(mine, pools, templates), key=lambda cast: (cast.model, place[cast.identity]))
    for cast in found:
        if strange := set(cast.images) - set(number[cast.identity]):
            what = f"a vote on a picture {min(strange)!r} that the person does not have"
            raise InvalidInputError(what, f"table votes, identity {cast.identity!r}")
    return tuple(
        Votes(
            model=cast.model,
            identity=cast.identity,
            pictures=tuple(number[cast.identity][image] for image in cast.images),
            votes=cast.votes,
        )
        for cast in found
    )


def panel_of(
    panel: pa.Table, panel_votes: pa.Table, pools: Sequence[Pool], templates: Sequence[str], seed: int
) -> tuple[tuple[PanelPerson, ...], tuple[PanelVotes, ...]]:
    """The panel's people by codes, and the votes on them; their names are no business of a reader.

    The codes' order is that of the identities' hashes, so that they tell nothing.
    """
    sexes = dict(pl.DataFrame(panel).select("identity", "sex").rows())
    codes = {identity: f"Panel {i:05d}" for i, identity in enumerate(by_hash(sexes, "panel"), start=1)}
    cast = [c for c in _matrices(pl.DataFrame(panel_votes), pools, templates) if c.identity in codes]
    rows = drawn_alike([(c.identity, codes[c.identity], len(c.votes)) for c in cast], seed)
    shown = (
        PanelVotes(model=c.model, pool=c.pool, identity=codes[c.identity], votes=tuple(c.votes[row] for row in order))
        for c, order in zip(cast, rows, strict=True)
    )
    people = tuple(PanelPerson(identity=code, sex=sexes[identity]) for identity, code in codes.items())
    return people, tuple(sorted(shown, key=lambda votes: (votes.model, votes.pool, votes.identity)))


def _matrices(votes: pl.DataFrame, pools: Sequence[Pool], templates: Sequence[str]) -> Iterator[_Cast]:
    """The votes (model, pool, identity, image, template, predicted) as a matrix each; images in their names' order."""
    candidates = pl.DataFrame(
        {
            "pool": [pool.pool for pool in pools for _ in pool.names],
            "predicted": [name for pool in pools for name in pool.names],
            "k": [k for pool in pools for k in range(len(pool.names))],
        },
        schema={"pool": pl.String, "predicted": pl.String, "k": pl.Int64},
    )
    order = pl.DataFrame({"template": list(templates), "n": range(len(templates))}, schema_overrides={"n": pl.Int64})
    cast = votes.join(candidates, on=["pool", "predicted"], how="left").join(order, on="template", how="left")
    for column, what in (("k", "no candidate"), ("n", "no template")):
        for row in cast.filter(pl.col(column).is_null()).head(1).to_dicts():
            said = f"{row['predicted']!r} under {row['template']!r} is {what}"
            raise InvalidInputError(said, f"table votes, identity {row['identity']!r}", "Vote and judge with one list.")
    whose = ["model", "pool", "identity"]
    pictures = cast.select(*whose, "image").unique().sort(*whose, "image").with_row_index("q")
    cast = cast.join(pictures, on=[*whose, "image"])
    votes_QN = np.full((pictures.height, len(templates)), -1, np.int64)
    votes_QN[cast["q"].to_numpy(), cast["n"].to_numpy()] = cast["k"].to_numpy()
    for (model, pool, identity), rows in pictures.group_by(whose, maintain_order=True):
        first = rows["q"][0]
        matrix = tuple(map(tuple, votes_QN[first : first + rows.height].tolist()))
        yield _Cast(str(model), str(pool), str(identity), rows["image"].to_list(), matrix)


def drawn_alike(renamed: Sequence[tuple[str, str, int]], seed: int) -> list[list[int]]:
    """How to order rows of votes so that `judge` draws under a code what it draws under the identity.

    For each `(identity, code, rows)` the old row that stands at each new place. `judge` draws by identity, so that a
    code alone would make it compare other pictures and find slightly other p-values.
    """
    found: list[list[int]] = [[] for _ in renamed]
    for rows in {rows for _, _, rows in renamed if rows}:
        places = [place for place, one in enumerate(renamed) if one[2] == rows]
        before = _draws([renamed[place][0] for place in places], rows, seed)
        after = _draws([renamed[place][1] for place in places], rows, seed)
        for place, old, new in zip(places, before, after, strict=True):
            order = np.empty(rows, np.int64)
            order[new] = old
            found[place] = order.tolist()
    return found


def by_hash(texts: Iterable[str], key: str) -> list[str]:
    """The texts in an order from which, without the key, nothing can be told."""
    return sorted(texts, key=lambda text: hashlib.sha256(f"{key}\0{text}".encode()).hexdigest())


def _draws(identities: Sequence[str], rows: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """The order in which each identity's rows are drawn, told by votes in which picture p is given name p."""
    different = list(dict.fromkeys(identities))
    numbers = [f"{row:06d}" for row in range(rows)]
    probe = pl.DataFrame({"identity": different}).join(
        pl.DataFrame({"image": numbers, "predicted": numbers, "template": ""}), how="cross"
    )
    drawn = dict(zip(different, ballots(probe, different, numbers, seed), strict=True))
    return [drawn[identity][:, 0].astype(np.int64) for identity in identities]


def judge_tables(audit: AuditFile) -> Audit:
    """What `judge` takes. A picture goes by the number of its row of votes."""
    pool_of = {person.identity: person.pool for person in audit.people}
    cast = [_Cast(v.model, pool_of[v.identity], v.identity, [], v.votes) for v in audit.votes]
    on_panel = [_Cast(v.model, v.pool, v.identity, [], v.votes) for v in audit.panel_votes]
    asked = [
        {"identity": p.identity, "name": p.name, "sex": p.sex, "pool": p.pool, "pictures": len(p.pictures)}
        for p in audit.people
    ]
    columns: Mapping[str, list[Any]] = {
        "pool": [pool.pool for pool in audit.pools for _ in pool.names],
        "name": [name for pool in audit.pools for name in pool.names],
        "sex": [sex for pool in audit.pools for sex in pool.sexes],
        "tested": [tested for pool in audit.pools for tested in pool.tested],
    }
    return Audit(
        models=[model.model for model in audit.models],
        votes=_unpacked(audit, cast, VOTES),
        asked=pa.Table.from_pylist(asked, ASKED),
        names=pa.table({name: columns[name] for name in CANDIDATE_NAMES.names}, schema=CANDIDATE_NAMES),
        panel_votes=_unpacked(audit, on_panel, PANEL_VOTES),
        panel=pa.Table.from_pylist([{"identity": p.identity, "sex": p.sex} for p in audit.panel], PANEL),
    )


def _unpacked(audit: AuditFile, cast: Sequence[_Cast], schema: pa.Schema) -> pa.Table:
    """The matrices as a table with a row a vote."""
    names = {pool.pool: np.array([*pool.names, None], dtype=object) for pool in audit.pools}  # the last one is for -1
    templates = len(audit.templates)
    pictures = [len(one.votes) for one in cast]
    images = np.array([f"{p:06d}" for p in range(max(pictures, default=0))], dtype=object)
    row = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in pictures)])
    each = pa.array(np.repeat(np.arange(len(cast)), np.array(pictures, np.int64) * templates))
    predicted = [names[one.pool][np.array(one.votes, np.int64).ravel()] for one in cast]
    columns = {
        "model": pa.array([one.model for one in cast], pa.string()).take(each),
        "pool": pa.array([one.pool for one in cast], pa.string()).take(each),
        "identity": pa.array([one.identity for one in cast], pa.string()).take(each),
        "image": pa.array(images, pa.string()).take(pa.array(np.repeat(row, templates))),
        "template": pa.array(audit.templates, pa.string()).take(pa.array(np.tile(np.arange(templates), len(row)))),
        "predicted": pa.array(np.concatenate([np.empty(0, dtype=object), *predicted]), pa.string()),
    }
    table = pa.table({name: columns[name] for name in schema.names})
    return table.filter(pa.compute.is_valid(table["predicted"])).cast(schema)
