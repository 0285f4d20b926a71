"""Inputs and outputs on an object store: the same study, the same bytes, through a real S3 API on loopback."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent
STAGES = ("world", "scan", "select", "shards", "verify")
CREDENTIALS = {"key": "test", "secret": "test"}
SETTINGS = {
    "world.people": 2,
    "world.training_pictures": 1,
    "world.attack_pictures": 1,
    "world.background_pairs": 3,
    "world.caption_rows": 2000,
    "select.members": 1,
    "select.non_members": 1,
    "select.max_occurrences": "null",
    "select.min_pictures": 1,
    "select.min_pairs": 1,
    "shards.images_per_member": "[1]",
    "shards.shard_size": 2,
    "shards.exact_for.batch_size": 1,
}


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[s3fs.S3FileSystem, dict[str, str]]]:
    """An S3 server with the bucket `idia`, and the environment that reaches it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        environment = {**os.environ, **keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        filesystem = s3fs.S3FileSystem(endpoint_url=environment["AWS_ENDPOINT_URL"], **CREDENTIALS)
        filesystem.mkdir("idia")
        yield filesystem, environment
    finally:
        server.kill()
        server.wait()


def run(out: str, environment: dict[str, str], *stages: str) -> str:
    """Run stages of the demo's study with tiny settings; returns what the command said."""
    settings = [f"out={out}", *(f"{key}={value}" for key, value in SETTINGS.items())]
    command = [*IDIA, "run", "demo.yaml", *stages, *(word for s in settings for word in ("--set", s))]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_study_on_s3_has_the_bytes_of_a_local_one(
    store: tuple[s3fs.S3FileSystem, dict[str, str]], tmp_path: Path
) -> None:
    """Stages run, seal, resume and skip on S3 as on a disk, tars too; a changed config is kept aside there too."""
    filesystem, environment = store
    run("s3://idia/out", environment, *STAGES)
    run(str(tmp_path / "out"), environment, *STAGES)
    local = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    there = {name.removeprefix("idia/"): filesystem.cat_file(name) for name in filesystem.find("idia/out")}
    assert {name for name in there if name.endswith("manifest.json")} == {f"out/{s}/manifest.json" for s in STAGES}
    assert {name: content for name, content in there.items() if not name.endswith("manifest.json")} == local
    assert "out/shards/tars/K001/00001.tar" in there
    assert run("s3://idia/out", environment, *STAGES).count("done already") == len(STAGES)
    SETTINGS["world.caption_rows"] = 2001
    assert "the old output is kept in s3://idia/out/kept/world-" in run("s3://idia/out", environment, "world")
