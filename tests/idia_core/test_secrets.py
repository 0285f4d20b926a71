"""Passwords, tokens and keys are taken out of what is told, and nothing else is."""

import pytest

from idia_core.errors import MissingInputError
from idia_core.secrets import value_without_secrets, without_secrets, words_without_secrets

SECRETS = {
    "https://ann:s3cret@models.example/clip": "https://***@models.example/clip",
    "s3://AKIAABCDEFGHIJKLMNOP:s3cret@bucket/out": "s3://***@bucket/out",
    "https://x.example/a?token=s3cret&page=2": "https://x.example/a?token=***&page=2",
    "https://b.example/a.tar?X-Amz-Credential=s3cret%2Feu&X-Amz-Signature=s3cret": (
        "https://b.example/a.tar?X-Amz-Credential=***&X-Amz-Signature=***"
    ),
    "https://b.blob.example/a?sv=2&sig=s3cret": "https://b.blob.example/a?sv=2&sig=***",
    "attack.resources.api_key=s3cret": "attack.resources.api_key=***",
    "AWS_SECRET_ACCESS_KEY=s3cret python": "AWS_SECRET_ACCESS_KEY=*** python",
    "the key AKIAABCDEFGHIJKLMNOP was refused": "the key *** was refused",
    "Authorization: Bearer s3cret.s3cret": "Authorization: Bearer ***",
    "{password: s3cret}": "{password: ***}",
    "{host: a, api_key: s3cret}": "{host: a, api_key: ***}",
    '{"a": 1, "password": "s3cret"}': '{"a": 1, "password": "***"}',
    "a: 1\n  token: s3cret\n": "a: 1\n  token: ***\n",
    "hf_s3crets3crets3crets3cret": "***",
}
HARMLESS = (
    "idia run cc3m.yaml --set out=s3://bucket/cc3m --address http://127.0.0.1:8265",
    "attack.resources.black_box.token_env=CLIP_TOKEN",
    "--token-env CLIP_TOKEN",
    "tokens=77 keys=3 secretary=Ann",
    "a photo of {}",
    "nobody is let in without a valid token: status 401",
    "ann@example.org",
    "no Parquet file matches 'x/*.parquet' (stage scan, input captions). Check the path.",
    "https://example.org/@ann/1?page=2",
    "",
)


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_hidden_and_the_rest_stays(text: str) -> None:
    """In URLs, queries, settings, headers, and where a key is known by its letters; a second time changes nothing."""
    assert without_secrets(text) == SECRETS[text]
    assert without_secrets(SECRETS[text]) == SECRETS[text]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    """Paths, names of environment variables and words that only look alike are told."""
    assert without_secrets(text) == text


def test_a_command_line_hides_the_word_after_an_option() -> None:
    """`--password s3cret` has its value in a word of its own."""
    words = ["idia", "run", "--password", "s3cret", "--token-env", "CLIP_TOKEN", "--set", "a.token=s3cret"]
    told = ["idia", "run", "--password", "***", "--token-env", "CLIP_TOKEN", "--set", "a.token=***"]
    assert list(words_without_secrets(words)) == told


def test_fields_that_are_called_after_a_secret_are_hidden() -> None:
    """However deep they are; numbers and other fields stay."""
    value = {"a": [{"password": "s3cret", "token_env": "T", "token": None}], "url": "https://a:b@c/", "tokens": 77}
    assert value_without_secrets(value) == {
        "a": [{"password": "***", "token_env": "T", "token": None}],
        "url": "https://***@c/",
        "tokens": 77,
    }


def test_an_error_tells_no_secret() -> None:
    """Neither of what, nor of where, whatever is done with its text."""
    error = MissingInputError("no answer from https://ann:s3cret@h/x", "https://ann:s3cret@h/x", "Set token=s3cret.")
    assert "s3cret" not in str(error)
    assert "https://***@h/x" in str(error)
