"""Asking a server over HTTP until it answers: retries that back off, pauses it asks for, a token, a rate limit."""

import email.utils
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import requests
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from idia_core.config import Strict
from idia_core.errors import IdiaError, InvalidInputError, MissingInputError, UsageError

TRY_AGAIN = (429, 500, 502, 503, 504)
"""Statuses after which the same request may do better."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
"""The wait before the first retry, doubled for each further one up to the longest; each is shortened at random by up
to half, so that many clients do not come back at once."""
SHOWN_LENGTH = 200
"""Characters of a wrong answer that an error message repeats."""


class RetrySettings(Strict):
    """How a server is asked; none of it changes the answers."""

    timeout_seconds: Annotated[float, Field(gt=0)] = 60
    """How long to wait for a connection, and for an answer."""
    retries: Annotated[int, Field(ge=0)] = 6
    """How often a request is sent again after no answer, or one that says to come back."""
    longest_pause_seconds: Annotated[float, Field(ge=0)] = 300
    """The longest pause that the server may ask for; a longer one ends the run, which can be resumed later."""
    token_env: str | None = None
    """Environment variable that holds the bearer token; none is sent when not given."""


class _Told(BaseModel):
    """What a server says of an error; fields that are not known are left alone."""

    model_config = ConfigDict(frozen=True)


class _Problem(_Told):
    what: str
    fix: str = ""


class _Refusal(_Told):
    error: _Problem


class RetryingClient:
    """Sends requests to one server; may be shared by threads.

    `who` is the server in error messages, `contract` a sentence on what it must keep to. Raises `UsageError` for a
    token that is not set or not accepted, `MissingInputError` where nothing answers in the end, and `InvalidInputError`
    for a request that is refused.
    """

    def __init__(self, who: str, url: str, settings: RetrySettings, contract: str) -> None:
        self.url = url
        self._who, self._settings, self._contract = who, settings, contract
        self._session = requests.Session()
        self._session.auth = _bearer(settings.token_env)

    def send(
        self, method: str, path: str, body: Any = None, acquire: Callable[[], None] | None = None
    ) -> requests.Response:
        """Send a request until it is answered with status 200, refused for good, or sent often enough.

        `acquire` is called before every try; it may wait, or raise to end the asking.
        """
        for attempt in range(self._settings.retries + 1):
            if acquire:
                acquire()
            problem, asked_pause = "", None
            try:
                response = self._session.request(
                    method, self.url + path, json=body, timeout=self._settings.timeout_seconds, allow_redirects=False
                )
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                problem = _network_problem(error)
            else:
                if response.status_code == requests.codes.ok:
                    return response
                if response.status_code not in TRY_AGAIN:
                    raise self._refused(response)
                problem, asked_pause = _said(response), _retry_after(response)
            if attempt < self._settings.retries:
                self._pause(attempt, asked_pause, problem)
        tries = f"{self._settings.retries + 1} tries"
        raise MissingInputError(f"no answer in {tries}: {problem}", self.url + path, "Run again to go on later.")

    def unexpected(self, response: requests.Response, error: ValidationError) -> InvalidInputError:
        """What to raise for an answer that is not the JSON it should be."""
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        what = f"not the JSON that was expected: {field} {first['msg'].lower()}; it was {shown(response)}"
        return InvalidInputError(what, response.url, self._contract)

    def _pause(self, attempt: int, asked: float | None, problem: str) -> None:
        if asked is not None and asked > self._settings.longest_pause_seconds:
            what = f"{self._who} asks for a pause of {asked:.0f} seconds: {problem}"
            raise MissingInputError(what, self.url, "Run again after it, or raise longest_pause_seconds.")
        grown = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt)
        time.sleep(asked if asked is not None else grown * random.uniform(0.5, 1))

    def _refused(self, response: requests.Response) -> IdiaError:
        said = _said(response)
        if response.status_code in (401, 403):
            name = self._settings.token_env
            fix = f"Check the token in {name}." if name else "Name the environment variable of a token (token_env)."
            return UsageError(f"{self._who} lets nobody in without a valid token: {said}", self.url, fix)
        return InvalidInputError(f"{self._who} refuses the request: {said}", response.url, self._contract)


class RateLimit:
    """Lets at most so many questions a second pass, those of this process together."""

    def __init__(self, per_second: float) -> None:
        self._seconds_each, self._free_at, self._lock = 1 / per_second, 0.0, threading.Lock()

    def __call__(self, questions: int = 1) -> None:
        """Wait until the questions that passed before have used up their time."""
        with self._lock:
            now = time.monotonic()
            wait = max(0.0, self._free_at - now)
            self._free_at = now + wait + questions * self._seconds_each
        time.sleep(wait)


def shown(response: requests.Response) -> str:
    """The beginning of an answer, for an error message."""
    text = " ".join(response.content[: 4 * SHOWN_LENGTH].decode(errors="replace").split())
    return repr(text[:SHOWN_LENGTH])


def _bearer(token_env: str | None) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Adds the token to a request, and keeps `requests` from adding a password of the user's .netrc file."""
    token = os.environ.get(token_env, "") if token_env else ""
    if token_env and not token:
        raise UsageError(f"the environment variable {token_env} holds no token", "token_env", "Set it.")

    def authorise(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorise


def _said(response: requests.Response) -> str:
    """The status, and what the server says about it."""
    try:
        error = _Refusal.model_validate_json(response.content).error
        said = f"{error.what} {error.fix}".strip()[:SHOWN_LENGTH]
    except ValidationError:
        said = shown(response)
    return f"status {response.status_code}, {said}"


def _network_problem(error: requests.RequestException) -> str:
    return f"{type(error).__name__}, {' '.join(str(error).split())[:SHOWN_LENGTH]}"


def _retry_after(response: requests.Response) -> float | None:
    """The seconds that a response asks to wait, given as a number or as a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
