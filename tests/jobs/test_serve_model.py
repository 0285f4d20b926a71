"""`idia serve-model`: a real server in a process of its own, asked by the real client."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from idia_core.attack import predict
from idia_core.black_box import BlackBox
from idia_core.errors import InvalidInputError, UsageError
from idia_core.http_retries import RetrySettings
from idia_core.model_reference import ModelReference, architectures
from idia_core.models import ClipModel
from idia_core.prompts import TEMPLATES, fill
from jobs.serve_model import MOST_BYTES, MOST_IMAGES, MOST_WAITING, serve

open_clip = pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
PICTURES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (40 + i, 90 - i, 3), np.uint8) // (1 + i % 5))
    for i in range(70)
]
NAMES = [f"{first} {last}" for first in ("Ann", "Zoë", "漢", "Bo", "Cy") for last in ("Ash", "Oak", "Elm", "Müller")]
START = """
import sys
from idia_core.model_reference import ModelReference
from jobs.serve_model import serve
rate = float(sys.argv[2]) if sys.argv[2] else None
serve(ModelReference.parse(sys.argv[1]), port=0, token_env=sys.argv[3] or None, rate=rate)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights."""
    architectures()
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(open_clip.create_model("idia-rn-tiny").state_dict(), path)
    return path


@contextmanager
def running(checkpoint: Path, rate: str = "", token: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its URL."""
    command = [sys.executable, "-c", START, f"idia-rn-tiny:{checkpoint}", rate, "BOX_TOKEN" if token else ""]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=-1, stderr=-1, text=True, env=os.environ | {"BOX_TOKEN": token}
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving idia-rn-tiny_weights at http://127.0.0.1:"), process.communicate()
            yield process, line.split()[-1]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url(checkpoint: Path) -> Iterator[str]:
    """The URL of a server for the whole module."""
    with running(checkpoint) as (_, address):
        yield address


def png(picture: Image.Image) -> bytes:
    """The picture without loss."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def posted(url: str, body: Any, **headers: str) -> requests.Response:
    """The answer to a body that is sent as it is, or as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(
        f"{url}/v1/answers", data=content, headers={"Content-Type": "application/json"} | headers, timeout=30
    )


def error_of(response: requests.Response) -> str:
    """What a refused request is told."""
    error: dict[str, str] = response.json()["error"]
    assert set(error) == {"what", "fix"}
    assert error["fix"]
    return error["what"]


def b64(*contents: bytes) -> list[str]:
    """Pictures as a body holds them."""
    return [base64.b64encode(content).decode() for content in contents]


def test_it_says_what_it_is(url: str, checkpoint: Path) -> None:
    """The model's name, the hash of its weights, and the limits."""
    told = BlackBox(url).describe()
    assert told["model"] == "idia-rn-tiny_weights"
    assert told["sha256"] == sha256(checkpoint.read_bytes()).hexdigest()
    assert told["limits"] == {"images": 64, "prompts": 10_000, "bytes": 64 << 20}


def test_it_answers_as_the_model_does(url: str, checkpoint: Path) -> None:
    """For each picture and template the black box answers what the local model predicts."""
    model = ClipModel(ModelReference.parse(f"idia-rn-tiny:{checkpoint}"))
    texts_NKD = model.encode_texts(fill(TEMPLATES[:6], NAMES)).reshape(6, len(NAMES), -1)
    expected_PN = predict(model.encode_images(PICTURES), [texts_NKD])
    box, encoded = BlackBox(url), [png(picture) for picture in PICTURES]
    assert len(encoded) > MOST_IMAGES
    answers_NP = [box.answer(encoded, fill([template], NAMES)) for template in TEMPLATES[:6]]
    np.testing.assert_array_equal(np.array(answers_NP).T, expected_PN)
    assert len(np.unique(expected_PN)) > 3


def test_more_than_can_wait(url: str) -> None:
    """When many requests wait already, further ones are sent away for a second; those that wait are answered."""
    body = json.dumps({"images": b64(*(png(picture) for picture in PICTURES[:64])), "prompts": NAMES}).encode()
    with ThreadPoolExecutor(2 * MOST_WAITING) as pool:
        responses = list(pool.map(lambda _: posted(url, body), range(2 * MOST_WAITING)))
    refused = [response for response in responses if response.status_code == 503]
    assert 0 < len(refused) <= MOST_WAITING
    assert {(response.headers["Retry-After"], error_of(response)) for response in refused} == {
        ("1", "too many requests are waiting")
    }
    answers = [response.json()["answers"] for response in responses if response not in refused]
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]) == 64


def test_many_ask_at_once(url: str) -> None:
    """Clients at the same time get their own answers; those that are sent away come back."""
    box, settings = BlackBox(url), RetrySettings(retries=20)
    expected = box.answer([png(picture) for picture in PICTURES[:24]], NAMES)

    def ask(place: int) -> list[int]:
        return BlackBox(url, settings).answer([png(PICTURES[place])], NAMES)

    with ThreadPoolExecutor(24) as pool:
        assert [answer for answers in pool.map(ask, range(24)) for answer in answers] == expected


def test_a_picture_that_cannot_be_decoded(url: str) -> None:
    """The error names the picture's place, and the client passes it on."""
    good = png(PICTURES[0])
    for broken, reason in ((b"no picture", "broken"), (b"", "empty"), (good[:500], "truncated")):
        response = posted(url, {"images": b64(good, broken), "prompts": NAMES})
        assert (response.status_code, error_of(response)) == (400, f"images.1: the picture is {reason}")
    with pytest.raises(InvalidInputError, match=r"status 400, images\.1: the picture is broken"):
        BlackBox(url).answer([good, b"no picture"], NAMES)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body: invalid json"),
        (b"\xff", "the body: invalid json"),
        ([1], "the body: input should be an object"),
        ({"prompts": ["a"]}, "images: field required"),
        ({"images": b64(b"x")}, "prompts: field required"),
        ({"images": [], "prompts": ["a"]}, "images: list should have at least 1 item"),
        ({"images": b64(b"x"), "prompts": []}, "prompts: list should have at least 1 item"),
        ({"images": b64(b"x") * 65, "prompts": ["a"]}, "images: list should have at most 64 items"),
        ({"images": b64(b"x"), "prompts": ["a"] * 10_001}, "prompts: list should have at most 10000 items"),
        ({"images": [1], "prompts": ["a"]}, "images.0: input should be a valid string"),
        ({"images": ["n@t"], "prompts": ["a"]}, "images.0: not base64"),
        ({"images": ["é"], "prompts": ["a"]}, "images.0: not base64"),
        ({"images": b64(b"x"), "prompts": ["a"], "shell": 1}, "shell: extra inputs are not permitted"),
    ],
)
def test_a_body_that_is_no_question(url: str, body: Any, message: str) -> None:
    """What is not the contract's JSON is refused with the field that is wrong."""
    response = posted(url, body)
    assert response.status_code == 400
    assert error_of(response).startswith(message)


def test_what_else_is_refused(url: str) -> None:
    """Other paths, methods and types of content, and a body that is too large."""
    question = {"images": b64(png(PICTURES[0])), "prompts": NAMES}
    plain = posted(url, question, **{"Content-Type": "text/plain"})
    assert (plain.status_code, error_of(plain)) == (415, "the body is not application/json")
    unknown = requests.get(f"{url}/", timeout=30)
    assert (unknown.status_code, error_of(unknown)) == (404, "not found")
    method = requests.get(f"{url}/v1/answers", timeout=30)
    assert (method.status_code, error_of(method)) == (405, "method not allowed")
    large = posted(url, b" " * (MOST_BYTES + 1))
    assert (large.status_code, error_of(large)) == (413, f"the body is larger than {MOST_BYTES} bytes")


def test_a_token_is_wanted(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right token nothing is told; with it there are answers, and it is not logged."""
    with running(checkpoint, token="s3cret") as (process, address):  # noqa: S106 - of this test
        for given in ("", "wrong", "s3cre", "s3crets", "é"):
            monkeypatch.setenv("GIVEN", given)
            settings = RetrySettings(token_env="GIVEN" if given.isascii() and given else None)
            with pytest.raises(UsageError, match="status 401, the token is missing or wrong"):
                BlackBox(address, settings).describe()
        monkeypatch.setenv("GIVEN", "s3cret")
        box = BlackBox(address, RetrySettings(token_env="GIVEN"))  # noqa: S106
        assert box.answer([png(PICTURES[0])], NAMES) == box.answer([png(PICTURES[0])], NAMES)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "s3cret" not in log
    lines = log.splitlines()
    assert [line.split()[2:5] for line in lines[:5]] == [["GET", "'/v1/model'", "401"]] * 5
    assert " POST '/v1/answers' 200 pictures=1 prompts=20 " in lines[-1]
    assert len(lines) == 8


def test_a_rate(checkpoint: Path) -> None:
    """Questions above the rate are sent away for as long as it takes; the client obeys."""
    with running(checkpoint, rate="4") as (process, address):
        box, shown = BlackBox(address), [png(picture) for picture in PICTURES[:4]]
        started = time.monotonic()
        answers = [box.answer(shown, NAMES) for _ in range(3)]
        assert time.monotonic() - started >= 1.9
        assert answers[0] == answers[1] == answers[2]
        refused = posted(address, {"images": b64(shown[0]), "prompts": NAMES})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert error_of(refused) == "more than 4 pictures a second"
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert log.count(" 429 ") >= 2


def test_what_cannot_be_served(checkpoint: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken, a token that is not set and a black box are usage errors."""
    reference = ModelReference.parse(f"idia-rn-tiny:{checkpoint}")
    port = int(url.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"^cannot listen on 127.0.0.1:{port}: "):
        serve(reference, port=port)
    monkeypatch.delenv("BOX_TOKEN", raising=False)
    with pytest.raises(UsageError, match=r"^the environment variable BOX_TOKEN holds no token"):
        serve(reference, token_env="BOX_TOKEN")  # noqa: S106
    with pytest.raises(UsageError, match=r"^a black box has no weights"):
        serve(ModelReference.parse(url))
