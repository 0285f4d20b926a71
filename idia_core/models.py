"""The only door to CLIP weights: an open_clip model that encodes pictures and prompts.

Axes: B pictures or prompts, D embedding dimensions.
"""

import json
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError, UsageError
from idia_core.model_reference import Kind, ModelReference, architectures
from idia_core.storage import as_path, is_local, sha256_of
from idia_core.text_tower import TextTower

if TYPE_CHECKING:
    from torch import Tensor

CPU_PICTURES = 8
GPU_PICTURES = 256
"""Pictures encoded at a time."""
PROMPTS_BLOCK = 32_768
"""Prompts tokenized at a time."""
REASON_LENGTH = 200
"""Characters of torch's own words that an error message repeats; a mismatch of weights lists every tensor."""
LOADING_ERRORS = (
    *(RuntimeError, KeyError, IndexError, EOFError, ValueError, OSError, SafetensorError),
    *(AttributeError, TypeError, AssertionError, StopIteration),  # a list, a number, other widths, an empty dict
)
"""What torch and open_clip raise on content that is no weights of the architecture."""
ItemT = TypeVar("ItemT")


class ClipModel:
    """A CLIP model, loaded once; encodes to L2-normalised float32.

    Weights are read with torch's `weights_only`. An embedding has the same bits whatever else is encoded with it.
    `batch_size` counts pictures. Raises `InvalidInputError` for weights that do not fit the architecture,
    `MissingInputError` where there are none, and `UsageError` for a black box, whose weights nobody has.
    """

    def __init__(self, reference: ModelReference, device: str = "cpu", batch_size: int | None = None) -> None:
        import torch  # noqa: PLC0415 - heavy, and wanted only where a model is loaded

        if device == "cpu":
            torch.set_num_threads(1)  # workers are the parallelism; more threads add up in another order, to other bits
        model, self._transform, tokenizer, self._width = _load(reference, device)
        self._model = model.eval()
        self._text = TextTower(self._model, tokenizer, device)
        self._device = device
        self.batch_size = batch_size or (CPU_PICTURES if device == "cpu" else GPU_PICTURES)

    def encode_images(self, pictures: Iterable[Image.Image]) -> npt.NDArray[np.float32]:
        """Embeddings of upright RGB pictures: [B, D]; no more than two batches of pictures are held at a time."""
        return self.encode_prepared(map(self.prepare, pictures))

    def prepare(self, picture: Image.Image) -> "Tensor":
        """An upright RGB picture as the model takes it; may run in many threads at once."""
        prepared: Tensor = self._transform(picture)
        return prepared

    def encode_prepared(self, prepared: Iterable["Tensor"]) -> npt.NDArray[np.float32]:
        """Embeddings of pictures that `prepare` has prepared: [B, D], with the same bits as `encode_images` gives."""
        return self._encoded((self._encode_batch(batch) for batch in batches(prepared, self.batch_size)), "pictures")

    def encode_texts(self, prompts: Iterable[str]) -> npt.NDArray[np.float32]:
        """Embeddings of prompts: [B, D]."""
        return self._encoded((self._text.encode(block) for block in batches(prompts, PROMPTS_BLOCK)), "prompts")

    def _encode_batch(self, images: list["Tensor"]) -> npt.NDArray[np.float32]:
        import torch  # noqa: PLC0415

        # Filled up, for the shape of a batch chooses the order of sums inside, and with it the last bits.
        batch = torch.stack(images + images[-1:] * (self.batch_size - len(images)))
        if self._device != "cpu":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        embeddings_BD = self._model.encode_image(batch, normalize=True).float().cpu().numpy()
        kept_BD: npt.NDArray[np.float32] = embeddings_BD[: len(images)]
        return kept_BD

    def _encoded(self, batches: Iterator[npt.NDArray[np.float32]], of: str) -> npt.NDArray[np.float32]:
        import torch  # noqa: PLC0415

        autocast = torch.autocast(self._device.partition(":")[0], enabled=self._device != "cpu")
        with torch.inference_mode(), autocast:
            embeddings_BD = np.concatenate([np.empty((0, self._width), np.float32), *batches])
        if not np.isfinite(embeddings_BD).all():
            # Such a model would answer the first name to every picture, and look like an ordinary one.
            raise InvalidInputError("the model's embeddings are not finite", f"of {of}", "Its training diverged.")
        return embeddings_BD


def weights_sha256(reference: ModelReference) -> str | None:
    """The SHA-256 of the file of weights, as `sha256sum` prints it, fetched if need be; None for a black box."""
    return None if reference.kind is Kind.BLACK_BOX else sha256_of(_weights_file(reference))


def _load(reference: ModelReference, device: str) -> tuple[Any, Any, Any, int]:
    """The model, its transform of pictures, its tokenizer and the width of its embeddings."""
    import open_clip  # noqa: PLC0415

    source = _weights_file(reference)
    config = _model_config(reference)
    name = reference.architecture if _in_open_clip(reference) else str(reference)
    with _on_this_machine(source) as file:
        try:
            model, _, transform = open_clip.create_model_and_transforms(
                name, device=device, require_pretrained=True, **_creation(reference, file)
            )
            tokenizer = open_clip.get_tokenizer(name)
        except pickle.UnpicklingError:
            what = "the checkpoint is damaged or holds more than weights, and is not read"
            raise InvalidInputError(what, str(source), "Save a state dict.") from None
        except LOADING_ERRORS as error:
            what = f"the weights do not fit {reference.architecture}: {_reason(error)}"
            raise InvalidInputError(what, str(source), "Check the architecture's name.") from None
    return model, transform, tokenizer, int(config["embed_dim"])


def _creation(reference: ModelReference, file: Path) -> dict[str, Any]:
    """What `create_model_and_transforms` must be told besides the name."""
    import open_clip  # noqa: PLC0415

    if reference.kind is Kind.CHECKPOINT:
        return {"pretrained": str(file)}
    if reference.kind is Kind.PRETRAINED:
        # Many weights, laion400m's of ViT-B-32 among them, were trained with another activation than the
        # architecture's own; open_clip only warns, and the embeddings would be wrong.
        tag = open_clip.get_pretrained_cfg(reference.architecture, reference.weights)
        return {"pretrained": reference.weights, "force_quick_gelu": tag.get("quick_gelu", False)}
    return {}


def _in_open_clip(reference: ModelReference) -> bool:
    return reference.kind in (Kind.CHECKPOINT, Kind.PRETRAINED)


def _model_config(reference: ModelReference) -> dict[str, Any]:
    """The architecture as open_clip's JSON; refused if it wants to run code that comes with a tokenizer."""
    import open_clip  # noqa: PLC0415

    name = reference.architecture if _in_open_clip(reference) else str(reference)
    try:
        config: dict[str, Any] = open_clip.get_model_config(name)
        text = json.dumps(config)
        complete = {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys()
    except LOADING_ERRORS as error:
        raise InvalidInputError(f"its configuration cannot be read: {_reason(error)}", f"model {reference}") from None
    if not complete:
        raise InvalidInputError("its configuration describes no model of open_clip", f"model {reference}")
    if "trust_remote_code" in text:
        raise InvalidInputError("its configuration asks to run code of its own, and is not used", f"model {reference}")
    return config


def _weights_file(reference: ModelReference) -> UPath:
    """The file of weights that open_clip would load, fetched if need be."""
    import open_clip  # noqa: PLC0415
    from open_clip.factory import _find_checkpoint_in_dir  # noqa: PLC0415 - what it loads from a folder

    architectures()
    match reference.kind:
        case Kind.CHECKPOINT:
            path: str = reference.weights
            if not as_path(path).is_file():
                raise MissingInputError(f"no checkpoint at '{path}'", f"model {reference.architecture}")
        case Kind.LOCAL_DIR:
            path = _find_checkpoint_in_dir(Path(reference.weights)) or ""
        case Kind.PRETRAINED:
            tag = open_clip.get_pretrained_cfg(reference.architecture, reference.weights)
            path = _fetched(open_clip.download_pretrained, tag, reference)
        case Kind.HF_HUB:
            path = _fetched(open_clip.pretrained.download_pretrained_from_hf, reference.weights, reference)
        case Kind.BLACK_BOX:
            raise UsageError("a black box has no weights that could be loaded", f"model {reference}")
    if not path:
        raise MissingInputError(
            "there are no weights", f"model {reference}", "Check what the folder or repository holds."
        )
    return as_path(path)


def _fetched(download: Any, what: Any, reference: ModelReference) -> str:
    try:
        return str(download(what))
    except (OSError, RuntimeError, ValueError) as error:
        fix = "Check the name and the network; what was fetched before is used without."
        raise MissingInputError(f"the weights cannot be fetched: {_reason(error)}", f"model {reference}", fix) from None


@contextmanager
def _on_this_machine(path: UPath) -> Iterator[Path]:
    """A local file with the content of `path`, which may be on an object store."""
    if is_local(path):
        yield Path(path.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        path.fs.get_file(path.path, str(copy))
        yield copy


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:REASON_LENGTH] or type(error).__name__


def batches(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    """The items in lists of `size`, the last of what is left."""
    remaining = iter(items)
    return iter(lambda: list(islice(remaining, size)), [])
