"""Text embeddings kept on disk, so that a model is asked to encode a name only once.

Axes: N templates, K names, S names of one segment, D embedding dimensions.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from upath import UPath

from idia_core.errors import UsageError
from idia_core.manifest import digest_of
from idia_core.prompts import fill
from idia_core.storage import is_local, sha256_of, write_text, write_whole

SEGMENT_NAMES = 1_000
"""Names in a segment: what a kill loses, and what is held beside the result."""
Embeddings = npt.NDArray[np.float32]
Encode = Callable[[list[str]], Embeddings]


class _Segment(BaseModel):
    """What a segment's `.json` says: the names in the order of the `.npy` beside it, and that file's SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    names: tuple[str, ...]
    sha256: str


class TextCache:
    """Embeddings of names in templates, of one model; `key` must change with whatever else they depend on.

    A segment is an `.npy` and, written last, a `.json`, both called after the key, the templates and the names, so
    that concurrent writers do no harm. One that is broken or was made for something else is not used.
    """

    def __init__(self, folder: UPath | None, key: str) -> None:
        self._folder, self._key = folder, key
        self._segments: dict[str, _Segment | None] = {}  # those that were looked at, by path
        self.encoded_prompts = 0
        """How many prompts had to be encoded so far."""

    def embed(self, templates: Sequence[str], names: Sequence[str], encode: Encode) -> Embeddings:
        """The embedding of every name in every template: [N, K, D]; `encode` is given the prompts that are not kept."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            places.setdefault(name, []).append(place)
        embeddings_NKD = np.empty((len(templates), len(names), 0), np.float32)
        for found, segment_SND in self._parts(list(templates), list(places), encode):
            if not embeddings_NKD.size:
                embeddings_NKD = np.empty((*embeddings_NKD.shape[:2], segment_SND.shape[2]), np.float32)
            for name, name_ND in zip(found, segment_SND, strict=True):
                for place in places[name]:
                    embeddings_NKD[:, place] = name_ND
        return embeddings_NKD

    def _parts(self, templates: list[str], names: list[str], encode: Encode) -> Iterator[tuple[list[str], Embeddings]]:
        """Names, each once, with their embeddings [S, N, D]: first those that are kept, then those that were not."""
        missing = dict.fromkeys(names)
        if self._folder is not None:
            for found, segment_SND in self._kept(self._folder / self._subfolder(templates), templates, missing):
                for name in found:
                    del missing[name]
                yield found, segment_SND
        absent = list(missing)
        for start in range(0, len(absent), SEGMENT_NAMES):
            some = absent[start : start + SEGMENT_NAMES]
            prompts = fill(templates, some)
            self.encoded_prompts += len(prompts)
            some_NSD = encode(prompts).reshape(len(templates), len(some), -1)
            some_SND = np.ascontiguousarray(some_NSD.transpose(1, 0, 2), np.float32)
            if self._folder is not None:
                self._keep(self._folder / self._subfolder(templates), some, some_SND)
            yield some, some_SND

    def _subfolder(self, templates: list[str]) -> str:
        return digest_of([self._key, templates])

    def _kept(
        self, folder: UPath, templates: list[str], wanted: dict[str, None]
    ) -> Iterator[tuple[list[str], Embeddings]]:
        """What the folder's segments hold of the names that are `wanted` when it is looked at."""
        for path in sorted(folder.glob("*.json"), key=str) if folder.is_dir() else []:
            segment = self._segment(path)
            rows = {name: row for row, name in enumerate(segment.names) if name in wanted} if segment else {}
            if segment is None or not rows:
                continue
            kept_SND = _read(path.with_suffix(".npy"), segment.sha256)
            if kept_SND is not None and kept_SND.shape[:2] == (len(segment.names), len(templates)):
                yield list(rows), kept_SND[list(rows.values())]

    def _segment(self, path: UPath) -> _Segment | None:
        """What a `.json` says, or None where it is broken or was not written for this folder."""
        if str(path) not in self._segments:
            try:
                segment: _Segment | None = _Segment.model_validate_json(path.read_bytes())
            except ValidationError:
                segment = None
            if segment is not None and path.stem != _called(path.parent.name, segment.names):
                segment = None
            self._segments[str(path)] = segment
        return self._segments[str(path)]

    def _keep(self, folder: UPath, names: list[str], embeddings_SND: Embeddings) -> None:
        content = io.BytesIO()
        np.save(content, embeddings_SND, allow_pickle=False)
        path = folder / f"{_called(folder.name, names)}.json"
        sha256 = hashlib.sha256(content.getbuffer()).hexdigest()
        try:
            with write_whole(path.with_suffix(".npy")) as file:
                file.write(content.getbuffer())
            write_text(path, _Segment(names=tuple(names), sha256=sha256).model_dump_json())
        except OSError as error:
            what = f"embeddings of prompts cannot be kept: {error.strerror or error}"
            raise UsageError(what, f"text cache {self._folder}", "Set IDIA_CACHE to a folder with room.") from None
        self._segments.pop(str(path), None)  # it may have been a broken one


def _called(subfolder: str, names: Sequence[str]) -> str:
    """What a segment's files are called."""
    return digest_of([subfolder, list(names)])


def _read(path: UPath, sha256: str) -> Embeddings | None:
    """The array [S, N, D] of a segment, mapped where it is local; None if it is not the one written."""
    if not path.exists() or sha256_of(path) != sha256:
        return None
    if is_local(path):
        array = np.load(Path(path.path), mmap_mode="r", allow_pickle=False)
    else:
        array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    return array if array.dtype == np.float32 and array.ndim == 3 else None
