"""An audit with invented answers: some people known to the model, one name its favourite, the rest by chance."""

import numpy as np
import pyarrow as pa

from idia_core.attack import ASKED, PANEL, PANEL_VOTES, VOTES
from idia_core.audit_json import AuditFile, Favourite, Model, Person, Picture, StageRecord, Verdict
from idia_core.audit_tables import judge_tables, panel_of, pools_of, votes_of
from idia_core.candidates import CANDIDATE_NAMES
from idia_core.nulls import Audit
from idia_core.prompts import TEMPLATES
from idia_core.statistics import Rules, favourites, judge

RULES = Rules(min_pictures=3, seed=5)
PEOPLE = ("Ada Moon", "Béla Kun-Ray", "Cleo Starr", "Dan Ott", "Eve Li", "Finn O'Hara")


def answers(names: list[str], seed: list[int], pictures: int, known: str | None = None) -> list[list[str]]:
    """What a model says to each picture and template: `known` mostly, else chance with the first name a favourite."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(names) + 1) ** 0.7
    drawn = rng.choice(names, (pictures, len(TEMPLATES)), p=weights / weights.sum()).astype(object)
    if known is not None:
        drawn[rng.random(drawn.shape) < 0.6] = known
    return [[str(name) for name in row] for row in drawn]


def tables(people: tuple[str, ...] = PEOPLE, models: tuple[str, ...] = ("ViT-B-32_small",), panel: int = 60) -> Audit:
    """The tables of an audit in which the model knows the first half of the people, and has few pictures of the last.

    Of the others who are known, some have more pictures than others, so that a draw among them matters.
    """
    sexes = {name: "FM"[i % 2] for i, name in enumerate(people)}
    invented = [f"Decoy Number{k}" for k in range(200)]
    names = [*invented[:1], *people, *invented[1:]]
    pictures = {name: 2 if i == len(people) - 1 else 8 + i for i, name in enumerate(people)}
    votes, panel_votes = [], []
    for m, model in enumerate(models):
        for i, name in enumerate(people):
            known = name if i < len(people) // 2 else None
            for p, row in enumerate(answers(names, [m, i], pictures[name], known)):
                votes += [(model, f"id {name}", f"{name} {p}.jpg", t, x) for t, x in zip(TEMPLATES, row, strict=True)]
        for i in range(panel):
            for p, row in enumerate(answers(names, [m, 999, i], 5)):
                panel_votes += [
                    (model, "all", f"bystander {i}", f"{p}.jpg", t, x) for t, x in zip(TEMPLATES, row, strict=True)
                ]
    candidates = [("all", n, sexes.get(n, "FM"[k % 2]), n in people) for k, n in enumerate(names)]
    asked = [(f"id {n}", n, sexes[n], "all", pictures[n] + (n == people[0])) for n in people]
    bystanders = [(f"bystander {i}", "FM"[i % 2]) for i in range(panel)]
    return Audit(
        models=list(models),
        votes=table(votes, VOTES),
        asked=table(asked, ASKED),
        names=table(candidates, CANDIDATE_NAMES),
        panel_votes=table(panel_votes, PANEL_VOTES),
        panel=table(bystanders, PANEL),
    )


def table(rows: list[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    """An Arrow table from rows."""
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


def audit_file(found: Audit, rules: Rules = RULES) -> AuditFile:
    """The audit as the file holds it; the first person's last picture cannot be read."""
    pools = pools_of(found.names)
    people = []
    for row in found.asked.to_pylist():
        shown = sorted({v["image"] for v in found.votes.to_pylist() if v["identity"] == row["identity"]})
        good = [Picture(picture=image, status="ok", sha256="ab" * 32) for image in shown]
        bad = [Picture(picture="torn.jpg", status="broken", sha256=None)] * (row["pictures"] - len(good))
        chosen = {key: row[key] for key in ("identity", "name", "sex", "pool")}
        people.append(Person(**chosen, pictures=(*good, *bad)))
    panel, panel_votes = panel_of(found.panel, found.panel_votes, pools, TEMPLATES, rules.seed)
    return AuditFile(
        title="Six people",
        redacted=False,
        rules=rules,
        templates=TEMPLATES,
        models=tuple(
            Model(model=m, reference=f"ViT-B-32:/home/ada_moon/{m}.pt", architecture="ViT-B-32", sha256="c3" * 32)
            for m in found.models
        ),
        pools=pools,
        people=tuple(people),
        verdicts=tuple(Verdict(**row) for row in judge(found, rules).to_pylist()),
        favourites=tuple(Favourite(**row) for row in favourites(found, rules).to_pylist()),
        panel=panel,
        stages=(StageRecord(stage="attack", version=2, fingerprint="d4" * 32, inputs={"votes": "e5" * 32}, counts={}),),
        provenance={"command": "idia audit --people 'Ada Moon'", "python": "3.11"},
        votes=votes_of(found.votes, people, pools, TEMPLATES),
        panel_votes=panel_votes,
    )


__all__ = ["PEOPLE", "RULES", "answers", "audit_file", "judge_tables", "table", "tables"]
