"""`shards`: the training sets for each K, as WebDataset tars that open_clip reads (paper, Section 5.1)."""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pyarrow.parquet as pq

from idia_core.base_inputs import base_files
from idia_core.errors import InvalidInputError, LeakageError
from idia_core.identities import Role, attackable
from idia_core.leakage import leakage
from idia_core.member_captions import shortfall
from idia_core.model_reference import named_files
from idia_core.sample_status import SampleStatus
from idia_core.shards import (
    BASE,
    LEDGER,
    LISTING,
    PLAN,
    Shape,
    plan_base,
    plan_overlay,
    plan_rewrite,
    ranked_pairs,
    set_name,
    shard_path,
    usable_base,
)
from idia_core.sources import SampleReader
from idia_core.tars import TarWriter
from idia_core.train_data import train_data
from pipelines.base_reading import BACKGROUND
from pipelines.failures import check_failures
from pipelines.intake import BASE_PHASE, MEMBERS_PHASE, tested_people
from pipelines.shards_config import ShardsConfig
from pipelines.shards_preview import preview
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once

TARS_PER_SPLIT = 16
"""Tars that a worker writes one after another: starting a split costs as much as writing a small tar."""
REPEATED = ["source", "suffix", "status"]
"""Columns of the listing in which few values stand for many pairs."""
PLANNED = [name for name in PLAN.names if name in LISTING.names]
COMPARED = [str(s) for s in (SampleStatus.OK, SampleStatus.SHOWS_ATTACK_PICTURE, SampleStatus.NAMES_NON_MEMBER)]
"""Statuses of pairs that nothing else kept out before they were compared with what must stay out."""


def _members(context: StageContext) -> list[str]:
    members: list[str] = tested_people(context).filter(pl.col("role") == Role.MEMBER)["identity"].to_list()
    return members


def _listing(context: StageContext, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of the listing of all pairs; of millions, so that what repeats is held once."""
    files = sorted((context.folder / "listing").glob("*.parquet"), key=str)
    options = pds.ParquetReadOptions(dictionary_columns=REPEATED)
    dataset = pds.dataset(
        [f.path for f in files], filesystem=context.folder.fs, format=pds.ParquetFileFormat(read_options=options)
    )
    return pl.DataFrame(dataset.to_table(columns=list(columns)))


class _Checker:
    """Sees that the members have enough pairs and that nothing is among the pairs that must stay out."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._config = context, context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config: ShardsConfig = self._config
        check_failures(
            self._context, base_files(self._context.inputs["background"].files)
        )  # the members' pairs are read in full or not at all
        listing = _listing(self._context, ["identity", "key", "status"])
        short = shortfall(
            listing.select("identity", "status").to_arrow(), _members(self._context), config.images_per_member
        )
        out.table("shortfall", short)
        out.count(members_with_fewer_pairs=short.num_rows)
        leaks = self._context.table("leaks")
        out.table("leakage", self._leakage(listing, leaks))
        self._refuse(short, leaks)

    def _leakage(self, listing: pl.DataFrame, leaks: pa.Table) -> pa.Table:
        compared = int(listing["status"].is_in(COMPARED).sum())
        tested = tested_people(self._context).select("identity")
        pictures = pl.DataFrame(attackable(self._context.inputs["pictures"].read("identity", "status")))
        shown = pictures.join(tested, on="identity", how="semi").height
        return leakage(compared, shown, leaks["how"].to_pylist(), embedded=self._config.leak_model is not None)

    def _refuse(self, short: pa.Table, leaks: pa.Table) -> None:
        if leaks.num_rows and self._config.leaks == "stop":
            first = leaks.sort_by("key").slice(0, 1).to_pylist()[0]
            verb = "names the non-member" if first["how"] == "names_non_member" else "shows the attack picture"
            what = f"training pair '{first['key']}' {verb} '{first['found']}' ({first['how']}); {leaks.num_rows} in all"
            raise LeakageError(what, "stage shards", "Take them out of one side, or set leaks: leave_out.")
        if short.num_rows and self._config.fewer_pairs == "stop":
            told = ", ".join(f"'{row['identity']}' {row['pairs']}" for row in short.slice(0, 5).to_pylist())
            more = f" and {short.num_rows - 5} more" if short.num_rows > 5 else ""
            what = f"{short.num_rows} members have fewer than {max(self._config.images_per_member)} pairs: {told}{more}"
            fix = "Lower images_per_member, select people with more pairs, or set fewer_pairs: achieved."
            raise InvalidInputError(what, "stage shards, images_per_member", fix)


def _sets(context: StageContext) -> Iterable[Split]:
    config: ShardsConfig = context.config
    if config.mode == "overlay":
        yield {"set": BASE, "images_per_member": 0}
    for k in sorted(set(config.images_per_member)):
        yield {"set": set_name(k), "images_per_member": k}


class _Planner:
    """Plans one set after another."""

    def __init__(self, context: StageContext) -> None:
        config: ShardsConfig = context.config
        self._config, self._seed = config, int(config.seed or 0)
        listing = _listing(context, [*PLANNED, "status"])
        self._ranked = ranked_pairs(listing, _members(context), self._seed)
        self._base = usable_base(listing)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        out.table("plan", self._planned(split["set"], split["images_per_member"]))

    def _planned(self, name: str, k: int) -> pa.Table:
        config = self._config
        if config.mode == "rewrite":
            return plan_rewrite(self._base, self._ranked, k, Shape(config.shard_size, config.exact_for), self._seed)
        if name == BASE:
            return plan_base(self._base, self._ranked)
        base_tars = self._base["source"].n_unique()
        return plan_overlay(self._ranked, k, config.member_shards or max(1, base_tars), self._seed)


def _tars(context: StageContext) -> Iterable[Split]:
    for part, planned in enumerate(_sets(context)):
        path = context.folder / f"plan/part-{part:05d}.parquet"
        with pq.ParquetFile(path.path, filesystem=path.fs) as plan:
            shards = _last_shard(plan) + 1
        if planned["set"] == BASE:
            yield {**planned, "plan": path.name, "first": 0, "stop": shards}
            continue
        for first in range(0, shards, TARS_PER_SPLIT):
            yield {**planned, "plan": path.name, "first": first, "stop": min(first + TARS_PER_SPLIT, shards)}


def _last_shard(plan: pq.ParquetFile) -> int:
    """The highest shard in a plan, which is sorted by it, from the file's own statistics; -1 for an empty plan."""
    if plan.metadata.num_rows == 0:
        return -1
    last = plan.metadata.row_group(plan.metadata.num_row_groups - 1)
    return int(last.column(plan.schema_arrow.get_field_index("shard")).statistics.max)


class _Packer:
    """Writes the tars of a set one after another, and enters them in the ledger; the base's are entered as they are."""

    def __init__(self, context: StageContext) -> None:
        self._folder, self._reader = context.folder, SampleReader(context.folder)
        self._sources = pl.DataFrame(context.table("sources"))

    def __call__(self, split: Split, out: SplitWriter) -> None:
        path = self._folder / "plan" / split["plan"]
        first, stop = split["first"], split["stop"]
        if split["set"] == BASE:
            out.table("ledger", self._base())
            return
        mine = (pc.field("shard") >= first) & (pc.field("shard") < stop)
        rows = pq.read_table(path.path, filesystem=path.fs, filters=mine)
        shards = pl.DataFrame(rows).sort("shard", "position").partition_by("shard", maintain_order=True)
        entries = [self._write(shard, out) for shard in shards]
        out.table("ledger", pa.Table.from_pylist(entries, LEDGER))
        out.count(pairs_written=rows.num_rows)

    def _write(self, shard: pl.DataFrame, out: SplitWriter) -> dict[str, object]:
        name, number = shard["set"][0], shard["shard"][0]
        path = f"tars/{shard_path(name, number)}"
        with out.open(path, rows=shard.height) as file, TarWriter(file) as tar:
            tar.extend(shard["key"].to_list(), shard["suffix"].to_list(), list(self._reader.read(shard)))
        written = out.files[-1]
        return {
            "set": name,
            "images_per_member": shard["images_per_member"][0],
            "shard": number,
            "path": path,
            "samples": shard.height,
            "member_samples": shard["identity"].count(),
            "bytes": written.bytes,
            "sha256": written.sha256,
        }

    def _base(self) -> pa.Table:
        """The base's tars: most are inputs that stay in their places."""
        tars = self._sources.filter((pl.col("part") == BASE) & (pl.col("samples") > 0)).sort("source")
        entries = tars.select(
            set=pl.lit(BASE),
            images_per_member=pl.lit(0, pl.Int64),
            shard=pl.int_range(pl.len(), dtype=pl.Int64),
            path="source",
            samples="samples",
            member_samples=pl.lit(0, pl.Int64),
            bytes="bytes",
            sha256="sha256",
        )
        return entries.to_arrow().cast(LEDGER)


class _Summer:
    """Writes for each set what open_clip's --train-data is."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        ledger = pl.DataFrame(self._context.table("ledger")).sort("set", "shard")
        base = ledger.filter(pl.col("set") == BASE)["path"].to_list()
        for planned in _sets(self._context):
            if planned["set"] != BASE:
                own = ledger.filter(pl.col("set") == planned["set"])["path"].to_list()
                out.write(f"train_data/{planned['set']}.txt", f"{train_data([*base, *own])}\n".encode())


def _named_files(config: ShardsConfig) -> Mapping[str, str]:
    return named_files("leak_model", config.leak_model)


STAGE = Stage(
    name="shards",
    version=2,
    summary="pack training sets",
    config=ShardsConfig,
    inputs={
        "background": BACKGROUND,
        "pairs": Input("members' pairs (key, identity, caption, image)"),
        "selection": Input("roles (identity, role)"),
        "identities": Input("people (identity, name, aliases)"),
        "pictures": Input("attack pictures, to keep them out (identity, picture, status, image)"),
    },
    phases=(
        BASE_PHASE,
        MEMBERS_PHASE,
        Phase("check", once, _Checker),
        Phase("plan", _sets, _Planner),
        Phase("tars", _tars, _Packer),
        Phase("sum", once, _Summer),
    ),
    tables=(
        "listing",
        "sources",
        "leaks",
        "shortfall",
        "leakage",
        "plan",
        "tars",
        "base",
        "members",
        "ledger",
        "train_data",
    ),
    named_files=_named_files,
    preview=preview,
)
