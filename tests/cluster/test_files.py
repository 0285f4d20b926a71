"""The configs that are shipped: made from their settings, and good for Docker, too."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cluster.dockerfile import EXTRAS, SEEN, dockerfile
from cluster.files import cluster_files
from cluster.settings import load_settings

ROOT = Path(__file__).parents[2]
SETTINGS = load_settings(ROOT / "cluster" / "settings.yaml")
MADE = cluster_files(SETTINGS, "2.60.0")
HADOLINT = Path(sys.executable).parent / "hadolint"


@pytest.mark.parametrize("file", MADE)
def test_a_file_is_what_the_settings_make(file: str) -> None:
    """Byte for byte; run `idia cluster write` after a change."""
    assert (ROOT / "cluster" / file).read_bytes() == MADE[file].encode()


def test_every_place_has_its_file() -> None:
    """And a section that is not given has none."""
    assert set(MADE) == {
        "Dockerfile",
        "Dockerfile.dockerignore",
        "kuberay-cluster.yaml",
        "kuberay-job.yaml",
        "study.sbatch",
        "aws.yaml",
        "gcp.yaml",
        "local.yaml",
    }
    bare = SETTINGS.model_copy(update=dict.fromkeys(("kubernetes", "slurm", "gcp", "local")))
    assert set(cluster_files(bare, "2.60.0")) == {"Dockerfile", "Dockerfile.dockerignore", "aws.yaml"}


@pytest.mark.parametrize("file", [name for name in MADE if not name.endswith("ignore")])
def test_a_file_says_how_it_was_made_and_what_to_type(file: str) -> None:
    """Three commands at the top, in lines that a terminal shows whole."""
    comments = [line for line in MADE[file].splitlines() if line.startswith("# ")][:9]
    assert comments[1].startswith("# Made from cluster/settings.yaml by `idia cluster write`")
    assert [c[4:6] for c in comments if re.match(r"#   \d\.", c)] == ["1.", "2.", "3."]


@pytest.mark.parametrize("file", MADE)
def test_no_file_holds_a_secret_or_a_place_of_ours(file: str) -> None:
    """Only where a token is looked for, never one."""
    assert not re.search(r"RAY_AUTH_TOKEN=(?!\"\$)|AWS_SECRET|password|/root/|/work/", MADE[file])
    assert not re.search(r"\b[0-9a-f]{32,}\b", MADE[file])


def test_without_tokens_no_file_asks_for_one() -> None:
    """For networks that are closed by other means; Ray is told so, rather than left to guess."""
    for file, text in cluster_files(SETTINGS.model_copy(update={"auth": False}), "2.60.0").items():
        assert "RAY_AUTH_MODE=token" not in text, file
        assert "auth_token" not in text, file
    assert "mode: disabled" in cluster_files(SETTINGS.model_copy(update={"auth": False}), "2.60.0")["kuberay-job.yaml"]


def test_hadolint_has_nothing_to_say() -> None:
    """Of the Dockerfile."""
    done = subprocess.run([HADOLINT, ROOT / "cluster" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_images_run_as_a_user_and_ask_for_a_token() -> None:
    """Both targets end as that user; each installs by the constraints, with extras that exist."""
    text = dockerfile(SETTINGS)
    stages = dict(re.findall(r"(?ms)^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", text))
    assert set(stages) == {"base", "cpu", "cuda"}
    assert "RAY_AUTH_MODE=token" in stages["base"]
    for target in ("cpu", "cuda"):
        assert re.findall(r"(?m)^USER (\S+)$", stages[target]) == ["1000"]
        installs = re.findall(r"pip install (.*)", stages[target])
        assert len(installs) == 2
        assert all(install.startswith("--constraint constraints.txt") for install in installs)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(EXTRAS.split(",")) <= set(known)
    assert "whl/cpu" in stages["cpu"]
    assert "whl/cpu" not in stages["cuda"]


def test_the_build_sees_the_code_and_nothing_else() -> None:
    """Everything is left out but these, and all of them exist: what pip needs to install idia."""
    lines = MADE["Dockerfile.dockerignore"].splitlines()
    assert lines[0] == "*"
    assert [line[1:] for line in lines if line.startswith("!")] == list(SEEN)
    assert all((ROOT / name).exists() for name in SEEN)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(SEEN)
