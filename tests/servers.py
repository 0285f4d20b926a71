"""Servers on this machine's own address that tests start and stop."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import requests

ROOT = Path(__file__).parent.parent
IDIA = [sys.executable, "-u", "-c", "from jobs.cli import main; main()"]


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


@contextmanager
def served_model(reference: str) -> Iterator[str]:
    """`idia serve-model` on any free port; its URL."""
    words = [*IDIA, "serve-model", reference, "--port", "0"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout
            line = next(line for line in server.stdout if "http://" in line)
            Thread(target=server.stdout.read, daemon=True).start()  # so that it never waits to be read
            yield f"http://{line.partition('http://')[2].split()[0]}".rstrip("/.")
        finally:
            server.terminate()


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server, and refuses after some POSTs until it is told otherwise."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.allowed, self.passed = target, 1 << 30, 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.passed >= self.server.allowed:
            self._answer(400, b'{"error": {"what": "enough", "fix": "ask no more"}}')
            return
        self.server.passed += 1
        self._pass_on(body)

    def _pass_on(self, body: bytes | None) -> None:
        headers = {"Content-Type": "application/json"}
        method = "GET" if body is None else "POST"
        answer = requests.request(method, self.server.target + self.path, data=body, headers=headers, timeout=60)
        self._answer(answer.status_code, answer.content)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy that runs while the block lasts."""
    with Proxy(target) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Replier(BaseHTTPRequestHandler):
    """Sends replies that a test wrote."""

    def send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        """Send one; of status 0 there is no answer at all."""
        if status == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """Have a server answer while the block lasts."""
    with server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()
