"""Pictures on their way into a model: read and decoded in other threads while the model works on those before.

Axes: B pictures, D embedding dimensions.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from upath import UPath

from idia_core.images import MAX_BYTES, PictureStatus, decode_picture
from idia_core.models import ClipModel, batches

if TYPE_CHECKING:
    from torch import Tensor

BATCHES_AHEAD = 2
TagT = TypeVar("TagT")
Source = bytes | memoryview | UPath | str
"""An encoded picture, the file that it is in, or the reason (a status) why it cannot be shown."""
Report = Callable[[float, str], None]
"""Hears what share of the work is done, and a few words."""


def silent(done: float, words: str) -> None:
    """Nobody listens."""


def unnoted(tag: object, status: str) -> None:
    """Failures are counted and not noted one by one."""


class Loaded(NamedTuple, Generic[TagT]):
    """What became of a picture: as the model takes it, or why not."""

    tag: TagT
    tensor: "Tensor | None"
    status: str


class PictureStream:
    """Embeds pictures with a model, and knows how many failed and how long the model had to wait for them.

    `threads` decode, another one reads. At most `BATCHES_AHEAD` batches of decoded pictures wait for the model.
    """

    def __init__(self, model: ClipModel, threads: int = 1) -> None:
        self._model, self._threads = model, threads
        self.shown = 0
        self.failed = Counter[str]()
        """Pictures that could not be shown, by their status."""
        self.seconds = self.waited = 0.0
        """Since the first picture was asked for; and those of them in which the model had none to work on."""

    def embed(
        self, pictures: Iterable[tuple[TagT, Source]], note_failure: Callable[[TagT, str], None] = unnoted
    ) -> Iterator[tuple[list[TagT], npt.NDArray[np.float32]]]:
        """The tags and embeddings [B, D] of the pictures that can be shown, a batch after another, in their order.

        A tag is whatever the caller wants back with a picture. `note_failure` is told the tag and status of each that
        cannot be shown, in their order too and by the caller's own thread.
        """
        began = time.perf_counter()
        for batch in batches(self._shown(pictures, note_failure), self._model.batch_size):
            tags, tensors = zip(*batch, strict=True)
            embeddings_BD = self._model.encode_prepared(tensors)
            self.shown += len(batch)
            self.seconds = time.perf_counter() - began
            yield list(tags), embeddings_BD

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures came in, how many were shown, and how many were not, by their status."""
        return {"rows_in": self.shown + self.failed.total(), "rows_kept": self.shown, **self.failed}

    @property
    def words(self) -> str:
        """How fast it goes, for people who watch."""
        rate, wait = (self.shown / self.seconds, self.waited / self.seconds) if self.seconds else (0.0, 0.0)
        return f"{self.shown:,} pictures, {rate:,.1f}/s, data wait {wait:.0%}"

    def _shown(
        self, pictures: Iterable[tuple[TagT, Source]], note_failure: Callable[[TagT, str], None]
    ) -> "Iterator[tuple[TagT, Tensor]]":
        for loaded in self._ahead(iter(pictures)):
            if loaded.tensor is None:
                self.failed[loaded.status] += 1
                note_failure(loaded.tag, loaded.status)
            else:
                yield loaded.tag, loaded.tensor

    def _ahead(self, pictures: Iterator[tuple[TagT, Source]]) -> Iterator[Loaded[TagT]]:
        """The loaded pictures, in their order, of which some are always being loaded."""
        import torch  # noqa: PLC0415 - heavy

        most = BATCHES_AHEAD * self._model.batch_size + self._threads
        # Every thread is set to one of torch's own; in a fresh one it would start as many as there are CPUs.
        with (
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(self._threads, "", torch.set_num_threads, (1,)) as pool,
        ):

            def ask() -> "Future[Loaded[TagT] | None]":
                return pool.submit(self._load, reader.submit(next, pictures, None))

            waiting = deque(ask() for _ in range(most))
            while loaded := self._awaited(waiting.popleft()):
                waiting.append(ask())
                yield loaded

    def _awaited(self, future: "Future[Loaded[TagT] | None]") -> Loaded[TagT] | None:
        began = time.perf_counter()
        loaded = future.result()
        self.waited += time.perf_counter() - began
        return loaded

    def _load(self, read: "Future[tuple[TagT, Source] | None]") -> Loaded[TagT] | None:
        """A picture that the reader hands over, None after the last."""
        if (item := read.result()) is None:
            return None
        tag, source = item
        content = _content(source)
        if isinstance(content, str):
            return Loaded(tag, None, content)
        picture, status = decode_picture(content)
        return Loaded(tag, None if picture is None else self._model.prepare(picture), status)


def _content(source: Source) -> bytes | str:
    """The encoded picture, or why there is none."""
    if isinstance(source, str):
        return source
    try:
        content = source.read_bytes() if isinstance(source, UPath) else bytes(source)
    except FileNotFoundError:
        return PictureStatus.MISSING
    return PictureStatus.TOO_LARGE if len(content) > MAX_BYTES else content
