"""Zero-shot classification as open_clip defines it (paper, Table 2): which class's name is nearest to a picture.

Axes: C classes, T templates, D embedding dimensions.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.labelled_pictures import Labelled
from idia_core.models import ClipModel
from idia_core.picture_stream import PictureStream, Report, Source, silent
from idia_core.ranks import FIRST, RankedTexts, rate_fields

CLASSES_AT_A_TIME = 100
"""Classes whose prompts are embedded together."""
SLOT = "{}"
"""Stands for the class's name in a template."""
ZEROSHOT = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("architecture", pa.string(), nullable=False),
        pa.field("images_per_member", pa.int64()),  # null for a model that was not trained here
        pa.field("pictures", pa.int64(), nullable=False),  # that were classified; the rates are of these
        pa.field("failed", pa.int64(), nullable=False),  # that cannot be decoded, or have no label
        *rate_fields("top1"),
        *rate_fields("top5"),
    ]
)


def imagenet_names() -> list[str]:
    """open_clip's names of ImageNet's 1,000 classes, in the order of their folders."""
    import open_clip  # noqa: PLC0415 - heavy

    return list(open_clip.IMAGENET_CLASSNAMES)


def read_class_names(file: UPath) -> list[str]:
    """The names of the classes 0, 1, ... from a text file with one a line; `InvalidInputError` for a blank line."""
    try:
        names = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"not UTF-8 text: byte {error.start}", str(file), "Save it as UTF-8.") from None
    for line, name in enumerate(names, 1):
        if not name.strip():
            raise InvalidInputError("a class has no name", f"{file}, line {line}", "Write one name on each line.")
    if not names:
        raise InvalidInputError("it names no class", str(file), "Write one name on each line.")
    return [name.strip() for name in names]


def build_classifier(
    model: ClipModel,
    names: Sequence[str],
    templates: Sequence[str] | None = None,
    report: Report = silent,
) -> npt.NDArray[np.float32]:
    """An embedding of length one for each class, [C, D]: the mean over its prompts' embeddings.

    Prompts are the templates with the name for `{}`; OpenAI's 80 for ImageNet if none are given. `report` hears what
    share of the classes is done. The definition is that of open_clip's `build_zero_shot_classifier`.
    """
    blocks = list[npt.NDArray[np.float32]]()
    for start in range(0, len(names), CLASSES_AT_A_TIME):
        some = names[start : start + CLASSES_AT_A_TIME]
        prompts = [prompt for name in some for prompt in _prompts(name, templates)]
        mean_CD = model.encode_texts(prompts).reshape(len(some), len(prompts) // len(some), -1).mean(axis=1)
        blocks.append(mean_CD / np.linalg.norm(mean_CD, axis=1, keepdims=True))
        done = start + len(some)
        report(done / len(names), f"{done:,} of {len(names):,} classes' prompts")
    return np.concatenate(blocks)


def _prompts(name: str, templates: Sequence[str] | None) -> Iterator[str]:
    if templates is not None:
        return (template.replace(SLOT, name) for template in templates)
    import open_clip  # noqa: PLC0415 - heavy

    return (template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def classification_hits(
    stream: PictureStream,
    pictures: Iterable[tuple[Labelled, Source]],
    classifier_CD: npt.NDArray[np.float32],
    report: Report = silent,
) -> dict[int, float]:
    """The expected hits among the first 1 and the first 5 classes, over all pictures that can be shown.

    With five classes or fewer, the first 5 are all of them.
    """
    classes, hits_K = RankedTexts(classifier_CD), np.zeros(len(FIRST))
    for batch, images_BD in stream.embed(pictures):
        hits_K += classes.hits(images_BD, np.array([picture.label for picture in batch]), FIRST).sum(axis=0)
        report(batch[-1].done, stream.words)
    if not stream.shown:
        raise InvalidInputError("none of the pictures can be shown", "pictures", "Give pictures with labels.")
    return dict(zip(FIRST, hits_K.tolist(), strict=True))
