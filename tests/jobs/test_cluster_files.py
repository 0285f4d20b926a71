"""`idia cluster`: configs are written from settings, and stale ones are named."""

from importlib import metadata
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cluster.settings import pinned_version
from idia_core.errors import ConfigError
from jobs.cluster_files import app, ray_version

ROOT = Path(__file__).parents[2]


def test_written_files_are_those_of_the_settings(tmp_path: Path) -> None:
    """Only of the places that they name; a check finds the one that was changed by hand, and then the whole folder."""
    settings = tmp_path / "mine.yaml"
    document = yaml.safe_load((ROOT / "cluster" / "settings.yaml").read_text(encoding="utf-8"))
    settings.write_text(yaml.safe_dump({k: v for k, v in document.items() if k not in {"aws", "gcp", "slurm"}}))
    words = ["--settings", str(settings), "--out", str(tmp_path / "made" / "here")]
    done = CliRunner().invoke(app, ["write", *words])
    made = sorted(path.name for path in (tmp_path / "made" / "here").iterdir())
    assert made == ["Dockerfile", "Dockerfile.dockerignore", "kuberay-cluster.yaml", "kuberay-job.yaml", "local.yaml"]
    assert sorted(Path(line).name for line in done.output.split()) == made
    assert f"Made from {settings}" in (tmp_path / "made" / "here" / "local.yaml").read_text()
    assert CliRunner().invoke(app, ["check", *words]).exit_code == 0
    (tmp_path / "made" / "here" / "local.yaml").write_text("cluster_name: other\n")
    (tmp_path / "made" / "here" / "Dockerfile").unlink()
    checked = CliRunner().invoke(app, ["check", *words])
    assert checked.exit_code == 1
    assert [line.split(" is not ")[0].rpartition("/")[2] for line in checked.output.splitlines()] == [
        "Dockerfile",
        "local.yaml",
    ]


def test_wrong_settings_write_nothing(tmp_path: Path) -> None:
    """The error is the settings' own."""
    settings = tmp_path / "mine.yaml"
    settings.write_text("name: idia\nhaed: {}\n")
    with pytest.raises(ConfigError, match="unknown field 'haed'"):
        CliRunner().invoke(
            app, ["write", "--settings", str(settings), "--out", str(tmp_path / "o")], catch_exceptions=False
        )
    assert not (tmp_path / "o").exists()


def test_the_version_of_ray_is_the_pinned_one() -> None:
    """Which is also the one installed here."""
    pinned = pinned_version((ROOT / "constraints.txt").read_text(encoding="utf-8"), "ray")
    assert ray_version() == pinned == metadata.version("ray")
