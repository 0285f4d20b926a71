"""A web site on this machine for as long as a stage runs: the built-in world's web, which `download` fetches from.

It is a thread of the run, so that it ends with it, however that ends.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from threading import Thread
from urllib.parse import unquote, urlsplit

from upath import UPath

from idia_core.config import SERVE, Serve
from idia_core.errors import BusyError, MissingInputError
from jobs.plan import PlannedStage, State
from jobs.stages import upstream_of

HOST = "127.0.0.1"
OPTED_OUT = "noai"
"""The folder of a site whose files are sent with a header that asks for not being trained on."""


@contextmanager
def served_to(plan: PlannedStage, serve: Serve | None, earlier: Mapping[str, PlannedStage]) -> Iterator[None]:
    """Serve the table that the study says, while the block lasts, if it is for this stage and the stage is to run.

    Raises `BusyError` where the port is taken, and `MissingInputError` while the table is not made.
    """
    if serve is None or plan.name not in serve.to or plan.state in (State.DONE, State.WAITS):
        yield
        return
    name, table = upstream_of(serve.table), serve.table.partition(".")[2]
    if (maker := earlier.get(name)) is None:
        raise MissingInputError(f"stage '{name}' is not done", f"{SERVE}.table", f"Run '{name}' first.")
    paths = [entry.path for entry in maker.seal().files(table)]
    with site({path.partition("/")[2]: maker.folder / path for path in paths}, serve.port):
        yield


@contextmanager
def site(files: Mapping[str, UPath], port: int) -> Iterator[int]:
    """Serve files by their paths at a port of this machine, any free one for 0, while the block lasts; the port."""
    try:
        server = _Site(files, port)
    except OSError as error:
        what = f"no web site can be at port {port}: {error.strerror}"
        fix = f"Wait until it is free, or take another one there and wherever the study names {HOST}:{port}."
        raise BusyError(what, f"{SERVE}.port", fix) from None
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class _Site(ThreadingHTTPServer):
    """Files by their paths."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, files: Mapping[str, UPath], port: int) -> None:
        self.files = files
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Site

    def do_GET(self) -> None:
        """Answer with the file of that path, or 404."""
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        file = self.server.files.get(path)
        if file is None:
            self.send_error(404)
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", guess_type(path)[0] or "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        if OPTED_OUT in path.split("/")[:-1]:
            self.send_header("X-Robots-Tag", OPTED_OUT)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Says nothing."""
