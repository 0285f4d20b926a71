"""Who is on pictures: decoded ahead by threads, faces found a batch at a time, and each face named."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from PIL import Image

from idia_core.face_crops import crop_face
from idia_core.face_detection import Detector, Face
from idia_core.images import decode_picture
from idia_core.models import batches
from idia_core.recognition import Recogniser, Recognition
from idia_core.reduced_pictures import Reduced, at_full_size, decode_reduced

BATCHES_AHEAD = 2
TagT = TypeVar("TagT")


class NamedFace(NamedTuple):
    """A face, its box in pixels of the full-size upright picture, whose it is, and the crop that was looked at."""

    face: Face
    recognition: Recognition
    crop: Image.Image


class Looked(NamedTuple, Generic[TagT]):
    """What was seen on a picture, the largest face first; sizes are 0 where there is nothing to see."""

    tag: TagT
    status: str
    width: int
    height: int
    faces: list[NamedFace]


class _Loaded(NamedTuple, Generic[TagT]):
    tag: TagT
    content: bytes
    status: str
    reduced: Reduced | None


class FaceSearch:
    """Finds the faces on pictures and names them; as many `threads` decode while that goes on."""

    def __init__(self, detector: Detector, recogniser: Recogniser, threads: int = 1, at_a_time: int = 16) -> None:
        self._detector, self._recogniser = detector, recogniser
        self._threads, self._at_a_time = threads, at_a_time

    def look(self, pictures: Iterable[tuple[TagT, bytes | str]]) -> Iterator[Looked[TagT]]:
        """What is on each picture, in their order: encoded ones, or reasons (statuses) why there is none.

        A tag is whatever the caller wants back with a picture.
        """
        for batch in batches(self._loaded(iter(pictures)), self._at_a_time):
            yield from self._named(batch)

    def _loaded(self, pictures: Iterator[tuple[TagT, bytes | str]]) -> Iterator[_Loaded[TagT]]:
        with ThreadPoolExecutor(self._threads) as pool:
            waiting = deque[Future[_Loaded[TagT]]]()
            for tag, content in pictures:
                waiting.append(pool.submit(self._load, tag, content))
                if len(waiting) > BATCHES_AHEAD * self._at_a_time:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _load(self, tag: TagT, content: bytes | str) -> _Loaded[TagT]:
        if isinstance(content, str):
            return _Loaded(tag, b"", content, None)
        reduced = decode_reduced(content, self._detector.longest_side())
        return _Loaded(tag, content, str(reduced.status), reduced if reduced.picture else None)

    def _named(self, batch: list[_Loaded[TagT]]) -> Iterator[Looked[TagT]]:
        faces = self._found([loaded.reduced for loaded in batch])
        crops = [self._crops(loaded, mine) for loaded, mine in zip(batch, faces, strict=True)]
        named = iter(self._recogniser.recognise([crop for mine in crops for crop in mine]))
        for loaded, mine, cropped in zip(batch, faces, crops, strict=True):
            shows = [NamedFace(face, next(named), crop) for face, crop in zip(mine, cropped, strict=True)]
            width, height = (loaded.reduced.width, loaded.reduced.height) if loaded.reduced else (0, 0)
            yield Looked(loaded.tag, loaded.status, width, height, shows)

    def _found(self, batch: list[Reduced | None]) -> list[list[Face]]:
        """The faces of each picture, in pixels of the full-size ones."""
        shown = [(reduced, reduced.picture) for reduced in batch if reduced and reduced.picture]
        scales = [picture.width / reduced.width for reduced, picture in shown]
        found = iter(self._detector.detect([picture for _, picture in shown], scales))
        return [at_full_size(reduced, next(found)) if reduced else [] for reduced in batch]

    def _crops(self, loaded: _Loaded[TagT], faces: list[Face]) -> list[Image.Image]:
        """Cropped out of the full-size picture: what is enough to find a face may not be enough to tell whose it is."""
        picture = loaded.reduced.picture if loaded.reduced else None
        if faces and loaded.reduced and picture and picture.size != (loaded.reduced.width, loaded.reduced.height):
            picture, _ = decode_picture(loaded.content)
        if picture is None:
            return []
        recogniser = self._recogniser
        return [crop_face(picture, face.box, recogniser.margin, recogniser.side) for face in faces]
