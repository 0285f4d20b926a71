"""A web server on this machine's own address that serves drawn pictures, and misbehaves where its paths say so."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from idia_core.drawing import draw_background, encode_jpeg
from idia_core.fetch_status import FetchStatus

HUGE_BYTES = 300_000_000
HANG_SECONDS, DRIP_SECONDS = 20.0, 0.1
PICTURES = 12
"""Different ones that are drawn; the n-th URL shows the n-th of them, counted round."""


@cache
def picture(number: int) -> bytes:
    """The JPEG that a good URL with that number shows."""
    return encode_jpeg(draw_background([77, number % PICTURES])[0])


class PictureServer(ThreadingHTTPServer):
    """Answers `/KIND/NUMBER.jpg`, and with `files` by their paths.

    `asked` counts the requests of each path, and after `stops_after` it stops.
    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int = 0, *, latency_seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.latency_seconds, self.stops_after = latency_seconds, 1 << 60
        self.asked, self.lock = Counter[str](), threading.Lock()
        self.sent_bytes = 0
        self.files = dict[str, bytes]()

    @property
    def place(self) -> str:
        """Its address and port, as settings name it."""
        return f"127.0.0.1:{self.server_port}"

    def url(self, kind: str, number: int) -> str:
        """The URL of a kind with a number."""
        return f"http://{self.place}/{kind}/{number}.jpg"

    def note(self, path: str) -> int:
        """Count a request; how many of this path there were before."""
        with self.lock:
            self.asked[path] += 1
            if self.asked.total() == self.stops_after:
                Thread(target=self.stop).start()
            return self.asked[path] - 1

    def stop(self) -> None:
        """Take no further connections: from now on they are refused."""
        self.shutdown()
        self.socket.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away: they are meant to."""


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer

    def do_GET(self) -> None:
        """Behave as the path says."""
        before = self.server.note(self.path)
        time.sleep(self.server.latency_seconds)
        if self.path in self.server.files:
            self.answer(self.server.files[self.path])
            return
        kind, _, rest = self.path.strip("/").partition("/")
        KINDS[kind][0](self, int(rest.partition(".")[0]), before)

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Send a whole answer; `_` stands for `-` in the headers' names."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send_response(status)
        for name, value in ({"Content-Type": "image/jpeg", "Content-Length": str(len(body))} | given).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


def _plain(handler: _Handler, number: int, _: int) -> None:
    handler.answer(picture(number))


def _status(status: int) -> Callable[[_Handler, int, int], None]:
    return lambda handler, _number, _before: handler.answer(b"no", status)


def _flaky(handler: _Handler, number: int, before: int) -> None:
    if before:
        handler.answer(picture(number))
    else:
        handler.answer(b"come back", 500)


def _hang(handler: _Handler, number: int, _: int) -> None:
    time.sleep(HANG_SECONDS)
    handler.answer(picture(number))


def _drip(handler: _Handler, number: int, _: int) -> None:
    content = picture(number)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    for byte in content:
        handler.wfile.write(bytes([byte]))
        time.sleep(DRIP_SECONDS)


def _slow_head(handler: _Handler, _number: int, _before: int) -> None:
    handler.send_response(200)
    for number in range(1000):
        handler.send_header(f"X-{number}", "slow")
        handler.flush_headers()
        time.sleep(DRIP_SECONDS)


def _huge(handler: _Handler, _number: int, _before: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(HUGE_BYTES))
    handler.end_headers()
    _pour(handler)


def _huge_untold(handler: _Handler, _number: int, _before: int) -> None:
    handler.send_response(200)  # without a length: until the connection ends
    handler.end_headers()
    _pour(handler)


def _pour(handler: _Handler) -> None:
    block = bytes(1 << 16)
    for _ in range(HUGE_BYTES // len(block)):
        handler.wfile.write(block)
        with handler.server.lock:
            handler.server.sent_bytes += len(block)


def _chunked(handler: _Handler, number: int, _: int) -> None:
    _chunks(handler, picture(number), whole=True)


def _cut_chunks(handler: _Handler, number: int, _: int) -> None:
    _chunks(handler, picture(number), whole=False)


def _chunks(handler: _Handler, content: bytes, *, whole: bool) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    half = len(content) // 2
    for piece in (content[:half], content[half:]) if whole else (content[:half],):
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    if whole:
        handler.wfile.write(b"0\r\n\r\n")


def _long_promise(handler: _Handler, number: int, _: int) -> None:
    content = picture(number)
    handler.answer(content, Content_Length=str(len(content) + 100))


def _short_promise(handler: _Handler, number: int, _: int) -> None:
    content = picture(number)
    handler.answer(content, Content_Length=str(len(content) // 2))


def _reset(handler: _Handler, _number: int, _before: int) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _redirect(target: str) -> Callable[[_Handler, int, int], None]:
    def answer(handler: _Handler, number: int, _: int) -> None:
        port = handler.server.server_port
        handler.answer(b"", 302, Location=target.format(number=number, other=1 if port != 1 else 2))

    return answer


Behaviour = Callable[[_Handler, int, int], None]
KINDS: dict[str, tuple[Behaviour, FetchStatus, int | None]] = {
    "good": (_plain, FetchStatus.OK, 200),
    "double": (_plain, FetchStatus.OK, 200),  # the pictures of `good` under other URLs
    "flaky": (_flaky, FetchStatus.OK, 200),
    "chunked": (_chunked, FetchStatus.OK, 200),
    "moved": (_redirect("/good/{number}.jpg"), FetchStatus.OK, 200),
    "not_found": (_status(404), FetchStatus.HTTP_ERROR, 404),
    "forbidden": (_status(403), FetchStatus.HTTP_ERROR, 403),
    "broken": (_status(500), FetchStatus.HTTP_ERROR, 500),
    "busy": (_status(429), FetchStatus.HTTP_ERROR, 429),
    "loop": (_redirect("/loop/{number}.jpg"), FetchStatus.HTTP_ERROR, 302),
    "lost": (_redirect("/not_found/{number}.jpg"), FetchStatus.HTTP_ERROR, 404),
    "hang": (_hang, FetchStatus.TIMEOUT, None),
    "drip": (_drip, FetchStatus.TIMEOUT, 200),
    "slow_head": (_slow_head, FetchStatus.TIMEOUT, None),
    "page": (
        lambda handler, _number, _before: handler.answer(b"<!DOCTYPE html><p>It was here"),
        FetchStatus.NOT_AN_IMAGE,
        200,
    ),
    "nothing": (lambda handler, _number, _before: handler.answer(b""), FetchStatus.EMPTY, 200),
    "cut": (
        lambda handler, number, _before: handler.answer(picture(number)[:-300]),
        FetchStatus.TRUNCATED_IMAGE,
        200,
    ),
    "short_promise": (_short_promise, FetchStatus.TRUNCATED_IMAGE, 200),
    "long_promise": (_long_promise, FetchStatus.TRUNCATED, 200),
    "cut_chunks": (_cut_chunks, FetchStatus.TRUNCATED, 200),
    "reset": (_reset, FetchStatus.CONNECTION, None),
    "huge": (_huge, FetchStatus.TOO_LARGE, 200),
    "huge_untold": (_huge_untold, FetchStatus.TOO_LARGE, 200),
    "opted_out": (
        lambda handler, number, _before: handler.answer(picture(number), X_Robots_Tag="noindex, NoAI"),
        FetchStatus.OPTED_OUT,
        200,
    ),
    "inwards": (_redirect("http://127.0.0.1:{other}/good/{number}.jpg"), FetchStatus.BLOCKED_ADDRESS, None),
    "metadata": (_redirect("http://169.254.169.254/latest/"), FetchStatus.BLOCKED_ADDRESS, None),
    "astray": (_redirect("http://[::1/"), FetchStatus.BAD_URL, None),
    "to_file": (_redirect("file:///etc/passwd"), FetchStatus.BLOCKED_SCHEME, None),
    "to_ftp": (_redirect("ftp://127.0.0.1/a.jpg"), FetchStatus.BLOCKED_SCHEME, None),
}
"""What a URL of each kind does, and what the ledger must say of it."""
TRUTHS = {kind: (status, http_status) for kind, (_, status, http_status) in KINDS.items()}
SLOW = ("hang", "drip", "slow_head")
"""Kinds that take their client's patience."""
LARGE = ("huge", "huge_untold")


@contextmanager
def served(port: int = 0, *, latency_seconds: float = 0.0) -> Iterator[PictureServer]:
    """A server that runs while the block lasts."""
    with PictureServer(port, latency_seconds=latency_seconds) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()
