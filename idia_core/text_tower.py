"""CLIP's text tower, run over no more tokens than its answer depends on.

A causal tower never looks ahead, and CLIP's is read at the end-of-text token: what follows that token, most of the
77, changes nothing. Prompts of the same number of tokens are encoded together, cut after the last one.

Axes: B prompts, L tokens, D embedding dimensions.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

CPU_ROWS = 16
GPU_ROWS = 256
"""Prompts encoded at a time. The last batch is filled up: its shape chooses the order of sums inside, so a prompt's
embedding has the same bits whatever it is encoded with. More rows than 16 gain a CPU little and waste more filling."""
PROBES = ("", "Ann", "a photo of a person named Ann Ash", "a black and white photo of Jean-Luc Müller in 漢字")
PROBE_TOLERANCE = 1e-5
"""How much an element may differ between a probe's embedding cut short and over the full length."""


class TextTower:
    """Encodes prompts with the text half of an open_clip model; cut short where that gives the same embeddings.

    `model` is on `device` and in evaluation mode.
    """

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], "Tensor"], device: str) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._tower = getattr(model, "text", model)  # in CLIP itself the tower's parts are the model's
        self._rows = CPU_ROWS if device == "cpu" else GPU_ROWS
        self._is_cut: bool | None = None

    @property
    def is_cut(self) -> bool:
        """Whether prompts are cut short: the tower is built for it, and some probes came out the same both ways."""
        if self._is_cut is None:
            self._is_cut = _reads_causally_at_the_end(self._tower) and self._probes_agree()
        return self._is_cut

    def encode(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeddings of length one: [B, D]; at least one prompt. Call it under torch's `inference_mode`."""
        tokens_BL = self._tokenizer(list(prompts))
        lengths_B = self._lengths(tokens_BL) if self.is_cut else np.full(len(tokens_BL), tokens_BL.shape[1])
        encoded, order = [], []
        for length in np.unique(lengths_B):
            same = np.flatnonzero(lengths_B == length)
            for start in range(0, len(same), self._rows):
                rows = same[start : start + self._rows]
                filled = np.resize(rows, self._rows)  # repeats them
                encoded.append(self._embed(tokens_BL[filled, :length])[: len(rows)])
                order.append(rows)
        embeddings_BD: npt.NDArray[np.float32] = np.concatenate(encoded)
        return embeddings_BD[np.argsort(np.concatenate(order))]

    def _embed(self, tokens_BL: "Tensor") -> npt.NDArray[np.float32]:
        if self._device != "cpu":
            tokens_BL = tokens_BL.pin_memory().to(self._device, non_blocking=True)
        embed = self._embed_cut if self.is_cut else self._embed_full
        embeddings_BD: npt.NDArray[np.float32] = embed(tokens_BL).float().cpu().numpy()
        return embeddings_BD

    def _embed_full(self, tokens_BL: "Tensor") -> "Tensor":
        embeddings_BD: Tensor = self._model.encode_text(tokens_BL, normalize=True)
        return embeddings_BD

    def _embed_cut(self, tokens_BL: "Tensor") -> "Tensor":
        """What open_clip's `encode_text` does, on prompts that all end with their last token."""
        from torch import nn  # noqa: PLC0415 - heavy

        tower, length = self._tower, tokens_BL.shape[1]
        x_BLD = tower.token_embedding(tokens_BL) + tower.positional_embedding[:length]
        x_BLD = tower.transformer(x_BLD, attn_mask=tower.attn_mask[:length, :length])
        pooled_BD, projection = tower.ln_final(x_BLD[:, -1]), tower.text_projection
        if projection is not None:
            pooled_BD = projection(pooled_BD) if isinstance(projection, nn.Linear) else pooled_BD @ projection
        return nn.functional.normalize(pooled_BD, dim=-1)

    def _lengths(self, tokens_BL: "Tensor") -> npt.NDArray[np.int64]:
        """How many tokens of each prompt the pooled one can see, itself among them: [B]."""
        if _pool_type(self._tower) == "eos":
            eos: Any = getattr(self._tower, "text_eos_id", getattr(self._tower, "eos_id", None))
            tokens_BL = tokens_BL.eq(eos).int()
        lengths_B: npt.NDArray[np.int64] = tokens_BL.argmax(dim=-1).numpy() + 1  # end-of-text is the largest token
        return lengths_B

    def _probes_agree(self) -> bool:
        import torch  # noqa: PLC0415

        tokens_BL = self._tokenizer(list(PROBES)).to(self._device)
        with torch.inference_mode(), torch.autocast(self._device.partition(":")[0], enabled=False):
            full_BD = self._embed_full(tokens_BL)
            ends = self._lengths(tokens_BL.cpu())
            cut_BD = torch.cat([self._embed_cut(tokens_BL[i : i + 1, :end]) for i, end in enumerate(ends)])
            return bool((full_BD - cut_BD).abs().max() <= PROBE_TOLERANCE)


def _pool_type(tower: Any) -> str | None:
    pool_type: str | None = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    return pool_type


def _reads_causally_at_the_end(tower: Any) -> bool:
    """Whether a tower is one of open_clip's own that never looks ahead and is read at the end-of-text token.

    SigLIP's looks both ways, CoCa's is read at a token of its own after the padding, and Hugging Face's have no mask.
    """
    from open_clip import CLIP  # noqa: PLC0415 - heavy
    from open_clip.transformer import TextTransformer  # noqa: PLC0415

    return (
        isinstance(tower, CLIP | TextTransformer)
        and tower.attn_mask is not None
        and getattr(tower, "cls_emb", None) is None
        and _pool_type(tower) in ("argmax", "eos")
    )
