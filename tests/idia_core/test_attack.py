"""The attack against its own definition, written out in plain Python."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.attack import predict


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5)),
    seed=st.integers(0, 2**32 - 1),
)
def test_predict_is_the_nearest_prompt(sizes: tuple[int, int, int, int], seed: int) -> None:
    """For each picture and template, in that order, the candidate with the largest cosine."""
    pictures, templates, candidates, dimensions = sizes
    rng = np.random.default_rng(seed)
    # Small whole numbers: the dot products are exact, so that the loop's ties are the matrix product's.
    images_PD = rng.integers(-3, 4, (pictures, dimensions)).astype(np.float32)
    texts_NKD = rng.integers(-3, 4, (templates, candidates, dimensions)).astype(np.float32)
    predicted_PN = predict(images_PD, [texts_NKD])
    assert (predicted_PN.shape, predicted_PN.dtype) == ((pictures, templates), np.int64)
    for p in range(pictures):
        for n in range(templates):
            similarities = [float(sum(images_PD[p] * texts_NKD[n, k])) for k in range(candidates)]
            assert predicted_PN[p, n] == similarities.index(max(similarities))


@settings(max_examples=100, deadline=None)
@given(cuts=st.lists(st.integers(1, 12), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_blocks_change_no_answer(cuts: list[int], seed: int) -> None:
    """However names and pictures are cut, the answers are the same, though many prompts differ by next to nothing."""
    rng = np.random.default_rng(seed)
    images_PD, texts_NKD = (rng.standard_normal(shape) for shape in ((9, 64), (2, sum(cuts), 64)))
    texts_NKD[:, ::2] = texts_NKD[:, :1] + 1e-8 * texts_NKD[:, ::2]
    images_PD, texts_NKD = (
        (a / np.linalg.norm(a, axis=-1, keepdims=True)).astype(np.float32) for a in (images_PD, texts_NKD)
    )
    blocks = np.split(texts_NKD, np.cumsum(cuts)[:-1], axis=1)
    whole_PN = predict(images_PD, [texts_NKD])
    assert (predict(images_PD, blocks) == whole_PN).all()
    one_by_one = [predict(images_PD[p : p + 1], [texts_NKD]) for p in range(len(images_PD))]
    assert (np.concatenate(one_by_one) == whole_PN).all()


def test_of_equal_prompts_the_first_is_answered() -> None:
    """In one block and over several, and for one picture as for many."""
    rng = np.random.default_rng(0)
    images_PD = rng.standard_normal((33, 64)).astype(np.float32)
    text_D = images_PD.sum(axis=0)
    texts_NKD = np.stack([np.stack([-text_D, text_D, text_D, text_D])])
    mine_PD = images_PD[images_PD @ text_D > 0]
    for blocks in ([texts_NKD], [texts_NKD[:, :3], texts_NKD[:, 3:]], list(np.split(texts_NKD, 4, axis=1))):
        assert (predict(mine_PD, blocks) == 1).all()
        assert (predict(mine_PD[:1], blocks) == 1).all()
