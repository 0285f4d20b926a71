"""A model behind HTTP that answers which prompt fits a picture best, and tells nothing else (the paper's threat model).

The contract is in docs/black_box.md. A question is one picture with one list of prompts.
"""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, TypeVar

import requests
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from idia_core.errors import InvalidInputError
from idia_core.http_retries import RetryingClient, RetrySettings

ANSWERS, MODEL = "/v1/answers", "/v1/model"
FRAME_BYTES = 100
"""Of a request's body, besides its pictures and prompts."""
CONTRACT = "The endpoint must keep to docs/black_box.md."
AnswerT = TypeVar("AnswerT", bound=BaseModel)


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


class BlackBox:
    """The client of one black box; may be shared by threads.

    `acquire` is called with the number of questions before every request, retries too; it may wait, or raise to end
    the asking. Raises `UsageError` for a token that is not set or not accepted, `MissingInputError` where nothing
    answers in the end, and `InvalidInputError` for an answer that is not what the contract says.
    """

    def __init__(
        self,
        url: str,
        settings: RetrySettings = RetrySettings(),  # noqa: B008 - frozen
        acquire: Callable[[int], None] | None = None,
    ) -> None:
        self._url, self._acquire = url.rstrip("/"), acquire
        self._client = RetryingClient("the black box", self._url, settings, CONTRACT)

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
            raise self._client.unexpected(response, error) from None

    def _ask(self, method: str, path: str, questions: int, body: dict[str, Any] | None) -> requests.Response:
        acquire = self._acquire
        return self._client.send(method, path, body, (lambda: acquire(questions)) if acquire else None)


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
