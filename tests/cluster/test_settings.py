"""The settings of a cluster: what they refuse, and what follows from them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.settings import ClusterSettings, Group, Machine, load_settings, pinned_version
from idia_core.errors import ConfigError, MissingInputError

SHIPPED = Path(__file__).parents[2] / "cluster" / "settings.yaml"


def changed(tmp_path: Path, **fields: Any) -> Path:
    """The shipped settings with other fields; `a__b` is `b` of section `a`, None removes."""
    document = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    for name, value in fields.items():
        *sections, field = name.split("__")
        target = document
        for section in sections:
            target = target[section]
        target[field] = value
        if value is None:
            del target[field]
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_the_shipped_settings_are_safe() -> None:
    """Tokens are asked for, and nothing listens beyond the machine; every place has a section."""
    settings = load_settings(SHIPPED)
    assert settings.auth is True
    assert settings.dashboard_host == "127.0.0.1"
    assert None not in (settings.kubernetes, settings.slurm, settings.aws, settings.gcp, settings.local)
    assert settings.groups[0].min > 0  # else a stage finds no CPU when it begins


GROUP = {"name": "cpu", "cpus": 2, "memory_gib": 4, "aws": "m7i.large", "gcp": "n2-standard-2"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"workers": 3}, r"unknown field 'workers' .settings .*settings.yaml.\. Known are: name, study"),
        ({"head__cpu": 3}, "unknown field 'head.cpu'"),
        ({"name": "Idia_1"}, "field 'name': string should match pattern"),
        ({"groups": []}, "field 'groups'"),
        ({"groups": [GROUP, GROUP]}, "a name is given twice among head, cpu, cpu"),
        ({"groups": [GROUP | {"name": "head"}]}, "a name is given twice among head, head"),
        ({"groups": [GROUP | {"min": 3, "max": 2}]}, r"min 3 is above max 2 .settings, group cpu."),
        ({"slurm__group": "big"}, r"there is no group 'big' .settings, slurm.\. Known are: cpu, gpu"),
        ({"head__aws": None}, r"head has no machine type .settings, aws.\. Add its machine type as `aws`"),
        ({"groups": [GROUP | {"gpus": 1}], "slurm__group": "cpu"}, "cpu has GPUs of no kind"),
        ({"auth": False, "dashboard_host": "0.0.0.0"}, "a dashboard on the network without a token"),  # noqa: S104
        ({"aws__storage": "gs://bucket"}, "field 'aws.storage': string should match pattern"),
        ({"slurm__storage": "scratch"}, "field 'slurm.storage': string should match pattern"),
        ({"slurm__options": ["--partition=a\nrm -rf ~"]}, "field 'slurm.options.0'"),
        ({"study": "demo.yaml; rm -rf ~"}, "field 'study'"),
        ({"images__cpu": "idia:1 --privileged"}, "field 'images.cpu'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    """Unknown fields, sections that do not fit together, and what would slip into a command line."""
    with pytest.raises(ConfigError, match=complaint):
        load_settings(changed(tmp_path, **fields))


@pytest.mark.parametrize("place", ["aws", "kubernetes", "local"])
def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path, place: str) -> None:
    """The file is not the place for it, nor is a terminal."""
    with pytest.raises(ConfigError) as caught:
        load_settings(changed(tmp_path, **{f"{place}__storage": "s3://me:hunter2@bucket/idia"}))
    assert "hunter2" not in str(caught.value)
    assert "holds more than a bucket and a path" in str(caught.value)


def test_settings_that_are_not_there(tmp_path: Path) -> None:
    """The error says what to copy."""
    with pytest.raises(MissingInputError, match=r"Copy cluster/settings.yaml and change it"):
        load_settings(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("study", "storage", "out"),
    [
        ("demo.yaml", "/data", "/data/demo"),
        ("cc3m", "s3://bucket/a/", "s3://bucket/a/cc3m"),
        ("gs://bucket/studies/laion400m.yaml", "gs://bucket", "gs://bucket/laion400m"),
    ],
)
def test_a_study_writes_below_the_storage_under_its_own_name(study: str, storage: str, out: str) -> None:
    """So that two studies share a storage."""
    group = Group(name="cpu", cpus=1, memory_gib=1)
    settings = ClusterSettings(study=study, head=Machine(cpus=1, memory_gib=1), groups=(group,))
    assert settings.out(storage) == out


def test_rays_version_is_the_pinned_one() -> None:
    """Of the package itself, not of one whose name begins like it."""
    constraints = "# comment\nray-extra==9\nRay==2.60.0\nraylib==1\n"
    assert pinned_version(constraints, "ray") == "2.60.0"
    with pytest.raises(ConfigError, match=r"'torch' is not pinned .constraints.txt.\. Add torch==VERSION"):
        pinned_version(constraints, "torch")
