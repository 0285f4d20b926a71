"""Pictures fetched from their URLs by img2dataset, with what became of each URL.

img2dataset's own code drives the threads, asks again, obeys opt-outs, resizes and encodes. It fetches with the opener
that is installed in `urllib`, so ours makes it safe (`idia_core.safe_fetching`) and knows why a URL failed, which
img2dataset tells only in words.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa

from idia_core.errors import StorageError, UsageError
from idia_core.fetch_status import FetchStatus
from idia_core.safe_fetching import FetchError, tidy_url
from idia_core.safe_opener import Fetched, FetchSettings, Opener, Outcome, Wanted, installed
from idia_core.storage import NO_ROOM

LEDGER = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),  # its place among the distinct URLs, by first appearance
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # a `FetchStatus`
        pa.field("http_status", pa.int64()),  # null where no answer came
        pa.field("detail", pa.string(), nullable=False),  # says more of the status where there is more to say
        pa.field("width", pa.int64()),  # of the file as fetched, upright; null where no picture came
        pa.field("height", pa.int64()),
        pa.field("bytes", pa.int64()),  # of the file as fetched; null where none came
        pa.field("sha256", pa.string()),
        pa.field("key", pa.string()),  # of its sample in `tars`; null unless the status is ok
    ]
)
"""One row for each URL, in the order of their numbers."""
WHO = "img2dataset"
"""What pages can address in their opt-outs; a part of the user agent."""
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex")
"""Directives of the header `X-Robots-Tag` that a picture must not have; img2dataset's own list."""
QUALITY = 95
"""Of the JPEGs that are written; img2dataset's default."""
QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "WANDB_ERROR_REPORTING": "false"}
"""Keeps what img2dataset imports from asking the network."""


class Way(NamedTuple):
    """How a list of URLs is fetched."""

    threads: int = 64
    """URLs that are fetched at the same time."""
    resize: bool = True
    """Whether pictures are scaled and encoded anew."""
    tell: Callable[[int, int], None] | None = None
    """Hears how many URLs are done, and how many pictures there are."""


def fetch(
    wanted: Sequence[Wanted],
    settings: FetchSettings,
    scratch: Path,
    way: Way = Way(),  # noqa: B008 - a tuple
) -> Iterator[Fetched]:
    """Fetch all URLs; then their outcomes in the order of `wanted`.

    Pictures come as JPEG of `longest_side`, or without `resize` as the files that they are; they lie in `scratch`, a
    folder that must be there until the last one was taken. The same answers give the same outcomes for any number of
    threads. Raises `UsageError` where img2dataset is not installed, and `StorageError` where there is no room.
    """
    outcomes, sent = [Outcome(one) for one in wanted], list[str]()
    for place, outcome in enumerate(outcomes):
        try:
            sent.append(f"{tidy_url(outcome.wanted.url)}#{place}")
        except FetchError as error:
            outcome.note(error)
    pictures = _Pictures(scratch / "pictures", outcomes, way.tell)
    if sent:
        with installed(Opener(outcomes, settings, resize=way.resize)):
            _download(sent, settings, scratch, pictures, way)
        pictures.check(len(sent))
    return (outcome.fetched(pictures.of(place)) for place, outcome in enumerate(outcomes))


def _download(urls: Sequence[str], settings: FetchSettings, scratch: Path, pictures: "_Pictures", way: Way) -> None:
    """Have img2dataset fetch one shard, with what its own `download` gives its parts."""
    downloader, resizer = load_img2dataset()
    shard = scratch / "urls.arrow"
    table = pa.table({"url": urls})
    with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    downloader(
        sample_writer_class=pictures,
        resizer=resizer(
            image_size=settings.longest_side,
            resize_mode="no" if settings.longest_side is None else "keep_ratio_largest",
            resize_only_if_bigger=True,
            encode_quality=QUALITY,
            disable_all_reencoding=not way.resize,
        ),
        thread_count=min(way.threads, len(urls)),
        save_caption=False,
        extract_exif=False,
        output_folder=str(scratch),
        column_list=["url"],
        timeout=settings.timeout_seconds,
        number_sample_per_shard=len(urls),
        oom_shard_count=5,
        compute_hash=None,  # the opener has hashed the file as it came
        verify_hash_type=None,
        encode_format="jpg",
        retries=settings.retries,
        user_agent_token=WHO,
        disallowed_header_directives=OPT_OUTS if settings.respect_opt_out else None,
    ).download_shard((0, str(shard)))


def load_img2dataset() -> tuple[Any, Any]:
    """img2dataset's `Downloader` and `Resizer`; `UsageError` where they are not installed."""
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    try:
        with warnings.catch_warnings(action="ignore"):
            from img2dataset.downloader import Downloader  # noqa: PLC0415 - heavy
            from img2dataset.resizer import Resizer  # noqa: PLC0415 - heavy
    except ModuleNotFoundError as error:
        fix = "Install it: pip install 'idia[download]'."
        raise UsageError(f"fetching needs the module '{error.name}'", "img2dataset", fix) from None
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return Downloader, Resizer


class _Pictures:
    """A sample writer of img2dataset's: keeps the pictures in one file, and where they are."""

    def __init__(self, path: Path, outcomes: Sequence[Outcome], tell: Callable[[int, int], None] | None) -> None:
        self._path, self._outcomes, self._tell = path, outcomes, tell
        self._path.write_bytes(b"")
        self._size = 0
        self._places: dict[int, tuple[int, int]] = {}
        self._done = 0
        self._failure: OSError | RuntimeError | None = None

    def __call__(self, *_: Any) -> Self:
        """Itself, where img2dataset makes a writer for its shard."""
        return self

    def write(self, image: bytes | None, _key: str, _caption: str | None, meta: Mapping[str, Any]) -> None:
        """Take in what became of a URL."""
        place = int(meta["url"].rpartition("#")[2])
        outcome, told = self._outcomes[place], str(meta["error_message"])
        self._done += 1
        if image is not None:
            self._keep(place, image)
        elif outcome.status is FetchStatus.OK:  # OpenCV makes nothing of it
            outcome.note(FetchError(FetchStatus.NOT_AN_IMAGE, told, outcome.http_status))
        elif told != outcome.detail:  # img2dataset takes any error for that of a URL
            self._failure = self._failure or RuntimeError(f"{told}, at {outcome.wanted.url}")
        if self._tell:
            self._tell(self._done, len(self._places))

    def _keep(self, place: int, image: bytes) -> None:
        self._places[place] = (self._size, len(image))
        self._size += len(image)
        try:
            with self._path.open("ab") as file:
                file.write(image)
        except OSError as error:  # img2dataset would print it and go on
            self._failure = self._failure or error

    def close(self) -> None:
        """Nothing is left open."""

    def check(self, urls: int) -> None:
        """Raise what was no fault of a URL; every one must have an outcome."""
        if isinstance(self._failure, OSError) and self._failure.errno in NO_ROOM:
            what, fix = "the pictures cannot be kept: no room", "Make room there and run again: what is done stays."
            raise StorageError(what, str(self._path), fix)
        if self._failure:
            raise self._failure
        if self._done != urls:
            raise RuntimeError(f"img2dataset gave {self._done} outcomes of {urls} URLs")

    def of(self, place: int) -> bytes | None:
        """The picture of a URL; None where there is none."""
        if place not in self._places:
            return None
        at, size = self._places[place]
        with self._path.open("rb") as file:
            file.seek(at)
            return file.read(size)
