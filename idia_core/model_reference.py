"""How a model is named on the command line and in a study, before any of its weights are read."""

import importlib.metadata
import importlib.util
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from upath import UPath

from idia_core.config import suggest
from idia_core.errors import ConfigError, MissingInputError, UsageError
from idia_core.storage import as_path, is_local

MODEL_CONFIGS = Path(__file__).parent
"""Folder of idia's own architectures, `idia-*.json`, as open_clip's JSON."""
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
"""What a file of weights ends in; one of another name is known by a '/' in its path."""
LOCAL_DIR, HF_HUB, BLACK_BOX = "local-dir", "hf-hub", "black-box"
OPEN_CLIP, TAGS = "open_clip_torch", MODEL_CONFIGS / "pretrained_tags.json"
"""A package, and what one version of it says of the weights that it knows: to look them up there takes seconds."""
CONFIG_FILE = "open_clip_config.json"
"""The file that makes a folder or a repository of the hub a model of open_clip."""
FORMS = f"Write ARCHITECTURE:PRETRAINED, ARCHITECTURE:CHECKPOINT.pt, {LOCAL_DIR}:FOLDER, {HF_HUB}:OWNER/NAME or a URL."


class Kind(StrEnum):
    """Where a model's weights come from."""

    CHECKPOINT = "checkpoint"
    PRETRAINED = "pretrained"
    LOCAL_DIR = "local_dir"
    HF_HUB = "hf_hub"
    BLACK_BOX = "black_box"


@dataclass(frozen=True)
class ModelReference:
    """A model that can be asked: `str()` gives a text that `parse` reads back, with local paths made absolute.

    `architecture` is open_clip's name or idia's own, or `local-dir`, `hf-hub` and `black-box`. `weights` is a file, a
    tag of open_clip, a folder, OWNER/NAME or a URL, as `kind` says.
    """

    architecture: str
    weights: str
    kind: Kind

    @classmethod
    def parse(cls, text: str, folder: UPath | None = None) -> "ModelReference":
        """The model that `text` names; a relative path of a checkpoint begins at `folder`, or where the program runs.

        Raises `UsageError` for a form, architecture or tag that is not known, naming the nearest, and
        `MissingInputError` for a file or folder that is not there. Nothing is fetched.
        """
        if text.startswith(("http://", "https://")):
            return cls(BLACK_BOX, _checked_url(text), Kind.BLACK_BOX)
        architecture, _, weights = text.partition(":")
        if not weights:
            fix = f"Write {text}:PRETRAINED." if text in _known_architectures() else FORMS
            raise UsageError(f"'{text}' names no weights", "model", fix)
        if architecture == LOCAL_DIR:
            return cls(LOCAL_DIR, _checked_folder(weights), Kind.LOCAL_DIR)
        if architecture == HF_HUB:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", weights):
                raise UsageError(f"'{weights}' is no name on the hub", f"model {text}", f"Write {HF_HUB}:OWNER/NAME.")
            return cls(HF_HUB, weights, Kind.HF_HUB)
        if architecture not in _known_architectures():
            known = suggest(architecture, _known_architectures())
            fix = known if known.startswith("Did") else FORMS  # all of them would fill the screen
            raise UsageError(f"open_clip knows no architecture '{architecture}'", f"model {text}", fix)
        if "/" in weights or weights.endswith(WEIGHT_SUFFIXES):
            return cls(architecture, _checked_file(weights, folder, architecture), Kind.CHECKPOINT)
        return cls(architecture, _checked_tag(architecture, weights), Kind.PRETRAINED)

    def __str__(self) -> str:
        return self.weights if self.kind is Kind.BLACK_BOX else f"{self.architecture}:{self.weights}"

    @property
    def default_name(self) -> str:
        """A short name that is safe in a file's name; two checkpoints of the same file name share it."""
        match self.kind:
            case Kind.PRETRAINED:
                name = f"{self.architecture}_{self.weights}"
            case Kind.CHECKPOINT:
                name = f"{self.architecture}_{PurePosixPath(self.weights).stem}"
            case Kind.LOCAL_DIR:
                name = Path(self.weights).name
            case Kind.HF_HUB:
                name = self.weights
            case Kind.BLACK_BOX:
                name = self.weights.partition("//")[2]
        return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._-") or "model"

    def files(self) -> list[UPath]:
        """The files that the reference itself names, sorted: a change of one of them is another model."""
        if self.kind is Kind.CHECKPOINT:
            return [as_path(self.weights)]
        if self.kind is Kind.LOCAL_DIR:
            return [UPath(path) for path in sorted(Path(self.weights).rglob("*")) if path.is_file()]
        return []


def named_files(field: str, reference: str | None) -> dict[str, str]:
    """The files that a config's field names by a reference, under names of their own; none where it is null."""
    files = ModelReference.parse(reference).files() if reference else []
    return {f"{field}.{place}": str(path) for place, path in enumerate(files)}


def architecture_file(architecture: str) -> Path:
    """The JSON of one of idia's own architectures or of open_clip's; `ConfigError` for an unknown one."""
    if own := model_config(architecture):
        return own
    if (file := _open_clip_configs() / f"{architecture}.json").is_file():
        return file
    fix = suggest(architecture, _known_architectures())
    raise ConfigError(f"there is no architecture '{architecture}'", "recipe.architecture", fix)


def model_config(architecture: str) -> Path | None:
    """The JSON of one of idia's own architectures, or None for one of open_clip's."""
    path = MODEL_CONFIGS / f"{architecture}.json"
    return path if path.exists() else None


def _open_clip_configs() -> Path:
    """The folder of open_clip's architectures, found without loading it, which takes seconds."""
    package = importlib.util.find_spec("open_clip")
    return Path(str(package.origin)).parent / "model_configs" if package else Path()


def _known_architectures() -> list[str]:
    return [*sorted(path.stem for path in _open_clip_configs().glob("*.json")), *_own_architectures()]


def _own_architectures() -> list[str]:
    return sorted(path.stem for path in MODEL_CONFIGS.glob("idia-*.json"))


def architectures() -> list[str]:
    """The names of open_clip's architectures and of idia's own, which open_clip knows from then on."""
    import open_clip  # noqa: PLC0415 - heavy, and wanted only where a model is named

    for own in _own_architectures():
        if own not in open_clip.list_models():
            open_clip.add_model_config(MODEL_CONFIGS / f"{own}.json")
    names: list[str] = open_clip.list_models()
    return names


def _checked_url(url: str) -> str:
    """The URL of a black box without a slash at its end; it is recorded and shown, so it must hold no secret."""
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError("this is no URL of a black box", f"model {url}", "Write http://HOST:PORT.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        what = "the URL of a black box is recorded, and holds a password or a query"
        raise UsageError(what, f"model at {parts.hostname}", "Give a token by an environment variable.")
    return url.rstrip("/")


def _checked_folder(folder: str) -> str:
    path = as_path(folder)
    if not is_local(path):
        raise UsageError(f"'{folder}' is not on this machine", LOCAL_DIR, "Copy it.")
    if not (path / CONFIG_FILE).is_file():
        raise MissingInputError(f"no {CONFIG_FILE} in '{path}'", LOCAL_DIR, "Give a folder that open_clip saved.")
    return str(path)


def _checked_file(weights: str, folder: UPath | None, architecture: str) -> str:
    relative = folder is not None and "://" not in weights and not weights.startswith(("/", "~"))
    path = folder / weights if folder is not None and relative else as_path(weights)
    if not path.is_file():
        raise MissingInputError(f"no checkpoint at '{path}'", f"model {architecture}", "Check the path.")
    return str(path)


def _checked_tag(architecture: str, tag: str) -> str:
    known = tag.lower().replace("-", "_")  # as open_clip looks it up
    listed = json.loads(TAGS.read_bytes())
    if known in listed["tags"].get(architecture, ()) and importlib.metadata.version(OPEN_CLIP) == listed["version"]:
        return known
    import open_clip  # noqa: PLC0415 - heavy

    if open_clip.is_pretrained_cfg(architecture, tag):
        return known
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    fix = suggest(tag, tags) if tags else f"Write {architecture}:CHECKPOINT.pt."
    raise UsageError(f"open_clip has no weights '{tag}' for {architecture}", "model", fix)
