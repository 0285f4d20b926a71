"""Image-to-text retrieval (paper, Table 2): for each picture all captions are ranked, and its own should come first.

The captions of all pairs whose picture can be shown take part, so that a model that knows nothing gets k of N. The
embeddings of both are held at once, 8 KiB a pair of 1,024 dimensions; similarities are not. How ties are counted is
told in `ranks`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from idia_core.base_inputs import ListColumns, base_splits, read_split
from idia_core.errors import InvalidInputError
from idia_core.models import ClipModel
from idia_core.picture_stream import PictureStream, Report, Source, silent
from idia_core.ranks import FIRST, RankedTexts, rate_fields
from idia_core.sample_status import SampleStatus

RETRIEVAL_RANK = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("architecture", pa.string(), nullable=False),
        pa.field("images_per_member", pa.int64()),  # null for a model that was not trained here
        pa.field("pairs", pa.int64(), nullable=False),  # that took part; the rates are of these
        pa.field("failed", pa.int64(), nullable=False),  # whose picture or caption cannot be used
        *rate_fields("rank1"),
        *rate_fields("rank5"),
    ]
)


class Pair(NamedTuple):
    """A pair's caption, and what share of the input comes before its piece."""

    caption: str
    done: float


def read_pairs(files: Sequence[UPath]) -> Iterator[tuple[Pair, Source]]:
    """Every pair of some tars or tables with its picture, still encoded, or the reason why it is none.

    Raises `InvalidInputError` on reaching a file that is damaged: a part of a validation set is another one.
    """
    splits = list(base_splits(files, ListColumns()))
    for place, split in enumerate(splits):
        part = read_split(split)
        if part.damage:
            raise InvalidInputError(part.damage, str(split["url"]), "Fetch it again.")
        for sample in part.samples:
            if sample.status is SampleStatus.OK:
                yield Pair((sample.caption or b"").decode(), place / len(splits)), sample.picture or b""
            else:
                yield Pair("", place / len(splits)), sample.status


def rank_hits(
    model: ClipModel, stream: PictureStream, pairs: Iterable[tuple[Pair, Source]], report: Report = silent
) -> dict[int, float]:
    """The expected hits among the first 1 and the first 5 captions, over all the pairs that can be used."""
    captions, images = list[str](), list[npt.NDArray[np.float32]]()
    for batch, images_BD in stream.embed(pairs):
        captions += [pair.caption for pair in batch]
        images.append(images_BD)
        report(batch[-1].done, stream.words)
    if not captions:
        raise InvalidInputError("none of the pairs can be used", "pairs", "Give pictures with captions.")
    report(1.0, f"ranks {len(captions):,} captions")
    hits_BK = RankedTexts(model.encode_texts(captions)).hits(np.concatenate(images), np.arange(len(captions)), FIRST)
    return dict(zip(FIRST, hits_BK.sum(axis=0).tolist(), strict=True))
