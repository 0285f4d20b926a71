"""The checks of `idia doctor`, one by one: what is well, what is not, and that each fault comes with its fix."""

from pathlib import Path

import pytest

from jobs.checks import (
    Finding,
    Status,
    cache_found,
    disk_found,
    gpus_found,
    jobs_found,
    mode_found,
    packages_found,
    python_found,
    storage_found,
)

CONSTRAINTS = "# tested together\ntorch==2.14.1\nsmart_open==9.0.2\nray==2.60.0\n"


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10, 9), "error"), ((3, 11, 0), "ok"), ((3, 12, 1), "ok"), ((4, 0, 0), "ok")]
)
def test_python_is_new_enough(version: tuple[int, ...], status: str) -> None:
    """From 3.11 on."""
    found = python_found(version)
    assert found.status == status
    assert found.what.startswith(".".join(map(str, version)))
    assert bool(found.fix) == (status == "error")


def test_versions_are_compared_with_the_pinned_ones() -> None:
    """Whatever way a name is written, and without torch's local part; what is not installed is not missed."""
    assert packages_found(CONSTRAINTS, {"Torch": "2.14.1+cpu", "smart-open": "9.0.2"}) == Finding(
        "packages", Status.OK, "2, as in constraints.txt"
    )
    found = packages_found(CONSTRAINTS, {"torch": "2.13.0", "ray": "2.60.0", "other": "1"})
    assert (found.status, found.what) == (Status.WARNING, "1 of 2 are not as tested: torch 2.13.0 for 2.14.1")
    assert found.fix.startswith("pip install --constraint constraints.txt")
    many = packages_found("".join(f"p{i}==1\n" for i in range(9)), {f"p{i}": "2" for i in range(9)})
    assert many.what == "9 of 9 are not as tested: p0 2 for 1, p1 2 for 1, p2 2 for 1, p3 2 for 1 and 5 more"
    assert packages_found(None, {"ray": "1"}).status is Status.OK


@pytest.mark.parametrize(
    ("names", "cuda", "driver", "status", "words"),
    [
        (["H200", "H200"], "13.0", True, "ok", "2: H200; CUDA 13.0"),
        ([], "13.0", False, "ok", "none; models run on the CPU"),
        ([], None, True, "error", "torch was built without CUDA"),
        ([], "13.0", True, "error", "torch, of CUDA 13.0, sees no GPU"),
    ],
)
def test_a_gpu_that_is_there_is_seen(names: list[str], cuda: str | None, driver: bool, status: str, words: str) -> None:
    """A driver without a GPU in torch is an error; no driver is a machine without GPUs."""
    found = gpus_found(names, cuda, driver=driver)
    assert found.status == status
    assert words in found.what


@pytest.mark.parametrize(("gib", "status"), [(1, "error"), (20, "warning"), (500, "ok")])
def test_room_is_needed(gib: int, status: str) -> None:
    """Almost none, enough for the demo, enough."""
    found = disk_found(Path("/data"), gib << 30)
    assert (found.status, found.what) == (status, f"{gib} GiB free at /data")


def test_a_storage_is_tried(tmp_path: Path) -> None:
    """Nothing is left there, also where the folder was made for it; one that cannot be made says why."""
    assert storage_found(str(tmp_path)).status is Status.OK
    made = storage_found(str(tmp_path / "new"))
    assert made.what.startswith(f"{tmp_path}/new: written, read and deleted in ")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    found = storage_found(str(tmp_path / "file" / "below"))
    assert found.status is Status.ERROR
    assert "NotADirectoryError" in found.what
    assert "extra s3 or gcs" in found.fix


def test_a_kind_of_url_that_is_not_known_is_an_error() -> None:
    """With the reason in a line."""
    found = storage_found("nowhere://bucket")
    assert found.status is Status.ERROR
    assert "'nowhere://bucket' is no path" in found.what


@pytest.mark.parametrize(
    ("mode", "forbidden", "status", "fix"),
    [
        (0o600, 0o077, "ok", ""),
        (0o644, 0o077, "warning", "chmod go-rwx"),
        (0o640, 0o077, "warning", "chmod go-rwx"),
        (0o755, 0o007, "warning", "chmod o-rwx"),
        (0o750, 0o007, "ok", ""),
    ],
)
def test_what_is_ones_own_is_closed_to_others(tmp_path: Path, mode: int, forbidden: int, status: str, fix: str) -> None:
    """A token to all but its owner; a folder of people's pictures at least to those outside the group."""
    path = tmp_path / "secret"
    path.write_text("")
    path.chmod(mode)
    found = mode_found("token", path, forbidden)
    assert found is not None
    assert found.status == status
    assert found.fix == (f"{fix} {path}" if fix else "")


def test_the_fix_for_open_rights_closes_them(tmp_path: Path) -> None:
    """Done as it says, the check is content; and what is not there has no rights."""
    path = tmp_path / "secret"
    assert mode_found("token", path, 0o077) is None
    path.write_text("")
    path.chmod(0o664)
    path.chmod(0o664 & ~0o077)
    found = mode_found("token", path, 0o077)
    assert found is not None
    assert found.status is Status.OK


def test_weights_can_be_kept_or_are_there(tmp_path: Path) -> None:
    """A cache that is not made yet is no fault; an empty one is where nothing may be fetched."""
    assert cache_found("weights", tmp_path / "not" / "yet", offline=False).status is Status.OK
    empty = cache_found("weights", tmp_path, offline=True)
    assert (empty.status, empty.what) == (Status.WARNING, f"{tmp_path} is empty, and HF_HUB_OFFLINE is set")
    (tmp_path / "model.bin").write_bytes(bytes(300 << 20))
    assert cache_found("weights", tmp_path, offline=True).what == f"0.3 GiB in {tmp_path}"


def test_a_job_server_that_is_not_there() -> None:
    """The fix names the tunnel."""
    found = jobs_found("http://127.0.0.1:1", None)
    assert found.status is Status.ERROR
    assert found.what == "no job server at http://127.0.0.1:1: ConnectionError"
    assert "tunnel" in found.fix
