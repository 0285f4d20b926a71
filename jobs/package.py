"""What a cluster gets of `idia` to run a study: the code and the study, and nothing else that lies around."""

import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from upath import UPath

from idia_core.config import Study
from idia_core.errors import ConfigError, UsageError
from idia_core.manifest import digest_of
from jobs.stages import stage_configs

ROOT = Path(__file__).parent.parent
CODE = ("idia_core", "pipelines", "jobs", "cluster")
FILES = ("pyproject.toml", "constraints.txt")
EXTRAS = ("download", "gcs", "s3")
STUDY = "study.yaml"
MAX_BYTES = 20 << 20
"""Of all that is sent: the code is about a megabyte, so more than this is something that got in by mistake."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*.nbi", "*.nbc")


class Package(NamedTuple):
    """A folder to be sent to a cluster, and how large it is."""

    folder: Path
    files: int
    bytes: int


def pack(study: Study, folder: Path) -> Package:
    """Put the code and the study, with all settings applied, into an empty folder.

    Raises `UsageError` where that is more than `MAX_BYTES`.
    """
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    text = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (folder / STUDY).write_text(text, encoding="utf-8")
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        fix = f"The largest is {largest.relative_to(folder)}, {sizes[largest] >> 20} MiB. Move what is no code away."
        raise UsageError(f"the code is more than {MAX_BYTES >> 20} MiB", str(ROOT), fix)
    return Package(folder, len(files), sum(sizes.values()))


def check_places(study: Study) -> None:
    """Raise `ConfigError` for an output or an input that is relative: there it would be in the job's own folder.

    That folder is on the head node, and gone with the job.
    """
    given = {"out": study.out}
    for name, config in stage_configs(study).items():
        for field, source in config.inputs.items():
            if source.partition(".")[0] not in study.stages:
                given[f"{name}.inputs.{field}"] = source
    for field, place in given.items():
        if UPath(place).protocol in ("", "file") and not place.startswith(("/", "file://")):
            fix = f"Give a path that all nodes see, or a URL: --set {field}=/shared/{place}"
            raise ConfigError(f"'{place}' is relative to this machine's folder", f"study {study.name}, {field}", fix)


def identity_of_submission(study: Study, words: Sequence[str]) -> str:
    """What the same study is called whenever it is submitted."""
    return f"idia-{study.name}-{digest_of([study.model_dump(mode='json'), *words])[:10]}"


def requirements() -> list[str]:
    """What has to be installed on a node, besides the Ray that is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(name for extra in EXTRAS for name in extras[extra])]
    return [requirement for requirement in wanted if not requirement.startswith("ray")]
