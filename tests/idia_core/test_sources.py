"""Planned pairs are read out of their tars, wherever those lie, and never short."""

import io
import random
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.sources import OPEN_FILES, SampleReader, source_path
from idia_core.tars import TarWriter

SAMPLES = [(f"k{i}", b"picture %d" % i * (i + 1), f"Füße {i}".encode()) for i in range(6)]
SCHEMA = ("source", "picture_at", "picture_bytes", "caption_at", "caption_bytes")


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """An empty folder, on the disk and on an object store."""
    return UPath(tmp_path if request.param == "local" else f"memory://{tmp_path.name}-{random.randrange(10**9)}")


def write_tar(path: UPath, samples: Sequence[tuple[str, bytes, bytes]], source: str) -> list[tuple[str, int, ...]]:
    """Write a tar; the places of its samples."""
    out, places = io.BytesIO(), []
    with TarWriter(out) as tar:
        for key, picture, caption in samples:
            at, of = tar.add(key, "jpg", picture, caption)
            places.append((source, *at, *of))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return places


def read(folder: UPath, places: Sequence[tuple[str, int, ...]]) -> list[tuple[bytes, bytes]]:
    """Pictures and captions at places."""
    rows = pl.DataFrame(list(places), schema=SCHEMA, orient="row")
    return [(bytes(picture), bytes(caption)) for picture, caption in SampleReader(folder).read(rows)]


def test_pairs_come_in_the_order_of_the_rows(folder: UPath) -> None:
    """From two tars in turn, one below the stage's folder and one at its own URL, in any order and twice."""
    places = write_tar(folder / "stage/members/00000.tar", SAMPLES[:3], "members/00000.tar")
    elsewhere = folder / "base/00000.tar"
    places += write_tar(elsewhere, SAMPLES[3:], str(elsewhere))
    order = [4, 0, 5, 2, 2, 1, 3]
    assert read(folder / "stage", [places[i] for i in order]) == [SAMPLES[i][1:] for i in order]
    assert read(folder / "stage", []) == []


def test_a_caption_may_lie_before_its_picture_and_other_files_between(folder: UPath) -> None:
    """As in tars that others wrote."""
    (folder / "a.tar").write_bytes(b"..caption......json.....picture")
    assert read(folder, [("a.tar", 24, 7, 2, 7)]) == [(b"picture", b"caption")]


def test_local_and_remote_tars_are_read_side_by_side(tmp_path: Path) -> None:
    """A stage on the disk takes base pairs from an object store."""
    store = UPath(f"memory://{tmp_path.name}-{random.randrange(10**9)}/a.tar")
    remote = write_tar(store, SAMPLES[:2], str(store))
    local = write_tar(UPath(tmp_path) / "members/00000.tar", SAMPLES[2:], "members/00000.tar")
    assert read(UPath(tmp_path), [local[0], remote[1], local[1], remote[0]]) == [SAMPLES[i][1:] for i in (2, 1, 3, 0)]


def test_a_tar_that_became_shorter_is_an_error(folder: UPath) -> None:
    """Its name is told."""
    places = write_tar(folder / "a.tar", SAMPLES, "a.tar")
    content = (folder / "a.tar").read_bytes()
    (folder / "a.tar").write_bytes(content[: places[-1][3] + 2])
    assert read(folder, places[:-1]) == [sample[1:] for sample in SAMPLES[:-1]]
    with pytest.raises(InvalidInputError, match=r"^shorter than it was when it was listed \(.*a\.tar\)\. Put the file"):
        read(folder, places[-1:])


def test_a_tar_that_is_gone_is_an_error(folder: UPath) -> None:
    """Its name is told."""
    with pytest.raises(InvalidInputError, match=r"a\.tar"):
        read(folder, [("a.tar", 0, 1, 1, 1)])


def test_more_tars_than_are_held_open_are_read(tmp_path: Path) -> None:
    """Files are closed again, and opened again when they are asked for once more."""
    places = [
        place
        for i in range(OPEN_FILES + 2)
        for place in write_tar(UPath(tmp_path) / f"{i}.tar", [(f"k{i}", b"%d" % i, b"text")], f"{i}.tar")
    ]
    expected = [(b"%d" % i, b"text") for i in range(OPEN_FILES + 2)]
    assert read(UPath(tmp_path), places * 2) == expected * 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("members/00000.tar", "/stage/members/00000.tar"),
        ("/base/00000.tar", "/base/00000.tar"),
        ("memory://bucket/0.tar", "memory://bucket/0.tar"),
    ],
)
def test_a_source_is_below_the_stages_folder_or_a_url(source: str, expected: str) -> None:
    """As the listing and the ledger name it."""
    assert str(source_path(UPath("/stage"), source)) == expected
