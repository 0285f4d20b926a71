"""S3 as fsspec knows it, with more patience, and errors that say which object it was and what to do.

`idia_core/storage.py` tells fsspec to use it for every `s3://` URL; without the extra `s3` nothing here is loaded.
"""

import os
from http import HTTPStatus
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from s3fs import S3FileSystem

from idia_core.errors import StorageError

ATTEMPTS = 8
"""Of each request, half a minute together; s3fs tries five times again where the answer was to slow down."""
PASSING = ("ExpiredToken", "RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "TooManyRequests")
"""What a store says that would do as it is told at another time."""


def _retries() -> dict[str, Any]:
    """The user's own settings of botocore are left as they are."""
    if "AWS_MAX_ATTEMPTS" in os.environ or "AWS_RETRY_MODE" in os.environ:
        return {}
    return {"retries": {"mode": "standard", "max_attempts": ATTEMPTS}}


class S3(S3FileSystem):  # type: ignore[misc]  # it comes without types
    """Raises `StorageError` where a request has failed for good; what is not there stays `FileNotFoundError`."""

    def __init__(self, *args: Any, config_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, config_kwargs=_retries() | (config_kwargs or {}), **kwargs)

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Every request of s3fs comes through here."""
        try:
            return await super()._call_s3(method, *args, **kwargs)
        except (BotoCoreError, OSError) as error:
            if trouble := _trouble(error):
                names = [kwargs[name] for name in ("Bucket", "Key", "Prefix") if kwargs.get(name)]
                what, fix = trouble
                raise StorageError(
                    f"{method.replace('_', ' ')} failed: {what}", f"s3://{'/'.join(names)}", fix
                ) from None
            raise


def _trouble(error: BotoCoreError | OSError) -> tuple[str, str] | None:
    """What went wrong for good, and how to go on; None for an answer that s3fs itself knows what to do with."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return (
            "there are no credentials",
            "Give the machine a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    later = "Is the store well, and within reach? Run again when it is: what is done stays."
    if isinstance(error, BotoCoreError):
        return f"{type(error).__name__}, {error}".rstrip("."), later
    if isinstance(error.__cause__, ClientError):
        answer = error.__cause__.response
        status, code = answer["ResponseMetadata"].get("HTTPStatusCode", 0), answer["Error"].get("Code", "")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or code.startswith(PASSING):
            return f"status {status}, {code}", later
    return None
