"""Ranks: what counts as a hit, above all where texts are equally similar."""

import numpy as np
import pytest
import torch
from open_clip_train.train import get_clip_metrics

from idia_core import ranks
from idia_core.ranks import RankedTexts


def unit(rows: int, seed: int, dimensions: int = 16) -> np.ndarray:
    """Random embeddings of length one."""
    embeddings = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 700, 1 << 22])
def test_without_ties_hits_are_open_clips_recalls(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """For 300 pictures and texts, R@1, R@5 and R@10 are those of `get_clip_metrics`, however they are cut in blocks."""
    monkeypatch.setattr(ranks, "BLOCK", block)
    texts = unit(300, 1)
    images = texts + 1.2 * unit(300, 2)
    hits = RankedTexts(texts).hits(images, np.arange(300), (1, 5, 10))
    theirs = get_clip_metrics(torch.from_numpy(images), torch.from_numpy(texts), torch.tensor(100.0))
    recalls = [theirs[f"image_to_text_R@{k}"] for k in (1, 5, 10)]
    assert hits.mean(axis=0).tolist() == pytest.approx(recalls)
    assert 0.2 < recalls[0] < recalls[1] < 1


@pytest.mark.parametrize("texts", [3, 5, 17, 1001])
def test_a_model_that_tells_nothing_apart_gets_its_chance(texts: int) -> None:
    """With one embedding for all N texts every picture is k / N of a hit, and a whole one where N is at most k."""
    same = np.repeat(unit(1, 3), texts, axis=0)
    hits = RankedTexts(same).hits(unit(40, 4), np.arange(40) % texts, (1, 5))
    assert np.allclose(hits, [1 / texts, min(1, 5 / texts)])


def test_ties_count_by_the_chance_of_a_random_order() -> None:
    """Behind two better texts and tied with three others, a text is never first, and in the first four by a half."""
    right, better = np.array([0.6, 0.8], np.float32), np.array([1, 0], np.float32)
    texts = np.array([right, better, right, better, right, right, -better])
    hits = RankedTexts(texts).hits(better[None], np.array([2]), (1, 2, 3, 4, 5, 6, 7))
    assert hits.tolist() == [[0, 0, 0.25, 0.5, 0.75, 1, 1]]


def test_equal_texts_tie_wherever_they_are() -> None:
    """Each of 37 texts comes three times among others; a picture nearest to its own gets a third at rank 1."""
    texts = unit(37, 5, dimensions=67)
    order = np.random.default_rng(6).permutation(np.repeat(np.arange(37), 3))
    hits = RankedTexts(texts[order]).hits(texts[order], np.arange(111), (1, 3))
    assert np.allclose(hits, [1 / 3, 1])
