"""The client of clip-retrieval's service, against a real HTTP server that answers whatever a test tells it to."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from idia_core.errors import InvalidInputError, MissingInputError, UsageError
from idia_core.retrieval import ANSWER, Query
from idia_core.retrieval_service import RetrievalService, ServiceConfig, ServiceSettings
from tests.servers import Replier, running

ROWS = [
    {"id": 7, "similarity": 0.5, "url": "http://x/7", "caption": "Ann", "NSFW": "UNLIKELY"},
    {"id": 3, "similarity": 1, "url": None, "caption": "Bob", "sha256": "ab"},
]
EMBEDDED = Query("ann", "0.jpg", embedding_D=np.array([0.1, -2.5], np.float32))
Reply = tuple[int, dict[str, str], bytes]


class Server(ThreadingHTTPServer):
    """Keeps the requests; gives the replies it was told to give, and then right answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.bodies: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.replies: list[Reply] = []
        self.names = b'["laion", "cc3m"]'


class Handler(Replier, BaseHTTPRequestHandler):
    """Speaks clip-retrieval's protocol."""

    server: Server

    def do_GET(self) -> None:
        assert self.path == "/indices-list"
        self.send(200, {}, self.server.names)

    def do_POST(self) -> None:
        assert self.path == "/knn-service"
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.tokens.append(self.headers["Authorization"])
        self.send(*(self.server.replies.pop(0) if self.server.replies else (200, {}, json.dumps(ROWS).encode())))


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for one test."""
    made = Server()
    with running(made):
        yield made


def service(server: Server, index_name: str = "cc3m", **settings: Any) -> RetrievalService:
    """A client that wants 20 neighbours."""
    return RetrievalService(ServiceConfig(url=server.url, index_name=index_name), 20, ServiceSettings(**settings))


@pytest.mark.parametrize(
    ("query", "question"),
    [
        (EMBEDDED, {"embedding_input": [float(np.float32(0.1)), -2.5]}),
        (Query("ann", "0.jpg", image=b"\xff\xd8"), {"image": base64.b64encode(b"\xff\xd8").decode()}),
        (Query("ann", "a photo of Ann", text="a photo of Ann"), {"text": "a photo of Ann"}),
    ],
)
def test_what_it_is_asked(server: Server, query: Query, question: dict[str, Any]) -> None:
    """The question in clip-retrieval's fields, with all that would leave rows out switched off."""
    answer = service(server).answer(query)
    assert server.bodies == [
        question
        | {"modality": "image", "num_images": 20, "num_result_ids": 20, "indice_name": "cc3m"}
        | {"deduplicate": False, "use_safety_model": False, "use_violence_detector": False}
    ]
    assert answer.schema == ANSWER
    assert answer.to_pylist() == [
        {"row": 7, "similarity": 0.5, "url": "http://x/7", "caption": "Ann", "sha256": None},
        {"row": 3, "similarity": 1.0, "url": None, "caption": "Bob", "sha256": "ab"},
    ]


def test_a_query_that_holds_no_question(server: Server) -> None:
    """Nothing is sent."""
    with pytest.raises(InvalidInputError, match=r"nothing to ask with for '0.jpg'"):
        service(server).answer(Query("ann", "0.jpg"))
    assert server.bodies == []


@pytest.mark.parametrize("names", [("URL", "TEXT"), ("url", "text"), ("image_url", "CAPTION")])
def test_columns_under_other_names(server: Server, names: tuple[str, str]) -> None:
    """As LAION and others name them; NaN, which the service writes for a text that is missing, is null."""
    url, caption = names
    rows = [{"id": 1, "similarity": 0.25, url: "http://x/1", caption: "Ann"}]
    rows.append({"id": 2, "similarity": 0.125, url: float("nan"), caption: float("nan")})
    server.replies = [(200, {}, json.dumps(rows).encode())]
    answer = service(server).answer(EMBEDDED)
    assert answer["url"].to_pylist() == ["http://x/1", None]
    assert answer["caption"].to_pylist() == ["Ann", None]


def test_nothing_found_is_an_answer(server: Server) -> None:
    """An empty list is what the service says when there is nothing near."""
    server.replies = [(200, {}, b"[]")]
    assert service(server).answer(EMBEDDED).num_rows == 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "not the JSON that was expected"),
        (b"<html>maintenance</html>", "it was '<html>maintenance</html>'"),
        (b'{"message": "no such index"}', "input should be a valid array; it was"),
        (b"null", "not the JSON that was expected"),
        (b"[1]", "not the JSON that was expected: 0"),
        (b'[{"id": 1}]', "0.similarity field required"),
        (b'[{"id": "1", "similarity": 0.5}]', "0.id input should be a valid integer"),
        (b'[{"id": 1, "similarity": "0.5"}]', "0.similarity input should be a valid number"),
        (b'[{"id": 1, "similarity": NaN}]', "0.similarity input should be a finite number"),
        (b'[{"id": 1, "similarity": 0.5, "url": 5}]', "0.url"),
        (b'[{"id": 1, "similarity": 0.5, "caption": "Ann"}]', "answers without 'url'.*columns_to_return"),
        (b'[{"id": 1, "similarity": 0.5, "url": "http://x"}]', "answers without 'caption'"),
        (json.dumps(ROWS).encode()[:-5], "not the JSON that was expected"),
    ],
)
def test_wrong_answers(server: Server, answer: bytes, message: str) -> None:
    """An answer that is not what it should be is an error that repeats it, never an empty result."""
    server.replies = [(200, {}, answer)]
    with pytest.raises(InvalidInputError, match=message) as caught:
        service(server).answer(EMBEDDED)
    assert len(str(caught.value)) < 700
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 0])
def test_it_is_asked_again(server: Server, status: int) -> None:
    """After a status that says to come back, or no answer, the same request is sent again."""
    server.replies = [(status, {"Retry-After": "0"}, b"busy")]
    assert service(server).answer(EMBEDDED).num_rows == 2
    assert len(server.bodies) == 2
    assert server.bodies[0] == server.bodies[1]


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, InvalidInputError, "the service refuses the request: status 404, 'nope'"),
        (302, InvalidInputError, "status 302"),
        (403, UsageError, "the service lets nobody in without a valid token: status 403"),
    ],
)
def test_what_is_refused_is_not_asked_again(server: Server, status: int, error: type[Exception], message: str) -> None:
    """A status that would be the same next time, a redirection among them."""
    server.replies = [(status, {"Location": "http://127.0.0.1:1/"}, b"nope")]
    with pytest.raises(error, match=message):
        service(server).answer(EMBEDDED)
    assert len(server.bodies) == 1


def test_it_is_not_asked_for_ever(server: Server) -> None:
    """When all tries failed the error says how many there were, and what came last."""
    server.replies = [(500, {"Retry-After": "0"}, b'{"message": "Internal Server Error"}')] * 3
    with pytest.raises(MissingInputError, match=r"no answer in 3 tries: status 500, .*Internal Server Error"):
        service(server, retries=2).answer(EMBEDDED)
    with pytest.raises(MissingInputError, match="no answer in 1 tries: ReadTimeout"):
        _ask_the_silent()


def _ask_the_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = ServiceConfig(url=f"http://127.0.0.1:{silent.getsockname()[1]}", index_name="cc3m")
        RetrievalService(config, 20, ServiceSettings(retries=0, timeout_seconds=0.1)).answer(EMBEDDED)


def test_an_index_that_it_does_not_have(server: Server) -> None:
    """Is said before anything is asked, with the name that was probably meant."""
    service(server).check_index()
    with pytest.raises(UsageError, match=r"no index 'cc3n' .* Did you mean 'cc3m'\?"):
        service(server, "cc3n").check_index()
    server.names = b"{}"
    with pytest.raises(InvalidInputError, match="not the JSON that was expected"):
        service(server).check_index()


def test_a_token_and_a_rate(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is read from the environment and sent; no more requests are sent a second than the limit says."""
    monkeypatch.setenv("SERVICE_TOKEN", "s3cret")
    asked = service(server, token_env="SERVICE_TOKEN", requests_per_second=20)  # noqa: S106 - the variable's name
    server.replies = [(503, {"Retry-After": "0"}, b"")]
    started = time.monotonic()
    for _ in range(3):
        asked.answer(EMBEDDED)
    assert time.monotonic() - started >= 0.15  # four requests, a retry among them
    assert server.tokens == ["Bearer s3cret"] * 4


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/knn-service"])
def test_where_a_service_is(url: str) -> None:
    """A URL with or without the path that clip-retrieval's own client wants."""
    assert ServiceConfig(url=url, index_name="x").url == "http://h:1"


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http://h:x", "http://me:pw@h", "http://h?token=x"])
def test_urls_that_are_none(url: str) -> None:
    """Or that hold a secret, which would be recorded."""
    with pytest.raises(ValidationError, match=r"form http://HOST:PORT|is recorded"):
        ServiceConfig(url=url, index_name="x")
