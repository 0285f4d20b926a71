"""What `shards` would write, from the sizes of its inputs alone: for `--dry-run`, before a picture is read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from idia_core.base_inputs import Kind, base_splits, read_split
from idia_core.identities import Role
from idia_core.shards import Shape, set_name
from idia_core.storage import as_path
from pipelines.intake import tested_people
from pipelines.shards_config import ShardsConfig
from pipelines.stage import Preview, StageContext

DECODED_A_SECOND, WRITTEN_A_SECOND = 190, 700e6
"""What a core does: pictures of 512 pixels looked at, and bytes gathered, hashed and written."""


class SetSize(NamedTuple):
    """How large a base, or the members' pairs of a set, are."""

    pairs: int
    bytes: int
    files: int = 0


def preview(context: StageContext) -> Preview:
    """Pairs, tars and bytes of every set, and what reading and writing them costs."""
    config: ShardsConfig = context.config
    base, members, held = _base(context), _file_bytes(context, "pairs"), _pairs_of_members(context)
    each = members // max(1, context.inputs["pairs"].read("identity").num_rows)
    rows = []
    for k in sorted(set(config.images_per_member)):
        own = sum(min(k, pairs) for pairs in held)
        rows.append(set_row(config, base, SetSize(own, own * each), k))
    written, looked = sum(row["bytes"] for row in rows), base.pairs + sum(held)
    hours = (looked / DECODED_A_SECOND + written / WRITTEN_A_SECOND) / 3600
    work = f"read {(base.bytes + members) / 1e9:,.2f} GB, look at {looked:,} pictures, write {written / 1e9:,.2f} GB"
    notes = (f"{work}: about {hours:,.2f} hours of one core.", "Pairs that turn out to be unusable are left out.")
    return Preview(rows, notes)


def set_row(config: ShardsConfig, base: SetSize, members: SetSize, k: int) -> dict[str, Any]:
    """A training set: its pairs, its new tars and their bytes; `InvalidInputError` where they fill no batch."""
    total, left_out, written = base.pairs + members.pairs, 0, members.bytes
    tars = min(config.member_shards or base.files, members.pairs)
    if config.mode == "rewrite":
        shape = Shape(config.shard_size, config.exact_for)
        left_out = total - shape.total(base.pairs, members.pairs, k)
        tars = shape.shards(total - left_out)
        written += base.bytes * max(0, base.pairs - left_out) // max(1, base.pairs)
    counts = {"pairs": total - left_out, "members_pairs": members.pairs, "base_pairs_left_out": left_out}
    return {"set": set_name(k), **counts, "new_tars": tars, "bytes": written}


def _base(context: StageContext) -> SetSize:
    config: ShardsConfig = context.config
    splits = list(base_splits(context.inputs["background"].files, config.lists, config.images))
    return SetSize(sum(_pairs(split) for split in splits), _file_bytes(context, "background"), len(splits))


def _pairs(split: Mapping[str, Any]) -> int:
    """How many pairs a piece of the base has, without looking at them."""
    if split["kind"] != Kind.TARS:
        return int(split["stop"] - split["start"]) if "stop" in split else int(split["rows"])
    statistics = as_path(split["url"].removesuffix(".tar") + "_stats.json")
    if statistics.exists():
        return int(json.loads(statistics.read_bytes())["successes"])
    return sum(1 for _ in read_split(split).samples)


def _file_bytes(context: StageContext, field: str) -> int:
    return sum(int(file.fs.info(file.path)["size"]) for file in context.inputs[field].files)


def _pairs_of_members(context: StageContext) -> Sequence[int]:
    """How many pairs each member has, usable or not."""
    members = tested_people(context).filter(pl.col("role") == Role.MEMBER).select("identity")
    pairs = pl.DataFrame(context.inputs["pairs"].read("identity"))
    counts: list[int] = members.join(pairs, on="identity").group_by("identity").len()["len"].to_list()
    return counts
