"""Fetching safely: which addresses are reached, how redirects are followed, and when enough is enough."""

import datetime as dt
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from idia_core.fetch_status import FetchStatus, may_change, may_change_soon
from idia_core.safe_fetching import (
    FetchError,
    Limits,
    SafeFetcher,
    is_public,
    parse_allowed,
    tidy_url,
)
from idia_core.safe_opener import FetchSettings, Opener, installed
from tests.picture_server import HUGE_BYTES, PictureServer, picture, served

QUICK = Limits(timeout_seconds=1, total_seconds=2, max_bytes=1_000_000)
NOWHERE: dict[str, str] = {}


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    """The misbehaving server."""
    with served() as running:
        yield running


def fetcher(server: PictureServer, limits: Limits = QUICK) -> SafeFetcher:
    """A fetcher that may reach that server, and nothing else off the web."""
    return SafeFetcher(limits, frozenset({parse_allowed(server.place)}))


def body(fetching: SafeFetcher, url: str) -> bytes:
    """The whole answer."""
    answer = fetching.open(url, NOWHERE)
    try:
        return answer.read()
    finally:
        answer.close()


def failure(fetching: SafeFetcher, url: str) -> tuple[FetchStatus, int | None]:
    """Why nothing is fetched."""
    with pytest.raises(FetchError) as caught:
        body(fetching, url)
    return caught.value.status, caught.value.http_status


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.9.9", "192.168.1.1", "127.0.0.1", "127.9.9.9", "0.1.2.3", "169.254.169.254"),
        "0.0.0.0",  # noqa: S104 - nobody binds to it
        *("100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1"),
        *("2001:db8::1", "100::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
        *("2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001::1"),
    ],
)
def test_what_is_not_on_the_web_is_not_public(address: str) -> None:
    """Private, loopback, link-local, multicast and reserved addresses, also wrapped in those of IPv6."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_on_the_web_is_public(address: str) -> None:
    """Whatever version of the protocol it is written in."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0"])
def test_no_spelling_of_an_address_gets_in(server: PictureServer, host: str) -> None:
    """The check is of what the system resolves it to, and no request comes."""
    asked = server.asked.total()
    status, _ = failure(SafeFetcher(QUICK), tidy_url(f"http://{host}:{server.server_port}/good/1.jpg"))
    assert status in (FetchStatus.BLOCKED_ADDRESS, FetchStatus.NOT_FOUND_HOST)
    assert host.startswith("[") or status is FetchStatus.BLOCKED_ADDRESS
    assert server.asked.total() == asked


def resolving(*rounds: list[str]) -> Any:
    """A stand-in for the name server, which no test can have answer as it likes: one list of addresses a question."""
    answers = iter(rounds)

    def resolve(_host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    return resolve


def test_a_name_is_resolved_once(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the connection goes to an address that was checked: another answer later on leads nowhere."""
    url = f"http://pictures.example:{server.server_port}/good/1.jpg"
    monkeypatch.setattr(socket, "getaddrinfo", resolving(["203.0.113.1"], ["127.0.0.1"]))
    assert failure(SafeFetcher(QUICK), url) == (FetchStatus.BLOCKED_ADDRESS, None)
    monkeypatch.setattr(socket, "getaddrinfo", resolving(["10.0.0.1", "127.0.0.1"]))
    assert body(fetcher(server), url) == picture(1)  # the other address is passed over


def test_only_the_port_that_is_named_may_be_reached(server: PictureServer) -> None:
    """Another server on the same address stays out of reach, also by a redirect; without a port any is meant."""
    with served() as other:
        url = other.url("good", 2)
        assert failure(fetcher(server), url) == (FetchStatus.BLOCKED_ADDRESS, None)
        assert other.asked.total() == 0
        for allowed in (True, frozenset({parse_allowed("127.0.0.1")})):
            assert body(SafeFetcher(QUICK, allowed), url) == picture(2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("inwards", (FetchStatus.BLOCKED_ADDRESS, None)),
        ("metadata", (FetchStatus.BLOCKED_ADDRESS, None)),
        ("to_file", (FetchStatus.BLOCKED_SCHEME, None)),
        ("to_ftp", (FetchStatus.BLOCKED_SCHEME, None)),
        ("loop", (FetchStatus.HTTP_ERROR, 302)),
        ("lost", (FetchStatus.HTTP_ERROR, 404)),
        ("astray", (FetchStatus.BAD_URL, None)),
    ],
)
def test_redirects_are_checked_likewise(
    server: PictureServer, kind: str, expected: tuple[FetchStatus, int | None]
) -> None:
    """Whatever they lead to."""
    assert failure(fetcher(server), server.url(kind, 3)) == expected


def test_a_redirect_is_followed(server: PictureServer) -> None:
    """Relative to where it came from."""
    assert body(fetcher(server), server.url("moved", 4)) == picture(4)


@pytest.mark.parametrize("kind", ["huge", "huge_untold"])
def test_what_is_too_large_is_left(server: PictureServer, kind: str) -> None:
    """By the length that it tells, or when it has brought too much; the rest is never sent."""
    before = server.sent_bytes
    assert failure(fetcher(server), server.url(kind, 5)) == (FetchStatus.TOO_LARGE, 200)
    time.sleep(0.2)
    assert server.sent_bytes - before < HUGE_BYTES / 10  # what the system holds between the two, at the most


@pytest.mark.parametrize(("kind", "http_status"), [("hang", None), ("drip", 200), ("slow_head", None)])
def test_time_is_limited(server: PictureServer, kind: str, http_status: int | None) -> None:
    """Of silence, of a body that drips, and of a head that does."""
    began = time.monotonic()
    assert failure(fetcher(server), server.url(kind, 6)) == (FetchStatus.TIMEOUT, http_status)
    assert 0.9 < time.monotonic() - began < 4


@pytest.mark.parametrize("kind", ["long_promise", "cut_chunks"])
def test_an_answer_that_ends_early_is_truncated(server: PictureServer, kind: str) -> None:
    """With a length that it told, or amid a piece."""
    assert failure(fetcher(server), server.url(kind, 7)) == (FetchStatus.TRUNCATED, 200)


def test_pieces_are_put_together(server: PictureServer) -> None:
    """Of an answer that tells its length piece by piece."""
    assert body(fetcher(server), server.url("chunked", 8)) == picture(8)


def test_hosts_that_are_not_there() -> None:
    """A name without an address, a port where nobody listens."""
    assert failure(SafeFetcher(QUICK), "http://nowhere.invalid/") in {
        (FetchStatus.NOT_FOUND_HOST, None),
        (FetchStatus.CONNECTION, None),  # no name server can be asked
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    assert failure(SafeFetcher(QUICK, allowed=True), f"http://{place}/") == (FetchStatus.CONNECTION, None)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (" http://Example.com ", "http://example.com/"),
        ("https://a.example/b c.jpg?d=é#part", "https://a.example/b%20c.jpg?d=%C3%A9"),
        ("http://a.example/%C3%A9%20(1)[2].jpg", "http://a.example/%C3%A9%20(1)[2].jpg"),
        ("http://bücher.example:8080/ü", "http://xn--bcher-kva.example:8080/%C3%BC"),
        ("http://user:secret@a.example/", "http://a.example/"),
        ("http://[2001:DB8::1]:80/", "http://[2001:db8::1]:80/"),
        ("http://a.example?q", "http://a.example/?q"),
    ],
)
def test_urls_are_sent_in_ascii(given: str, sent: str) -> None:
    """Escaped where they must be, without what is not for the server."""
    assert tidy_url(given) == sent


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("", FetchStatus.BAD_URL),
        ("picture.jpg", FetchStatus.BAD_URL),
        ("http:///picture.jpg", FetchStatus.BAD_URL),
        ("http://a..example/", FetchStatus.BAD_URL),
        (f"http://{'a' * 64}.example/", FetchStatus.BAD_URL),
        ("http://a.example:port/", FetchStatus.BAD_URL),
        ("http://a.example:99999/", FetchStatus.BAD_URL),
        ("http://[::1/", FetchStatus.BAD_URL),
        ("http://a.ex\0ample/", FetchStatus.BAD_URL),
        ("http://a example/", FetchStatus.BAD_URL),
        ("file:///etc/passwd", FetchStatus.BLOCKED_SCHEME),
        ("ftp://a.example/b.jpg", FetchStatus.BLOCKED_SCHEME),
        ("data:image/png;base64,AAAA", FetchStatus.BLOCKED_SCHEME),
        ("javascript:alert(1)", FetchStatus.BLOCKED_SCHEME),
    ],
)
def test_what_is_no_url_of_the_web_is_told(url: str, status: FetchStatus) -> None:
    """Without asking anybody."""
    with pytest.raises(FetchError) as caught:
        tidy_url(url)
    assert caught.value.status is status


def test_addresses_are_named_with_a_port_or_without() -> None:
    """Host names and paths are none."""
    assert parse_allowed("127.0.0.1:80") == (IPv4Address("127.0.0.1"), 80)
    assert parse_allowed("10.0.0.5") == (IPv4Address("10.0.0.5"), None)
    assert parse_allowed("[::1]:8000") == (IPv6Address("::1"), 8000)
    for wrong in ("localhost:80", "127.0.0.1/a", "127.0.0.1:x", "", "a@127.0.0.1"):
        with pytest.raises(ValueError, match=r".+"):
            parse_allowed(wrong)


def test_what_may_change() -> None:
    """Servers get better and connections come back; what a server has decided stays so."""
    statuses = [(status, None) for status in FetchStatus if status is not FetchStatus.HTTP_ERROR]
    errors = [(FetchStatus.HTTP_ERROR, code) for code in (301, 400, 401, 403, 404, 408, 410, 425, 429, 451, 500, 503)]
    soon = {(status, code) for status, code in [*statuses, *errors] if may_change_soon(status, code)}
    later = {(status, code) for status, code in [*statuses, *errors] if may_change(status, code)}
    passing = {(FetchStatus.HTTP_ERROR, code) for code in (408, 425, 429, 500, 503)}
    assert soon == passing | {(FetchStatus.CONNECTION, None), (FetchStatus.TRUNCATED, None)}
    assert later == soon | {(FetchStatus.TIMEOUT, None), (FetchStatus.NOT_FOUND_HOST, None)}


def test_the_opener_is_there_only_while_it_is_wanted(server: PictureServer) -> None:
    """Before and after, `urllib` is as it was, also when the block ends with an error."""
    opener = Opener([], FetchSettings(), resize=True)
    urllib.request.install_opener(own := urllib.request.build_opener())
    with installed(opener):
        assert urllib.request._opener is opener
    with pytest.raises(ZeroDivisionError), installed(opener):
        _ = 1 / 0
    assert urllib.request._opener is own
    with urllib.request.urlopen(server.url("good", 9)) as answer:  # noqa: S310 - the test's own server
        assert answer.read() == picture(9)
    urllib.request.install_opener(None)


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["Host"].encode())

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of an HTTPS server for `localhost`, and its certificate, which nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    own = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "certificate.pem").write_bytes(pem)
    (tmp_path / "both.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *own) + pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "both.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that trust nobody
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, tmp_path / "certificate.pem"
        server.shutdown()


def test_https_is_verified(secure: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate must be trusted, and be of the host that was asked for."""
    port, certificate = secure
    url = f"https://localhost:{port}/"
    assert failure(SafeFetcher(QUICK, allowed=True), url) == (FetchStatus.CONNECTION, None)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert body(SafeFetcher(QUICK, allowed=True), url) == f"localhost:{port}".encode()
    assert failure(SafeFetcher(QUICK, allowed=True), f"https://127.0.0.1:{port}/") == (FetchStatus.CONNECTION, None)
