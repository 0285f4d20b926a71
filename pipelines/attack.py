"""`attack`: asks every model for the name on every picture of every person (paper, Section 4)."""

import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field, field_validator

from idia_core.attack import ASKED, PANEL, PANEL_VOTES, SIMILARITIES, VOTES
from idia_core.candidates import NameSource, candidate_names, pool_of
from idia_core.config import Resources, SeededConfig
from idia_core.errors import BudgetError
from idia_core.http_retries import RetrySettings
from idia_core.identities import IDENTITIES, attackable
from idia_core.manifest import digest_of
from idia_core.model_reference import OPEN_CLIP, Kind
from idia_core.names import name_key
from idia_core.prompts import TEMPLATES
from idia_core.storage import as_path, sha256_of
from idia_core.text_cache import TextCache
from pipelines.asking import Answers, Asker, LastModel, Pools, blocks_of_people, is_black_box, models, reference_of
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once
from pipelines.voters import NAMES_PER_BLOCK, block_path


class AttackResources(Resources):
    """How fast the attack runs."""

    text_cache: str | None = Field(default_factory=lambda: os.environ.get("IDIA_CACHE", "~/.cache/idia") + "/texts")
    """Folder or URL that keeps the prompts' embeddings between audits; null for none."""
    black_box: RetrySettings = RetrySettings()
    """How a model behind HTTP is asked."""
    connections: int = Field(default=4, ge=1)
    """Requests to a black box at a time."""
    questions_per_second: float | None = Field(default=None, gt=0)
    """The most questions to a black box, each a picture and a template with all its names; no limit when not given."""
    questions: int | None = Field(default=None, ge=1)
    """The most questions to a black box in all; an attack that needs more asks none."""


class AttackConfig(SeededConfig):
    """Settings of `attack`; the defaults are the paper's."""

    candidates: int = Field(default=1000, ge=2)
    """K: names that the model chooses from; the tested people's real names are among them."""
    names: NameSource = NameSource()
    """Where the other names come from."""
    templates: tuple[str, ...] = TEMPLATES
    """The prompts, `{0}` standing for the name."""
    people_per_split: int = Field(default=8, ge=1)
    """People in one piece of work; a black box is asked about all people in one."""
    device: str = Field(default="cpu", pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    """Where the models run: cpu, cuda, cuda:1."""
    batch_size: int | None = Field(default=None, ge=1)
    """Pictures that a model encodes at a time, 8 on a CPU and 256 on a GPU when not given. It decides the last bits of
    an embedding, so the cosines of `similarities` may differ by 1e-7."""
    resources: AttackResources = AttackResources()
    """Speed-only settings."""

    @field_validator("templates")
    @classmethod
    def _different(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(templates)) < max(1, len(templates)):
            raise ValueError("templates must be given, and each once")
        return templates


def _named_files(config: AttackConfig) -> Mapping[str, str]:
    files = {"first_names": config.names.first_names, "last_names": config.names.last_names}
    return {f"names.{field}": path for field, path in files.items() if path}


class _Namer:
    """Draws the candidate names, and says who is asked about and who is in the panel."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        context, config = self._context, self._context.config
        tested = people(context)
        names = candidate_names(tested.to_arrow(), config.candidates, int(config.seed or 0), config.names)
        pictures = pl.DataFrame(context.inputs["pictures"].read("identity")).group_by("identity").len("pictures")
        pools = [pool_of(locale, config.names) for locale in tested["locale"]]
        asked = tested.with_columns(pool=pl.Series(pools, dtype=pl.String))
        asked = asked.join(pictures, on="identity", how="left", maintain_order="left")
        asked = asked.with_columns(pictures=pl.col("pictures").fill_null(0).cast(pl.Int64))
        out.table("names", names)
        out.table("asked", asked.select(ASKED.names).to_arrow().cast(ASKED))
        panel = _panel(context, tested, out)
        out.table("panel", panel)
        self._check_budget(asked, panel, len(names["pool"].unique()))

    def _check_budget(self, asked: pl.DataFrame, panel: pa.Table, pools: int) -> None:
        context, config = self._context, self._context.config
        budget = config.resources.questions
        if budget is None or not any(is_black_box(context, model) for model in models(context)):
            return
        pictures = _usable(context, "pictures", asked["identity"])
        if len(panel):
            pictures += pools * _usable(context, "panel_pictures", pl.Series(panel["identity"].to_pylist()))
        if (needed := pictures * len(config.templates)) > budget:
            what = f"{needed:,} questions would be asked of a black box that may get {budget:,}"
            raise BudgetError(
                what, "stage attack, resources.questions", "Allow more with --questions, or test fewer people."
            )


def _usable(context: StageContext, field: str, identities: pl.Series) -> int:
    """How many pictures of those people can be shown."""
    pictures = pl.DataFrame(attackable(context.inputs[field].read("identity", "status")))
    return len(pictures.filter(pl.col("identity").is_in(identities.implode())))


def people(context: StageContext) -> pl.DataFrame:
    """The people under test, as `identities` has them: all, or those with a role in `selection`."""
    identities = pl.DataFrame(context.inputs["identities"].read_as(IDENTITIES))
    if "selection" not in context.inputs:
        return identities
    chosen = pl.DataFrame(context.inputs["selection"].read("identity", "role")).filter(pl.col("role") != "excluded")
    return identities.join(chosen, on="identity", how="semi", maintain_order="left")


def _panel(context: StageContext, tested: pl.DataFrame, out: SplitWriter) -> pa.Table:
    """The people of the panel but those who are under test, by any of their names."""
    if "panel_identities" not in context.inputs:
        return PANEL.empty_table()
    known = {key for row in tested.iter_rows(named=True) for key in _keys(row)}
    rows = context.inputs["panel_identities"].read_as(IDENTITIES).to_pylist()
    kept = [row for row in rows if not _keys(row) & known]
    out.count(panel_also_tested=len(rows) - len(kept))
    return pa.Table.from_pylist(kept, PANEL)


def _keys(row: Mapping[str, Any]) -> set[str]:
    return {name_key(name) for name in (row["name"], *(row["aliases"] or ()))}


def _text_blocks(context: StageContext) -> Iterable[Split]:
    names = len(Pools(context).names)
    for model in models(context):
        if not is_black_box(context, model):
            for first in range(0, names, NAMES_PER_BLOCK):
                yield model | {"first": first}


class _TextEncoder:
    """Embeds every prompt of a block of names, [N, k, D], but those that an audit of the same model embedded before."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._names, self._models = context, Pools(context).names, LastModel(context)
        self._caches: dict[str, TextCache] = {}

    def __call__(self, split: Split, out: SplitWriter) -> None:
        names = self._names[split["first"] : split["first"] + NAMES_PER_BLOCK].tolist()
        templates = self._context.config.templates
        cache = self._cache(split)
        texts_NkD = cache.embed(templates, names, lambda texts: self._models.get(split).encode_texts(texts))
        with out.open(block_path(split["model"], split["first"])) as file:
            np.save(file, texts_NkD)

    def _cache(self, split: Split) -> TextCache:
        """What is kept of a model, by all that its embeddings depend on."""
        config: AttackConfig = self._context.config
        reference, device = reference_of(self._context, split), config.device.partition(":")[0]
        # A tag and a folder's configuration decide, with the weights, what a model computes; a file's path does not.
        made_by = [sha256_of(file) for file in reference.files() if file.suffix == ".json"]
        made_by += [] if reference.kind is Kind.CHECKPOINT else [reference.weights]
        key = digest_of([split["sha256"], reference.architecture, *made_by, device, version(OPEN_CLIP)])
        folder = config.resources.text_cache
        return self._caches.setdefault(key, TextCache(as_path(folder) if folder else None, key))


def _asked(context: StageContext) -> Iterable[Split]:
    return blocks_of_people(context, "pictures", context.table("asked")["identity"].to_pylist())


class _Voter:
    """Asks a model about some of the people under test."""

    def __init__(self, context: StageContext) -> None:
        asked = context.table("asked").to_pylist()
        self._names = {row["identity"]: row["name"] for row in asked}
        self._asker = Asker(context, "pictures", {row["identity"]: [row["pool"]] for row in asked})
        self._templates = context.config.templates

    def __call__(self, split: Split, out: SplitWriter) -> None:
        votes, similarities = [VOTES.empty_table()], list[dict[str, Any]]()
        for answers in self._asker.ask(split, out):
            votes.append(_votes(split["model"], answers, self._templates, self._asker.pools).select(VOTES.names))
            if answers.image_D is not None:
                identity = answers.identity
                cosine, decoys = self._asker.cosines(split, answers.image_D, identity, self._names[identity])
                similarities.append({"model": split["model"], "identity": identity, "cosine": cosine, "decoys": decoys})
        out.table("votes", pa.concat_tables(votes))
        out.table("similarities", pa.Table.from_pylist(similarities, SIMILARITIES))


def _paneled(context: StageContext) -> Iterable[Split]:
    panel = context.table("panel")["identity"].to_pylist()
    return blocks_of_people(context, "panel_pictures", panel) if panel else once(context)


class _PanelVoter:
    """Asks a model about some people of the panel, under every pool of names; without a panel its table is empty."""

    def __init__(self, context: StageContext) -> None:
        panel, pools = context.table("panel")["identity"].to_pylist(), context.table("names")["pool"].unique()
        pools_of = dict.fromkeys(panel, sorted(pools.to_pylist()))
        self._asker = Asker(context, "panel_pictures", pools_of) if panel else None
        self._templates = context.config.templates

    def __call__(self, split: Split, out: SplitWriter) -> None:
        votes, asker = [PANEL_VOTES.empty_table()], self._asker
        if asker:
            votes += [_votes(split["model"], a, self._templates, asker.pools) for a in asker.ask(split, out)]
        out.table("panel_votes", pa.concat_tables(votes))


def _votes(model: str, answers: Answers, templates: tuple[str, ...], pools: Pools) -> pa.Table:
    pictures, per_picture = len(answers.pictures), len(templates)
    columns = {
        "model": pa.repeat(model, pictures * per_picture),
        "pool": pa.repeat(answers.pool, pictures * per_picture),
        "identity": pa.repeat(answers.identity, pictures * per_picture),
        "image": np.repeat(answers.pictures, per_picture),
        "template": np.tile(templates, pictures),
        "predicted": pools.names[answers.predicted_PN.ravel()],
    }
    return pa.table(columns, schema=PANEL_VOTES)


STAGE = Stage(
    name="attack",
    version=2,
    summary="ask the models for names",
    config=AttackConfig,
    inputs={
        "models": Input("models (model, reference, sha256)"),
        "identities": Input("people (identity, name, sex, aliases, locale)"),
        "selection": Input("who is tested (identity, role); everybody without it", optional=True),
        "pictures": Input("attack pictures (identity, picture, status, image)"),
        "panel_identities": Input("the reference panel's people (identity, name, sex)", optional=True),
        "panel_pictures": Input("their pictures (identity, picture, status, image)", optional=True),
    },
    phases=(
        Phase("names", once, _Namer),
        Phase("texts", _text_blocks, _TextEncoder),
        Phase("votes", _asked, _Voter, outward=True),
        Phase("panel", _paneled, _PanelVoter, outward=True),
    ),
    tables=("names", "asked", "panel", "text_embeddings", "votes", "similarities", "panel_votes"),
    named_files=_named_files,
)
