"""The cache of text embeddings: what is kept is not asked for again, and what is broken is."""

from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from upath import UPath

from idia_core import text_cache
from idia_core.errors import UsageError
from idia_core.manifest import digest_of
from idia_core.text_cache import TextCache

TEMPLATES = ["{0}", "a photo of {0}", "{0} in a suit"]
NAMES = ["Ann Ash", "Zoë Müller", "漢字", 'a "b" {0}']


def encode(prompts: Sequence[str]) -> npt.NDArray[np.float32]:
    """An embedding that depends on the prompt alone."""
    seeds = [int(digest_of(prompt)[:8], 16) for prompt in prompts]
    return np.stack([np.random.default_rng(seed).normal(size=5).astype(np.float32) for seed in seeds])


def fresh(names: Sequence[str]) -> npt.NDArray[np.float32]:
    """What embeds everything anew."""
    return np.stack([encode([template.replace("{0}", name) for name in names]) for template in TEMPLATES])


def embed(folder: Path | UPath, names: Sequence[str], key: str = "key") -> int:
    """Embed, check the result, and say how many prompts that took."""
    cache = TextCache(UPath(folder), key)
    embedded_NKD = cache.embed(TEMPLATES, names, encode)
    np.testing.assert_array_equal(embedded_NKD, fresh(names))
    assert embedded_NKD.dtype == np.float32
    assert embedded_NKD.flags.c_contiguous
    return cache.encoded_prompts


def test_only_new_names_are_encoded(tmp_path: Path) -> None:
    """A second audit with other people asks for the prompts of the names that are new, and gives the same bytes."""
    assert embed(tmp_path, NAMES) == 12
    assert embed(tmp_path, NAMES) == 0
    assert embed(tmp_path, ["New", *NAMES[::-1], "Newer"]) == 6
    assert embed(tmp_path, ["Newer", NAMES[2]]) == 0


def test_a_name_may_be_given_twice(tmp_path: Path) -> None:
    """Each place of a name gets its embedding, which is computed once."""
    assert embed(tmp_path, ["Ann Ash", "Bo", "Ann Ash"]) == 6


def test_one_cache_for_many_blocks(tmp_path: Path) -> None:
    """A cache that is asked block after block counts all that it encoded, and finds what it kept itself."""
    cache = TextCache(UPath(tmp_path), "key")
    for names, encoded in ((NAMES[:2], 6), (NAMES[2:], 12), (NAMES, 12)):
        np.testing.assert_array_equal(cache.embed(TEMPLATES, names, encode), fresh(names))
        assert cache.encoded_prompts == encoded


def test_other_models_and_templates_are_apart(tmp_path: Path) -> None:
    """Nothing is shared between keys, nor between lists of templates, be it the same ones in another order."""
    assert embed(tmp_path, NAMES, "one") == 12
    assert embed(tmp_path, NAMES, "other") == 12
    cache = TextCache(UPath(tmp_path), "one")
    np.testing.assert_array_equal(cache.embed(TEMPLATES[::-1], NAMES, encode), fresh(NAMES)[::-1])
    assert cache.encoded_prompts == 12


def test_without_a_folder_nothing_is_kept() -> None:
    """No folder is no cache: everything is encoded each time."""
    cache = TextCache(None, "key")
    for _ in range(2):
        np.testing.assert_array_equal(cache.embed(TEMPLATES, NAMES, encode), fresh(NAMES))
    assert cache.encoded_prompts == 24


def test_no_names(tmp_path: Path) -> None:
    """No names have no embeddings, and nothing is written."""
    assert TextCache(UPath(tmp_path), "key").embed(TEMPLATES, [], encode).shape[:2] == (3, 0)
    assert list(tmp_path.iterdir()) == []


def test_many_names_are_kept_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are encoded and kept a segment at a time, so that a kill loses no more than one."""
    monkeypatch.setattr(text_cache, "SEGMENT_NAMES", 3)
    names = [f"Name {i}" for i in range(8)]

    def dying(prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        if "Name 6" in prompts:
            raise KeyboardInterrupt
        return encode(prompts)

    with pytest.raises(KeyboardInterrupt):
        TextCache(UPath(tmp_path), "key").embed(TEMPLATES, names, dying)
    assert embed(tmp_path, names) == 6
    assert len(list(tmp_path.rglob("*.npy"))) == 3


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone", "other"])
def test_a_broken_segment_is_redone(tmp_path: Path, suffix: str, harm: str) -> None:
    """A segment whose files were changed, cut, emptied or removed is not trusted, and is mended by the next run."""
    embed(tmp_path, NAMES)
    (path,) = tmp_path.rglob(f"*{suffix}")
    content = path.read_bytes()
    middle = len(content) // 2
    harmed = {
        "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut": content[:-1],
        "empty": b"",
        "gone": None,
        "other": b'{"names": 3}',
    }[harm]
    path.unlink()
    if harmed is not None:
        path.write_bytes(harmed)
    assert embed(tmp_path, NAMES) == 12
    assert embed(tmp_path, NAMES) == 0


def test_a_foreign_segment_is_not_used(tmp_path: Path) -> None:
    """A segment that lies in another model's folder is whole but was made for something else."""
    embed(tmp_path / "a", NAMES, "one")
    embed(tmp_path / "b", ["Ann Ash"], "other")
    (source,), (target,) = (tmp_path / "a").iterdir(), (tmp_path / "b").iterdir()
    for path in source.iterdir():
        path.rename(target / path.name)
    assert embed(tmp_path / "b", NAMES, "other") == 9


def test_the_array_of_another_segment(tmp_path: Path) -> None:
    """A segment that names the right hash of an array of another shape is not used."""
    embed(tmp_path, NAMES)
    embed(tmp_path, ["New"])
    few, many = sorted(tmp_path.rglob("*.json"), key=lambda path: path.stat().st_size)
    few_hash, many_hash = (path.read_text(encoding="utf-8")[-66:] for path in (few, many))
    few.write_text(few.read_text(encoding="utf-8").replace(few_hash, many_hash), encoding="utf-8")
    few.with_suffix(".npy").write_bytes(many.with_suffix(".npy").read_bytes())
    assert embed(tmp_path, ["New"]) == 3


def test_on_an_object_store() -> None:
    """Any URL of fsspec can hold a cache."""
    folder = UPath("memory://text-cache-test")
    assert embed(folder, NAMES) == 12
    assert embed(folder, [*NAMES, "New"]) == 3


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    """Processes that write the same and overlapping names do each other no harm, and leave nothing half done."""
    lists = [NAMES, NAMES[1:], ["New", *NAMES], NAMES]
    with get_context("spawn").Pool(4) as pool:
        pool.starmap(embed, [(tmp_path, names) for names in lists * 3])
    assert embed(tmp_path, ["New", *NAMES]) == 0
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".npy", ".json"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file stands where the cache should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=f"text cache {tmp_path}/file"):
        embed(tmp_path / "file", NAMES)
