"""The client of a black box, against a real HTTP server that answers whatever a test tells it to."""

import base64
import email.utils
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from idia_core.black_box import BlackBox
from idia_core.errors import BudgetError, InvalidInputError, MissingInputError, UsageError
from idia_core.http_retries import RateLimit, RetrySettings
from tests.servers import Replier, running

PROMPTS = ["Ann Ash", "Bo Oak", 'Zoë "Z" Müller', "漢字"]
Reply = tuple[int, dict[str, str], bytes]


def pictures(count: int, size: int = 30) -> list[bytes]:
    """Bytes whose first tells which prompt the server below finds best."""
    return [bytes([i % len(PROMPTS)]) * size for i in range(count)]


class Server(ThreadingHTTPServer):
    """Keeps the requests; gives the replies it was told to give, and then right answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.limits = {"images": 4, "prompts": 5, "bytes": 10_000}
        self.bodies: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.tokens: list[str | None] = []
        self.replies: list[Reply] = []

    def describe(self, **more: Any) -> bytes:
        return json.dumps({"model": "m", "limits": self.limits} | more).encode()


class Handler(Replier, BaseHTTPRequestHandler):
    """Speaks the contract."""

    server: Server

    def do_GET(self) -> None:
        assert self.path == "/v1/model"
        self.send(200, {}, self.server.describe(sha256="ab", new_field=1))

    def do_POST(self) -> None:
        assert self.path == "/v1/answers"
        content = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(content)
        self.server.sizes.append(len(content))
        self.server.bodies.append(body)
        self.server.tokens.append(self.headers["Authorization"])
        if self.server.replies:
            self.send(*self.server.replies.pop(0))
        else:
            answers = [base64.b64decode(image, validate=True)[0] for image in body["images"]]
            self.send(200, {}, json.dumps({"answers": answers}).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for one test."""
    made = Server()
    with running(made):
        yield made


def box(server: Server, acquire: Callable[[int], None] | None = None, **settings: Any) -> BlackBox:
    """A client of the server."""
    return BlackBox(server.url + "/", RetrySettings(**settings), acquire)


def error_body(what: str, fix: str = "") -> bytes:
    """An error as the contract words it."""
    return json.dumps({"error": {"what": what, "fix": fix}}).encode()


def test_what_it_says_of_itself(server: Server) -> None:
    """Model, hash and limits; what the contract does not know is left out."""
    assert box(server).describe() == {"model": "m", "sha256": "ab", "limits": server.limits}


@pytest.mark.parametrize(("count", "requests"), [(0, []), (1, [1]), (4, [4]), (11, [4, 4, 3])])
def test_answers_come_in_order(server: Server, count: int, requests: Sequence[int]) -> None:
    """However many pictures there are, each gets its own answer; a request holds as many as the limit says."""
    assert box(server).answer(pictures(count), PROMPTS) == [i % 4 for i in range(count)]
    assert [len(body["images"]) for body in server.bodies] == requests
    assert all(body["prompts"] == PROMPTS for body in server.bodies)


def test_a_request_is_no_larger_than_the_limit(server: Server) -> None:
    """Pictures are split by their size too; one that fits into no request is an error that says which."""
    server.limits["bytes"] = 1_000
    sizes = [300, 200, 200, 100, 300, 10, 10, 10, 10, 10]
    shown = [bytes([i % 4]) * size for i, size in enumerate(sizes)]
    assert box(server).answer(shown, PROMPTS) == [i % 4 for i in range(10)]
    assert max(server.sizes) <= 1_000
    assert [len(body["images"]) for body in server.bodies] == [2, 3, 4, 1]
    with pytest.raises(InvalidInputError, match=r"^picture 1 and the prompts are more than the 1000 bytes"):
        box(server).answer([b"a", b"b" * 700], PROMPTS)


def test_more_prompts_than_it_takes(server: Server) -> None:
    """A choice among more prompts than a request may hold cannot be asked, and nothing is."""
    with pytest.raises(InvalidInputError, match=r"6 prompts are more than the 5 .* Take fewer candidate names"):
        box(server).answer(pictures(1), [*PROMPTS, "a", "b"])
    assert server.bodies == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 0])
def test_it_is_asked_again(server: Server, status: int) -> None:
    """After a status that says to come back, or no answer, the same request is sent again."""
    server.replies = [(status, {"Retry-After": "0"}, error_body("busy"))]
    assert box(server).answer(pictures(2), PROMPTS) == [0, 1]
    assert len(server.bodies) == 2
    assert server.bodies[0] == server.bodies[1]


def test_waits_grow(server: Server) -> None:
    """Without a Retry-After each wait is about twice the one before."""
    server.replies = [(503, {}, b"")] * 2
    started = time.monotonic()
    box(server).answer(pictures(1), PROMPTS)
    assert 0.75 <= time.monotonic() - started < 2.5  # half to whole of 0.5 and of 1


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_obeyed(server: Server, as_date: bool) -> None:
    """A pause that is asked for, in seconds or as a date, is kept."""
    value = email.utils.formatdate(time.time() + 3, usegmt=True) if as_date else "2"
    server.replies = [(429, {"Retry-After": value}, error_body("slow down"))]
    started = time.monotonic()
    assert box(server).answer(pictures(1), PROMPTS) == [0]
    assert 1.9 <= time.monotonic() - started < 4


def test_a_pause_that_is_too_long(server: Server) -> None:
    """A pause of an hour ends the run with what was said, instead of keeping it waiting."""
    server.replies = [(429, {"Retry-After": "3600"}, error_body("quota used up"))]
    with pytest.raises(MissingInputError, match="pause of 3600 seconds: status 429, quota used up"):
        box(server).answer(pictures(1), PROMPTS)


def test_it_is_not_asked_for_ever(server: Server) -> None:
    """When all tries failed, the error says how many there were and what came last."""
    server.replies = [(503, {"Retry-After": "0"}, error_body("overloaded"))] * 3
    with pytest.raises(MissingInputError, match="no answer in 3 tries: status 503, overloaded"):
        box(server, retries=2).answer(pictures(1), PROMPTS)
    assert len(server.bodies) == 3


def test_nobody_there() -> None:
    """A port where nobody listens is missing input."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(MissingInputError, match=f"no answer in 1 tries: ConnectionError.*127.0.0.1:{port}/v1/model"):
        BlackBox(f"http://127.0.0.1:{port}", RetrySettings(retries=0)).describe()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "not the JSON that was expected"),
        (b"<html>hello</html>", "it was '<html>hello</html>'"),
        (b"[0]", "not the JSON that was expected"),
        (b"{}", "answers field required; it was '{}'"),
        (b'{"answers": 0}', "answers input should be a valid array"),
        (b'{"answers": ["0"]}', "answers.0 input should be a valid integer"),
        (b'{"answers": [true]}', "answers.0 input should be a valid integer"),
        (b'{"answers": [0.0]}', "answers.0 input should be a valid integer"),
        (b'{"answers": []}', "0 answers to 1 pictures"),
        (b'{"answers": [0, 1]}', "2 answers to 1 pictures"),
        (b'{"answers": [4]}', "the answer 4 is none of the 4 prompts"),
        (b'{"answers": [-1]}', "the answer -1 is none of the 4 prompts"),
        (b"x" * 10_000_000, "it was 'xxx"),
    ],
)
def test_wrong_answers(server: Server, answer: bytes, message: str) -> None:
    """An answer that is not what the contract says is an error that repeats it, never an empty result."""
    server.replies = [(200, {}, answer)]
    with pytest.raises(InvalidInputError, match=message) as caught:
        box(server).answer(pictures(1), PROMPTS)
    assert len(str(caught.value)) < 600
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (400, InvalidInputError, "refuses the request: status 400, images.0 is broken Send a PNG"),
        (413, InvalidInputError, "refuses the request: status 413"),
        (404, InvalidInputError, "refuses the request: status 404"),
        (302, InvalidInputError, "refuses the request: status 302"),
        (401, UsageError, "without a valid token: status 401, .*token_env"),
        (403, UsageError, "without a valid token: status 403"),
    ],
)
def test_what_is_refused_is_not_asked_again(server: Server, status: int, error: type[Exception], message: str) -> None:
    """A status that would be the same next time, a redirection among them, is an error with what the server says."""
    server.replies = [(status, {"Location": "/v1/model"}, error_body("images.0 is broken", "Send a PNG."))]
    with pytest.raises(error, match=message):
        box(server).answer(pictures(1), PROMPTS)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "limits", [{}, {"images": 0, "prompts": 5, "bytes": 9}, {"images": "4", "prompts": 5, "bytes": 9}]
)
def test_limits_that_make_no_sense(server: Server, limits: dict[str, Any]) -> None:
    """A black box that does not say how much it takes is not asked."""
    server.limits = limits
    with pytest.raises(InvalidInputError, match="not the JSON that was expected: limits"):
        box(server).answer(pictures(1), PROMPTS)


def test_a_budget(server: Server) -> None:
    """Every request is acquired before it is sent, retries too; what `acquire` raises ends the asking."""
    asked: list[int] = []

    def acquire(questions: int) -> None:
        if sum(asked) + questions > 10:
            raise BudgetError("10 questions are asked")
        asked.append(questions)

    server.replies = [(503, {"Retry-After": "0"}, b"")]
    with pytest.raises(BudgetError, match="10 questions"):
        box(server, acquire).answer(pictures(11), PROMPTS)
    assert asked == [0, 4, 4]  # the description, a try, its retry; the next four would be too many
    assert len(server.bodies) == 2


def test_a_token(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is read from the environment, sent with every request, and in no message."""
    monkeypatch.setenv("BOX_TOKEN", "s3cret")
    asked = box(server, token_env="BOX_TOKEN")  # noqa: S106 - the variable's name
    server.replies = [(429, {"Retry-After": "0"}, b""), (401, {}, error_body("wrong token"))]
    with pytest.raises(UsageError, match=r"status 401, wrong token .* Check the token in BOX_TOKEN") as caught:
        asked.answer(pictures(1), PROMPTS)
    assert server.tokens == ["Bearer s3cret"] * 2
    assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("BOX_TOKEN")
    with pytest.raises(UsageError, match="BOX_TOKEN holds no token"):
        box(server, token_env="BOX_TOKEN")  # noqa: S106
    box(server).answer(pictures(1), PROMPTS)
    assert server.tokens[-1] is None


def test_an_answer_that_does_not_come() -> None:
    """A request that is not answered in time is given up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(MissingInputError, match="no answer in 1 tries: ReadTimeout"):
            BlackBox(url, RetrySettings(retries=0, timeout_seconds=0.1)).describe()


def test_a_rate_limit() -> None:
    """So many questions a second pass and no more; the first, and those of a description, do not wait."""
    limit = RateLimit(100)
    started = time.monotonic()
    passed = []
    for questions in (0, 10, 0, 20, 1):
        limit(questions)
        passed.append(time.monotonic() - started)
    assert passed[1] < 0.05
    assert passed[2] >= 0.1
    assert 0.3 <= passed[4] < 0.6
