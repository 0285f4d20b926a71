"""Pairs are looked at before they may be trained on: whether they can be read, and what they show or name."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idia_core.base_samples import BaseSample, suffix_of
from idia_core.captions import NameMatcher
from idia_core.images import MAX_PIXELS
from idia_core.intake import BATCH, Inspected, Inspector
from idia_core.leakage import AttackPictures, LeakKind
from idia_core.masking import NameMask
from idia_core.sample_status import SampleStatus


def picture(number: int, kind: str = "JPEG", size: tuple[int, int] = (40, 32)) -> bytes:
    """A textured picture that differs from number to number."""
    noise = np.random.default_rng(number).integers(0, 255, (12, 12, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size).save(out, kind)
    return out.getvalue()


ATTACK = picture(999)


def sample(content: bytes | None, caption: bytes | None = b"a cat", status: str = "ok", key: str = "k") -> BaseSample:
    """A pair as it is read from a table."""
    suffix = None if content is None else suffix_of(content)
    return BaseSample(key, caption, content, suffix, None, None, SampleStatus(status), None)


def inspect(*samples: BaseSample, **settings: Any) -> list[Inspected]:
    """What is said of pairs where Bob Birch is no member and ATTACK is Ida Moss's attack picture."""
    given = {"longest_side": None, "max_pixels": MAX_PIXELS, "mask": None} | settings
    attack = AttackPictures([("Ida Moss/0.jpg", ATTACK)])
    return list(Inspector(attack, NameMatcher(["Bob Birch"], [["Birchie"]]), **given).inspect(samples))


def test_a_good_pair_stays_as_it_is() -> None:
    """Its bytes, its suffix and its caption, whatever script that is in."""
    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
        content = picture(1, kind)
        (one,) = inspect(sample(content, "Füße 🗼".encode()))
        found = (one.status, one.suffix, one.picture, one.caption, one.changed, one.leak)
        assert found == ("ok", suffix, content, "Füße 🗼".encode(), False, None)


@pytest.mark.parametrize(
    ("content", "caption", "status"),
    [
        (picture(1)[:400], b"a cat", "truncated"),
        (b"\xff\xd8\xff no picture", b"a cat", "broken"),
        (picture(1), b"caf\xe9", "not_utf8"),
    ],
)
def test_what_cannot_be_read_has_a_status_and_no_bytes(content: bytes, caption: bytes, status: str) -> None:
    """It is not stored in any form."""
    (one,) = inspect(sample(content, caption))
    assert (one.status, one.picture, one.caption, one.changed, one.leak) == (status, None, None, False, None)


def test_a_picture_of_too_many_pixels_is_left_out() -> None:
    """The limit itself is allowed."""
    content = picture(1, size=(40, 32))
    limits = (40 * 32, 40 * 32 - 1)
    assert [inspect(sample(content), max_pixels=limit)[0].status for limit in limits] == ["ok", "too_large"]


def test_a_pair_with_a_fault_is_not_looked_at() -> None:
    """What its tar or list says of it stays, even if it shows an attack picture and names a non-member."""
    faulty = sample(ATTACK, b"Bob Birch", "duplicate_key")._replace(detail="an earlier one")
    (one,) = inspect(faulty)
    assert (one.status, one.detail, one.leak) == ("duplicate_key", "an earlier one", None)
    assert [found.status for found in inspect(sample(None, None, "missing"))] == ["missing"]


def test_an_attack_picture_is_found_before_a_name() -> None:
    """By its file, or encoded anew; the pair is left out with the attack picture's name and the way it was found."""
    anew = io.BytesIO()
    Image.open(io.BytesIO(ATTACK)).resize((48, 38)).save(anew, "PNG")
    for content, how in ((ATTACK, LeakKind.IDENTICAL_FILE), (anew.getvalue(), LeakKind.NEAR_DUPLICATE)):
        (one,) = inspect(sample(content, b"Bob Birch at sea"))
        assert (one.status, one.detail, one.picture) == ("shows_attack_picture", "Ida Moss/0.jpg", None)
        assert one.leak is not None
        assert (one.leak.found, one.leak.how) == ("Ida Moss/0.jpg", how)


def test_a_caption_that_names_a_non_member_is_found() -> None:
    """By name or alias, as the scan would; another person's name is none."""
    found = inspect(*(sample(picture(1), text) for text in (b"bob birch, live", b"Birchie", b"Rob Birch", b"Bob Bir")))
    assert [one.status for one in found] == ["names_non_member", "names_non_member", "ok", "ok"]
    assert found[1].leak is not None
    assert (found[1].leak.found, found[1].leak.how, found[1].detail) == ("Bob Birch", "names_non_member", "Bob Birch")


def test_a_broken_picture_is_told_before_the_name_in_its_caption() -> None:
    """A pair that cannot be used leaks nothing."""
    (one,) = inspect(sample(picture(1)[:400], b"Bob Birch"))
    assert (one.status, one.leak) == ("truncated", None)


def test_masked_names_are_replaced_and_no_leak() -> None:
    """The pair has changed; one without a name has not."""
    mask = NameMask([("Ann Ash", (), "actor"), ("Bob Birch", ("Birchie",), "person")])
    first, second = inspect(sample(picture(1), b"Ann Ash and Bob Birch"), sample(picture(2), b"a cat"), mask=mask)
    assert (first.status, first.caption, first.changed) == ("ok", b"actor and person", True)
    assert (second.status, second.caption, second.changed) == ("ok", b"a cat", False)


def test_larger_pictures_are_stored_smaller_as_jpeg() -> None:
    """The longest side is that many pixels; a picture that is no larger keeps its bytes."""
    large, small = inspect(sample(picture(1, "PNG", (60, 40))), sample(picture(2, "PNG", (30, 20))), longest_side=30)
    assert (large.suffix, large.changed) == ("jpg", True)
    assert Image.open(io.BytesIO(bytes(large.picture or b""))).size == (30, 20)
    assert (small.suffix, small.changed, small.picture) == ("png", False, small.sample.picture)


def test_a_picture_of_a_kind_that_open_clip_does_not_look_for_is_stored_as_png() -> None:
    """Pixel for pixel."""
    content = picture(1, "BMP")
    (one,) = inspect(sample(content))
    assert (one.status, one.suffix, one.changed) == ("ok", "png", True)
    stored, given = (Image.open(io.BytesIO(bytes(p))) for p in (one.picture or b"", content))
    assert stored.format == "PNG"
    assert np.array_equal(np.asarray(stored), np.asarray(given))


def test_each_of_many_pairs_gets_its_own_verdict() -> None:
    """In their order, over the batches in which they are looked at."""
    good, total = picture(1), 2 * BATCH + 3
    special = {0: ATTACK, BATCH - 1: good[:300], BATCH: ATTACK, 2 * BATCH + 1: good[:300]}
    found = inspect(*(sample(special.get(i, good), b"%d" % i, key=f"{i}") for i in range(total)))
    assert [one.sample.key for one in found] == [f"{i}" for i in range(total)]
    statuses = {i: str(one.status) for i, one in enumerate(found) if one.status != "ok"}
    assert statuses == {
        i: "shows_attack_picture" if content is ATTACK else "truncated" for i, content in special.items()
    }
    assert [one.caption for one in found if one.status == "ok"] == [b"%d" % i for i in range(total) if i not in special]
