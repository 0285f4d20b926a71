"""Small inputs of `pairs` for tests: candidates, the ledger and the tars of their download; how the stage is run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from idia_core.config import Study
from idia_core.download import LEDGER
from idia_core.fetch_status import FetchStatus
from idia_core.identities import IDENTITIES, PICTURES
from idia_core.manifest import Manifest
from idia_core.retrieval import CANDIDATE_PAIRS, RETRIEVED
from idia_core.tars import TarWriter
from jobs.run import run_study
from tests.pipelines.audits import QUIET

ANN, BOB, IDA, ZOE = "Ann Lee", "Bob Ray", "Ida Moss", "Zoë Ball"
EVERYBODY = (ANN, BOB, IDA, ZOE)
PER_TAR = 4
"""URLs of a tar."""
Served = Mapping[str, bytes | FetchStatus]
"""What the web has at each URL: a picture, or a reason why there is none."""


def write_download(root: Path, served: Served) -> None:
    """`root`/ledger and `root`/tars as `download` writes them, for URLs in that order."""
    rows, urls = list[dict[str, Any]](), list(served.items())
    for folder in ("ledger", "tars"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for part, first in enumerate(range(0, len(urls), PER_TAR)):
        mine = list(enumerate(urls))[first : first + PER_TAR]
        rows = [_ledger_row(number, url, what) for number, (url, what) in mine]
        pq.write_table(pa.Table.from_pylist(rows, LEDGER), root / f"ledger/part-{part:05d}.parquet")
        with (root / f"tars/part-{part:05d}.tar").open("wb") as file, TarWriter(file) as tar:
            for number, (url, what) in mine:
                if isinstance(what, bytes):
                    tar.add(f"{number:09d}", "jpg", what, f"first caption of {url}".encode())


def _ledger_row(number: int, url: str, what: bytes | FetchStatus) -> dict[str, Any]:
    row = {"number": number, "url": url, "detail": "", "http_status": 200}
    if isinstance(what, bytes):
        return row | {"status": "ok", "bytes": len(what), "key": f"{number:09d}"}
    is_error = what is FetchStatus.HTTP_ERROR
    return row | {
        "status": str(what),
        "detail": "Not Found" if is_error else "",
        "http_status": 404 if is_error else 200,
    }


def write_candidates(root: Path, kept: Mapping[str, Sequence[str]], spare: int = 2) -> None:
    """`root`/candidates, `root`/retrieved and `root`/identities: each person's URLs, and some spare ones."""
    rows, counts = list[dict[str, Any]](), list[dict[str, Any]]()
    for identity in EVERYBODY:
        urls = kept.get(identity, ())
        more = [f"http://spare/{identity}/{i}" for i in range(spare if urls else 0)]
        for place, url in enumerate([*urls, *more]):
            about = {"identity": identity, "place": place, "picture": "0.jpg", "rank": place + 1, "similarity": 0.3}
            status = "kept" if place < len(urls) else "spare"
            rows.append(about | {"url": url, "caption": f"{identity} at {url}", "status": status})
        unique = len(urls) + len(more)
        found = {"pictures": 1, "retrieved": 10 * unique, "name_in_caption": unique + 1, "duplicate_url": 1}
        found |= {"duplicate_caption": 0, "unique": unique, "kept": len(urls), "other_people": 0}
        counts.append({"identity": identity} | found)
    people = [{"identity": identity, "name": identity} for identity in EVERYBODY]
    for folder, table in (
        ("candidates", pa.Table.from_pylist(rows, CANDIDATE_PAIRS)),
        ("retrieved", pa.Table.from_pylist(counts, RETRIEVED)),
        ("identities", pa.Table.from_pylist(people, IDENTITIES)),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / folder / "part-00000.parquet")


def write_pictures(root: Path, pictures: Sequence[tuple[str, bytes]]) -> str:
    """`root`/pictures: attack pictures, each a person's and the file; returns the folder."""
    rows = [
        {"identity": identity, "picture": f"{place}.jpg", "status": "ok", "image": content}
        for place, (identity, content) in enumerate(pictures)
    ]
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, PICTURES), root / "pictures/part-00000.parquet")
    return str(root / "pictures")


def write_selection(root: Path, roles: Mapping[str, str]) -> str:
    """`root`/selection: who has which role; returns the folder."""
    (root / "selection").mkdir(parents=True, exist_ok=True)
    table = pa.table({"identity": [*roles], "role": [*roles.values()]})
    pq.write_table(table, root / "selection/part-00000.parquet")
    return str(root / "selection")


def study(root: Path, out: str = "out", **fields: Any) -> Study:
    """The stage alone."""
    inputs = {name: f"{root}/{name}" for name in ("candidates", "retrieved", "ledger", "tars", "identities")}
    inputs |= fields.pop("inputs", {})
    inputs = {name: place for name, place in inputs.items() if place}
    return Study(name="test", out=str(root / out), stages={"pairs": {"inputs": inputs, **fields}})


def run(root: Path, out: str = "out", **fields: Any) -> Manifest:
    """Run it; returns the seal."""
    return run_study(study(root, out, **fields), QUIET)["pairs"].seal()


def table(root: Path, name: str, out: str = "out") -> pl.DataFrame:
    """A table that the stage wrote."""
    return pl.concat([pl.read_parquet(part) for part in sorted((root / out / "pairs" / name).glob("*.parquet"))])


def reasons(root: Path, out: str = "out") -> dict[tuple[str, str], tuple[str, str]]:
    """Why, by person and URL, a candidate is no pair, and the detail."""
    rows = table(root, "rejected", out).rows(named=True)
    found = {(row["identity"], row["url"]): (row["reason"], row["detail"]) for row in rows}
    assert len(found) == len(rows)
    return found
