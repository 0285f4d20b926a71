"""The stage `presence`: planted people counted to the digit, and sheets, the same however the work is split."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from upath import UPath

from idia_core.config import Resources
from idia_core.drawing import draw_face, encode_jpeg, invent_people
from idia_core.errors import InvalidInputError
from idia_core.identities import IDENTITIES, PICTURES
from idia_core.manifest import digest_of
from idia_core.presence import AGREEMENT, CANDIDATES, CROPS, FACES, PRESENCE
from pipelines.dataflow import run_phase
from pipelines.presence import STAGE, PresenceConfig
from pipelines.progress import Progress
from pipelines.stage import ResolvedInput, StageContext

PLANTED = {"Ada Lee": (20, 0), "Bob Ray": (20, 3), "Eva Holm": (40, 24), "Ida Moss": (0, 0), "Tim <b>O'Dell": (20, 1)}
"""Each person's candidates, and on how many of them the person is."""
PEOPLE = [f"id {name}" for name in PLANTED]
CROPS_EACH = 8
Made = dict[str, bytes]


def base_rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of `faces`' tables: each person's candidates in a part of the base, each found twice."""
    faces, candidates, agreement, crops = (list[dict[str, Any]]() for _ in range(4))
    drawn = invent_people(len(PLANTED), 5, [*"FMFFM"])
    box = {"x": 1, "y": 1, "width": 40, "height": 40, "detector": "mtcnn", "detector_score": 0.99}
    for part, (name, (looked, hits)) in enumerate(PLANTED.items()):
        who = f"id {name}"
        for row in range(looked):
            place = {"part": part, "row": row, "key": f"{part}-{row:05d}"}
            near = {"identity": who, "source": "base.tar", "similarity": 0.5} | place
            candidates += [near | {"picture": f"{i}.jpg", "rank": row + 1 + i} for i in range(2)]
            agreement.append({"identity": who, "clip_identity": who if row % 10 == 0 else PEOPLE[0]} | place)
            seen = [who if row < hits else None, "id of somebody else"]
            faces += [
                place | box | {"source": "base.tar", "face": i, "identity": named, "identity_score": 0.9 - row / 100}
                for i, named in enumerate(seen)
            ]
            if row % 2 == 0 and row // 2 < CROPS_EACH:
                image = encode_jpeg(draw_face(drawn[part], [9, row])) if row else b"torn"
                crops.append(place | {"face": 0, "identity": who, "image": image})
    candidates.append({**candidates[0], "identity": "id of a stranger"})
    return {"faces": faces, "candidates": candidates, "agreement": agreement, "crops": crops}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of the stage, each in three parts."""
    folder = tmp_path_factory.mktemp("base")
    rows = base_rows()
    rows["identities"] = [{"identity": f"id {name}", "name": name} for name in PLANTED]
    drawn = invent_people(len(PLANTED), 5, [*"FMFFM"])
    rows["pictures"] = [
        {"identity": who, "picture": f"{i}.jpg", "status": "ok" if i else "broken"}
        | {"image": encode_jpeg(draw_face(drawn[place], [3, i])) if i else None}
        for place, who in enumerate(PEOPLE)
        for i in range(5)
    ]
    schemas = {"faces": FACES, "candidates": CANDIDATES, "agreement": AGREEMENT, "crops": CROPS}
    schemas |= {"identities": IDENTITIES, "pictures": PICTURES}
    for name, schema in schemas.items():
        (folder / name).mkdir()
        table, third = pa.Table.from_pylist(rows[name], schema), len(rows[name]) // 3 + 1
        for part in range(3):
            pq.write_table(table.slice(part * third, third), folder / f"{name}/part-{part:05d}.parquet")
    return folder


def context(base: Path, out: Path, leave_out: tuple[str, ...] = (), **config: Any) -> StageContext:
    """The stage's context with all inputs but some."""
    inputs = {}
    for name in STAGE.inputs:
        if name not in leave_out:
            files = tuple(sorted(UPath(base / name).glob("*.parquet"), key=str))
            inputs[name] = ResolvedInput(f"x.{name}", UPath(base / name), files, digest_of(name))
    return StageContext("presence", PresenceConfig.model_validate(config), inputs, UPath(out))


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Callable[..., tuple[Made, dict[str, int]]]:
    """Run the stage; returns what it writes, by path, and its counts."""

    def run(out: str, workers: int = 1, leave_out: tuple[str, ...] = (), **config: Any) -> tuple[Made, dict[str, int]]:
        here = context(base, tmp_path / out, leave_out, **config)
        progress = Progress(Console(file=io.StringIO()))
        receipts = [r for p in STAGE.phases for r in run_phase(p, here, Resources(workers=workers), progress)]
        files = [file for file in (tmp_path / out).rglob("*.*") if "_receipts" not in file.parts]
        counts = dict[str, int]()
        for receipt in receipts:
            for reason, count in receipt.counts.items():
                counts[reason] = counts.get(reason, 0) + count
        return {str(file.relative_to(tmp_path / out)): file.read_bytes() for file in files}, counts

    return run


def presence_of(made: Made) -> dict[str, dict[str, Any]]:
    """The rows of the table, by identity."""
    parts = [pq.read_table(pa.BufferReader(made[path])) for path in sorted(made) if path.startswith("presence/")]
    assert all(part.schema == PRESENCE for part in parts)
    rows = pa.concat_tables(parts).to_pylist()
    assert [row["identity"] for row in rows] == PEOPLE
    assert pl.read_csv(made["csv/presence.csv"]).to_dicts() == rows
    return {row["identity"][3:]: row for row in rows}


@pytest.mark.usefixtures("local_ray")
def test_planted_people_are_counted(make: Callable[..., tuple[Made, dict[str, int]]]) -> None:
    """Everybody's rates are those planted; a stranger's candidates and a torn crop are counted, nobody is dropped."""
    made, counts = make("out")
    presence = presence_of(made)
    for name, (looked, hits) in PLANTED.items():
        row = presence[name]
        assert (row["candidates"], row["faces"], row["hits"]) == (looked, 2 * looked, hits)
        assert row["hit_rate"] == (hits / looked if looked else None)
        agreed = looked // 10 if name != "Ada Lee" else looked
        assert (row["clip_hits"], row["clip_rate"]) == (agreed, agreed / looked if looked else None)
    assert counts == {
        "rows_in": 5, "rows_kept": 4, "no_candidates": 1, "candidates_of_others": 1, "unreadable_crops": 4,
    }  # fmt: skip


@pytest.mark.usefixtures("local_ray")
def test_the_bytes_do_not_depend_on_how_the_work_is_split(make: Callable[..., tuple[Made, dict[str, int]]]) -> None:
    """A person at a time by two workers gives the pages and the CSV of all at once by one."""
    one, two = make("one")[0], make("two", workers=2, people_per_split=1)[0]
    sheets = ["sheets/index.html", *(f"sheets/people/{place:05d}.html" for place in range(1, 6))]
    same = {path: content for path, content in one.items() if not path.startswith("presence/")}
    assert sorted(same) == ["csv/presence.csv", *sheets]
    assert {path: content for path, content in two.items() if not path.startswith("presence/")} == same
    assert presence_of(one) == presence_of(two)


@pytest.mark.usefixtures("local_ray")
def test_a_sheet_shows_hits_and_near_misses(make: Callable[..., tuple[Made, dict[str, int]]]) -> None:
    """Bob is on three pictures, of which crops 0 (torn) and 2 were kept; six others are near misses, four shown."""
    made, _ = make("out", misses_shown=4, pictures_shown=3)
    bob = made["sheets/people/00002.html"].decode()
    assert bob.count('<li class="hit">') == 2
    assert bob.count('<li class="miss">') == 4
    assert "2 more faces are not shown here." in bob
    assert bob.count("cannot be read") == 1
    assert bob.count("data:image/jpeg") == 3 + 1 + 4
    assert [bob.count(f"<code>1-{row:05d}</code>") for row in (0, 2, 4, 6, 8, 10, 12, 14)] == [1] * 6 + [0] * 2
    index = made["sheets/index.html"].decode()
    places = [index.index(f'href="people/{place:05d}.html"') for place in (1, 5, 2, 3, 4)]
    assert places == sorted(places)
    assert "Tim &lt;b&gt;O&#39;Dell" in index


@pytest.mark.usefixtures("local_ray")
def test_all_of_a_base(make: Callable[..., tuple[Made, dict[str, int]]]) -> None:
    """Without candidates everybody's are all pictures with a face, and CLIP says nothing; crops may be missing too."""
    made, counts = make("out", leave_out=("candidates", "agreement", "crops", "pictures"))
    for name, (_, hits) in PLANTED.items():
        row = presence_of(made)[name]
        assert (row["candidates"], row["faces"], row["hits"], row["hit_rate"]) == (100, 200, hits, hits / 100)
        assert row["clip_hits"] is None
    assert (counts["rows_kept"], counts["no_candidates"]) == (5, 0)
    assert b"data:image" not in b"".join(made.values())
    assert b"Near misses" not in made["sheets/people/00002.html"]


def test_agreement_needs_candidates(base: Path, tmp_path: Path) -> None:
    """CLIP's answers about candidates without the candidates are an error before anything is read."""
    plan = STAGE.phases[0].plan
    with pytest.raises(InvalidInputError, match="there is `agreement` but no `candidates`"):
        list(plan(context(base, tmp_path, leave_out=("candidates",))))


def test_nobody_to_look_for(base: Path, tmp_path: Path) -> None:
    """An empty list of people is an error, not an empty success."""
    here = context(base, tmp_path)
    pq.write_table(IDENTITIES.empty_table(), tmp_path / "nobody.parquet")
    nobody = ResolvedInput("x", UPath(tmp_path), (UPath(tmp_path / "nobody.parquet"),), "")
    empty = StageContext("presence", here.config, {**here.inputs, "identities": nobody}, here.folder)
    with pytest.raises(InvalidInputError, match="there is nobody to look for"):
        list(STAGE.phases[0].plan(empty))
