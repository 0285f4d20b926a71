"""What may not be told: passwords, tokens and keys are taken out of words that go to a manifest, a log or a page."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

HIDDEN = "***"
_NAMES = r"[\w.-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|credentials?|signature)"
_PATTERNS = (
    (re.compile(r"(?<=://)[^/?#@\s'\"]+@"), f"{HIDDEN}@"),  # a user and a password before a host
    (
        re.compile(rf"(?i)(?<![\w.-])({_NAMES}\s*=\s*['\"]?)(?!\s)[^&\s'\",;}}\]]+"),
        rf"\1{HIDDEN}",
    ),  # a setting, a query
    (
        re.compile(rf"(?im)(^\s*|[{{,]\s*|['\"])({_NAMES}['\"]?\s*:\s*['\"]?)(?!\s)[^&\s'\",;}}\]]+"),
        rf"\1\2{HIDDEN}",
    ),  # a field of YAML or JSON, but not "the token: it is wrong"
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),  # a header
    (
        re.compile(r"(?i)([?&](?:sig|key|x-goog-credential|x-amz-credential)=)[^&\s'\"]+"),
        rf"\1{HIDDEN}",
    ),  # a signed URL
    (
        re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}"),
        HIDDEN,
    ),  # known keys
)
_OPTION = re.compile(rf"(?i)--?{_NAMES}")


def without_secrets(text: str) -> str:
    """The text without the passwords, tokens and keys that can be told from other words; the rest is as it was."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def words_without_secrets(words: Iterable[str]) -> Iterator[str]:
    """A command line without them, also where an option such as `--password` has its value in the next word."""
    hide = False
    for word in words:
        yield HIDDEN if hide else without_secrets(word)
        hide = bool(_OPTION.fullmatch(word))


def value_without_secrets(value: Any) -> Any:
    """A JSON-like value whose strings are without them, and whose fields that are called after a secret are hidden."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: _field(str(key), found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [value_without_secrets(found) for found in value]
    return value


def _field(name: str, value: Any) -> Any:
    secret = isinstance(value, str) and value and re.fullmatch(f"(?i){_NAMES}", name)
    return HIDDEN if secret else value_without_secrets(value)
