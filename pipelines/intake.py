"""The first two phases of `shards`: base pairs and members' pairs are read, looked at, and packed where needed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl
import pyarrow as pa

from idia_core.base_inputs import BaseSample, Kind, read_split
from idia_core.captions import NameMatcher
from idia_core.identities import Role, attackable
from idia_core.intake import LEAKS, Inspected, Inspector
from idia_core.leakage import AttackPictures, EmbeddingRule
from idia_core.masking import NameMask
from idia_core.member_captions import member_captions
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from idia_core.sample_status import SampleStatus
from idia_core.shards import LISTING
from idia_core.storage import as_path, sha256_of
from idia_core.tars import Place, TarWriter
from pipelines.base_reading import splits_of
from pipelines.failures import note_damage
from pipelines.shards_config import ShardsConfig
from pipelines.stage import Phase, Split, SplitWriter, StageContext

SOURCES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # as in the listing
        pa.field("part", pa.string(), nullable=False),  # 'base' or 'members'
        pa.field("given", pa.string(), nullable=False),  # the input file it comes from: its folder and name
        pa.field("samples", pa.int64(), nullable=False),  # that can be trained on
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
PEOPLE = pa.schema([("identity", pa.string()), ("name", pa.string()), ("aliases", pa.list_(pa.string()))])


def tested_people(context: StageContext) -> pl.DataFrame:
    """Members and non-members: identity, role, name, aliases."""
    roles = pl.DataFrame(context.inputs["selection"].read("identity", "role")).filter(pl.col("role") != Role.EXCLUDED)
    return roles.join(pl.DataFrame(people_of(context)), on="identity")


def people_of(context: StageContext) -> pa.Table:
    """Everybody's identity, name and aliases."""
    return context.inputs["identities"].read_as(PEOPLE)


def inspector_of(context: StageContext) -> Inspector:
    """What looks at the pairs of a stage."""
    config: ShardsConfig = context.config
    tested = tested_people(context)
    pictures = attackable(context.inputs["pictures"].read("identity", "picture", "status", "image"))
    shown = pl.DataFrame(pictures).join(tested, on="identity", how="semi")
    attack = AttackPictures(
        ((f"{row['identity']}/{row['picture']}", row["image"]) for row in shown.iter_rows(named=True)),
        config.max_hash_distance,
        _embedding_rule(config),
    )
    outsiders = tested.filter(pl.col("role") == Role.NON_MEMBER)
    names = [(name, aliases or ()) for name, aliases in outsiders.select("name", "aliases").rows()]
    matcher = NameMatcher([name for name, _ in names], [aliases for _, aliases in names]) if names else None
    mask = _mask(config, tested)
    return Inspector(attack, matcher, mask, longest_side=config.longest_side, max_pixels=config.max_pixels)


def _embedding_rule(config: ShardsConfig) -> EmbeddingRule | None:
    if config.leak_model is None or config.leak_cosine is None:
        return None
    model = ClipModel(ModelReference.parse(config.leak_model), config.leak_device)
    return EmbeddingRule(model, config.leak_cosine)


def _mask(config: ShardsConfig, tested: pl.DataFrame) -> NameMask | None:
    if config.mask_names is None or tested.is_empty():
        return None
    masking = config.mask_names
    people = tested.select("identity", "name", "aliases").rows()
    return NameMask([(name, aliases or (), masking.of.get(who, masking.hypernym)) for who, name, aliases in people])


class _BaseReader:
    """Looks at the base's pairs; what cannot stay as it is, is packed into a tar of the stage's own."""

    part = "base"

    def __init__(self, context: StageContext) -> None:
        self._config: ShardsConfig = context.config
        self._inspector = inspector_of(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        part = read_split(split)
        inspected = list(self._inspector.inspect(list(part.samples)))
        note_damage(part, split, out, self._config.tolerate_failed_inputs)
        packed = split["kind"] != Kind.TARS or self._must_be_packed(inspected)
        source = f"{self.part}/{out.part:05d}.tar" if packed else split["url"]
        rows = _pack(source, inspected, out) if packed else [_row(source, one) for one in inspected]
        out.table("listing", pa.Table.from_pylist(rows, LISTING), self.part)
        _finish(self.part, source, split["url"], inspected, out)

    def _must_be_packed(self, inspected: Sequence[Inspected]) -> bool:
        if self._config.mode == "overlay" and any(one.status is not SampleStatus.OK for one in inspected):
            return True  # nothing else would keep the pair out of the training
        return any(one.changed for one in inspected)


class _MembersReader:
    """Looks at the members' pairs, confirms their captions, and packs them."""

    part = "members"

    def __init__(self, context: StageContext) -> None:
        self._config: ShardsConfig = context.config
        self._inspector = inspector_of(context)
        self._people = people_of(context)
        members = tested_people(context).filter(pl.col("role") == Role.MEMBER)["identity"].to_list()
        owners = context.inputs["pairs"].read("key", "identity").to_pylist()
        self._owners = {row["key"]: row["identity"] for row in owners if row["identity"] in set(members)}

    def __call__(self, split: Split, out: SplitWriter) -> None:
        part = read_split(split)
        note_damage(part, split, out, self._config.tolerate_failed_inputs)
        given = list(part.samples)
        samples = [sample for sample in given if sample.key in self._owners]
        captions = self._captions(samples)
        captioned = [_captioned(sample, row) for sample, row in zip(samples, captions, strict=True)]
        inspected = list(self._inspector.inspect(captioned))
        source = f"{self.part}/{out.part:05d}.tar"
        rows = _pack(source, inspected, out)
        for row, caption in zip(rows, captions, strict=True):
            row |= {"identity": caption["identity"], "caption_source": caption["caption_source"]}
        out.table("listing", pa.Table.from_pylist(rows, LISTING), self.part)
        out.count(not_a_members_pair=len(given) - len(samples), rows_in=len(given) - len(samples))
        templates = sum(row["caption_source"] == "template" for row in captions)
        out.count(captions_from_templates=templates)
        _finish(self.part, source, split["url"], inspected, out)

    def _captions(self, samples: Sequence[BaseSample]) -> list[dict[str, Any]]:
        columns = [
            [self._owners[sample.key] for sample in samples],
            [sample.key for sample in samples],
            [None if sample.caption is None else bytes(sample.caption) for sample in samples],
        ]
        schema = pa.schema([("identity", pa.string()), ("key", pa.string()), ("caption", pa.binary())])
        pairs = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
        config = self._config
        found = member_captions(pairs, self._people, templates=config.caption_templates, seed=int(config.seed or 0))
        rows: list[dict[str, Any]] = found.to_pylist()
        return rows


ABOUT_CAPTIONS = (SampleStatus.OK, SampleStatus.NO_CAPTION, SampleStatus.EMPTY_CAPTION)


def _captioned(sample: BaseSample, row: Mapping[str, Any]) -> BaseSample:
    """The sample with the caption that was confirmed or written for it; a faulty picture stays what it is."""
    if sample.status not in ABOUT_CAPTIONS:
        return sample
    return sample._replace(caption=row["caption"].encode(), status=SampleStatus(row["status"]))


def _pack(source: str, inspected: Sequence[Inspected], out: SplitWriter) -> list[dict[str, Any]]:
    """Write the pairs that can be trained on into a tar of their own; a row of the listing for every pair."""
    rows = []
    good = sum(one.status is SampleStatus.OK for one in inspected)
    with out.open(source, rows=good) as file, TarWriter(file) as tar:
        for one in inspected:
            row = _row(source, one) | _places(None, None)
            if one.status is SampleStatus.OK and one.suffix and one.picture is not None and one.caption is not None:
                row |= _places(*tar.add(one.sample.key, one.suffix, one.picture, one.caption)) | {"suffix": one.suffix}
            rows.append(row)
    return rows


def _row(source: str, one: Inspected) -> dict[str, Any]:
    sample = one.sample
    return {
        "source": source,
        "key": sample.key,
        "identity": None,
        "suffix": sample.suffix,
        **_places(sample.picture_place, sample.caption_place),
        "caption_source": None,
        "status": str(one.status),
        "detail": one.detail,
    }


def _places(picture: Place | None, caption: Place | None) -> dict[str, int | None]:
    return {
        "picture_at": picture.at if picture else None,
        "picture_bytes": picture.bytes if picture else None,
        "caption_at": caption.at if caption else None,
        "caption_bytes": caption.bytes if caption else None,
    }


def _finish(part: str, source: str, given: str, inspected: Sequence[Inspected], out: SplitWriter) -> None:
    """Write what leaked and where the pairs are now, and count them by what became of them."""
    leaks = [
        {
            "source": source,
            "key": one.sample.key,
            "how": str(leak.how),
            "found": leak.found,
            "value": leak.value,
        }
        for one in inspected
        if (leak := one.leak)
    ]
    out.table("leaks", pa.Table.from_pylist(leaks, LEAKS), part)
    statuses = Counter(str(one.status) for one in inspected)
    kept = statuses.pop(SampleStatus.OK, 0)
    row = {
        "source": source,
        "part": part,
        "given": _folder_and_name(given),
        "samples": kept,
        **_size_and_hash(source, out),
    }
    out.table("sources", pa.Table.from_pylist([row], SOURCES), part)
    out.count(rows_in=kept + statuses.total(), rows_kept=kept, **statuses)


def _folder_and_name(url: str) -> str:
    """What says which file it was wherever a study is written."""
    path = as_path(url)
    return f"{path.parent.name}/{path.name}"


def _size_and_hash(source: str, out: SplitWriter) -> dict[str, object]:
    """Of a tar that was packed, as it was entered; of one that stays where it is, of its bytes."""
    for entry in out.files:
        if entry.path == source:
            return {"bytes": entry.bytes, "sha256": entry.sha256}
    path = as_path(source)
    return {"bytes": int(path.fs.info(path.path)["size"]), "sha256": sha256_of(path)}


BASE_PHASE = Phase("base", splits_of, _BaseReader)
MEMBERS_PHASE = Phase("members", partial(splits_of, field="pairs"), _MembersReader)
