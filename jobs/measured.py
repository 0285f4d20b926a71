"""How fast stages were in earlier runs, from their seals."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from idia_core.config import StageConfig
from idia_core.errors import MissingInputError
from idia_core.manifest import MANIFEST, Manifest, read_manifest

LEAST_SECONDS = 30.0
"""A stage whose workers took less says more about how they start than about how they work."""
DECIDES = ("device", "model", "detector", "kind", "mode", "by", "texts", "decode", "mask_names", "leak_model", "urls")
"""Fields of configs without which no run can be compared with another."""


@dataclass(frozen=True)
class Measured:
    """How fast a stage was."""

    kind: str
    about: Mapping[str, Any]
    """What it is like, of which its speed depends."""
    seconds_a_row: float
    """Of a worker."""
    cpus: float
    gpus: float
    where: str

    def seconds(self, rows: float, config: StageConfig) -> float | None:
        """How long workers of a config would take; None where the stage was measured on the other kind of device."""
        ours, theirs = config.resources, (self.cpus, self.gpus)
        if bool(ours.gpus) != bool(self.gpus):
            return None
        scale = theirs[1] / ours.gpus if ours.gpus else theirs[0] / ours.cpus
        return rows * self.seconds_a_row * scale


def measured(folders: Iterable[UPath]) -> list[Measured]:
    """What the seals in the folders of stages tell."""
    found = [_measured(manifest, folder) for folder in folders if (manifest := read_manifest(folder))]
    return [one for one in found if one]


def stage_folders(out: UPath) -> list[UPath]:
    """The folders of the sealed stages of a study's output, or of a stage; `MissingInputError` where there is none."""
    folders = [path.parent for path in (*out.glob(MANIFEST), *out.glob(f"*/{MANIFEST}"))]
    if not folders:
        raise MissingInputError(f"no stage is sealed in '{out}'", "--measured", "Give the folder that a study wrote.")
    return sorted(folders, key=str)


def matching(found: Iterable[Measured], kind: str, config: StageConfig) -> Measured | None:
    """The first that tells how fast a stage of that kind and config is."""
    about = _about(config.model_dump(mode="json"))
    return next((one for one in found if one.kind == kind and one.about == about), None)


def _measured(manifest: Manifest, folder: UPath) -> Measured | None:
    made = manifest.provenance
    if not made.split_rows or (made.split_seconds or 0) < LEAST_SECONDS:
        return None
    each, resources = float(made.split_seconds or 0) / made.split_rows, manifest.resources
    where = f"the seal in {folder}"
    return Measured(manifest.stage, _about(manifest.config), each, resources["cpus"], resources["gpus"], where)


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    return {field: config[field] for field in DECIDES if field in config}
