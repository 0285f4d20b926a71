"""A real S3 API on loopback that fails now and then: `python -m tests.faulty_store PORT`.

moto's own server behind a gate. Before or after a request is done, the gate answers 503 SlowDown or 500 InternalError,
breaks the connection, cuts the answer short or is slow, for the share of requests that `POST /_faults?share=0.1&seed=3`
asks for and the first one of each verb, or once some have passed with `after=40`; with `share=1` the store is down for
good. `GET /_faults` tells what was done: verb, fault and how often.
"""

import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPConnection
from subprocess import DEVNULL, Popen
from typing import Any
from urllib.parse import parse_qs

from tests.servers import ROOT, free_port

ADMIN = "/_faults"
ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message></Error>'
SLOW_SECONDS = 0.3


class Fault(StrEnum):
    """What can happen to a request."""

    THROTTLED = "throttled"
    FAILED = "failed"
    FAILED_AFTER = "failed after it was done"
    BROKEN = "connection broken"
    CUT = "answer cut short"
    SLOW = "slow"


WHEN_DOWN = (Fault.FAILED, Fault.THROTTLED)


@dataclass
class Gate:
    """A WSGI application in front of another, whose answers it spoils by a seed."""

    app: Callable[..., Iterable[bytes]]
    share: float = 0.0
    after: int = 0
    faults: tuple[Fault, ...] = tuple(Fault)
    chance: random.Random = field(default_factory=random.Random)
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        if environ["PATH_INFO"] == ADMIN:
            return self._admin(environ, start_response)
        with self.lock:
            verb = environ["REQUEST_METHOD"]
            first = self.share > 0 and all(verb != other for other, _ in self.done)
            spoiled = self.done.total() >= self.after and (self.chance.random() < self.share or first)
            fault = self.chance.choice(self.faults) if spoiled else None
            self.done[verb, fault or "passed"] += 1
        if fault is Fault.SLOW:
            time.sleep(SLOW_SECONDS)
        if fault is Fault.THROTTLED:
            return _refuse(environ, start_response, "503 Slow Down", "SlowDown")
        if fault is Fault.FAILED:
            return _refuse(environ, start_response, "500 Internal Server Error", "InternalError")
        if fault is Fault.BROKEN:
            return _break(environ)
        return self._passed_on(environ, start_response, fault)

    def _passed_on(
        self, environ: dict[str, Any], start_response: Callable[..., Any], fault: Fault | None
    ) -> Iterable[bytes]:
        head: list[Any] = []
        body = b"".join(self.app(environ, lambda *answer: head.append(answer)))
        if fault is Fault.FAILED_AFTER:
            return _refuse(environ, start_response, "500 Internal Server Error", "InternalError")
        start_response(*head[0])
        return _cut(environ, body) if fault is Fault.CUT and body else [body]

    def _admin(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        with self.lock:
            said = [[*what, count] for what, count in sorted(self.done.items())]
            if environ["REQUEST_METHOD"] == "POST":
                self.share, self.chance = float(asked["share"]), random.Random(int(asked["seed"]))
                self.after = int(asked["after"])
                self.faults = WHEN_DOWN if self.share >= 1 else tuple(Fault)
                self.done.clear()
        body = json.dumps(said).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


def _refuse(environ: dict[str, Any], start_response: Callable[..., Any], status: str, code: str) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # or the next request would begin with it
    body = ERROR.format(code, f"Made to fail: {code}.").encode()
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _break(environ: dict[str, Any]) -> Iterable[bytes]:
    with suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


def _cut(environ: dict[str, Any], body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    _break(environ)


@dataclass(frozen=True)
class Store:
    """A store that runs."""

    port: int

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """That of a process that works with it."""
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        return {**os.environ, **keys, "AWS_ENDPOINT_URL": self.url}

    def fail(self, share: float, seed: int = 0, after: int = 0) -> None:
        """From now on, or after some requests more, spoil this share of them; counts begin anew."""
        self._ask("POST", f"{ADMIN}?share={share}&seed={seed}&after={after}")

    def told(self) -> Counter[tuple[str, str]]:
        """How many requests of a verb met a fault, or passed."""
        return Counter({(verb, fault): count for verb, fault, count in json.loads(self._ask("GET", ADMIN))})

    def _ask(self, verb: str, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(verb, path)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def faulty_store() -> Iterator[Store]:
    """A store in a process of its own that does not fail yet."""
    port = free_port()
    command = [sys.executable, "-m", "tests.faulty_store", str(port)]
    with Popen(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL) as server:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield Store(port)
        finally:
            server.kill()


def serve(port: int) -> None:
    """Serve until killed."""
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app  # noqa: PLC0415
    from werkzeug.serving import run_simple  # noqa: PLC0415

    gate = Gate(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", port, gate, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
