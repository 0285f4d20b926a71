"""What became of a URL, and which of that may be different another time."""

from enum import StrEnum


class FetchStatus(StrEnum):
    """Why there is no picture of a URL; `OK` where there is one."""

    OK = "ok"
    # The URL, and where it leads.
    BAD_URL = "bad_url"
    BLOCKED_SCHEME = "blocked_scheme"
    BLOCKED_ADDRESS = "blocked_address"
    NOT_FOUND_HOST = "not_found_host"
    # The way.
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"  # the answer ended before the length that it told
    # The answer.
    HTTP_ERROR = "http_error"
    OPTED_OUT = "opted_out"
    TOO_LARGE = "too_large"  # in bytes or in pixels
    EMPTY = "empty"
    WRONG_HASH = "wrong_hash"
    # The picture.
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED_IMAGE = "truncated_image"
    TOO_SMALL = "too_small"
    BAD_ASPECT = "bad_aspect"


BUSY = (408, 425, 429)
"""HTTP statuses below 500 after which the same request may do better."""
SOON = (FetchStatus.CONNECTION, FetchStatus.TRUNCATED)
LATER = (*SOON, FetchStatus.TIMEOUT, FetchStatus.NOT_FOUND_HOST)


def may_change_soon(status: FetchStatus, http_status: int | None) -> bool:
    """True where it is worth while to ask again in a second."""
    return status in SOON or _is_passing(status, http_status)


def may_change(status: FetchStatus, http_status: int | None) -> bool:
    """True where it is worth while to ask again another day."""
    return status in LATER or _is_passing(status, http_status)


def _is_passing(status: FetchStatus, http_status: int | None) -> bool:
    return status is FetchStatus.HTTP_ERROR and http_status is not None and (http_status >= 500 or http_status in BUSY)
