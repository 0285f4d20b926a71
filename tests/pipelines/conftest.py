"""Fixtures that several tests of stages share."""

from pathlib import Path

import pytest

from tests.pipelines.scans import CAPTIONS, FIVE, write_names, write_parquet


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with three small files of captions and a list of five names."""
    for number in range(3):
        write_parquet(tmp_path / f"captions/{number}.parquet", CAPTIONS[number:] + CAPTIONS[:number], row_group_size=4)
    write_names(tmp_path, FIVE)
    return tmp_path
