"""A store that fails now and then changes nothing; one that fails for good is named, and the next run goes on."""

import os
import subprocess
from collections.abc import Iterator

import pytest
import s3fs

from tests.faulty_store import Fault, Store, faulty_store
from tests.s3_study import ROOT, STAGES, command, in_bucket, on_disk, run

pytestmark = pytest.mark.slow
SHARE = 0.12
BUCKETS = ("idia", "down")
IMPATIENT = {"AWS_MAX_ATTEMPTS": "2", "AWS_RETRY_MODE": "standard"}
REQUESTS_OF_WORLD = 60
"""After so many it has done some of its splits, and has not sealed."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the study writes to a disk."""
    out = tmp_path_factory.mktemp("local") / "out"
    run(str(out), os.environ, *STAGES)
    return on_disk(out)


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[Store, s3fs.S3FileSystem]]:
    """A store with two buckets."""
    with faulty_store() as found:
        filesystem = s3fs.S3FileSystem(endpoint_url=found.url, key="test", secret="test")  # noqa: S106
        for name in BUCKETS:
            filesystem.mkdir(name)
        yield found, filesystem


def test_faults_of_an_eighth_of_all_requests_change_nothing(
    store: tuple[Store, s3fs.S3FileSystem], undisturbed: dict[str, bytes]
) -> None:
    """Throttling, errors before and after the work, broken connections, cut and slow answers: the same bytes."""
    server, filesystem = store
    server.fail(SHARE, seed=1)
    run("s3://idia/out", server.environment, *STAGES)
    met = server.told()
    server.fail(0)
    assert in_bucket(filesystem, "idia/out") == undisturbed
    assert {verb for verb, fault in met if fault != "passed"} >= {"GET", "HEAD", "PUT", "POST"}
    assert {fault for _, fault in met} == {"passed", *Fault}


def test_a_store_that_fails_for_good_is_named_and_the_next_run_goes_on(
    store: tuple[Store, s3fs.S3FileSystem], undisturbed: dict[str, bytes]
) -> None:
    """The error is a line with the URL and what to do; nothing is sealed; afterwards the bytes are the same."""
    server, filesystem = store
    server.fail(1, after=REQUESTS_OF_WORLD)
    words = command("s3://down/out", *STAGES)
    environment = server.environment | IMPATIENT
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("StorageError: ")
    assert "(s3://down/out/" in last
    assert last.endswith("Is the store well, and within reach? Run again when it is: what is done stays.")
    assert "Traceback" not in done.stderr
    server.fail(0)
    filesystem.invalidate_cache()
    assert not [name for name in filesystem.find("down") if name.endswith("manifest.json")]
    assert [name for name in filesystem.find("down/out/world/_receipts") if name.endswith(".json")]
    run("s3://down/out", server.environment, *STAGES)
    assert in_bucket(filesystem, "down/out") == undisturbed
