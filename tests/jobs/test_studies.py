"""The studies that idia has: each is one, and the small CC3M study is the large one."""

from pathlib import Path

import pytest
from upath import UPath

from idia_core.config import Study, load_study
from jobs.stages import stage_configs

STUDIES = sorted((Path(__file__).parent.parent.parent / "jobs/studies").glob("*.yaml"))
SETTINGS = {"audit": ["models.models=[a:b]"]}
"""What a command line fills in."""


def study(name: str) -> Study:
    """One of them."""
    return load_study(UPath(next(path for path in STUDIES if path.stem == name)), SETTINGS.get(name, []))


@pytest.mark.parametrize("name", [path.stem for path in STUDIES])
def test_every_study_is_valid(name: str) -> None:
    """Known stages, known fields, inputs that earlier stages make; it is called, and writes, after its file."""
    loaded = study(name)
    assert (loaded.name, loaded.out) == (name, f"out/{name}")
    assert list(stage_configs(loaded)) == list(loaded.stages)


def test_the_small_cc3m_study_has_all_of_the_large_one() -> None:
    """The same stages in the same order, each with the same inputs or more, besides the world and its embedded web."""
    small, large = study("cc3m_small"), study("cc3m")
    own = {"world", "embed_web", "index_web"}
    assert [name for name in small.stages if name not in own] == list(large.stages)
    for name, fields in large.stages.items():
        assert fields["inputs"].keys() <= small.stages[name]["inputs"].keys(), name
        assert (small.kind(name), large.kind(name)) == (name, name)
