"""`shards`: the training sets for each K, as WebDataset tars that open_clip reads (paper, Section 5.1)."""

from collections.abc import Iterable
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from pydantic import Field

from idia_core.config import SeededConfig
from idia_core.images import decode_picture, encode_thumbnail
from idia_core.leakage import LEAKAGE, Leakage, check_leakage
from idia_core.shards import plan_sets, shard_path, write_tar
from pipelines.stage import Input, Phase, ResolvedInput, Split, SplitWriter, Stage, StageContext, once


class ShardsConfig(SeededConfig):
    """Settings of `shards`."""

    images_per_member: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(75, 50, 25, 10, 5, 1), min_length=1)
    """K: one training set is built for each."""
    shard_size: int = Field(default=64, ge=1)
    """Pairs in a tar; all tars are equal."""
    multiple_of: int = Field(default=128, ge=1)
    """The pairs of a set are a multiple of this: batch size x processes of the training."""
    longest_side: int | None = Field(default=None, ge=1)
    """Larger pictures are stored at this many pixels, as JPEG, which saves decoding; null keeps the bytes."""


class _Planner:
    """Plans the sets, and refuses to when an attack picture or a non-member's name is among the training pairs."""

    def __init__(self, context: StageContext) -> None:
        self._inputs, self._config = context.inputs, context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config: ShardsConfig = self._config
        roles = self._inputs["selection"].read("identity", "role")
        members = roles.filter(pc.equal(roles["role"], "member"))["identity"]
        pairs = self._inputs["pairs"].read("identity", "key")
        plan = plan_sets(
            self._inputs["background"].read("key")["key"].to_pylist(),
            pairs.filter(pc.is_in(pairs["identity"], members.combine_chunks())),
            images_per_member=config.images_per_member,
            shard_size=config.shard_size,
            multiple_of=config.multiple_of,
            seed=int(config.seed or 0),
        )
        out.table("plan", plan)
        out.table("leakage", pa.Table.from_pylist([self._leakage(plan)._asdict()], LEAKAGE))

    def _leakage(self, plan: pa.Table) -> Leakage:
        used = pc.unique(plan["key"])
        training = [row for field in ("pairs", "background") for row in rows_of(self._inputs[field], used)]
        selection = pl.DataFrame(self._inputs["selection"].read("identity", "role"))
        names = pl.DataFrame(self._inputs["identities"].read("identity", "name"))
        tested = selection.filter(pl.col("role") != "excluded").join(names, on="identity")
        pictures = pl.DataFrame(self._inputs["pictures"].read("identity", "picture", "status", "image"))
        attack = pictures.filter(pl.col("status") == "ok").join(tested, on="identity", how="semi")
        return check_leakage(
            training=((row["key"], row["image"], row["caption"]) for row in training),
            attack=((f"{row['identity']}/{row['picture']}", row["image"]) for row in attack.iter_rows(named=True)),
            outsiders=tested.filter(pl.col("role") == "non_member")["name"].to_list(),
        )


def _tars(context: StageContext) -> Iterable[Split]:
    plan = pl.DataFrame(context.table("plan"))
    for name, shard in plan.select("set", "shard").unique().sort("set", "shard").rows():
        yield {"set": name, "shard": shard}


class _Packer:
    """Writes one tar after another."""

    def __init__(self, context: StageContext) -> None:
        self._inputs, self._longest_side = context.inputs, context.config.longest_side
        self._plan = pl.DataFrame(context.table("plan"))

    def __call__(self, split: Split, out: SplitWriter) -> None:
        mine = self._plan.filter((pl.col("set") == split["set"]) & (pl.col("shard") == split["shard"]))
        keys = mine.sort("position")["key"].to_list()
        wanted = pa.array(keys, pa.string())
        rows = {row["key"]: row for field in ("pairs", "background") for row in rows_of(self._inputs[field], wanted)}
        with out.open(f"tars/{shard_path(split['set'], split['shard'])}", rows=len(keys)) as file:
            write_tar(file, ((key, self._stored(rows[key]["image"]), rows[key]["caption"]) for key in keys))
        out.count(rows_in=len(keys), rows_kept=len(keys))

    def _stored(self, image: bytes) -> bytes:
        longest = self._longest_side
        picture = None if longest is None else decode_picture(image)[0]
        if longest is None or picture is None or max(picture.size) <= longest:
            return image
        return encode_thumbnail(picture, longest, quality=90)


def rows_of(source: ResolvedInput, keys: pa.Array) -> list[dict[str, Any]]:
    """The pairs with those keys, read file by file."""
    first = source.files[0]
    dataset = pds.dataset([file.path for file in source.files], filesystem=first.fs, format="parquet")
    found: list[dict[str, Any]] = dataset.to_table(
        columns=["key", "caption", "image"], filter=pds.field("key").isin(keys)
    ).to_pylist()
    return found


STAGE = Stage(
    name="shards",
    version=1,
    summary="pack training sets",
    config=ShardsConfig,
    inputs={
        "background": Input("background pairs (key, caption, image)"),
        "pairs": Input("members' pairs (key, identity, caption, image)"),
        "selection": Input("roles (identity, role)"),
        "identities": Input("people (identity, name)"),
        "pictures": Input("attack pictures, to keep them out (identity, picture, status, image)"),
    },
    phases=(Phase("plan", once, _Planner), Phase("tars", _tars, _Packer)),
    tables=("plan", "leakage", "tars"),
)
