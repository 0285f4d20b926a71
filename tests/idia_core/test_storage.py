"""Files at any URL: found by pattern, written whole or not at all, one writer a folder."""

import hashlib
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from idia_core.errors import BusyError, MissingInputError, StorageError, UsageError
from idia_core.storage import (
    as_path,
    find_files,
    identity_of,
    is_local,
    move_tree,
    remove_temporaries,
    remove_tree,
    sha256_of,
    sole_writer,
    write_text,
    write_whole,
)

# Holds the folder in argv[1], starts a child that outlives it, says so, and waits to be killed.
HOLDER = """
import subprocess, sys, time
from idia_core.storage import as_path, sole_writer
with sole_writer(as_path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """An empty folder, once on this machine's disk and once on an object store."""
    if request.param == "local":
        return UPath(tmp_path)
    return UPath(f"memory://{tmp_path.name}-{random.randrange(10**9)}")


@pytest.fixture
def temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, empty."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def _fill(root: UPath, *names: str) -> None:
    for name in names:
        write_text(root / name, name)


def _everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _write_half(path: UPath, error: type[BaseException]) -> None:
    with write_whole(path) as file:
        file.write(b"half")
        raise error


def _write_often(path: Path, letter: str, times: int) -> None:
    for _ in range(times):
        with write_whole(UPath(path)) as file:
            file.write(letter.encode() * 100_000)
            file.write(letter.encode() * 100_000)


# Paths


def test_a_local_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name, one below the home folder and a file:// URL all become absolute paths without a protocol."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = {
        "a/b": tmp_path / "a/b",
        "./a": tmp_path / "a",
        ".": tmp_path,
        "~/a": tmp_path / "home/a",
        "~": tmp_path / "home",
        "/a/b": Path("/a/b"),
        "file:///a/b": Path("/a/b"),
        "local:///a/b": Path("/a/b"),
        "a b/ü [1]": tmp_path / "a b/ü [1]",
        "a%20b#c?d::e": tmp_path / "a%20b#c?d::e",
    }
    assert {url: as_path(url).path for url in expected} == {url: str(path) for url, path in expected.items()}
    assert all(is_local(as_path(url)) for url in expected)


def test_a_url_stays_what_it_is() -> None:
    """A path elsewhere keeps its protocol, also when a part is added."""
    path = as_path("memory://bucket/a b") / "c"
    assert (str(path), path.path, is_local(path)) == ("memory://bucket/a b/c", "/bucket/a b/c", False)


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "~no-such-user-here/x"])
def test_what_is_no_path_is_a_usage_error(url: str) -> None:
    """A URL of an unknown kind and an unknown user's home are refused with the URL in the message."""
    with pytest.raises(UsageError, match=f"^'{url}' is no path: "):
        as_path(url)


# Writing


def test_write_whole_writes(root: UPath, temporary_folder: Path) -> None:
    """The bytes arrive, folders are made, an older file is replaced, and no temporary file is left."""
    for content in (b"first", b"", b"third" * 100_000):
        with write_whole(root / "deep/er/ü [1].bin") as file:
            file.write(content)
        assert (root / "deep/er/ü [1].bin").read_bytes() == content
    assert [path.name for path in (root / "deep/er").iterdir()] == ["ü [1].bin"]
    assert _everything(temporary_folder) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_write_whole_writes_nothing_on_an_error(
    root: UPath, temporary_folder: Path, error: type[BaseException]
) -> None:
    """An exception in the block leaves an absent file absent and an older one as it was, and no temporary file."""
    _fill(root, "old")
    for name in ("new", "old"):
        with pytest.raises(error):
            _write_half(root / name, error)
    assert not (root / "new").exists()
    assert (root / "old").read_text() == "old"
    assert [path.name for path in root.iterdir()] == ["old"]
    assert _everything(temporary_folder) == []


def test_nothing_is_visible_before_the_end(root: UPath) -> None:
    """While the block lasts there is no file of that name, and no file that a table's pattern would match."""
    _fill(root, "other.parquet")
    with write_whole(root / "part.parquet") as file:
        file.write(b"half")
        file.flush()
        assert not (root / "part.parquet").exists()
        assert [path.name for path in root.glob("*.parquet")] == ["other.parquet"]


def test_parallel_writers_do_not_mix(tmp_path: Path) -> None:
    """Processes that write the same file at once each write it whole: a reader sees one of them, never a mixture."""
    target, context = tmp_path / "shared", multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(target, letter, 40)) for letter in "abc"]
    for writer in writers:
        writer.start()
    seen: set[bytes] = set()
    while any(writer.is_alive() for writer in writers):
        if target.exists():
            seen.add(target.read_bytes())
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert seen | {target.read_bytes()} <= {letter * 200_000 for letter in (b"a", b"b", b"c")}
    assert _everything(tmp_path) == ["shared"]


def test_parallel_threads_write_many_files(root: UPath) -> None:
    """Writers of different files in one folder that is not there yet do not disturb one another."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_text(root / f"new/{i:03d}", str(i) * 1000), range(100)))
    assert sorted(path.name for path in (root / "new").iterdir()) == [f"{i:03d}" for i in range(100)]
    assert all((root / f"new/{i:03d}").read_text() == str(i) * 1000 for i in range(100))


def test_write_text_is_utf8(root: UPath) -> None:
    """Text is written as UTF-8, without a translation of line ends."""
    write_text(root / "t", "Zoë\n漢\r\n")
    assert (root / "t").read_bytes() == b"Zo\xc3\xab\n\xe6\xbc\xa2\r\n"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_of(root: UPath, size: int) -> None:
    """The digest is that of all the bytes, also around the size of the blocks read."""
    content = random.Random(size).randbytes(size)
    with write_whole(root / "x") as file:
        file.write(content)
    assert sha256_of(root / "x") == hashlib.sha256(content).hexdigest()


# Tidying


def test_remove_temporaries_takes_only_what_killed_writers_left(tmp_path: Path) -> None:
    """Temporary files and folders at any depth go, the rest stays; a folder that is not there is no trouble."""
    kept = ["a.parquet", "a.tmp", ".hidden", "deep/.tmpfile", "deep/b.tar", "deep/x.tmp/c"]
    gone = [".a.parquet.0123.tmp", "deep/.b.tar.4567.tmp", ".split.tmp/checkpoints/epoch_1.pt", ".split.tmp/.in.tmp"]
    _fill(UPath(tmp_path), *kept, *gone)
    assert remove_temporaries(UPath(tmp_path)) == 4
    assert [name for name in _everything(tmp_path) if (tmp_path / name).is_file()] == sorted(kept)
    assert not (tmp_path / ".split.tmp").exists()
    assert remove_temporaries(UPath(tmp_path)) == 0
    assert remove_temporaries(UPath(tmp_path / "none")) == 0


def test_remove_temporaries_takes_what_a_killed_writer_really_leaves(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves a file that is found and removed."""
    program = (
        "import sys, os, signal\nfrom upath import UPath\nfrom idia_core.storage import write_whole\n"
        "with write_whole(UPath(sys.argv[1]) / 't/part.parquet') as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(_everything(tmp_path / "t")) == 1
    assert remove_temporaries(UPath(tmp_path)) == 1
    assert _everything(tmp_path) == ["t"]


def test_remove_tree(root: UPath) -> None:
    """A folder goes with all that is in it, its neighbours stay, and one that is not there is no trouble."""
    _fill(root, "stage/a", "stage/deep/b", "stages/c")
    remove_tree(root / "stage")
    assert not (root / "stage").exists()
    assert (root / "stages/c").read_text() == "stages/c"
    remove_tree(root / "stage")


def test_move_tree(root: UPath) -> None:
    """A folder arrives with all that is in it, below folders that were not there, and is gone where it was."""
    _fill(root, "stage/a", "stage/deep/b [1]", "other")
    move_tree(root / "stage", root / "kept/far/stage-01")
    assert not (root / "stage").exists()
    assert (root / "kept/far/stage-01/a").read_text() == "stage/a"
    assert (root / "kept/far/stage-01/deep/b [1]").read_text() == "stage/deep/b [1]"
    move_tree(root / "kept/far/stage-01", root / "stage")
    assert (root / "stage/deep/b [1]").read_text() == "stage/deep/b [1]"
    assert not (root / "kept/far/stage-01").exists()


# Finding


def _found(root: UPath, url: str, pattern: str = "*.parquet") -> list[str]:
    files = find_files(f"{root}/{url}" if url else str(root), [pattern], "here")
    assert all(file.exists() for file in files)
    return [file.path.removeprefix(root.path.rstrip("/") + "/") for file in files]


def test_find_files_by_name_folder_and_glob(root: UPath) -> None:
    """A URL names a file, a folder (its files that match) or a glob; the answer is sorted and without folders."""
    _fill(root, "b.parquet", "a.parquet", "c.txt", "sub/d.parquet", "folder.parquet/e.txt")
    assert _found(root, "c.txt") == ["c.txt"]
    assert _found(root, "") == ["a.parquet", "b.parquet"]
    assert _found(root, "sub/") == ["sub/d.parquet"]
    assert _found(root, "", "*/*") == ["folder.parquet/e.txt", "sub/d.parquet"]
    assert _found(root, "*.parquet") == ["a.parquet", "b.parquet"]
    assert _found(root, "[ab].parquet") == ["a.parquet", "b.parquet"]
    assert _found(root, "?.txt") == ["c.txt"]
    assert _found(root, "*/*.parquet") == ["sub/d.parquet"]
    assert _found(root, "**/*.parquet") == ["a.parquet", "b.parquet", "sub/d.parquet"]


def test_find_files_with_any_name(root: UPath) -> None:
    """Spaces, brackets, other scripts and URL signs are parts of names; what is there is taken by its name."""
    names = ["a b.parquet", "c%20d.parquet", "e#f.parquet", "p[1].parquet", "ü漢.parquet"]
    _fill(root, *names, "data [v1]/x.parquet")
    assert _found(root, "") == sorted(names)
    assert [_found(root, name) for name in names] == [[name] for name in names]
    assert _found(root, "data [v1]") == ["data [v1]/x.parquet"]
    assert _found(root, "data [v1]/x.parquet") == ["data [v1]/x.parquet"]
    assert _found(root, "data*/*.parquet") == ["data [v1]/x.parquet"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("none", "none"),
        ("none/*.parquet", "none/*.parquet"),
        ("empty", "empty/*.parquet"),
        ("empty/", "empty/*.parquet"),
    ],
)
def test_nothing_found_is_an_error_with_the_words(root: UPath, url: str, shown: str) -> None:
    """An input that matches nothing is never an empty success; the message says what was looked for, and where."""
    _fill(root, "empty/only.txt")
    with pytest.raises(MissingInputError) as caught:
        find_files(f"{root}/{url}", ["*.parquet"], "stage scan, input captions")
    assert str(caught.value) == f"no file matches '{root}/{shown}' (stage scan, input captions). Check the path."


def test_find_files_relative_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative and home-relative URLs are found too, and come back absolute."""
    _fill(UPath(tmp_path), "a.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (
        "a.parquet",
        ".",
        "*.parquet",
        "~",
        "~/*.parquet",
        f"file://{tmp_path}",
        f"file://{tmp_path}/a.parquet",
    ):
        assert [str(file) for file in find_files(url, ["*.parquet"], "")] == [str(tmp_path / "a.parquet")]


def test_find_files_follows_links(tmp_path: Path) -> None:
    """A link to a folder or a file counts as what it leads to; one that leads nowhere does not count."""
    _fill(UPath(tmp_path), "real/a.jpg")
    (tmp_path / "people").mkdir()
    (tmp_path / "people/linked").symlink_to(tmp_path / "real")
    (tmp_path / "people/linked.jpg").symlink_to(tmp_path / "real/a.jpg")
    (tmp_path / "people/broken.jpg").symlink_to(tmp_path / "gone")
    assert _found(UPath(tmp_path), "people", "*/*") == ["people/linked/a.jpg"]
    assert _found(UPath(tmp_path), "people", "*.jpg") == ["people/linked.jpg"]
    assert _found(UPath(tmp_path), "people/*/*") == ["people/linked/a.jpg"]


def test_identity_of_changes_with_the_file(root: UPath) -> None:
    """It stays while the file does, and changes with its name, its folder's name, its size and its time."""
    _fill(root, "Jon_Ham/1.jpg")
    first = identity_of(root / "Jon_Ham/1.jpg")
    assert identity_of(root / "Jon_Ham/1.jpg") == first
    assert first[:2] == ("Jon_Ham/1.jpg", 13)
    (root / "Jon_Ham/1.jpg").write_text("Jon_Ham/2.jpg")
    if is_local(root):
        os.utime((root / "Jon_Ham/1.jpg").path, (1, 1))
    assert identity_of(root / "Jon_Ham/1.jpg") != first
    move_tree(root / "Jon_Ham", root / "Jon_Hamm")
    assert identity_of(root / "Jon_Hamm/1.jpg")[0] == "Jon_Hamm/1.jpg"


# One writer


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    """Held by another process the folder is busy; SIGKILL frees it, even while a child of that process lives on."""
    folder = as_path(str(tmp_path / "out/deep"))
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(BusyError, match=r"^another run is writing there \(.*out/deep\)\. Wait"):
                sole_writer(folder).__enter__()
            with sole_writer(as_path(str(tmp_path / "out/other"))):
                pass
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            os.kill(child, 0)
            with sole_writer(folder):
                write_text(folder / "x", "mine")
        finally:
            holder.kill()
            os.kill(child, signal.SIGKILL)
    assert (folder / "x").read_text() == "mine"


def test_the_folder_is_free_after_the_block(tmp_path: Path) -> None:
    """Within one process too it is held once, and freed at the end of the block, also by an error."""
    folder = as_path(str(tmp_path))
    with pytest.raises(BusyError), sole_writer(folder), sole_writer(folder):
        pass
    with sole_writer(folder):
        pass
    assert _everything(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    """Where a file is in the way there is a typed error, not a traceback."""
    _fill(UPath(tmp_path), "file")
    for name in ("file", "file/below"):
        with pytest.raises(UsageError, match=r"^no folder can be made: .*/file"):
            sole_writer(as_path(str(tmp_path / name))).__enter__()


def test_object_stores_are_not_held() -> None:
    """Where there are no locks nothing is held, and nothing is written."""
    folder = UPath("memory://not-held")
    with sole_writer(folder), sole_writer(folder):
        assert not folder.exists()


# Stores


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (PermissionError("Access Denied"), "Check the bucket's name, and that your credentials"),
        (FileNotFoundError("The specified bucket does not exist"), "Check the bucket's name"),
        (OSError(5, "We encountered an internal error."), "Is the store well, and within reach"),
    ],
)
def test_a_store_that_takes_nothing_is_named(
    error: OSError, fix: str, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the URL, what the store said and what to do; the temporary file is gone."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    with pytest.raises(StorageError, match=re.escape(fix)) as caught:
        write_text(as_path("memory://bucket/out/part"), "content")
    assert caught.value.where == "memory://bucket/out/part"
    assert str(error) in f"{caught.value.what}."
    assert _everything(temporary_folder) == []


def test_a_url_whose_package_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra of this package is named, before anything is run."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"pip install 'idia\[gcs\]'"):
        as_path("gs://bucket/out")


def test_s3_is_patient_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight attempts by botocore's standard rules; the user's own settings are left alone."""
    for name in ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"):
        monkeypatch.delenv(name, raising=False)
    store = as_path("s3://bucket/out").fs
    assert store.config_kwargs["retries"] == {"mode": "standard", "max_attempts": 8}
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert type(store)(skip_instance_cache=True).config_kwargs == {}
