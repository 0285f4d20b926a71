"""What stands behind `urllib.request.urlopen` while img2dataset works: fetches safely, and knows why a URL failed."""

import hashlib
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, NamedTuple, Self

from pydantic import Field, field_validator

from idia_core.config import Strict
from idia_core.fetch_status import FetchStatus, may_change_soon
from idia_core.fetched_files import Form, look_at
from idia_core.safe_fetching import Answer, FetchError, Limits, SafeFetcher, parse_allowed

FIRST_WAIT_SECONDS = 0.5
"""Before a URL is asked for again; doubled each time."""
DISALLOWED = "Use of image disallowed by X-Robots-Tag directive"
"""What img2dataset says of an opt-out."""
_one_opener = threading.Lock()  # `urllib` has one for the whole process


class FileSettings(Strict):
    """Which files are fetched, and how long is waited for them."""

    max_aspect: Annotated[float, Field(ge=1)] = 3.0
    """The most that the longer side may be of the shorter one."""
    min_side: Annotated[int, Field(ge=0)] = 0
    """Pixels that the shorter side must have."""
    max_bytes: Annotated[int, Field(ge=1)] = 50_000_000
    """Larger files are left where they are."""
    respect_opt_out: bool = True
    """Whether to leave pictures whose server says `X-Robots-Tag: noai`, `noimageai`, `noindex` or `noimageindex`."""
    allow_private_addresses: bool | tuple[str, ...] = False
    """Addresses off the public internet that may be reached: none, all (true), or a list such as `[10.0.0.5:8000]`."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 10
    """How long to wait for a connection, and for the next bytes."""
    total_seconds: Annotated[float, Field(gt=0)] = 60
    """How long one try may take in all."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a URL is asked for again that may do better in a second."""

    @field_validator("allow_private_addresses")
    @classmethod
    def _are_addresses(cls, value: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        if not isinstance(value, bool):
            for text in value:
                parse_allowed(text)
        return value


class FetchSettings(FileSettings):
    """What is made of the files, too."""

    longest_side: Annotated[int, Field(ge=1)] | None = 512
    """Pixels; larger pictures are scaled down to it. None are when null."""


class Wanted(NamedTuple):
    """A URL to be fetched."""

    number: int
    url: str
    sha256: str | None
    """Of the file that should be there, in lower-case hexadecimal; None where it is not known."""


class Fetched(NamedTuple):
    """What became of a URL, and its picture if there is one; the other fields are those of LEDGER."""

    number: int
    status: FetchStatus
    http_status: int | None
    detail: str
    image: bytes | None
    width: int | None
    height: int | None
    sha256: str | None
    bytes: int | None


@dataclass
class Outcome:
    """What is known of a URL so far."""

    wanted: Wanted
    tries: int = 0
    status: FetchStatus = FetchStatus.CONNECTION
    http_status: int | None = None
    detail: str = ""
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    size: int | None = None

    def begin(self) -> None:
        """Nothing is known yet: what ends a step with neither a file nor a `FetchError` is a bug, which shows."""
        self.status, self.detail, self.http_status = FetchStatus.CONNECTION, "not finished", None
        self.width = self.height = self.size = self.sha256 = None

    def note(self, error: FetchError) -> None:
        """Nothing was fetched, for this reason."""
        self.status, self.detail, self.http_status = error.status, error.detail, error.http_status

    def fetched(self, image: bytes | None) -> Fetched:
        """The outcome with its picture, which is there if the status is ok."""
        about = (self.width, self.height, self.sha256, self.size)
        return Fetched(self.wanted.number, self.status, self.http_status, self.detail, image, *about)


class _Served:
    """An answer as img2dataset takes it: it looks at the headers, then reads or leaves the body."""

    def __init__(self, answer: Answer, outcome: Outcome, form: Form, *, as_it_is: bool) -> None:
        self._answer, self._outcome, self._form, self._as_it_is = answer, outcome, form, as_it_is
        self.headers = answer.headers
        outcome.note(FetchError(FetchStatus.OPTED_OUT, DISALLOWED, answer.status))  # unless the body is read

    def read(self) -> bytes:
        """The file, or an upright encoding of it, if it is what is wanted."""
        outcome = self._outcome
        outcome.begin()
        try:
            body = self._answer.read()
            outcome.size, outcome.sha256 = len(body), hashlib.sha256(body).hexdigest()
            return self._judged(body)
        except FetchError as error:
            outcome.note(error)
            raise

    def _judged(self, body: bytes) -> bytes:
        outcome, status = self._outcome, self._answer.status
        if not body:
            raise FetchError(FetchStatus.EMPTY, "", status)
        if outcome.wanted.sha256 not in (None, outcome.sha256):
            raise FetchError(FetchStatus.WRONG_HASH, f"{outcome.wanted.sha256} was expected", status)
        found = look_at(body, self._form)
        outcome.width, outcome.height = found.width or None, found.height or None
        outcome.note(FetchError(found.status, found.detail, status))
        if found.status is not FetchStatus.OK:
            raise FetchError(found.status, found.detail, status)
        return body if self._as_it_is or found.upright is None else found.upright

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._answer.close()


class Opener:
    """What `urllib` asks; each URL's fragment is the place of its outcome."""

    def __init__(self, outcomes: Sequence[Outcome], settings: FileSettings, *, resize: bool) -> None:
        self._outcomes, self._as_it_is = outcomes, not resize
        self._form = Form(settings.min_side, settings.max_aspect)
        given = settings.allow_private_addresses
        allowed = given if isinstance(given, bool) else frozenset(map(parse_allowed, given))
        limits = Limits(settings.timeout_seconds, settings.total_seconds, settings.max_bytes)
        self._fetcher = SafeFetcher(limits, allowed)

    def open(self, request: urllib.request.Request, data: None = None, timeout: float = 0) -> _Served:
        """Fetch, unless an earlier try has settled what becomes of the URL."""
        del data, timeout  # there is nothing to send, and the limits have the timeout
        url, _, place = request.full_url.rpartition("#")
        outcome = self._outcomes[int(place)]
        if outcome.tries:
            if not may_change_soon(outcome.status, outcome.http_status):
                raise FetchError(outcome.status, outcome.detail, outcome.http_status)
            time.sleep(FIRST_WAIT_SECONDS * 2 ** (outcome.tries - 1))
        outcome.tries += 1
        outcome.begin()
        try:
            answer = self._fetcher.open(url, dict(request.header_items()))
        except FetchError as error:
            outcome.note(error)
            raise
        return _Served(answer, outcome, self._form, as_it_is=self._as_it_is)


@contextmanager
def installed(opener: Opener) -> Iterator[None]:
    """Have `urllib.request.urlopen` ask the opener while the block lasts; blocks of several threads take turns."""
    with _one_opener:
        before = urllib.request._opener  # type: ignore[attr-defined]  # noqa: SLF001 - what `install_opener` sets
        urllib.request.install_opener(opener)  # type: ignore[arg-type]  # `open` is all that is called
        try:
            yield
        finally:
            urllib.request.install_opener(before)
