"""The stage `evidence`: pages and audit.json from other stages' tables, the same however the work is split."""

import html
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from upath import UPath

from idia_core.audit_json import from_json
from idia_core.audit_tables import judge_tables
from idia_core.config import Resources
from idia_core.errors import MissingInputError
from idia_core.identities import PICTURES
from idia_core.manifest import InputRecord, Manifest, Provenance, digest_of, write_manifest
from idia_core.prompts import TEMPLATES
from idia_core.statistics import favourites, judge
from pipelines.dataflow import run_phase
from pipelines.evidence import STAGE, EvidenceConfig, _command
from pipelines.models import MODELS
from pipelines.progress import Progress
from pipelines.stage import ResolvedInput, StageContext
from tests.audits import PEOPLE, RULES, tables

ARGV = (
    "/home/cleo starr/bin/idia",
    "audit",
    "--people",
    "Cleo Starr",
    "--out",
    "x",
    "--set",
    "attack.resources.cpus=2",
)


def seal(out: Path, stage: str, config: dict[str, object], inputs: dict[str, str]) -> None:
    """A manifest such as a run leaves behind."""
    made = Provenance(argv=ARGV, commit="abc", dirty=False, python="3.11", versions={}, started="now", seconds=1.0)
    manifest = Manifest(
        stage=stage,
        version=1,
        fingerprint=digest_of(stage),
        config=config,
        resources={},
        inputs={name: InputRecord(source=source, digest="f6" * 32, files=1) for name, source in inputs.items()},
        counts={"rows_in": 1},
        receipts=(),
        provenance=made,
    )
    write_manifest(UPath(out / stage), manifest)


def picture(shade: int) -> bytes:
    """A small picture unlike others."""
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (shade % 256, 90, 60)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `models`, `people`, `attack` and `judge` leave: tables in two parts each, and their seals."""
    out = tmp_path_factory.mktemp("study")
    found = tables(models=("large", "small"), panel=230)
    votes = found.votes.to_pylist()
    shown = sorted({(row["identity"], row["image"]) for row in votes})
    pictures = [
        {"identity": identity, "picture": name, "status": "ok", "image": picture(i)}
        for i, (identity, name) in enumerate(shown)
    ]
    pictures.append({"identity": f"id {PEOPLE[0]}", "picture": "torn.jpg", "status": "broken", "image": None})
    models = [{"model": m, "reference": f"A:/x/{m}.pt", "architecture": "A", "sha256": "c3" * 32} for m in found.models]
    written = {
        "models/models": pa.Table.from_pylist(models, MODELS),
        "people/pictures": pa.Table.from_pylist(pictures, PICTURES),
        "attack/asked": found.asked,
        "attack/names": found.names,
        "attack/votes": found.votes,
        "attack/panel": found.panel,
        "attack/panel_votes": found.panel_votes,
        "judge/verdicts": judge(found, RULES),
        "judge/favourites": favourites(found, RULES),
    }
    for place, rows in written.items():
        (out / place).mkdir(parents=True)
        half = rows.num_rows // 2
        for number, part in enumerate((rows.slice(0, half), rows.slice(half))):
            pq.write_table(part, out / place / f"part-{number:05d}.parquet", row_group_size=400)
    seal(out, "models", {}, {})
    seal(out, "people", {}, {})
    seal(out, "attack", {"templates": list(TEMPLATES)}, {"models": "models.models", "pictures": "people.pictures"})
    seal(out, "judge", {"seed": RULES.seed, "rules": RULES.model_dump() | {"seed": 0}}, {"votes": "attack.votes"})
    return out


def context(study: Path, name: str, **config: object) -> StageContext:
    """The stage's context, writing beside the others."""
    sources = {
        "models": "models.models", "asked": "attack.asked", "pictures": "people.pictures", "names": "attack.names",
        "votes": "attack.votes", "verdicts": "judge.verdicts", "favourites": "judge.favourites",
        "panel_votes": "attack.panel_votes", "panel_identities": "attack.panel",
    }  # fmt: skip
    inputs = {}
    for field, source in sources.items():
        folder = UPath(study / source.replace(".", "/"))
        files = tuple(sorted(folder.glob("*.parquet"), key=str))
        inputs[field] = ResolvedInput(source, folder, files, digest_of(field))
    return StageContext("evidence", EvidenceConfig.model_validate(config), inputs, UPath(study / name))


def written(context: StageContext, workers: int) -> dict[str, bytes]:
    """What the stage writes, by path."""
    for phase in STAGE.phases:
        run_phase(phase, context, Resources(workers=workers), Progress(Console(file=io.StringIO())))
    folder = Path(context.folder.path)
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*.*")
        if "_receipts" not in file.parts
    }


@pytest.mark.usefixtures("local_ray")
def test_the_pages_are_the_same_however_the_work_is_split(study: Path) -> None:
    """One page a person, one for all and audit.json; equal bytes for one worker and two, and any people a split."""
    one = written(context(study, "one", people_per_split=64), 1)
    two = written(context(study, "two", people_per_split=1), 2)
    pages = {path: content for path, content in one.items() if path.startswith("page/")}
    assert sorted(pages) == ["page/audit.json", "page/index.html", *(f"page/people/{n:05d}.html" for n in range(1, 7))]
    assert {path: content for path, content in two.items() if path.startswith("page/")} == pages


@pytest.mark.usefixtures("local_ray")
def test_the_file_and_the_pages_hold_what_the_stages_found(study: Path) -> None:
    """Judging audit.json gives the stage's verdicts; hashes, seals, pictures and the command are there."""
    pages = written(context(study, "shown", title="Six people"), 2)
    audit = from_json(pages["page/audit.json"], "audit.json")
    assert audit.rules == RULES
    assert (
        judge(judge_tables(audit), audit.rules).to_pylist()
        == judge(tables(models=("large", "small"), panel=230), RULES).to_pylist()
    )
    assert [record.stage for record in audit.stages] == ["models", "people", "attack", "judge"]
    assert audit.provenance["command"] == "idia audit --people 'Cleo Starr'"
    assert [len(person.pictures) for person in audit.people] == [9, 9, 10, 11, 12, 2]
    assert audit.people[0].pictures[-1].model_dump() == {"picture": "torn.jpg", "status": "broken", "sha256": None}
    assert pages["page/people/00001.html"].count(b"data:image/jpeg") == 8
    assert pages["page/index.html"].count(b"data:image/jpeg") == 12
    assert b"Six people" in pages["page/people/00001.html"]


@pytest.mark.usefixtures("local_ray")
def test_with_redact_nothing_that_is_written_names_anybody(study: Path) -> None:
    """No name, identity, file name, decoy, picture or path is in any file, and the verdicts still follow."""
    one = written(context(study, "redacted", redact=True, title="Cleo Starr", people_per_split=64), 1)
    two = written(context(study, "redacted again", redact=True, people_per_split=4), 2)
    assert {p: c for p, c in one.items() if p.startswith("page/")} == {
        p: c for p, c in two.items() if p.startswith("page/")
    }
    audit = from_json(one["page/audit.json"], "audit.json")
    assert judge(judge_tables(audit), audit.rules).to_pylist() == [verdict.model_dump() for verdict in audit.verdicts]
    found = judge(tables(models=("large", "small"), panel=230), RULES)
    assert sorted(v.score for v in audit.verdicts) == sorted(found["score"].to_pylist())
    assert sorted(v.p_value for v in audit.verdicts) == sorted(found["p_value"].to_pylist())
    names = [
        *PEOPLE,
        "Moon",
        "Starr",
        *tables().names["name"].to_pylist(),
        "torn.jpg",
        "bystander",
        "/x/large",
        "/home",
    ]
    spelled = {form for n in names for form in (n, html.escape(n), n.replace("'", "&#39;"), json.dumps(n)[1:-1])}
    for path, content in (one | two).items():
        text = (
            str(pq.read_table(pa.BufferReader(content)).to_pylist()) if path.endswith(".parquet") else content.decode()
        )
        assert [form for form in spelled if form.lower() in text.lower()] == [], path
        assert "data:image" not in text


def test_tables_without_a_seal_are_refused(study: Path) -> None:
    """The rules of the verdicts are in their stage's manifest; without it there is nothing to state them by."""
    without = context(study, "unsealed")
    moved = without.inputs["verdicts"].__class__(
        "x", UPath(study / "nowhere/verdicts"), without.inputs["verdicts"].files, ""
    )
    with pytest.raises(MissingInputError, match="no manifest beside the table"):
        STAGE.phases[1].worker(
            StageContext("evidence", without.config, {**without.inputs, "verdicts": moved}, without.folder)
        )


def test_the_command_is_told_without_speed_and_place() -> None:
    """Where it wrote and how fast it ran are left out, so that they change no byte; all else stays, quoted."""
    words = ["/usr/bin/idia", "run", "a b.yaml", "--set", "judge.rules.alpha=0.1", "--set", "attack.resources.cpus=1"]
    assert _command([*words, "--out=x", "--address", "auto"]) == "idia run 'a b.yaml' --set judge.rules.alpha=0.1"
