"""`idia audit` as a user runs it: drawn people, tiny models, every real stage, and the page and file at the end."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import torch
from PIL import Image

from idia_core.audit_json import from_json
from idia_core.drawing import draw_face, invent_people
from idia_core.prompts import TEMPLATES
from jobs.cli import main
from tests.pipelines.audits import NAMES
from tests.tiny_models import write_model

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent
STAGES = ["people", "panel", "models", "attack", "judge", "evidence"]
BYSTANDERS = ("Una Fell", "Max Orr", "BOB RAY", "Kit Vane")
PICTURES = 3
WIDE = {"COLUMNS": "150"}
BOX = "http://127.0.0.1:9"
"""A black box that is not there."""


class Done(NamedTuple):
    """What a command ended with."""

    code: int
    said: str
    log: str


def write_folders(folder: Path, names: tuple[str, ...], seed: int) -> None:
    """A folder with pictures for each of some drawn people, women and men in turn."""
    sexes = ["FM"[place % 2] for place in range(len(names))]
    for place, person in enumerate(invent_people(len(names), seed, sexes)):
        own = folder / names[place].replace(" ", "_")
        own.mkdir(parents=True)
        for number in range(PICTURES):
            Image.fromarray(draw_face(person, [seed, place, number])).save(own / f"{number}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people, a panel of four, one of whom is among the five, and two models with random weights."""
    folder = tmp_path_factory.mktemp("audit")
    write_folders(folder / "people", NAMES, seed=1)
    (folder / "people/Ida_Moss/torn.png").write_bytes((folder / "people/Ida_Moss/0.png").read_bytes()[:300])
    write_folders(folder / "panel", BYSTANDERS, seed=2)
    write_model(folder / "tiny.pt", seed=0)
    write_model(folder / "other.pt", seed=1)
    return folder


def words(root: Path, *more: str, models: tuple[str, ...] = ("tiny", "other")) -> list[str]:
    """The words after `idia` that audit those models, among 30 names."""
    given = [word for model in models for word in ("--model", f"idia-rn-tiny:{root}/{model}.pt")]
    return ["audit", *given, "--people", str(root / "people"), "--candidates", "30", *more]


@pytest.fixture(scope="module")
def first(root: Path) -> Done:
    """An audit of two models with a panel, run once for this file as a user would, to `root`/first."""
    command = [*IDIA, *words(root, "--panel", str(root / "panel"), "--out", str(root / "first"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | WIDE)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def idia(monkeypatch: pytest.MonkeyPatch, local_ray: None) -> Callable[..., Done]:  # noqa: ARG001 - it is used by runs
    """Runs `idia` in this process, where Ray is running already."""

    def run(*given: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["idia", *given])
        monkeypatch.setenv("COLUMNS", WIDE["COLUMNS"])
        said, log = io.StringIO(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(log), pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), said.getvalue(), log.getvalue())

    return run


@pytest.fixture
def copy(root: Path, first: Done, tmp_path: Path) -> Path:
    """A copy of the first audit's output that a test may change."""
    assert first.code == 0, first.log
    return Path(shutil.copytree(root / "first", tmp_path / "copy"))


def table(out: Path, name: str) -> pl.DataFrame:
    """A table of an audit, `stage/table`."""
    return pl.read_parquet(out / name / "*.parquet")


def written(folder: Path) -> dict[Path, int]:
    """When every file below a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_an_audit_ends_well_and_says_what_was_found_and_where_to_read_it(first: Done, root: Path) -> None:
    """Exit code 0, everybody with a finding under both models, a sum for each, and the page's place as last line."""
    assert first.code == 0, first.log
    lines = first.said.splitlines()
    assert [line.split(":")[0] for line in lines if "people:" in line] == ["idia-rn-tiny_other", "idia-rn-tiny_tiny"]
    for name in NAMES:
        assert len([line for line in lines if line.startswith(name)]) == 2
    assert lines[-1] == f"Evidence: {root}/first/evidence/page/index.html"
    assert "--panel" in first.said  # so few other people allow no finding
    assert "1 panel_also_tested" in first.log


def test_every_stage_is_sealed_and_leaves_nothing_else(first: Done, root: Path) -> None:
    """A manifest each, no receipts, no temporary files, no empty file."""
    assert first.code == 0
    out = root / "first"
    assert sorted(path.name for path in out.iterdir()) == sorted([*STAGES, "logs"])
    assert all((out / stage / "manifest.json").exists() for stage in STAGES)
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "_"))]
    assert all(path.stat().st_size for path in out.rglob("*") if path.is_file())


def test_the_tables_hold_everybody_under_every_model(first: Done, root: Path) -> None:
    """A vote for each model, readable picture and template, the broken picture counted, one verdict for each person."""
    assert first.code == 0
    out = root / "first"
    votes, verdicts = table(out, "attack/votes"), table(out, "judge/verdicts")
    assert votes.height == 2 * len(NAMES) * PICTURES * len(TEMPLATES)
    assert table(out, "attack/names").height == 30
    assert set(table(out, "attack/panel_votes")["identity"]) == set(BYSTANDERS) - {"BOB RAY"}
    assert verdicts.height == 2 * len(NAMES)
    failed = verdicts.filter(pl.col("images_failed") > 0)
    assert failed.select("identity", "images_failed").rows() == [("Ida Moss", 1)] * 2
    assert set(verdicts["others"]) == {len(NAMES) - 1 + len(BYSTANDERS) - 1}


def test_the_pages_and_the_file_say_the_same_as_the_tables(first: Done, root: Path) -> None:
    """A page for each person and one for all of them; audit.json holds the verdicts of `judge`."""
    assert first.code == 0
    page, verdicts = root / "first/evidence/page", table(root / "first", "judge/verdicts")
    audit = from_json((page / "audit.json").read_bytes(), "audit.json")
    assert [verdict.model_dump() for verdict in audit.verdicts] == verdicts.to_dicts()
    assert {person.name for person in audit.people} == set(NAMES)
    assert len(list((page / "people").iterdir())) == len(NAMES)
    overview = (page / "index.html").read_text(encoding="utf-8")
    assert all(name in overview for name in NAMES)


def test_the_second_run_does_nothing(idia: Callable[..., Done], copy: Path, root: Path) -> None:
    """Every stage says that it is done, no file changes, and the findings are printed again."""
    before = written(copy)
    done = idia(*words(root, "--panel", str(root / "panel"), "--out", str(copy)))
    assert done.code == 0, done.log
    assert [line.split()[0] for line in done.log.splitlines() if "done already" in line] == STAGES
    assert written(copy) == before
    assert done.said.count("people:") == 2


def test_another_threshold_judges_the_votes_again_without_a_model(
    idia: Callable[..., Done], copy: Path, root: Path
) -> None:
    """Only `judge` and `evidence` run, and find fewer members; the old verdicts are kept beside."""
    before = {stage: written(copy / stage) for stage in STAGES}
    members = table(copy, "judge/verdicts")["member"].sum()
    assert members > 0
    done = idia(*words(root, "--panel", str(root / "panel"), "--out", str(copy), "--threshold", "22"))
    assert done.code == 0, done.log
    for stage in STAGES[:4]:
        assert written(copy / stage) == before[stage]
    verdicts = table(copy, "judge/verdicts")
    assert set(verdicts["threshold"]) == {22}
    assert not verdicts["member"].any()
    assert done.said.count("by the paper's rule 0 members") == 2
    assert sorted(path.name.split("-")[0] for path in (copy / "kept").iterdir()) == ["evidence", "judge"]


def test_anybody_can_judge_the_file_again(idia: Callable[..., Done], first: Done, root: Path) -> None:
    """`idia judge` gets from audit.json alone the verdicts that are recorded, and others by other rules."""
    assert first.code == 0
    file = str(root / "first/evidence/page/audit.json")
    done = idia("judge", file)
    assert done.code == 0, done.log
    assert "10 of 10 verdicts are those recorded in the file." in done.said
    other = idia("judge", file, "--threshold", "22")
    assert other.code == 0, other.log
    assert "0 of 10 verdicts are those recorded in the file." in other.said


def test_a_redacted_audit_shows_nobody(idia: Callable[..., Done], copy: Path, root: Path) -> None:
    """Neither what is printed nor a page nor the file holds a name, a picture or a path; it can still be judged."""
    done = idia(*words(root, "--panel", str(root / "panel"), "--out", str(copy), "--redact"))
    assert done.code == 0, done.log
    page = copy / "evidence/page"
    shown = done.said + "".join(path.read_text(encoding="utf-8") for path in page.rglob("*") if path.is_file())
    names = [*table(copy, "attack/names")["name"], *BYSTANDERS, str(root), ".png"]
    assert [name for name in names if name in shown] == []
    assert "data:image" not in shown
    again = idia("judge", str(page / "audit.json"))
    assert again.code == 0, again.log
    assert "10 of 10 verdicts are those recorded in the file." in again.said


def test_a_dry_run_says_what_would_run_and_writes_nothing(idia: Callable[..., Done], root: Path) -> None:
    """Every stage is there with its state; without a panel there is no stage of it."""
    done = idia(*words(root, "--out", str(root / "dry"), "--dry-run"))
    assert done.code == 0, done.log
    lines = [line.split() for line in done.said.splitlines()]
    assert [line[0] for line in lines[2:]] == [stage for stage in STAGES if stage != "panel"]
    assert "to do" in " ".join(lines[2])
    assert "waits for models" in " ".join(lines[4])
    assert not (root / "dry").exists()


def test_people_of_a_table_are_audited_without_a_panel(idia: Callable[..., Done], root: Path, tmp_path: Path) -> None:
    """CSV with paths gives the votes of the folders that hold the same pictures; sex decides whom they compare with."""
    with (root / "people.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "sex", "path"])
        for place, name in enumerate(sorted(NAMES)):
            for number in range(PICTURES):
                rows.writerow([name, "FM"[place % 2], f"people/{name.replace(' ', '_')}/{number}.png"])
    given = words(root, "--out", str(tmp_path / "out"), models=("tiny",))
    given[given.index("--people") + 1] = str(root / "people.csv")
    done = idia(*given)
    assert done.code == 0, done.log
    verdicts = table(tmp_path / "out", "judge/verdicts")
    assert verdicts["images_used"].to_list() == [PICTURES] * len(NAMES)
    assert verdicts["others"].to_list() == [2, 1, 2, 1, 2]
    assert not table(tmp_path / "out", "attack/panel").height
    assert not (tmp_path / "out/panel").exists()


class Malicious:
    """Unpickled carelessly, it leaves a folder behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_malicious_checkpoint_is_refused(idia: Callable[..., Done], root: Path, tmp_path: Path) -> None:
    """Exit code 1 and one line of what is wrong with which file; what it wants to run does not run."""
    torch.save({"state_dict": Malicious(tmp_path / "trace")}, tmp_path / "evil.pt")
    done = idia(*words(root, "--out", str(tmp_path / "out"), "--model", f"idia-rn-tiny:{tmp_path}/evil.pt", models=()))
    assert done.code == 1
    assert done.said == ""
    assert "Traceback" not in done.log
    assert done.log.splitlines()[-1].startswith("InvalidInputError: ")
    assert f"({tmp_path}/evil.pt)" in done.log.splitlines()[-1]
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out/attack/manifest.json").exists()


@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        ({"--model": "ViT-B-23:laion400m_e32"}, 2, "UsageError: open_clip knows no architecture 'ViT-B-23' .*ViT-B-32"),
        ({"--model": "ViT-B-32:laion400m_e23"}, 2, "UsageError: open_clip has no weights 'laion400m_e23' .*e32"),
        ({"--model": "idia-rn-tiny:gone/m.pt"}, 1, r"MissingInputError: no checkpoint at '.*gone/m\.pt'"),
        ({"--people": "gone"}, 1, r"MissingInputError: no file matches '.*gone' \(stage people, input people\)"),
        ({"--panel": "gone"}, 1, r"MissingInputError: no file matches '.*gone' \(stage panel, input people\)"),
        ({"--candidates": "4"}, 1, "InvalidInputError: 5 people are tested among only 4 candidate names"),
        ({"--model": BOX, "--questions": "314"}, 1, "BudgetError: 315 questions would be asked .* that may get 314"),
        ({"--model": BOX, "--token-env": "NO_SUCH_TOKEN"}, 2, "UsageError: .*NO_SUCH_TOKEN"),
        ({"--alpha": "2"}, 2, "ConfigError: field 'rules.alpha'"),
        ({"--per-second": "0"}, 2, "ConfigError: .*questions_per_second"),
        ({"--threshold": "0"}, 2, ".*--threshold"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    idia: Callable[..., Done], root: Path, change: dict[str, str], code: int, line: str
) -> None:
    """Exit code 2 for wrong words and 1 for missing or wrong input, and no traceback."""
    options = {"--model": f"idia-rn-tiny:{root}/tiny.pt", "--people": str(root / "people"), "--candidates": "30"}
    options |= {"--out": str(root / "refused")} | change
    done = idia("audit", *(word for option in options.items() for word in option))
    assert done.code == code, done.log
    assert done.said == ""
    assert "Traceback" not in done.log
    assert re.search(line, done.log), done.log
