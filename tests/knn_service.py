"""A service that speaks clip-retrieval's protocol over an index folder, for tests that start and stop it."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from upath import UPath

from idia_core.images import decode_picture
from idia_core.index import ShardedIndex
from idia_core.models import ClipModel
from tests.servers import Replier, running


class KnnService(ThreadingHTTPServer):
    """Answers `allowed` questions, and then with status 400 until it is told otherwise."""

    daemon_threads = True

    def __init__(self, index: Path, model: ClipModel) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.index, self.model = ShardedIndex.open(UPath(index)), model
        self.allowed, self.asked = 1 << 30, list[dict[str, Any]]()
        self.lock = Lock()

    def rows(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        """The answer to a question."""
        with self.lock:  # faiss and the model, one thread at a time
            query_1D, k = self._embedded(question), question["num_images"]
            similarities, rows = self.index.search(query_1D, k)
            found = rows[0] >= 0
            about = self.index.metadata(rows[0][found], ["url", "caption"]).to_pylist()
        numbers = zip(rows[0][found].tolist(), similarities[0][found].astype(float).tolist(), strict=True)
        return [{"id": n, "similarity": s, **row} for (n, s), row in zip(numbers, about, strict=True)]

    def _embedded(self, question: dict[str, Any]) -> np.ndarray:
        if "text" in question:
            return self.model.encode_texts([question["text"]])
        if "image" in question:
            picture, _ = decode_picture(base64.b64decode(question["image"]))
            assert picture is not None
            return self.model.encode_images([picture])
        return np.array([question["embedding_input"]], np.float32)


class _Handler(Replier, BaseHTTPRequestHandler):
    server: KnnService

    def do_GET(self) -> None:
        self._reply(200, ["base"])

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            fine = len(self.server.asked) < self.server.allowed
            if fine:
                self.server.asked.append(question)
        self._reply(200, self.server.rows(question)) if fine else self._reply(400, {"message": "enough"})

    def _reply(self, status: int, value: Any) -> None:
        self.send(status, {}, json.dumps(value).encode())


@contextmanager
def knn_service(index: Path, model: ClipModel) -> Iterator[KnnService]:
    """The service while the block lasts."""
    made = KnnService(index, model)
    with running(made):
        yield made
