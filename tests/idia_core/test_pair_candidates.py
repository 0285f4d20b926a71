"""Candidates are put together with the ledger and the tars of their own download, and with no others."""

import polars as pl
import pytest

from idia_core.base_samples import BaseSample
from idia_core.download import LEDGER
from idia_core.errors import InvalidInputError
from idia_core.pair_candidates import FOUND, LISTED, check_counts, find_pictures, list_pictures
from idia_core.sample_status import SampleStatus
from idia_core.tars import Place


def ledger(*rows: tuple[str, int | None, str, str | None]) -> pl.DataFrame:
    """Rows of a ledger: status, HTTP status, detail and key, with URLs `u0` and so on."""
    given = [
        {"number": n, "url": f"u{n}", "status": status, "http_status": code, "detail": detail, "key": key}
        for n, (status, code, detail, key) in enumerate(rows)
    ]
    return pl.DataFrame(given, schema=pl.DataFrame(LEDGER.empty_table()).schema)


def sample(key: str, place: Place | None) -> BaseSample:
    """A sample of a tar whose picture lies there."""
    return BaseSample(key, b"", b"", "jpg", place, None, SampleStatus.OK, None)


MIXED = ledger(("ok", 200, "", "k0"), ("http_error", 404, "Not Found", None), ("timeout", None, "", None))


def test_a_url_has_its_pictures_place_or_its_reason() -> None:
    """In the ledger's order; an error of the server's is told by its number."""
    listed = list_pictures(MIXED, [sample("k0", Place(512, 7))], "/a.tar")
    assert listed.columns == LISTED.names
    assert listed.rows() == [
        (0, "u0", "ok", "", "/a.tar", 512, 7),
        (1, "u1", "http_error", "404 Not Found", None, None, None),
        (2, "u2", "timeout", "", None, None, None),
    ]


@pytest.mark.parametrize("there", [[], [sample("k0", None)], [sample("k0", Place(0, 1)), sample("k9", Place(1, 1))]])
def test_a_tar_of_another_ledger_is_refused(there: list[BaseSample]) -> None:
    """One that lacks a picture, and one that has another."""
    with pytest.raises(InvalidInputError, match=r"1 pictures are in the ledger or in the tar.*/a\.tar"):
        list_pictures(MIXED, there, "/a.tar")


def candidates(*rows: tuple[str, int, str]) -> pl.DataFrame:
    """Rows of identity, place and URL."""
    return pl.DataFrame(rows, schema=["identity", "place", "url"], orient="row").with_columns(caption=pl.lit("c"))


def test_every_candidate_has_what_became_of_its_url() -> None:
    """By identity and place, one URL for two people included; white space around a URL is none of it."""
    listed = list_pictures(MIXED, [sample("k0", Place(512, 7))], "/a.tar")
    found = find_pictures(candidates(("b", 1, "u0 "), ("b", 0, "u2"), ("a", 0, "u0")), listed)
    assert found.columns == FOUND.names
    assert found.select("identity", "place", "number", "picture_at").rows() == [
        ("a", 0, 0, 512),
        ("b", 0, 2, None),
        ("b", 1, 0, 512),
    ]


def test_what_does_not_belong_together_is_refused() -> None:
    """A URL that was not asked for, one that was asked for twice, and a candidate that is there twice."""
    listed = list_pictures(MIXED, [sample("k0", Place(512, 7))], "/a.tar")
    with pytest.raises(InvalidInputError, match="1 of 2 candidates have URLs that are not in it, first u7"):
        find_pictures(candidates(("a", 0, "u0"), ("a", 1, "u7")), listed)
    with pytest.raises(InvalidInputError, match="two rows have the URL u0"):
        find_pictures(candidates(("a", 0, "u0")), pl.concat([listed, listed]))
    with pytest.raises(InvalidInputError, match="two candidates have the place 0 of 'a'"):
        find_pictures(candidates(("a", 0, "u0"), ("a", 0, "u1")), listed)


def test_candidates_are_as_many_as_were_counted() -> None:
    """Of everybody, whichever table lacks them."""
    mine = candidates(("a", 0, "u0"), ("a", 1, "u1"))
    check_counts(mine, pl.DataFrame({"identity": ["a", "b"], "kept": [2, 0]}))
    with pytest.raises(InvalidInputError, match="'a' has 2 candidates, and 3 by `retrieved`"):
        check_counts(mine, pl.DataFrame({"identity": ["a"], "kept": [3]}))
    with pytest.raises(InvalidInputError, match="'a' has 2 candidates, and 0 by"):
        check_counts(mine, pl.DataFrame({"identity": ["b"], "kept": [0]}))
    with pytest.raises(InvalidInputError, match="'b' has 0 candidates, and 1 by"):
        check_counts(mine, pl.DataFrame({"identity": ["a", "b"], "kept": [2, 1]}))
