"""`idia serve-model`: any CLIP model as a black box over HTTP, by the contract in docs/black_box.md.

Axes: P pictures, K prompts, D embedding dimensions.
"""

import asyncio
import base64
import binascii
import hmac
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Annotated, Any

from aiohttp import web
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from idia_core.attack import predict
from idia_core.black_box import ANSWERS, MODEL
from idia_core.errors import IdiaError, InvalidInputError, UsageError
from idia_core.images import decode_picture
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel, weights_sha256

LOGGER = logging.getLogger("idia.serve")
MOST_IMAGES, MOST_PROMPTS, MOST_BYTES = 64, 10_000, 64 << 20
"""Of one request."""
PROMPT_LISTS = 64
"""Lists of prompts whose embeddings are kept: the attack asks with 21 lists, over and over."""
MOST_WAITING = 16
"""Requests that may wait for the model; more are sent away for a second."""
CLOSING_SECONDS = 10.0
"""How long requests that are under way may take to end after a signal to stop."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Question(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    images: Annotated[list[str], Field(min_length=1, max_length=MOST_IMAGES)]
    prompts: Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)]


class _Service:
    """The model and its routes; the model works in one thread beside the event loop, which stays responsive."""

    def __init__(self, reference: ModelReference, device: str, rate: float | None) -> None:
        self._model = ClipModel(reference, device)
        self._texts = lru_cache(PROMPT_LISTS)(self._model.encode_texts)
        self._description = {
            "model": reference.default_name,
            "sha256": weights_sha256(reference),
            "limits": {"images": MOST_IMAGES, "prompts": MOST_PROMPTS, "bytes": MOST_BYTES},
        }
        self._thread = ThreadPoolExecutor(1, "model")
        self._texts(("a person",))  # a model whose training diverged is refused here
        self._waiting = 0
        self._rate, self._free_at = rate, 0.0

    async def describe(self, request: web.Request) -> web.Response:
        """What the model is, and how much a request may hold."""
        return web.json_response(self._description)

    async def answer(self, request: web.Request) -> web.Response:
        """The best prompt for each picture of a request."""
        if request.content_type != "application/json":  # which a web page of another site cannot send unasked
            return _problem(415, "the body is not application/json", "Send it as that.")
        if self._waiting >= MOST_WAITING:
            return _problem(503, "too many requests are waiting", "Come back later.", after=1)
        self._waiting += 1
        try:
            question = await self._in_thread(_question, await request.read())
            request["asked"] = f"pictures={len(question.images)} prompts={len(question.prompts)}"
            if pause := self._pause(len(question.images)):
                return _problem(429, f"more than {self._rate:g} pictures a second", "Wait.", after=math.ceil(pause))
            answers = await self._in_thread(self._best, question)
        finally:
            self._waiting -= 1
        return web.json_response({"answers": answers})

    def close(self) -> None:
        """Drop what waits for the model, and end its thread."""
        self._thread.shutdown(cancel_futures=True)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _pause(self, questions: int) -> float:
        """How long to wait before so many questions may be asked; 0 lets them pass and counts them."""
        now = time.monotonic()
        if self._rate is None or self._free_at <= now:
            self._free_at = now + questions / (self._rate or math.inf)
            return 0.0
        return self._free_at - now

    def _best(self, question: _Question) -> list[int]:
        images_PD = self._model.encode_images(_decoded(question.images))
        texts_KD = self._texts(tuple(question.prompts))
        best: list[int] = predict(images_PD, [texts_KD[None]])[:, 0].tolist()
        return best


def _question(body: bytes) -> _Question:
    try:
        return _Question.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the body"
        raise InvalidInputError(f"{field}: {first['msg'].lower()}", fix="See docs/black_box.md.") from None


def _decoded(images: Sequence[str]) -> Iterator[Image.Image]:
    """The pictures one after another, so that few of them are in memory."""
    for place, image in enumerate(images):
        try:
            picture, status = decode_picture(base64.b64decode(image, validate=True))
        except (binascii.Error, ValueError):  # ValueError: not ASCII
            raise InvalidInputError(f"images.{place}: not base64", fix="Send the picture's bytes in it.") from None
        if picture is None:
            raise InvalidInputError(f"images.{place}: the picture is {status}", fix="Send a PNG or JPEG.")
        yield picture


def _problem(status: int, what: str, fix: str, after: int | None = None) -> web.Response:
    headers = {} if after is None else {"Retry-After": str(after)}
    return web.json_response({"error": {"what": what, "fix": fix}}, status=status, headers=headers)


def _guard(token: str | None) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Checks the token, turns errors into the contract's, and logs a line for each request, without its content."""
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if token and not hmac.compare_digest(given, expected):
            response: web.StreamResponse = _problem(401, "the token is missing or wrong", "Send Authorization: Bearer.")
        else:
            response = await _answered(request, handler)
        seconds = time.perf_counter() - started
        line = f"{request.method} {request.path!r} {response.status} {request.get('asked', '')} {seconds:.3f}s"
        LOGGER.info(" ".join(line.split()))
        return response

    return guarded


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return _problem(413, f"the body is larger than {MOST_BYTES} bytes", "Send fewer pictures at a time.")
    except web.HTTPException as error:
        return _problem(error.status, error.reason.lower(), f"Ask GET {MODEL} or POST {ANSWERS}.")
    except IdiaError as error:
        return _problem(400, error.what, error.fix)


def _application(service: _Service, token: str | None) -> web.Application:
    application = web.Application(client_max_size=MOST_BYTES, middlewares=[_guard(token)])
    application.router.add_get(MODEL, service.describe)
    application.router.add_post(ANSWERS, service.answer)
    return application


async def _run(application: web.Application, name: str, host: str, port: int) -> None:
    """Serve until the process is told to stop; what is under way is finished first."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=CLOSING_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        address = runner.addresses[0]
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        sys.stdout.write(f"serving {name} at http://{shown}:{address[1]}\n")
        sys.stdout.flush()
        await stop.wait()
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}", fix="Choose another port.") from None
    finally:
        await runner.cleanup()


def serve(  # noqa: PLR0913 - options of a command
    reference: ModelReference,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "cpu",
    token_env: str | None = None,
    rate: float | None = None,
) -> None:
    """Offer a model as a black box until SIGINT or SIGTERM; prints the address when it is ready.

    With `token_env` only requests with the token in that environment variable are answered; `rate` is the most
    pictures a second. Port 0 is any free one. Raises `UsageError` for a token that is not set or a port that is taken,
    and what `ClipModel` raises.
    """
    token = os.environ.get(token_env, "") if token_env else None
    if token_env and not token:
        raise UsageError(f"the environment variable {token_env} holds no token", "--token-env", "Set it.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.propagate = False  # open_clip gives the root a handler of its own
    LOGGER.setLevel(logging.INFO)
    service = _Service(reference, device, rate)
    try:
        asyncio.run(_run(_application(service, token), reference.default_name, host, port))
    finally:
        service.close()
