"""A model behind HTTP that answers which prompt fits a picture best, and tells nothing else (the paper's threat model).

The contract is in docs/black_box.md. A question is one picture with one list of prompts.
"""

import base64
import email.utils
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, TypeVar

import requests
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from idia_core.config import Strict
from idia_core.errors import IdiaError, InvalidInputError, MissingInputError, UsageError

ANSWERS, MODEL = "/v1/answers", "/v1/model"
TRY_AGAIN = (429, 500, 502, 503, 504)
"""Statuses after which the same request may do better."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
"""The wait before the first retry, doubled for each further one up to the longest; each is shortened at random by up
to half, so that many clients do not come back at once."""
SHOWN_LENGTH = 200
"""Characters of a wrong answer that an error message repeats."""
FRAME_BYTES = 100
"""Of a request's body, besides its pictures and prompts."""
CONTRACT = "The endpoint must keep to docs/black_box.md."
AnswerT = TypeVar("AnswerT", bound=BaseModel)


class BlackBoxSettings(Strict):
    """How a black box is asked; none of it changes the answers."""

    timeout_seconds: Annotated[float, Field(gt=0)] = 60
    """How long to wait for a connection, and for an answer."""
    retries: Annotated[int, Field(ge=0)] = 6
    """How often a request is sent again after no answer, or one that says to come back."""
    longest_pause_seconds: Annotated[float, Field(ge=0)] = 300
    """The longest pause that the black box may ask for; a longer one ends the run, which can be resumed later."""
    token_env: str | None = None
    """Environment variable that holds the bearer token; none is sent when not given."""


class _Told(BaseModel):
    """What a black box says; fields that are not known are left alone."""

    model_config = ConfigDict(frozen=True)


class _Limits(_Told):
    images: Annotated[StrictInt, Field(ge=1)]
    prompts: Annotated[StrictInt, Field(ge=1)]
    bytes: Annotated[StrictInt, Field(ge=1)]


class _Description(_Told):
    model: str
    sha256: str | None = None
    limits: _Limits


class _Answers(_Told):
    answers: list[StrictInt]


class _Problem(_Told):
    what: str
    fix: str = ""


class _Refusal(_Told):
    error: _Problem


class BlackBox:
    """The client of one black box; may be shared by threads.

    `acquire` is called with the number of questions before every request, retries too; it may wait, or raise to end
    the asking. Raises `UsageError` for a token that is not set or not accepted, `MissingInputError` where nothing
    answers in the end, and `InvalidInputError` for an answer that is not what the contract says.
    """

    def __init__(
        self,
        url: str,
        settings: BlackBoxSettings = BlackBoxSettings(),  # noqa: B008 - frozen
        acquire: Callable[[int], None] | None = None,
    ) -> None:
        self._url, self._settings, self._acquire = url.rstrip("/"), settings, acquire
        self._session = requests.Session()
        self._session.auth = _bearer(settings.token_env)

    def describe(self) -> dict[str, Any]:
        """What the black box says of itself: model, sha256 (or None), limits (images, prompts, bytes of a request)."""
        return self._description.model_dump()

    def answer(self, pictures: Sequence[bytes], prompts: Sequence[str]) -> list[int]:
        """For each picture, encoded as PNG or JPEG, the place of the prompt that fits it best."""
        limits = self._description.limits
        if len(prompts) > limits.prompts:
            what = f"{len(prompts)} prompts are more than the {limits.prompts} that the black box takes"
            raise InvalidInputError(what, self._url, "Take fewer candidate names, or ask for a larger limit.")
        answers: list[int] = []
        for images in _requests(pictures, prompts, limits, self._url):
            body = {"images": images, "prompts": list(prompts)}
            answers += self._checked(self._ask("POST", ANSWERS, len(images), body), len(images), len(prompts))
        return answers

    @cached_property
    def _description(self) -> _Description:
        return self._parsed(_Description, self._ask("GET", MODEL, 0, None))

    def _checked(self, response: requests.Response, images: int, prompts: int) -> list[int]:
        answers = self._parsed(_Answers, response).answers
        if len(answers) != images:
            what = f"{len(answers)} answers to {images} pictures"
            raise InvalidInputError(what, self._url + ANSWERS, CONTRACT)
        if wrong := [answer for answer in answers if not 0 <= answer < prompts]:
            what = f"the answer {wrong[0]} is none of the {prompts} prompts"
            raise InvalidInputError(what, self._url + ANSWERS, CONTRACT)
        return answers

    def _parsed(self, shape: type[AnswerT], response: requests.Response) -> AnswerT:
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            what = f"not the JSON that was expected: {field} {first['msg'].lower()}; it was {_shown(response)}"
            raise InvalidInputError(what, response.url, CONTRACT) from None

    def _ask(self, method: str, path: str, questions: int, body: dict[str, Any] | None) -> requests.Response:
        """Send a request until it is answered, refused for good, or sent often enough."""
        for attempt in range(self._settings.retries + 1):
            if self._acquire:
                self._acquire(questions)
            problem, asked_pause = "", None
            try:
                response = self._session.request(
                    method, self._url + path, json=body, timeout=self._settings.timeout_seconds, allow_redirects=False
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
        raise MissingInputError(f"no answer in {tries}: {problem}", self._url + path, "Run again to go on later.")

    def _pause(self, attempt: int, asked: float | None, problem: str) -> None:
        if asked is not None and asked > self._settings.longest_pause_seconds:
            what = f"the black box asks for a pause of {asked:.0f} seconds: {problem}"
            raise MissingInputError(what, self._url, "Run again after it, or raise longest_pause_seconds.")
        grown = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt)
        time.sleep(asked if asked is not None else grown * random.uniform(0.5, 1))

    def _refused(self, response: requests.Response) -> IdiaError:
        said = _said(response)
        if response.status_code in (401, 403):
            name = self._settings.token_env
            fix = f"Check the token in {name}." if name else "Name the environment variable of a token (token_env)."
            return UsageError(f"the black box lets nobody in without a valid token: {said}", self._url, fix)
        return InvalidInputError(f"the black box refuses the request: {said}", response.url, CONTRACT)


class RateLimit:
    """Lets at most so many questions a second pass, those of this process together; an `acquire` of `BlackBox`."""

    def __init__(self, per_second: float) -> None:
        self._seconds_each, self._free_at, self._lock = 1 / per_second, 0.0, threading.Lock()

    def __call__(self, questions: int) -> None:
        """Wait until the questions that passed before have used up their time."""
        with self._lock:
            now = time.monotonic()
            wait = max(0.0, self._free_at - now)
            self._free_at = now + wait + questions * self._seconds_each
        time.sleep(wait)


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


def _requests(pictures: Sequence[bytes], prompts: Sequence[str], limits: _Limits, url: str) -> Iterator[list[str]]:
    """The pictures in base64, as many at a time as one request may hold."""
    room = limits.bytes - FRAME_BYTES - sum(len(json.dumps(prompt)) + 2 for prompt in prompts)
    batch: list[str] = []
    size = 0
    for place, picture in enumerate(pictures):
        image = base64.b64encode(picture).decode()
        if len(image) + 4 > room:
            what = f"picture {place} and the prompts are more than the {limits.bytes} bytes that the black box takes"
            raise InvalidInputError(what, url, "Scale the picture down.")
        if batch and (len(batch) == limits.images or size + len(image) + 4 > room):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += len(image) + 4  # quotes, comma and space
    if batch:
        yield batch


def _said(response: requests.Response) -> str:
    """The status, and what the black box says about it."""
    try:
        error = _Refusal.model_validate_json(response.content).error
        said = f"{error.what} {error.fix}".strip()[:SHOWN_LENGTH]
    except ValidationError:
        said = _shown(response)
    return f"status {response.status_code}, {said}"


def _shown(response: requests.Response) -> str:
    text = " ".join(response.content[: 4 * SHOWN_LENGTH].decode(errors="replace").split())
    return repr(text[:SHOWN_LENGTH])


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
