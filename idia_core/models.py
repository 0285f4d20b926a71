"""The only door to CLIP weights: an open_clip model that encodes pictures and prompts.

Axes: B pictures or prompts of a batch, D embedding dimensions.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError

from idia_core.errors import InvalidInputError, MissingInputError

MODEL_CONFIGS = Path(__file__).parent
"""Folder of idia's own architectures, `idia-*.json`, as open_clip's JSON."""
REASON_LENGTH = 200
"""Characters of torch's own words that an error message repeats; a mismatch of weights lists every tensor."""
LOADING_ERRORS = (
    *(RuntimeError, KeyError, IndexError, EOFError, ValueError, SafetensorError),
    *(AttributeError, TypeError, AssertionError, StopIteration),  # a list, a number, other widths, an empty dict
)
"""What torch and open_clip raise on content that is no weights of the architecture."""


def model_config(architecture: str) -> Path | None:
    """The JSON of one of idia's own architectures, or None for one of open_clip's."""
    path = MODEL_CONFIGS / f"{architecture}.json"
    return path if path.exists() else None


class ClipModel:
    """A CLIP model, loaded once; encodes to L2-normalised float32.

    `checkpoint` is a file of weights, read with torch's `weights_only`. Raises `InvalidInputError` for an unknown
    architecture or weights that do not fit it, `MissingInputError` where there is no such file.
    """

    def __init__(self, architecture: str, checkpoint: Path, device: str = "cpu", batch_size: int = 256) -> None:
        import open_clip  # noqa: PLC0415 - heavy, and wanted only where a model is loaded
        import torch  # noqa: PLC0415

        if device == "cpu":
            torch.set_num_threads(1)  # workers are the parallelism; more threads add up in another order, to other bits
        if own := model_config(architecture):
            open_clip.add_model_config(own)
        if architecture not in open_clip.list_models():
            raise InvalidInputError(
                f"open_clip knows no architecture '{architecture}'", fix="See open_clip.list_models()."
            )
        if not checkpoint.is_file():
            raise MissingInputError(f"no checkpoint at '{checkpoint}'", f"model {architecture}")
        try:
            model, _, self._transform = open_clip.create_model_and_transforms(
                architecture, pretrained=str(checkpoint), device=device
            )
        except pickle.UnpicklingError:
            what = "the checkpoint is damaged or holds more than weights, and is not read"
            raise InvalidInputError(what, str(checkpoint), "Save a state dict.") from None
        except LOADING_ERRORS as error:
            reason = " ".join(str(error).split())[:REASON_LENGTH] or type(error).__name__
            what = f"the weights do not fit {architecture}: {reason}"
            raise InvalidInputError(what, str(checkpoint), "Check the architecture's name.") from None
        self._model = model.eval()
        self._tokenizer = open_clip.get_tokenizer(architecture)
        self._device, self._batch_size = device, batch_size

    def encode_images(self, pictures: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Embeddings of upright RGB pictures: [B, D]."""
        import torch  # noqa: PLC0415

        return self._encode(pictures, lambda batch: torch.stack([self._transform(p) for p in batch]), "encode_image")

    def encode_texts(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeddings of prompts: [B, D]."""
        return self._encode(prompts, lambda batch: self._tokenizer(list(batch)), "encode_text")

    def _encode(self, items: Sequence[Any], prepare: Any, method: str) -> npt.NDArray[np.float32]:
        import torch  # noqa: PLC0415

        encoded = []
        autocast = torch.autocast(self._device.partition(":")[0], enabled=self._device != "cpu")
        with torch.inference_mode(), autocast:
            for start in range(0, len(items), self._batch_size):
                batch = prepare(items[start : start + self._batch_size])
                if self._device != "cpu":
                    batch = batch.pin_memory().to(self._device, non_blocking=True)
                encoded.append(getattr(self._model, method)(batch, normalize=True).float().cpu().numpy())
        embeddings_BD: npt.NDArray[np.float32] = np.concatenate(encoded)
        if not np.isfinite(embeddings_BD).all():
            # Such a model would answer the first name to every picture, and look like an ordinary one.
            raise InvalidInputError("the model's embeddings are not finite", f"{method}", "Its training diverged.")
        return embeddings_BD
