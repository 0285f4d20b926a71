"""Inputs and outputs on an object store: the same study, the same bytes, through a real S3 API on loopback."""

import os
from pathlib import Path

import pytest
import s3fs

from tests.faulty_store import faulty_store
from tests.s3_study import STAGES, in_bucket, on_disk, run

pytestmark = pytest.mark.slow
CREDENTIALS = {"key": "test", "secret": "test"}


def test_a_study_on_s3_has_the_bytes_of_a_local_one(tmp_path: Path) -> None:
    """Stages run, seal, resume and skip on S3 as on a disk, tars too; a changed config is kept aside there too."""
    with faulty_store() as store:
        filesystem = s3fs.S3FileSystem(endpoint_url=store.url, **CREDENTIALS)
        filesystem.mkdir("idia")
        run("s3://idia/out", store.environment, *STAGES)
        run(str(tmp_path / "out"), os.environ, *STAGES)
        there = in_bucket(filesystem, "idia/out")
        assert there == on_disk(tmp_path / "out")
        assert "shards/tars/K001/00001.tar" in there
        sealed = {name for name in filesystem.find("idia/out") if name.endswith("manifest.json")}
        assert sealed == {f"idia/out/{stage}/manifest.json" for stage in STAGES}
        assert run("s3://idia/out", store.environment, *STAGES).count("done already") == len(STAGES)
        said = run("s3://idia/out", store.environment, "world", world__caption_rows=2001)
        assert "the old output is kept in s3://idia/out/kept/world-" in said
