"""Studies in strict YAML: what is accepted, and the one line that refuses the rest."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from upath import UPath

from idia_core.config import Resources, SeededConfig, StageConfig, Study, load_study, parse_yaml, suggest, validate
from idia_core.errors import ConfigError, IdiaError, MissingInputError

STUDY = """\
name: My study
out: out/mine
seed: 7
stages:
  scan:
    inputs: {captions: data/*.parquet}
    names: [Zoë, 'No']
  select: {members: 3, resources: {workers: 2}}
  report:
"""
STAGES: dict[str, dict[str, Any]] = {
    "scan": {"inputs": {"captions": "data/*.parquet"}, "names": ["Zoë", "No"]},
    "select": {"members": 3, "resources": {"workers": 2}},
    "report": {},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the study of a test lies."""
    return tmp_path / "study.yaml"


def _load(path: Path, text: str | bytes, *settings: str) -> Study:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_study(UPath(path), settings)


def _refusal(path: Path, text: str | bytes, *settings: str, error: type[IdiaError] = ConfigError) -> str:
    """The message of the error that loading ends with, without the folder of the study."""
    with pytest.raises(IdiaError) as caught:
        _load(path, text, *settings)
    assert type(caught.value) is error
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(f"{path.parent}/", "")


def test_a_study_is_read(path: Path) -> None:
    """Every field arrives; a stage with nothing below it has no settings of its own."""
    assert _load(path, STUDY) == Study(name="My study", out="out/mine", seed=7, stages=STAGES)
    assert list(_load(path, STUDY).stages) == ["scan", "select", "report"]
    assert _load(path, "name: x\nout: y\nstages: {}").seed == 0
    assert _load(path, "\ufeffname: x\nout: y\nstages: {}").name == "x"


def test_merge_keys_work(path: Path) -> None:
    """YAML's `<<` takes in another mapping's fields, and what is written beside it wins."""
    text = "name: x\nout: y\nstages:\n  a: &a {p: 1, q: 2}\n  b: {<<: *a, q: 3}\n"
    assert _load(path, text).stages == {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "a study is a mapping with name, out and stages (study.yaml)."),
        ("- name\n- out\n", "a study is a mapping with name, out and stages (study.yaml)."),
        ("just words", "a study is a mapping with name, out and stages (study.yaml)."),
        (f"{STUDY}sede: 1\n", "unknown field 'sede' (study study.yaml). Did you mean 'seed'?"),
        ("nme: x\nout: y\nstages: {}", "unknown field 'nme' (study study.yaml). Did you mean 'name'?"),
        (f"{STUDY}zzz: 1\n", "unknown field 'zzz' (study study.yaml). Known are: name, out, seed, stages, serve."),
        ("name: x\nstages: {}", "field 'out' is missing (study study.yaml). Add it."),
        (f"{STUDY}name: again\n", "'name' is given twice (study.yaml, mapping at line 1). Keep one."),
        (
            "name: x\nout: y\nstages:\n  a:\n    b: 1\n    c: 2\n    b: 1\n",
            "'b' is given twice (study.yaml, mapping at line 5). Keep one.",
        ),
        (
            "name: x\nout: y\nstages: {a: {l: [{k: 1}, {k: 1, k: 2}]}}\n",
            "'k' is given twice (study.yaml, mapping at line 3). Keep one.",
        ),
        (
            "name: [",
            "not valid YAML: expected the node content, but found '<stream end>' (study.yaml, line 1, column 8).",
        ),
        ("name: x\n  out: y: z", "not valid YAML: mapping values are not allowed here (study.yaml, line 2, column 6)."),
        (
            "name: x\n\tout: y",
            "not valid YAML: found character '\\t' that cannot start any token (study.yaml, line 2, column 1).",
        ),
        ("name: *x", "not valid YAML: found undefined alias 'x' (study.yaml, line 1, column 7)."),
        ("a: 1\n---\nb: 2", "not valid YAML: but found another document (study.yaml, line 2, column 1)."),
        ("? [a]\n: 1", "not valid YAML: found unhashable key (study.yaml, line 1, column 3)."),
        ("name: 2024-13-45", "not valid YAML: month must be in 1..12 (study.yaml)."),
        (b"name: caf\xe9", "not UTF-8 text: unexpected end of data at byte 9 (study.yaml)."),
        (
            "name: x\nout: y\nstages: 3",
            "field 'stages': input should be a valid dictionary (study study.yaml). It was 3.",
        ),
        (
            "name: x\nout: y\nstages: {a: [1]}",
            "field 'stages.a': input should be a valid dictionary (study study.yaml). It was [1].",
        ),
        ("name: 3\nout: y\nstages: {}", "field 'name': input should be a valid string (study study.yaml). It was 3."),
        (
            "name: x\nout: y\nseed: -1\nstages: {}",
            "field 'seed': input should be greater than or equal to 0 (study study.yaml). It was -1.",
        ),
    ],
)
def test_what_is_refused(path: Path, text: str | bytes, line: str) -> None:
    """Each mistake ends in one line that says what, where and how to mend it."""
    assert _refusal(path, text) == line


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [true]", "!!python/name:os.system", "!mine x"])
def test_yaml_makes_no_objects(path: Path, tag: str) -> None:
    """A tag that asks for Python's objects is refused."""
    assert _refusal(path, f"name: {tag}").startswith("not valid YAML: could not determine a constructor for the tag")


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b"])
def test_control_characters_are_refused(path: Path, character: str) -> None:
    """A character that YAML does not allow is an error of the study, not a traceback."""
    assert _refusal(path, f"name: {character}").startswith("not valid YAML: unacceptable character")


@pytest.mark.parametrize("place", ["none.yaml", ".", "study.yaml/below"])
def test_a_study_that_is_not_there(path: Path, place: str) -> None:
    """A missing file, a folder and a file taken for a folder are missing input."""
    path.write_text(STUDY)
    with pytest.raises(MissingInputError, match=r"^no study at '.*'\. Give the path of a study's YAML file\.$"):
        load_study(UPath(path.parent / place))


@pytest.mark.parametrize(
    ("setting", "where", "value"),
    [
        ("seed=3", "seed", 3),
        ("out=s3://bucket/x=y", "out", "s3://bucket/x=y"),
        ("select.members=5", "stages.select.members", 5),
        (" select.members = 5 ", "stages.select.members", 5),
        ("select.members=null", "stages.select.members", None),
        ("select.members=", "stages.select.members", None),
        ("select.sex='No'", "stages.select.sex", "No"),
        ("select.resources.cpus=0.5", "stages.select.resources", {"workers": 2, "cpus": 0.5}),
        ("scan.resources.cpus=2", "stages.scan.resources", {"cpus": 2}),
        ("scan.names=[A, B]", "stages.scan.names", ["A", "B"]),
        ("scan.inputs.captions=x.parquet", "stages.scan.inputs", {"captions": "x.parquet"}),
        ("scan.inputs={}", "stages.scan.inputs", {}),
        ("report.title='Hello: you'", "stages.report", {"title": "Hello: you"}),
        ("report.a.b.c=1", "stages.report", {"a": {"b": {"c": 1}}}),
    ],
)
def test_settings(path: Path, setting: str, where: str, value: Any) -> None:
    """`--set` replaces top-level, nested, list and empty values with a YAML value, and touches nothing else."""
    expected: dict[str, Any] = parse_yaml(STUDY, "") | {"stages": parse_yaml(STUDY, "")["stages"] | {"report": {}}}
    *folders, last = where.split(".")
    target = expected
    for folder in folders:
        target = target[folder]
    target[last] = value
    assert _load(path, STUDY, setting) == Study(**expected)


def test_settings_apply_in_order(path: Path) -> None:
    """The last one wins, and one may build on another."""
    study = _load(path, STUDY, "seed=1", "report.a={b: 1}", "report.a.c=2", "seed=2")
    assert (study.seed, study.stages["report"]) == (2, {"a": {"b": 1, "c": 2}})


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("scna.names=1", "the study has no stage 'scna' (--set). Did you mean 'scan'?"),
        ("zzz.names=1", "the study has no stage 'zzz' (--set). Known are: report, scan, select."),
        ("resources.workers=1", "the study has no stage 'resources' (--set). Known are: report, scan, select."),
        ("name=", "field 'name': input should be a valid string (study study.yaml). It was None."),
        ("nmae=1", "unknown field 'nmae' (study study.yaml). Did you mean 'name'?"),
        ("select.members", "'select.members' is no setting (--set). Write stage.field=value."),
        ("", "'' is no setting (--set). Write stage.field=value."),
        ("=1", "'=1' is no setting (--set). Write stage.field=value."),
        ("select.=1", "'select.=1' is no setting (--set). Write stage.field=value."),
        (".members=1", "'.members=1' is no setting (--set). Write stage.field=value."),
        ("select..members=1", "'select..members=1' is no setting (--set). Write stage.field=value."),
        ("scan.names.0=1", "'names' in 'scan.names.0' has no fields below it (--set)."),
        ("select.members.x=1", "'members' in 'select.members.x' has no fields below it (--set)."),
        ("select.members={a: 1, a: 2}", "'a' is given twice (--set select.members, mapping at line 1). Keep one."),
        (
            "scan.a={",
            "not valid YAML: expected the node content, but found '<stream end>' (--set scan.a, line 1, column 2).",
        ),
        ("select.day=2024-02-30", "not valid YAML: day is out of range for month (--set select.day)."),
    ],
)
def test_settings_that_are_refused(path: Path, setting: str, line: str) -> None:
    """Each mistake in a setting ends in one line."""
    assert _refusal(path, STUDY, setting) == line


def test_a_setting_for_a_study_without_stages(path: Path) -> None:
    """Stages that are missing, or named by numbers, do not make a setting crash."""
    assert _refusal(path, "name: x\nout: y\n", "a.b=1") == "the study has no stage 'a' (--set). Known are: none."
    text = "name: x\nout: y\nstages: {1: {}, scan: {}}"
    assert _refusal(path, text, "scna.b=1") == "the study has no stage 'scna' (--set). Did you mean 'scan'?"


@pytest.mark.parametrize(
    ("model", "value", "line"),
    [
        (Resources, {"workers": 0}, "field 'workers': input should be greater than or equal to 1 (here). It was 0."),
        (Resources, {"cpus": 0}, "field 'cpus': input should be greater than 0 (here). It was 0."),
        (Resources, {"wokers": 1}, "unknown field 'wokers' (here). Did you mean 'workers'?"),
        (
            StageConfig,
            {"resources": {"gpus": None}},
            "field 'resources.gpus': input should be a valid number (here). It was None.",
        ),
        (
            StageConfig,
            {"resources": {"wokers": 1}},
            "unknown field 'resources.wokers' (here). Remove it, or check its spelling.",
        ),
        (StageConfig, {"inputs": {"a": None}}, "field 'inputs.a': input should be a valid string (here). It was None."),
        (SeededConfig, {"seed": -1}, "field 'seed': input should be greater than or equal to 0 (here). It was -1."),
        (SeededConfig, {"seed": "a\nb"}, None),
    ],
)
def test_validate_names_field_and_value(model: type[BaseModel], value: Any, line: str | None) -> None:
    """A complaint of pydantic's becomes one line with the field's full name and what was given."""
    with pytest.raises(ConfigError) as caught:
        validate(model, value, "here")
    assert "\n" not in str(caught.value)
    if line is not None:
        assert str(caught.value) == line


def test_configs_are_frozen() -> None:
    """A validated config cannot be changed."""
    with pytest.raises(ValueError, match="frozen"):
        validate(Resources, {"workers": 2}, "here").workers = 3


@pytest.mark.parametrize(
    ("name", "known", "sentence"),
    [
        ("atack", ["scan", "attack"], "Did you mean 'attack'?"),
        ("zzz", ["scan", "attack"], "Known are: scan, attack."),
        ("zzz", (), "Known are: none."),
        ("", ["scan"], "Known are: scan."),
    ],
)
def test_suggest(name: str, known: list[str], sentence: str) -> None:
    """The nearest known name is suggested, or all are listed."""
    assert suggest(name, known) == sentence
