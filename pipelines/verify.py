"""`verify`: every training shard read again, and whatever is wrong with it named."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from upath import UPath

from idia_core.config import StageConfig
from idia_core.errors import InvalidInputError
from idia_core.manifest import FAILED, MANIFEST, Manifest, read_manifest
from idia_core.sources import source_path
from idia_core.storage import find_files
from idia_core.verification import (
    FAULTS,
    VERIFIED,
    Expected,
    Fault,
    Found,
    Verified,
    in_order,
    table_of,
    verify_file,
    verify_sets,
)
from pipelines.stage import Input, Phase, ResolvedInput, Split, SplitWriter, Stage, StageContext, once, read_parquet

SPLIT_BYTES = 256 << 20
LEDGER_COLUMNS = ("set", "images_per_member", "shard", "path", "samples", "member_samples", "bytes", "sha256")
PLAN_COLUMNS = ("set", "images_per_member", "shard", "position", "key", "identity")
OWN_FOLDERS = ("tars", "base")
"""Folders in which nothing may lie that nobody planned, even where no manifest says that they are the stage's."""
SAID = 3
"""Faults that the error of a failed stage names."""
TABLE_ERRORS = (InvalidInputError, pa.ArrowInvalid, OSError)
"""What reading a plan or a ledger raises that is gone or damaged."""

Written = Mapping[str, Mapping[str, Any]]


class VerifyConfig(StageConfig):
    """Settings of `verify`."""

    decode: bool = False
    """Decode every picture again; otherwise only those of tars that differ from their hash, or that have none."""


def shards_folder(context: StageContext) -> UPath:
    """The folder that is verified: the ledger's paths are below it."""
    return context.inputs["ledger"].root.parent


def _splits(context: StageContext) -> Iterable[Split]:
    """The plan as a whole, what should not be there, and the files in groups of about equal size.

    Without a ledger they are the tars of the folder, of which nobody says what they should be. A split that was there
    in a run that failed is there in the next, so that no fault of it stays behind.
    """
    folder = shards_folder(context)
    present = _present(folder)
    if not context.inputs["ledger"].files:
        tars = find_files(str(folder), ("**/*.tar",), "idia verify")
        names = [str(tar).removeprefix(f"{folder}/") for tar in tars]
        yield from _grouped([{"path": name} for name in names], present)
        return
    manifest = read_manifest(folder)
    files = _listed(context, manifest)
    known = {file["path"] for file in files}
    own = {*OWN_FOLDERS, *(manifest.tables() if manifest else ())}
    yield {"plan": True}
    yield {"unplanned": sorted(name for name in present if name not in known and name.partition("/")[0] in own)}
    yield from _grouped(files, present)


def _present(folder: UPath) -> Written:
    """The files below a folder: their sizes, and what tells that a file was written again.

    A file that was found good and has been written since is read again, even by a run that goes on from an earlier one.
    """
    root, found = folder.path.rstrip("/"), dict[str, dict[str, Any]]()
    for name, info in folder.fs.find(root, detail=True).items():
        written = next((str(info[key]) for key in ("ETag", "mtime", "LastModified", "created") if info.get(key)), "")
        found[str(name).removeprefix(f"{root}/")] = {"size": int(info["size"] or 0), "written": written}
    return found


def _listed(context: StageContext, manifest: Manifest | None) -> list[dict[str, Any]]:
    """What the manifest says that there is, with the ledger's places, then what only the ledger says.

    A file of which they do not say the same is there twice, and is at fault by one of them.
    """
    try:
        rows = _ledger(context.inputs["ledger"]).sort("set", "shard", "path").to_dicts()
    except InvalidInputError:  # its own file and the plan's check tell
        rows = []
    if manifest is None:
        return [*rows, {"path": MANIFEST}]  # which will be found missing
    listed = {(row["path"], row["bytes"], row["sha256"]): row for row in rows}
    entries = sorted((entry for receipt in manifest.receipts for entry in receipt.files), key=lambda entry: entry.path)
    files = [
        listed.pop((entry.path, entry.bytes, entry.sha256), {})
        or {"path": entry.path, "bytes": entry.bytes, "sha256": entry.sha256}
        for entry in entries
    ]
    return [*files, *listed.values()]


def _grouped(files: Iterable[Mapping[str, Any]], present: Written) -> Iterator[Split]:
    group, size = list[dict[str, Any]](), 0
    for file in files:
        here = present.get(file["path"], {})
        bytes_ = int(file.get("bytes", here.get("size", 0)))
        if group and size + bytes_ > SPLIT_BYTES:
            yield {"files": group}
            group, size = [], 0
        group.append({**file, "written": here.get("written", "")})
        size += bytes_
    yield {"files": group}


def _ledger(given: ResolvedInput) -> pl.DataFrame:
    """The ledger; `InvalidInputError` where it cannot be read."""
    return pl.concat([pl.DataFrame(read_parquet(file, LEDGER_COLUMNS)) for file in given.files])


def _plan(given: ResolvedInput) -> pds.Dataset:
    """The plan, not read yet; one of `TABLE_ERRORS` where it cannot be, now or later."""
    if not given.files:
        raise InvalidInputError("there is no plan", str(given.root))
    dataset = pds.dataset([file.path for file in given.files], filesystem=given.root.fs, format="parquet")
    if missing := [column for column in PLAN_COLUMNS if column not in dataset.schema.names]:
        raise InvalidInputError(f"no column '{missing[0]}'", str(given.root))
    return dataset


class _Reader:
    """Reads files again, or looks at the plan as a whole."""

    def __init__(self, context: StageContext) -> None:
        self._folder, self._decode = shards_folder(context), context.config.decode
        self._ledger, self._plan = context.inputs["ledger"], context.inputs["plan"]

    def __call__(self, split: Split, out: SplitWriter) -> None:
        if "files" in split:
            faults = self._files(split["files"], out)
        elif "plan" in split:
            faults = self._sets()
        else:
            faults = [Found(path, None, Fault.UNPLANNED_FILE, None) for path in split["unplanned"]]
        out.table("faults", table_of(faults, FAULTS))
        if faults:
            out.note(FAILED, faults[0].told())  # so that the split is done again once they are mended

    def _files(self, files: Sequence[Mapping[str, Any]], out: SplitWriter) -> list[Found]:
        planned, faults, read = self._planned(files), list[Found](), list[Verified]()
        for done, file in enumerate(files):
            path = file["path"]
            expected = _expected(file, planned)
            verified, found = verify_file(source_path(self._folder, path), path, expected, decode=self._decode)
            faults += found
            read += [verified] if verified else []
            out.report((done + 1) / len(files), path)
        out.table("shards", table_of(read, VERIFIED))
        samples = sum(tar.samples for tar in read)
        out.count(rows_in=samples, tars=len(read), bytes=sum(tar.bytes for tar in read))
        return faults

    def _planned(self, files: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[str]] | None:
        """The keys of the files' shards in the plan's order; None where there is no plan, which `_sets` tells."""
        keys = dict[tuple[str, int], list[str]]()
        try:
            plan = _plan(self._plan)
            for name in sorted({file["set"] for file in files if "set" in file}):
                shards = [file["shard"] for file in files if file.get("set") == name]
                place = (pc.field("shard") >= min(shards)) & (pc.field("shard") <= max(shards))
                rows = plan.to_table(columns=["shard", "position", "key"], filter=(pc.field("set") == name) & place)
                ordered = pl.DataFrame(rows).sort("shard", "position")
                for (shard,), mine in ordered.partition_by("shard", as_dict=True).items():
                    keys[name, int(shard)] = mine["key"].to_list()
        except TABLE_ERRORS:
            return None
        return keys

    def _sets(self) -> list[Found]:
        try:
            ledger, achieved = _ledger(self._ledger), self._achieved()
            return verify_sets(pl.scan_pyarrow_dataset(_plan(self._plan)), ledger, achieved)
        except TABLE_ERRORS as error:
            return [
                Found("plan", None, Fault.UNREADABLE, f"it was compared with nothing: {str(error).splitlines()[0]}")
            ]

    def _achieved(self) -> dict[str, int]:
        """The members who have fewer pairs than wanted, where the stage was told to go on with those."""
        files = sorted((self._folder / "shortfall").glob("*.parquet"), key=str)
        rows = [row for file in files for row in read_parquet(file, ("identity", "pairs")).to_pylist()]
        return {row["identity"]: row["pairs"] for row in rows}


def _expected(file: Mapping[str, Any], planned: Mapping[tuple[str, int], list[str]] | None) -> Expected | None:
    if "sha256" not in file:
        return None
    keys = planned.get((file["set"], file["shard"]), []) if planned is not None and "set" in file else None
    return Expected(file["bytes"], file["sha256"], keys)


class _Judge:
    """Fails the stage if there is any fault."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._folder = context, shards_folder(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        faults = in_order(self._context.table("faults"))
        if faults:
            first = "; ".join(found.told() for found in faults[:SAID])
            what = f"{'1 fault' if len(faults) == 1 else f'{len(faults):,} faults'}: {first}"
            fix = f"`idia verify {self._folder}` names all. Put the files back, or delete the folder to make it again."
            raise InvalidInputError(what, str(self._folder), fix)


CHECK = Phase("check", _splits, _Reader)
"""Finds every fault and fails for none: `faults` holds them, `shards` what was read."""

STAGE = Stage(
    name="verify",
    version=1,
    summary="read the shards again",
    config=VerifyConfig,
    inputs={
        "ledger": Input("the shards' ledger, beside which their manifest and tars lie"),
        "plan": Input("which pair is in which shard (set, images_per_member, shard, position, key, identity)"),
    },
    phases=(CHECK, Phase("sum", once, _Judge)),
    tables=("shards", "faults"),
)
