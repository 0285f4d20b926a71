"""Fetching from the open web: only what is on it, never longer nor more than agreed.

A name is resolved once, the addresses are checked, and the connection goes to one that was checked: a name server that
gives another answer the next time leads nowhere else. Redirects are checked in the same way.
"""

import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from typing_extensions import Buffer

from idia_core.fetch_status import FetchStatus

PORTS = {"http": 80, "https": 443}
"""The schemes that are fetched, and their ports."""
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 10
PLAIN = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""Characters besides letters and digits that a URL is sent with as they are."""
HOST = re.compile("[!-~]+")
NOT_ON_THE_WEB = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48")))
"""Networks that Python's `is_global` lets pass: for protocols, relays and a translator's own use."""
TRANSLATED = ip_network("64:ff9b::/96")
"""IPv6 addresses behind which a translator (NAT64) finds an IPv4 address."""
HEAD_BYTES = 1 << 16
Address = IPv4Address | IPv6Address
Allowed = bool | frozenset[tuple[Address, int | None]]
"""Whether addresses that are not on the web may be reached: all, none, or these, with a port or with any."""


class Limits(NamedTuple):
    """How long and how much is waited for."""

    timeout_seconds: float
    """For a connection, and for the next bytes."""
    total_seconds: float
    """For all of it, redirects too."""
    max_bytes: int
    """Of an answer's body."""


class FetchError(Exception):
    """Why nothing was fetched; it ends in a row, never on a screen."""

    def __init__(self, status: FetchStatus, detail: str, http_status: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.http_status = status, detail, http_status


def parse_allowed(text: str) -> tuple[Address, int | None]:
    """The address and port of `127.0.0.1:8000`, `127.0.0.1` (any port) or `[::1]:8000`; ValueError for another text."""
    parts = urlsplit(f"//{text}")
    if parts.path or parts.query or parts.username is not None:
        raise ValueError(f"'{text}' is no address with a port")
    return ip_address(parts.hostname or ""), parts.port


def is_public(address: Address) -> bool:
    """True for an address on the public internet, where anybody may look; the inner one decides of one in another."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in TRANSLATED:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    if any(address in network for network in NOT_ON_THE_WEB):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def tidy_url(url: str) -> str:
    """The URL as it is sent: in ASCII, without fragment and password; what is escaped already stays so.

    Raises `FetchError` for a text that is no URL of a host, and for schemes other than http and https.
    """
    try:
        parts = urlsplit(url.strip())
        if parts.scheme and parts.scheme not in PORTS:
            raise FetchError(FetchStatus.BLOCKED_SCHEME, f"{parts.scheme}: only http and https are fetched")
        if not parts.scheme or not parts.hostname:
            raise FetchError(FetchStatus.BAD_URL, "no scheme and host")
        host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
        port = parts.port
        if not HOST.fullmatch(host):
            raise FetchError(FetchStatus.BAD_URL, "no name of a host")
    except ValueError as error:  # a port that is no number, brackets without an address, a label that is too long
        raise FetchError(FetchStatus.BAD_URL, str(error)) from None
    place = f"[{host}]" if ":" in host else host
    place += "" if port is None else f":{port}"
    query = f"?{quote(parts.query, safe=PLAIN)}" if parts.query else ""
    return f"{parts.scheme}://{place}{quote(parts.path, safe=PLAIN) or '/'}{query}"


class _Wire(io.RawIOBase):
    """The bytes that come over a connection, no later than a deadline."""

    def __init__(self, connected: socket.socket, timeout_seconds: float, deadline: float) -> None:
        super().__init__()
        self._socket, self._timeout_seconds, self._deadline = connected, timeout_seconds, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        self._socket.settimeout(_patience(self._timeout_seconds, self._deadline))
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        super().close()
        self._socket.close()


class _Socket:
    """What `http.client` needs of a connection; it is closed by whoever reads the answer."""

    def __init__(self, connected: socket.socket, wire: _Wire) -> None:
        self.sendall, self._wire = connected.sendall, wire

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode
        return io.BufferedReader(self._wire, HEAD_BYTES)

    def close(self) -> None:
        pass


class Answer:
    """An answer with a good status, of which only the head has been read."""

    def __init__(self, response: http.client.HTTPResponse, max_bytes: int) -> None:
        self._response, self._max_bytes = response, max_bytes
        self.status, self.headers = response.status, response.headers

    def read(self) -> bytes:
        """The body; raises `FetchError` where it is too large, late or not all there."""
        length, status = self._response.length, self.status
        if length is not None and length > self._max_bytes:
            raise FetchError(FetchStatus.TOO_LARGE, f"{length} bytes", status)
        with _as_fetch_errors(status):
            body = self._response.read(self._max_bytes + 1)
        if len(body) > self._max_bytes:
            raise FetchError(FetchStatus.TOO_LARGE, f"more than {self._max_bytes} bytes", status)
        if length is not None and len(body) < length:
            raise FetchError(FetchStatus.TRUNCATED, f"{len(body)} of {length} bytes", status)
        return body

    def close(self) -> None:
        """End the connection."""
        self._response.close()


class SafeFetcher:
    """Fetches URLs under limits and from public addresses only; threads may share one."""

    def __init__(self, limits: Limits, allowed: Allowed = False) -> None:
        self._limits, self._allowed, self._tls = limits, allowed, ssl.create_default_context()

    def open(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask for a URL that `tidy_url` gave, follow where it leads, and read the head of the last answer.

        Raises `FetchError` where there is none with a good status.
        """
        deadline = time.monotonic() + self._limits.total_seconds
        for _ in range(MOST_REDIRECTS + 1):
            response = self._ask(urlsplit(url), headers, deadline)
            status, location = response.status, response.headers.get("Location")
            if status not in REDIRECTS or location is None:
                break
            response.close()
            url = _target(url, location)
        else:
            raise FetchError(FetchStatus.HTTP_ERROR, f"more than {MOST_REDIRECTS} redirects", status)
        if not 200 <= status < 300:
            response.close()
            raise FetchError(FetchStatus.HTTP_ERROR, http.client.responses.get(status, ""), status)
        return Answer(response, self._limits.max_bytes)

    def _ask(self, url: SplitResult, headers: Mapping[str, str], deadline: float) -> http.client.HTTPResponse:
        host, port = str(url.hostname), url.port or PORTS[url.scheme]
        with _as_fetch_errors(), ExitStack() as until_answered:
            connected = until_answered.enter_context(self._connect(host, port, deadline))
            if url.scheme == "https":
                connected = until_answered.enter_context(self._tls.wrap_socket(connected, server_hostname=host))
            connection = http.client.HTTPConnection(host, port)
            connection.default_port = PORTS[url.scheme]  # so that the head names no other
            connection.sock = _Socket(connected, _Wire(connected, self._limits.timeout_seconds, deadline))
            place = url.path + (f"?{url.query}" if url.query else "")
            connection.request("GET", place, headers={**headers, "Connection": "close"})
            response = connection.getresponse()
            until_answered.pop_all()  # from here on whoever reads the answer closes the connection
            return response

    def _connect(self, host: str, port: int, deadline: float) -> socket.socket:
        """A connection to the first of the host's addresses that may be reached and answers."""
        failure: OSError | FetchError | None = None
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            address = ip_address(place[0])
            if not self._may_reach(address, port):
                failure = failure or FetchError(FetchStatus.BLOCKED_ADDRESS, f"{host} is at {address}")
                continue
            connected = socket.socket(family, kind, protocol)
            try:
                connected.settimeout(_patience(self._limits.timeout_seconds, deadline))
                connected.connect(place)
            except OSError as error:
                connected.close()
                failure = error
            else:
                return connected
        raise failure or FetchError(FetchStatus.NOT_FOUND_HOST, f"{host} has no address")

    def _may_reach(self, address: Address, port: int) -> bool:
        if isinstance(self._allowed, bool):
            return self._allowed or is_public(address)
        return is_public(address) or bool(self._allowed & {(address, port), (address, None)})


def _target(url: str, location: str) -> str:
    """The URL that a redirect leads to; `location` has a character for each byte of its header."""
    try:
        return tidy_url(urljoin(url, location.encode("latin-1").decode(errors="replace")))
    except ValueError as error:  # brackets without an address
        raise FetchError(FetchStatus.BAD_URL, str(error)) from None


def _patience(timeout_seconds: float, deadline: float) -> float:
    """How long to wait for the next bytes."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long in all")
    return min(timeout_seconds, left)


@contextmanager
def _as_fetch_errors(status: int | None = None) -> Iterator[None]:
    """Turn what the network raises into `FetchError`."""
    try:
        yield
    except TimeoutError as error:
        raise FetchError(FetchStatus.TIMEOUT, str(error), status) from None
    except socket.gaierror as error:
        gone = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
        kind = FetchStatus.NOT_FOUND_HOST if gone else FetchStatus.CONNECTION
        raise FetchError(kind, str(error.strerror)) from None
    except http.client.IncompleteRead as error:
        missing = "" if error.expected is None else f", {error.expected} bytes early"
        raise FetchError(FetchStatus.TRUNCATED, f"it ended amid a piece{missing}", status) from None
    except (OSError, http.client.HTTPException) as error:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FetchError(FetchStatus.CONNECTION, f"{type(error).__name__}: {what}", status) from None
