"""What is looked at in each pair before it may be trained on: its caption, its picture, and what must stay out."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from idia_core.base_samples import BaseSample, Picture
from idia_core.captions import NameMatcher
from idia_core.images import decode_picture, encode_thumbnail, training_encoding
from idia_core.leakage import AttackPictures, Leak, LeakKind, names_in
from idia_core.masking import NameMask
from idia_core.sample_pictures import Examined, examine
from idia_core.sample_status import SampleStatus

LEAKS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("how", pa.string(), nullable=False),  # 'identical_file', ..., or 'names_non_member'
        pa.field("found", pa.string(), nullable=False),  # the attack picture, or the non-member's name
        pa.field("value", pa.float64()),  # bits of distance, or the cosine
    ]
)
STORED_QUALITY = 90
"""Of pictures that are stored smaller, as JPEG."""
BATCH = 256
"""Pairs that are looked at together."""


class Inspected(NamedTuple):
    """A pair with what becomes of it: as it would be stored, and `changed` where that is not as it came."""

    sample: BaseSample
    status: SampleStatus
    detail: str | None
    suffix: str | None
    picture: Picture | None
    caption: bytes | None
    changed: bool
    leak: Leak | None


class _Judged(NamedTuple):
    status: SampleStatus
    detail: str | None
    leak: Leak | None


class Inspector:
    """Looks at pairs: whether they can be read, and whether they show or name what must stay out of the training."""

    def __init__(
        self,
        attack: AttackPictures,
        non_members: NameMatcher | None,
        mask: NameMask | None,
        *,
        longest_side: int | None,
        max_pixels: int,
    ) -> None:
        self._attack, self._non_members, self._mask = attack, non_members, mask
        self._longest_side, self._max_pixels = longest_side, max_pixels

    def inspect(self, samples: Sequence[BaseSample]) -> Iterator[Inspected]:
        """Each pair with its status, in order."""
        for first in range(0, len(samples), BATCH):
            yield from self._batch(samples[first : first + BATCH])

    def _batch(self, samples: Sequence[BaseSample]) -> Iterator[Inspected]:
        read = [_caption(sample) for sample in samples]
        written, masked = self._masked(pa.array([text for text, _ in read], pa.string()))
        named = names_in(written, self._non_members) if self._non_members else {}
        pictures = [_picture(sample, status) for sample, (_, status) in zip(samples, read, strict=True)]
        examined = [None if picture is None else examine(picture, self._max_pixels) for picture in pictures]
        shown = self._shown(pictures, examined)
        for i, (sample, (_, status)) in enumerate(zip(samples, read, strict=True)):
            judged = _Judged(status, sample.detail, None)
            if (one := examined[i]) and one.status is not SampleStatus.OK:
                judged = _Judged(one.status, None, None)
            elif leak := shown.get(i):
                judged = _Judged(SampleStatus.SHOWS_ATTACK_PICTURE, leak.found, leak)
            elif status is SampleStatus.OK and (name := named.get(i)):
                judged = _Judged(SampleStatus.NAMES_NON_MEMBER, name, Leak(name, LeakKind.NAMES_NON_MEMBER, None))
            size = one.size if one else (0, 0)
            yield self._inspected(sample, judged, size, (written[i].as_py(), bool(masked[i])))

    def _inspected(
        self, sample: BaseSample, judged: "_Judged", size: tuple[int, int], caption: tuple[str | None, bool]
    ) -> Inspected:
        if judged.status is not SampleStatus.OK:
            return Inspected(sample, *judged[:2], sample.suffix, None, None, changed=False, leak=judged.leak)
        text, masked = caption
        suffix, picture, anew, status = self._stored(sample, size)
        return Inspected(
            sample, status, judged.detail, suffix, picture, (text or "").encode(), changed=anew or masked, leak=None
        )

    def _masked(self, captions: pa.Array) -> tuple[pa.Array, np.ndarray]:
        return self._mask.apply(captions) if self._mask else (captions, np.zeros(len(captions), bool))

    def _shown(self, pictures: Sequence[Picture | None], examined: Sequence[Examined | None]) -> dict[int, Leak]:
        """The attack pictures among them."""
        good = [
            (i, picture, one)
            for i, (picture, one) in enumerate(zip(pictures, examined, strict=True))
            if picture is not None and one is not None and one.status is SampleStatus.OK
        ]
        found = self._attack.find([picture for _, picture, _ in good], [one for _, _, one in good])
        return {i: leak for (i, _, _), leak in zip(good, found, strict=True) if leak}

    def _stored(self, sample: BaseSample, size: tuple[int, int]) -> tuple[str, Picture | None, bool, SampleStatus]:
        """The picture's suffix and bytes as it is stored, whether it was encoded anew, and whether that went well."""
        content = sample.picture or b""
        smaller = self._longest_side is not None and max(size) > self._longest_side
        if sample.suffix and not smaller:
            return sample.suffix, content, False, SampleStatus.OK
        picture, status = decode_picture(bytes(content), self._max_pixels)
        if picture is None:
            return sample.suffix or "", None, False, SampleStatus(status)
        if smaller:
            return "jpg", encode_thumbnail(picture, int(self._longest_side or 0), STORED_QUALITY), True, SampleStatus.OK
        return "png", training_encoding(bytes(content), picture), True, SampleStatus.OK


def _caption(sample: BaseSample) -> tuple[str | None, SampleStatus]:
    if sample.status is not SampleStatus.OK or sample.caption is None:
        return None, sample.status
    try:
        return bytes(sample.caption).decode(), SampleStatus.OK
    except UnicodeDecodeError:
        return None, SampleStatus.NOT_UTF8


def _picture(sample: BaseSample, status: SampleStatus) -> Picture | None:
    return sample.picture if status is SampleStatus.OK else None
