"""`idia erase`: no sealed table holds the person afterwards, others' rows are as they were, and a record stays."""

import hashlib
import json
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

import jobs.erase
from idia_core.config import Study
from idia_core.errors import BusyError, MissingInputError, UsageError
from idia_core.storage import as_path, sole_writer
from jobs.cli import app
from jobs.erase import erase_people
from jobs.plan import State, plan_study
from jobs.run import run_study

QUIET = Console(quiet=True)
STAGES: dict[str, dict[str, Any]] = {
    "world": {
        "people": 4,
        "training_pictures": 2,
        "attack_pictures": 2,
        "background_pairs": 3,
        "planted_pictures": 2,
        "caption_rows": 3000,
        "web": {"pairs": 4, "others": 5},
    },
    "scan": {"inputs": {"captions": "world.captions", "identities": "world.identities"}},
    "select": {
        "inputs": {
            "identities": "world.identities",
            "occurrences": "scan.occurrences",
            "pictures": "world.pictures",
            "pairs": "world.pairs",
        },
    },
}
WHO = ("identity", "name")


@pytest.fixture(scope="module")
def made(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 - it is used by the run
    """What the study writes, of which each test gets a copy."""
    out = tmp_path_factory.mktemp("made") / "out"
    run_study(Study(name="small", out=str(out), stages=STAGES), QUIET)
    return out


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Study:
    """A study of four people that has run."""
    shutil.copytree(made, tmp_path / "out")
    return Study(name="small", out=str(tmp_path / "out"), stages=STAGES)


@pytest.fixture
def name(study: Study) -> str:
    """The last person, of whom there is most: also pictures in the background, under captions without a name."""
    return str(table(study, "world/identities")["name"].to_list()[-1])


def table(study: Study, path: str) -> pl.DataFrame:
    """All rows of a table."""
    return pl.read_parquet(f"{study.out}/{path}/*.parquet")


def pictures_of(study: Study, name: str) -> set[bytes]:
    """All the pictures of a person that the world has drawn: own ones, pairs, in the background, on the web."""
    found = {image for path in ("pictures", "pairs") for image in images(study, path, "identity", {name})}
    for truth, shown in (("appearances", "background"), ("links", "web")):
        keys = set(table(study, f"world/{truth}").filter(identity=name)["key"])
        found |= images(study, shown, "key", keys)
    return found


def images(study: Study, path: str, column: str, values: set[str]) -> set[bytes]:
    """The pictures of some rows of a table of the world."""
    return set(table(study, f"world/{path}").filter(pl.col(column).is_in(values))["image"])


def every_content(out: Path) -> Iterator[tuple[Path, bytes]]:
    """The bytes of every file below a folder, those of Parquet value by value."""
    for path in (p for p in out.rglob("*") if p.is_file()):
        yield path, str(path.relative_to(out)).encode()
        if path.suffix != ".parquet":
            yield path, path.read_bytes()
            continue
        for column in pl.read_parquet(path).iter_columns():
            for value in column:
                yield path, value if isinstance(value, bytes) else str(value).encode()


def traces(out: Path, name: str, pictures: set[bytes]) -> list[Path]:
    """The files that name a person, in any case and with anything between the words, or hold one of the pictures."""
    named = re.compile(rb"(?i)\b" + rb"[\W_]*".join(word.encode() for word in name.split()) + rb"(?![a-z])")
    return [
        path
        for path, content in every_content(out)
        if named.search(content) or any(picture in content for picture in pictures)
    ]


def others(out: Path, name: str) -> dict[str, pl.DataFrame]:
    """The rows of all tables with a column of people that are somebody else's."""
    frames = {str(path.relative_to(out)): pl.read_parquet(path) for path in sorted(out.rglob("*.parquet"))}
    return {
        path: frame.filter(pl.col(column) != name)
        for path, frame in frames.items()
        for column in WHO
        if column in frame.columns
    }


def contents(out: Path) -> dict[str, str]:
    """The hash of every file but seals and records."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.suffix not in {".json", ".jsonl"})
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_no_byte_is_left_of_the_person_and_the_others_rows_are_as_they_were(study: Study, name: str) -> None:
    """Also of pictures under captions without a name, and of files of a picture each."""
    out, pictures = Path(study.out), pictures_of(study, name)
    before, held = others(out, name), {path.relative_to(out).parts[0] for path in traces(out, name, pictures)}
    assert held == {"world", "scan", "select"}
    assert len(pictures) > 8
    erase_people(study, [name], QUIET)
    assert traces(out, name, pictures) == []
    after = others(out, name)
    assert after.keys() == before.keys()
    assert all(after[path].equals(frame) for path, frame in before.items())
    assert len(table(study, "world/identities")) == 3
    assert len(table(study, "world/background")) == 3 + len(table(study, "world/appearances"))


def test_all_stages_stay_sealed_and_no_run_brings_the_person_back(study: Study, name: str) -> None:
    """The seals tell of the new files and of the erasure; the next run has nothing to do."""
    out = Path(study.out)
    erase_people(study, [name], QUIET)
    erased = contents(out)
    plans = run_study(study, QUIET)
    assert {plan.state for plan in plans.values()} == {State.DONE}
    assert contents(out) == erased
    for plan in plans.values():
        seal = plan.seal()
        assert len(seal.facts["erased"]) == 1
        assert seal.counts["rows_erased"] > 0
        for entry in (file for receipt in seal.receipts for file in receipt.files):
            content = (out / plan.name / entry.path).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)
            if entry.path.endswith(".parquet"):
                assert len(pl.read_parquet(out / plan.name / entry.path)) == entry.rows


def test_the_record_says_what_was_done_and_names_nobody(study: Study, name: str) -> None:
    """When, by whom, where and how much; who knows the name can find the record. It is its owner's alone."""
    erase_people(study, [name], QUIET)
    path = Path(study.out) / "erasures.jsonl"
    (record,) = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert record["begun"] < record["done"]
    assert record["stages"].keys() == {"world", "scan", "select"}
    assert record["stages"]["select"] == {"files": 2, "rows": 2}
    digest = hashlib.sha256(f"{record['person']['salt']}\0{name.casefold()}".encode()).hexdigest()
    assert record["person"]["sha256"] == [digest]
    assert not any(word in path.read_text(encoding="utf-8") for word in name.split())
    for private in (path, *(Path(study.out) / "select/selection").iterdir()):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_a_dry_run_tells_and_leaves_all_as_it_is(study: Study, name: str, tmp_path: Path) -> None:
    """By the command, with the numbers that the record will have."""
    before = contents(Path(study.out))
    (tmp_path / "study.json").write_text(study.model_dump_json(), encoding="utf-8")
    said = CliRunner().invoke(app, ["erase", str(tmp_path / "study.json"), "--identity", name, "--dry-run"])
    assert said.exit_code == 0
    assert "select: 2 rows in 2 files" in said.output
    assert contents(Path(study.out)) == before
    assert not (Path(study.out) / "erasures.jsonl").exists()
    assert not list(Path(study.out).glob(".erasing*"))


class Killed(BaseException):
    """Ends an erasure where a kill might."""


def dies_at(call: int, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, of which one call never returns."""
    calls = iter(range(1000))

    def until_then(*given: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return work(*given)

    return until_then


@pytest.mark.parametrize("death", ["rewrite 0", "rewrite 3", "rewrite 9", "write_manifest 1", "_record 0"])
def test_an_interrupted_erasure_is_completed_by_the_next(study: Study, name: str, death: str, made: Path) -> None:
    """Wherever it was: files written, some seals written, all but the record. The result is as if it never had been."""
    out, pictures = Path(study.out), pictures_of(study, name)
    step, call = death.split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.erase, step, dies_at(int(call), getattr(jobs.erase, step)))
        with pytest.raises(Killed):
            erase_people(study, [name], QUIET)
    with pytest.raises(BusyError, match=r"that was interrupted.*run the same `idia erase`"):
        run_study(study, QUIET)
    erase_people(study, [name], QUIET)
    assert traces(out, name, pictures) == []
    assert not list(out.glob(".erasing*"))
    assert len((out / "erasures.jsonl").read_text().splitlines()) == 1
    assert {plan.state for plan in plan_study(study).values()} == {State.DONE}
    undisturbed = out.parent / "undisturbed"
    shutil.copytree(made, undisturbed)
    erase_people(study.model_copy(update={"out": str(undisturbed)}), [name], QUIET)
    assert contents(out) == contents(undisturbed)


def test_a_name_that_nobody_has_is_an_error_with_near_ones(study: Study, name: str) -> None:
    """Once erased, it is no error: it is done."""
    with pytest.raises(UsageError, match=f"called '{name[:-1]}'.*Did you mean '{name}'"):
        erase_people(study, [name[:-1]], QUIET)
    first, *_ = table(study, "world/identities")["name"].to_list()
    erase_people(study, [name, first], QUIET)
    erase_people(study, [name], QUIET)
    assert len(table(study, "world/identities")) == 2
    assert len((Path(study.out) / "erasures.jsonl").read_text().splitlines()) == 2


def test_nothing_is_erased_while_a_run_writes_or_where_nothing_is(study: Study, name: str, tmp_path: Path) -> None:
    """Each an error of its own; no folder is made."""
    with sole_writer(as_path(study.out)), pytest.raises(BusyError):
        erase_people(study, [name], QUIET)
    with pytest.raises(MissingInputError, match="no sealed stage"):
        erase_people(study.model_copy(update={"out": str(tmp_path / "none")}), [name], QUIET)
    assert not (tmp_path / "none").exists()
