"""Fetching with img2dataset: an outcome for each URL, and the picture that it should be."""

import hashlib
import io
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from idia_core.download import QUIET, Fetched, FetchSettings, FetchStatus, Wanted, Way, fetch, load_img2dataset
from idia_core.errors import StorageError, UsageError
from idia_core.images import ORIENTATION
from tests.picture_server import KINDS, TRUTHS, PictureServer, picture, served

RETRIED = ("broken", "busy", "long_promise", "cut_chunks", "reset")
"""Kinds that are asked for again at once, in vain."""


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    """The misbehaving server."""
    with served() as running:
        yield running


def settings(server: PictureServer, **fields: Any) -> FetchSettings:
    """Settings that let the server be reached, and have little patience."""
    given = {"allow_private_addresses": (server.place,), "timeout_seconds": 4, "total_seconds": 6} | fields
    return FetchSettings(**given)


def fetched(server: PictureServer, urls: list[str], folder: Path, way: Way = Way(), **fields: Any) -> list[Fetched]:  # noqa: B008 - a tuple
    """What becomes of URLs."""
    wanted = [Wanted(number, url, None) for number, url in enumerate(urls)]
    return list(fetch(wanted, settings(server, **fields), folder, way))


@pytest.fixture(scope="module")
def outcomes(server: PictureServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fetched]:
    """What becomes of a URL of each kind."""
    urls = [server.url(kind, number) for number, kind in enumerate(KINDS)]
    found = fetched(server, urls, tmp_path_factory.mktemp("kinds"))
    return dict(zip(KINDS, found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_misbehaviour_has_its_status(outcomes: dict[str, Fetched], kind: str) -> None:
    """And there is a picture exactly where the status is ok."""
    found = outcomes[kind]
    assert found.number == list(KINDS).index(kind)
    assert (found.status, found.http_status) == TRUTHS[kind]
    assert (found.image is not None) == (found.status is FetchStatus.OK)


@pytest.mark.usefixtures("outcomes")
def test_nothing_is_asked_for_again_that_stays_as_it_is(server: PictureServer) -> None:
    """What may do better gets two further tries; one that does is asked no more."""
    for number, kind in enumerate(KINDS):
        tries = 3 if kind in RETRIED else 11 if kind == "loop" else 2 if kind == "flaky" else 1
        assert server.asked[f"/{kind}/{number}.jpg"] == tries, kind


def test_the_file_as_it_came_is_described(outcomes: dict[str, Fetched]) -> None:
    """Its hash, bytes and pixels, also where it is not wanted."""
    content = picture(0)
    found = outcomes["good"]
    with Image.open(io.BytesIO(content)) as opened:
        assert (found.width, found.height) == opened.size
    assert (found.sha256, found.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    page, lost = outcomes["page"], outcomes["not_found"]
    assert page.sha256 == hashlib.sha256(b"<!DOCTYPE html><p>It was here").hexdigest()
    assert (page.width, page.height) == (None, None)
    assert (lost.sha256, lost.bytes, lost.detail) == (None, None, "Not Found")


def test_pictures_are_scaled_down_and_encoded_by_img2dataset(server: PictureServer, tmp_path: Path) -> None:
    """To the longest side, never up; the bytes are OpenCV's own."""
    urls = [server.url("good", number) for number in range(4)]
    for found in fetched(server, urls, tmp_path, longest_side=150):
        original = cv2.imdecode(np.frombuffer(picture(found.number), np.uint8), cv2.IMREAD_UNCHANGED)
        if max(original.shape) > 150:
            original = cv2.resize(original, (150, 150), interpolation=cv2.INTER_AREA)
        expected = cv2.imencode(".jpg", original, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        assert found.image == expected
        assert found.width == len(picture_of(picture(found.number)))


def picture_of(content: bytes) -> Any:
    """The pixels of a file."""
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened.convert("RGB"))


def test_files_come_as_they_are_on_request(server: PictureServer, tmp_path: Path) -> None:
    """Byte for byte, and with the same statuses."""
    urls = [server.url(kind, 3) for kind in ("good", "page", "cut", "moved", "opted_out")]
    found = fetched(server, urls, tmp_path, Way(resize=False))
    assert [one.image for one in found] == [picture(3), None, None, picture(3), None]
    assert [one.status for one in found] == [TRUTHS[kind][0] for kind in ("good", "page", "cut", "moved", "opted_out")]


def test_the_hash_is_checked_where_it_is_known(server: PictureServer, tmp_path: Path) -> None:
    """Of the file as it comes; a row without a hash is not checked."""
    right, wrong = hashlib.sha256(picture(1)).hexdigest(), hashlib.sha256(b"").hexdigest()
    wanted = [Wanted(i, server.url("good", 1) + f"?{i}", sha256) for i, sha256 in enumerate((right, wrong, None))]
    found = list(fetch(wanted, settings(server), tmp_path))
    assert [one.status for one in found] == [FetchStatus.OK, FetchStatus.WRONG_HASH, FetchStatus.OK]
    assert {one.sha256 for one in found} == {right}
    assert found[1].detail == f"{wrong} was expected"


def test_opt_outs_may_be_passed_over(server: PictureServer, tmp_path: Path) -> None:
    """Only where the settings say so."""
    (found,) = fetched(server, [server.url("opted_out", 2)], tmp_path, respect_opt_out=False)
    assert found.status is FetchStatus.OK
    assert found.image is not None


def test_forms_that_are_not_wanted_are_told(server: PictureServer, tmp_path: Path) -> None:
    """Drawn pictures are square, of 128 to 256 pixels."""
    url = server.url("good", 5)
    assert fetched(server, [url], tmp_path, min_side=257)[0].status is FetchStatus.TOO_SMALL
    assert fetched(server, [url], tmp_path, max_bytes=1000)[0].status is FetchStatus.TOO_LARGE


def test_urls_that_are_none_have_their_rows(server: PictureServer, tmp_path: Path) -> None:
    """Among those that are; the same URL may be there twice, and a fragment matters to nobody."""
    good = server.url("good", 6)
    urls = ["", "ftp://a.example/b.jpg", f"{good}#a", "http://a..b/", good, good, f" {good}\n"]
    found = fetched(server, urls, tmp_path)
    bad, ok = FetchStatus.BAD_URL, FetchStatus.OK
    assert [one.status for one in found] == [bad, FetchStatus.BLOCKED_SCHEME, ok, bad, ok, ok, ok]
    assert len({one.image for one in found if one.image}) == 1


def test_a_list_without_urls_needs_nobody(server: PictureServer, tmp_path: Path) -> None:
    """Nothing is fetched."""
    assert fetched(server, [], tmp_path) == []


def test_the_number_of_threads_changes_nothing(server: PictureServer, tmp_path: Path) -> None:
    """But the time it takes; what is told on the way ends with all of them."""
    kinds = ("good", "not_found", "moved", "cut", "chunked", "opted_out")
    urls = [server.url(kind, number) for number in range(10) for kind in kinds]
    told = list[tuple[int, int]]()
    one = fetched(server, urls, tmp_path, Way(threads=1, tell=lambda done, ok: told.append((done, ok))))
    assert fetched(server, urls, tmp_path, Way(threads=32)) == one
    assert [done for done, _ in told] == list(range(1, len(urls) + 1))
    assert told[-1][1] == sum(found.status is FetchStatus.OK for found in one) == 30


def test_requests_wait_at_the_same_time(tmp_path: Path) -> None:
    """Twenty that take 0.2 seconds each are done in less than one."""
    with served(latency_seconds=0.2) as slow:
        urls = [slow.url("good", number) for number in range(20)]
        fetched(slow, urls[:1], tmp_path)  # img2dataset is loaded
        began = time.monotonic()
        assert all(one.status is FetchStatus.OK for one in fetched(slow, urls, tmp_path))
        assert time.monotonic() - began < 2


def test_a_picture_on_its_side_comes_upright(
    server: PictureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its EXIF says; the ledger tells the upright size."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    buffer = io.BytesIO()
    wide = Image.fromarray(np.repeat(np.arange(120, dtype=np.uint8)[None] * 2, 80, 0)).convert("RGB")
    wide.save(buffer, "JPEG", exif=exif.tobytes(), quality=95)
    monkeypatch.setitem(
        KINDS, "turned", (lambda handler, _n, _b: handler.answer(buffer.getvalue()), FetchStatus.OK, 200)
    )
    (found,) = fetched(server, [server.url("turned", 0)], tmp_path)
    assert (found.width, found.height) == (80, 120)
    assert found.image is not None
    upright = picture_of(found.image)
    assert upright.shape == (120, 80, 3)
    assert upright[0].mean() < 20
    assert upright[-1].mean() > 200


def test_urllib_is_as_it_was_afterwards(server: PictureServer, tmp_path: Path) -> None:
    """And the environment keeps nothing of what img2dataset was loaded with."""
    before = urllib.request._opener
    fetched(server, [server.url("good", 0)], tmp_path)
    assert urllib.request._opener is before
    assert not set(QUIET) & set(os.environ)


def test_a_missing_img2dataset_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.setitem(sys.modules, "img2dataset.downloader", None)
    with pytest.raises(UsageError, match=r"idia\[download\]"):
        load_img2dataset()


def test_bugs_are_no_fate_of_a_url(server: PictureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """img2dataset takes every error for that of the URL; what is none of ours ends the fetching."""
    monkeypatch.setattr("idia_core.safe_opener.look_at", lambda *_: {}["form"])
    with pytest.raises(RuntimeError, match=r"'form', at http.*/good/0.jpg"):
        fetched(server, [server.url("good", 0)], tmp_path)


def test_a_full_disk_is_told(server: PictureServer, tmp_path: Path) -> None:
    """img2dataset alone would print it and go on without the pictures."""
    (tmp_path / "pictures").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="no room"):
        fetched(server, [server.url("good", number) for number in range(12)], tmp_path)


@pytest.mark.parametrize("wrong", [["localhost:80"], ["127.0.0.1:x"], "yes please"])
def test_wrong_addresses_are_settings_errors(wrong: Any) -> None:
    """Not something that comes up an hour later."""
    with pytest.raises(ValidationError):
        FetchSettings(allow_private_addresses=wrong)
