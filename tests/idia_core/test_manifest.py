"""Fingerprints and seals: what they change with, and what they refuse."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from idia_core import manifest as module
from idia_core.errors import SealError
from idia_core.manifest import (
    PACKAGES,
    FileEntry,
    InputRecord,
    Manifest,
    Provenance,
    Receipt,
    code_version,
    digest_of,
    fingerprint,
    missing_files,
    provenance,
    read_manifest,
    total_counts,
    write_manifest,
)
from idia_core.storage import as_path, write_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


def _entry(path: str, size: int = 1, sha256: str = "00") -> FileEntry:
    return FileEntry(path=path, bytes=size, sha256=sha256, rows=2)


def _manifest(*receipts: Receipt) -> Manifest:
    return Manifest(
        stage="scan",
        version=3,
        fingerprint="f00d",
        config={"names": ["Zoë", "漢"], "limit": None, "rate": 0.25},
        resources={"workers": 2},
        inputs={"captions": InputRecord(source="x/*.parquet", digest="d1", files=2)},
        counts={"rows_in": 3},
        receipts=receipts,
        provenance=Provenance(
            argv=("idia", "run"),
            commit=None,
            dirty=None,
            python="3.11",
            versions={"ray": "2"},
            started="2026-01-01T00:00:00+00:00",
            seconds=1.5,
        ),
    )


RECEIPTS = (
    Receipt(split="b-1", key="k1", files=(_entry("matches/part-1.parquet"), _entry("counts/part-0.parquet", 7))),
    Receipt(split="a-0", key="k0", files=(_entry("matches/part-0.parquet", sha256="11"),), counts={"rows_in": 3}),
    Receipt(split="c-2", key="k2"),
)


def _shuffled(value: object) -> object:
    """The same value with every mapping's keys in the opposite order."""
    if isinstance(value, dict):
        return {key: _shuffled(value[key]) for key in reversed(value)}
    return [_shuffled(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_a_digest_does_not_depend_on_the_order_of_keys(value: object) -> None:
    """Mappings with their keys in another order, at any depth, have the same digest."""
    assert digest_of(_shuffled(value)) == digest_of(value)


@given(VALUES, VALUES)
def test_different_values_have_different_digests(one: object, other: object) -> None:
    """Two values share a digest only when they are the same, types included."""
    assert (digest_of(one) == digest_of(other)) == (repr(_sorted(one)) == repr(_sorted(other)))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def test_digests_are_pinned() -> None:
    """They are the SHA-256 of plain JSON, today and in any later version; a file name that is not UTF-8 has one too."""
    assert digest_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert digest_of({"b": [1, None], "a": "ü"}) == hashlib.sha256(rb'{"a":"\u00fc","b":[1,null]}').hexdigest()
    assert digest_of("\udcff") != digest_of("\udcfe")


def test_a_fingerprint_changes_with_each_part() -> None:
    """Another stage, version, setting, value or input digest gives another fingerprint; the order of keys does not."""
    base = fingerprint("scan", 1, {"a": 1, "b": 2}, {"x": "d1", "y": "d2"})
    assert fingerprint("scan", 1, {"b": 2, "a": 1}, {"y": "d2", "x": "d1"}) == base
    others = [
        fingerprint("select", 1, {"a": 1, "b": 2}, {"x": "d1", "y": "d2"}),
        fingerprint("scan", 2, {"a": 1, "b": 2}, {"x": "d1", "y": "d2"}),
        fingerprint("scan", 1, {"a": 1, "b": 3}, {"x": "d1", "y": "d2"}),
        fingerprint("scan", 1, {"a": 1, "b": "2"}, {"x": "d1", "y": "d2"}),
        fingerprint("scan", 1, {"a": 1}, {"x": "d1", "y": "d2"}),
        fingerprint("scan", 1, {"a": 1, "b": 2}, {"x": "d2", "y": "d1"}),
        fingerprint("scan", 1, {"a": 1, "b": 2}, {"x": "d1"}),
        fingerprint("scan", 1, {}, {"a": "1", "b": "2"}),
    ]
    assert len({base, *others}) == 9


@pytest.mark.parametrize("url", ["local", "memory://manifests/round-trip"])
def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, url: str) -> None:
    """Written and read again, on a disk or an object store, it is the same; before that there is none."""
    folder = UPath(tmp_path / "scan") if url == "local" else UPath(url)
    assert read_manifest(folder) is None
    write_manifest(folder, _manifest(*RECEIPTS))
    assert read_manifest(folder) == _manifest(*RECEIPTS)
    write_manifest(folder, _manifest())
    assert read_manifest(folder) == _manifest()


WRITTEN = _manifest(*RECEIPTS).model_dump_json()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"\x00" * 100,
        WRITTEN[:-1].encode(),
        WRITTEN.replace('"version":3', '"version":"x"').encode(),
        WRITTEN.replace('"stage"', '"later_field":1,"stage"').encode(),
        WRITTEN.replace('"fingerprint":"f00d",', "").encode(),
        WRITTEN.replace("Zoë", "Zo\\ud800").encode(),
    ],
)
def test_a_broken_manifest_is_a_seal_error(tmp_path: Path, content: bytes) -> None:
    """Whatever is in the file instead of a manifest of ours, there is one line that names the file."""
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(SealError) as caught:
        read_manifest(UPath(tmp_path))
    line = str(caught.value)
    assert line.startswith("the manifest cannot be read: ")
    assert line.endswith(f"({tmp_path}/manifest.json). Move the folder away and run the stage again.")
    assert "\n" not in line


def test_tables_and_their_files() -> None:
    """The files of a table are those of all splits whose path begins with it, in the order of their paths."""
    sealed = _manifest(*RECEIPTS, Receipt(split="d", key="", files=(_entry("matches_more/part-0.parquet"),)))
    assert sealed.tables() == ["counts", "matches", "matches_more"]
    assert [file.path for file in sealed.files("matches")] == ["matches/part-0.parquet", "matches/part-1.parquet"]
    assert sealed.files("none") == []


def test_a_tables_digest_depends_on_its_content_only() -> None:
    """Order and names of splits, counts, other tables and provenance do not matter; a path or a hash does."""
    digest = _manifest(*RECEIPTS).digest("matches")
    regrouped = Receipt(split="all", key="z", files=tuple(f for r in RECEIPTS for f in r.files if f.table == "matches"))
    assert _manifest(*reversed(RECEIPTS)).digest("matches") == digest
    assert _manifest(regrouped).digest("matches") == digest
    renamed = Receipt(split="a", key="", files=(_entry("matches/part-1.parquet"), _entry("matches/p.parquet", 1, "11")))
    changed = Receipt(
        split="a", key="", files=(_entry("matches/part-1.parquet"), _entry("matches/part-0.parquet", 1, "12"))
    )
    fewer = Receipt(split="a", key="", files=(_entry("matches/part-1.parquet"),))
    assert len({digest, *(_manifest(receipt).digest("matches") for receipt in (renamed, changed, fewer))}) == 4


def test_counts_are_summed_by_reason() -> None:
    """The total has every reason once, in alphabetical order, also those that are zero."""
    receipts = [
        Receipt(split="a", key="", counts={"rows_kept": 1, "rows_in": 2, "broken": 0}),
        Receipt(split="b", key="", counts={"rows_in": 5}),
        Receipt(split="c", key=""),
    ]
    assert list(total_counts(receipts).items()) == [("broken", 0), ("rows_in", 7), ("rows_kept", 1)]
    assert total_counts([]) == {}


@pytest.mark.parametrize("kind", ["plain", "dots", "link", "slash", "memory"])
def test_missing_files(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is gone, cut short or grown is missing, however the folder is written; one in full is not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    urls = {
        "plain": "real",
        "dots": f"../{tmp_path.name}/real",
        "link": "link",
        "slash": f"{tmp_path}/real/",
        "memory": f"memory://{tmp_path.name}/missing/",
    }
    folder = as_path(urls[kind])
    names = ("tars/K001/00000.tar", "tars/ü [1].tar", "tars/short", "tars/grown", "tars/empty")
    for name, content in zip(names, ("abc", "abc", "ab", "abcd", ""), strict=True):
        write_text(folder / name, content)
    entries = [_entry(name, 3) for name in names[:4]] + [_entry("tars/empty", 0), _entry("tars/gone", 0)]
    assert [entry.path for entry in missing_files(folder, entries)] == ["tars/short", "tars/grown", "tars/gone"]
    assert missing_files(folder, []) == []
    assert missing_files(folder / "none", entries) == entries


def test_code_version_is_what_git_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout it is the commit and whether anything was changed since; outside there is none."""
    monkeypatch.setattr(module, "__file__", str(tmp_path / "package/module.py"))
    assert code_version() == (None, None)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    (tmp_path / "package").mkdir()
    commit, dirty = code_version()
    assert (len(commit or ""), dirty) == (40, False)
    (tmp_path / "package/new.py").touch()
    assert code_version() == (commit, True)


def test_provenance_names_every_package() -> None:
    """It holds the command line, the seconds to the millisecond and the version of every package that matters."""
    made = provenance(["idia", "demo"], "2026-01-01T00:00:00+00:00", 1.23456)
    assert made.argv == ("idia", "demo")
    assert made.seconds == 1.235
    assert set(made.versions) == set(PACKAGES)
    assert all(made.versions.values())


def test_a_manifest_tells_no_secret(tmp_path: Path) -> None:
    """Neither of its command line, nor of settings, nor of where inputs are; all else is as it was."""
    given = _manifest(*RECEIPTS)
    asked = {"reference": "https://ann:s3cret@models.example/clip", "headers": {"api_key": "s3cret"}, "limit": 3}
    argv = ["idia", "run", "--set", "attack.token=s3cret", "--set", "out=https://ann:s3cret@h/out"]
    made = provenance(argv, "2026-01-01T00:00:00+00:00", 1.5)
    source = InputRecord(source="https://h/a.parquet?token=s3cret", digest="d1", files=2)
    write_manifest(
        UPath(tmp_path),
        given.model_copy(update={"config": asked, "inputs": {"captions": source}, "provenance": made}),
    )
    assert "s3cret" not in (tmp_path / "manifest.json").read_text()
    found = read_manifest(UPath(tmp_path))
    assert found
    assert found.config == {
        "reference": "https://***@models.example/clip",
        "headers": {"api_key": "***"},
        "limit": 3,
    }
    assert found.inputs["captions"].source == "https://h/a.parquet?token=***"
    assert found.provenance.argv[-1] == "out=https://***@h/out"
    assert found.receipts == given.receipts
