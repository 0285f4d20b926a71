"""The client of clip-retrieval's service, by its HTTP protocol (docs/retrieve.md)."""

import base64
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

import pyarrow as pa
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from idia_core.caption_files import CAPTION_NAMES, URL_NAMES
from idia_core.config import Strict, suggest
from idia_core.errors import InvalidInputError, UsageError
from idia_core.http_retries import RateLimit, RetryingClient, RetrySettings, shown
from idia_core.retrieval import ANSWER, Query

KNN, INDICES = "/knn-service", "/indices-list"
CONTRACT = "It must answer as clip-retrieval's service does: docs/retrieve.md."
NOT_FILTERED = {"deduplicate": False, "use_safety_model": False, "use_violence_detector": False}
"""What would leave rows out of an answer."""


class ServiceConfig(Strict):
    """Which service is asked, and about which of its indices."""

    url: str
    """Where it is, `http://HOST:PORT`; with or without `/knn-service` behind it."""
    index_name: str
    """Its name of the index; `GET /indices-list` tells them."""

    @field_validator("url")
    @classmethod
    def _is_one_and_keeps_no_secret(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("the service's URL is of the form http://HOST:PORT")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("the URL is recorded; give a password by an environment variable (token_env)")
        return url.rstrip("/").removesuffix(KNN)


class ServiceSettings(RetrySettings):
    """How the service is asked."""

    connections: int = Field(default=4, ge=1)
    """People who are looked for at the same time, each by one request after another."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """The most requests, retries among them; no limit when not given."""


def _nan_is_null(value: Any) -> Any:
    """The service's JSON writes NaN where a text is missing."""
    return None if value != value else value  # noqa: PLR0124 - which only NaN is not


Text = Annotated[str | None, BeforeValidator(_nan_is_null)]


def _text(*names: str) -> Any:
    """A field that may be missing, under any of these names."""
    return Field(default=None, validation_alias=AliasChoices(*names))


class _Row(BaseModel):
    """One neighbour; fields that are not known are left alone."""

    model_config = ConfigDict(frozen=True)

    id: StrictInt
    similarity: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    url: Text = _text(*URL_NAMES)
    caption: Text = _text(*CAPTION_NAMES)
    sha256: Text = None


_ROWS, _NAMES = TypeAdapter(list[_Row]), TypeAdapter(list[str])


class RetrievalService:
    """A service that answers with the nearest neighbours of an embedding, a picture or a text: a `Backend`.

    It may be shared by threads. Raises what `RetryingClient` raises, `UsageError` for an index that the service does
    not have, and `InvalidInputError` for an answer that is not the JSON it should be, or tells no URLs or captions.
    """

    def __init__(self, config: ServiceConfig, neighbours: int, settings: ServiceSettings) -> None:
        self._config, self._neighbours = config, neighbours
        self._client = RetryingClient("the service", config.url, settings, CONTRACT)
        rate = settings.requests_per_second
        self._acquire: Callable[[], None] | None = RateLimit(rate) if rate else None

    def check_index(self) -> None:
        """Raise `UsageError` unless the service has the index."""
        response = self._client.send("GET", INDICES, acquire=self._acquire)
        try:
            names = _NAMES.validate_json(response.content)
        except ValidationError as error:
            raise self._client.unexpected(response, error) from None
        if self._config.index_name not in names:
            what = f"the service has no index '{self._config.index_name}'"
            raise UsageError(what, self._client.url, suggest(self._config.index_name, names))

    def answer(self, query: Query) -> pa.Table:
        """The rows nearest to the query, as ANSWER."""
        body = {
            **_question(query),
            "modality": "image",
            "num_images": self._neighbours,
            "num_result_ids": self._neighbours,
            "indice_name": self._config.index_name,
            **NOT_FILTERED,
        }
        response = self._client.send("POST", KNN, body, self._acquire)
        try:
            rows = _ROWS.validate_json(response.content)
        except ValidationError as error:
            raise self._client.unexpected(response, error) from None
        for field in ("url", "caption"):
            if rows and not any(field in row.model_fields_set for row in rows):
                what = f"the service answers without '{field}': {shown(response)}"
                raise InvalidInputError(what, response.url, "Start it with url and caption in columns_to_return.")
        named = [(row.id, row.similarity, row.url, row.caption, row.sha256) for row in rows]
        columns = zip(*named, strict=True) if named else [()] * len(ANSWER)
        return pa.table([pa.array(column, field.type) for column, field in zip(columns, ANSWER, strict=True)], ANSWER)


def _question(query: Query) -> dict[str, Any]:
    if query.text is not None:
        return {"text": query.text}
    if query.image is not None:
        return {"image": base64.b64encode(query.image).decode()}
    if query.embedding_D is None:
        raise InvalidInputError(f"there is nothing to ask with for '{query.picture}'", "retrieval")
    return {"embedding_input": query.embedding_D.tolist()}
