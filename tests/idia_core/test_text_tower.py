"""The text tower cut short: the embeddings are open_clip's own, and towers that cannot be cut are not."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from idia_core.model_reference import architectures
from idia_core.prompts import TEMPLATES, fill
from idia_core.text_tower import CPU_ROWS, TextTower

open_clip = pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")

NAMES = ["Ann Ash", "Zoë Müller", "漢字", "Wolfeschlegelsteinhausen Bergerdorff", "J. R. R. Tolkien-Smith"]
PROMPTS = [*fill(TEMPLATES, NAMES), "", "word " * 200, "a <end_of_text> b"]
VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small models are fastest on one thread, and repeat exactly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def made(architecture: str) -> Any:
    """A model of a known architecture with random weights."""
    architectures()
    torch.manual_seed(0)
    return open_clip.create_model(architecture).eval()


def custom(**text: Any) -> Any:
    """A model whose tower stands beside it, as SigLIP's and CoCa's do, with random weights."""
    torch.manual_seed(0)
    return open_clip.CustomTextCLIP(48, VISION, TEXT | text).eval()


def tower_of(model: Any, length: int = 32) -> TextTower:
    """The tower under test."""
    return TextTower(model, open_clip.SimpleTokenizer(context_length=length), "cpu")


def full(model: Any, prompts: list[str], length: int = 32) -> Any:
    """What open_clip itself gives, over the full length."""
    tokens = open_clip.SimpleTokenizer(context_length=length)(prompts)
    return model.encode_text(tokens, normalize=True).numpy()


def read_lengths(model: Any) -> list[int]:
    """A list to which the model adds how many tokens each of its batches is long."""
    lengths: list[int] = []
    getattr(model, "text", model).transformer.register_forward_pre_hook(lambda _, x: lengths.append(x[0].shape[1]))
    return lengths


@pytest.mark.parametrize(
    "build",
    [
        lambda: made("idia-rn-tiny"),
        custom,
        lambda: custom(pool_type="eos", eos_id=49407, proj_bias=True),
        lambda: custom(proj_type="none"),
    ],
)
def test_a_causal_tower_is_cut(build: Any) -> None:
    """CLIP's tower, in the model or beside it, reads no token after the end of the text and says the same."""
    model = build()
    expected_BD = full(model, PROMPTS)
    tower, lengths = tower_of(model), read_lengths(model)
    np.testing.assert_allclose(tower.encode(PROMPTS), expected_BD, atol=1e-6)
    assert tower.is_cut
    lengths.clear()
    tower.encode(["Ann", "an image of Ann"])
    assert lengths == [3, 6]


@pytest.mark.parametrize(
    "text",
    [
        {"no_causal_mask": True, "pool_type": "last"},
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"pool_type": "first"},
        {"embed_cls": True},
    ],
)
def test_other_towers_are_not_cut(text: dict[str, Any]) -> None:
    """Towers that look both ways, as SigLIP's, or are read elsewhere, as CoCa's, take the full length."""
    model = custom(**text)
    tower = tower_of(model)
    np.testing.assert_allclose(tower.encode(PROMPTS), full(model, PROMPTS), atol=1e-6)
    assert not tower.is_cut


def test_a_tower_that_only_looks_causal_is_not_cut() -> None:
    """When the probes differ, the full length is taken, whatever the tower's attributes say."""
    model = made("idia-rn-tiny")
    model.transformer.register_forward_hook(lambda _, __, out: out + 1e-2 * out.mean(dim=1, keepdim=True))
    tower = tower_of(model)
    np.testing.assert_allclose(tower.encode(PROMPTS), full(model, PROMPTS), atol=1e-6)
    assert not tower.is_cut


@pytest.mark.parametrize("text", [{}, {"no_causal_mask": True, "pool_type": "last"}])
def test_an_embedding_does_not_depend_on_the_others(text: dict[str, Any]) -> None:
    """Alone, among others or in another order, a prompt's embedding has the same bits."""
    tower = tower_of(custom(**text))
    whole_BD = tower.encode(PROMPTS)
    for rows in (np.random.default_rng(0).permutation(len(PROMPTS)), np.arange(7), np.array([50]), np.array([3, 3])):
        np.testing.assert_array_equal(tower.encode([PROMPTS[row] for row in rows]), whole_BD[rows])
    assert len(PROMPTS) > 2 * CPU_ROWS


@pytest.mark.slow
def test_vit_b_32() -> None:
    """On the paper's architecture no element differs by 1e-5, and no argmax over a thousand unit vectors does."""
    model = made("ViT-B-32")
    prompts = fill(TEMPLATES, [*NAMES, *(f"{a} {b}" for a in ("Ann", "Bo", "Cy") for b in ("Ash", "Oak", "Elm"))])
    full_NKD = full(model, prompts, 77).reshape(len(TEMPLATES), -1, 512)
    tower = tower_of(model, 77)
    cut_NKD = tower.encode(prompts).reshape(full_NKD.shape)
    assert tower.is_cut
    assert np.abs(full_NKD - cut_NKD).max() < 1e-5
    images_PD = np.random.default_rng(0).normal(size=(1000, 512)).astype(np.float32)
    images_PD /= np.linalg.norm(images_PD, axis=1, keepdims=True)
    for full_KD, cut_KD in zip(full_NKD, cut_NKD, strict=True):
        np.testing.assert_array_equal((images_PD @ full_KD.T).argmax(axis=1), (images_PD @ cut_KD.T).argmax(axis=1))
