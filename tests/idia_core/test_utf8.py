"""Whether bytes are UTF-8, against Python's own decoder."""

from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idia_core.utf8 import PIECE, is_utf8

# The first and last code points of each length, what is next to the surrogates, and pieces that are no UTF-8.
WHOLE = [
    "a",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "é",
    "日",
    "😀",
]
BROKEN = [b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe2\x80", b"\xe2"]
BROKEN += [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98", b"\xf0\x9f"]
BROKEN += [b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff"]


def _is_utf8(*texts: bytes) -> bool:
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    return is_utf8(np.frombuffer(b"".join(texts), dtype=np.uint8), offsets)


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=600, deadline=None)
@given(texts=st.lists(st.binary(max_size=6), max_size=4))
@example(texts=[])
@example(texts=[b"", b""])
@example(texts=[b"\xc3", b"\xa9"])
@example(texts=[b"a\xf0\x9f\x98", b"", b"\x80b"])
def test_any_bytes_are_judged_as_python_does(texts: list[bytes]) -> None:
    """Each text has to be UTF-8 by itself, also where two would make a character together."""
    assert _is_utf8(*texts) == all(map(_decodes, texts))


@settings(max_examples=600, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_near_misses_are_judged_as_python_does(seed: int) -> None:
    """Characters at the ends of their ranges are UTF-8; what lies just beyond, alone or among them, is not."""
    random = Random(seed)
    pieces = [text.encode() for text in WHOLE]
    text = b"".join(random.choice(BROKEN if random.random() < 0.1 else pieces) for _ in range(random.randint(0, 12)))
    assert _is_utf8(text) == _decodes(text)


@pytest.mark.parametrize("broken", BROKEN, ids=repr)
def test_a_fault_is_found_wherever_it_is(broken: bytes) -> None:
    """At the beginning, in the middle, at the end, and around the places where the work is cut."""
    assert not _decodes(broken)
    for place in (0, 1, 2, 3, 100, *range(PIECE - 3, PIECE + 6), 2 * PIECE):
        text = b"a" * place
        assert _is_utf8(text, b"b" * 5)
        assert not _is_utf8(text + broken, b"b" * 5)
        assert not _is_utf8(text + broken)
        assert _is_utf8(text + "é日😀".encode() + text)
