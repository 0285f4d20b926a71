"""`zeroshot`: Table 2's accuracies, as plain open_clip gives them, whatever the pictures come in."""

import hashlib
from pathlib import Path
from typing import Any

import open_clip
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from idia_core.config import Study
from idia_core.drawing import draw_background, encode_jpeg
from idia_core.errors import ConfigError, IdiaError, InvalidInputError, UsageError
from idia_core.manifest import read_manifest
from idia_core.storage import as_path
from jobs.run import run_study
from tests.pipelines.audits import QUIET
from tests.tar_files import tar_of
from tests.tiny_models import write_model

pytestmark = pytest.mark.usefixtures("local_ray")

NAMES = ("sea", "beach", "mountain", "city", "meadow", "desert", "snow")
TEMPLATES = ("a picture of the {}", "{}", "a drawing of the {}.")
PICTURES = 41  # the last is broken


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models with random weights, and pictures of seven classes as folders, tars and a table."""
    folder = tmp_path_factory.mktemp("zeroshot")
    contents = [encode_jpeg(draw_background([5, place])[0]) for place in range(PICTURES)]
    models = [{"model": f"K{k:03d}", "architecture": "idia-rn-tiny", "images_per_member": k} for k in (1, 5, 25)]
    for seed, model in enumerate(models):
        path = write_model(folder / f"train/checkpoints/{model['model']}.pt", seed, contents)
        model["reference"] = f"idia-rn-tiny:checkpoints/{path.name}"
        model["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "train/models").mkdir()
    pq.write_table(pa.Table.from_pylist(models), folder / "train/models/part.parquet")
    contents[-1] = contents[-1][:400]
    files: list[tuple[str, bytes]] = []
    for place, content in enumerate(contents):
        label = place % len(NAMES)
        path = folder / f"folders/n{label:02d}/{place:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files += [(f"{place:03d}.jpg", content), (f"{place:03d}.cls", str(label).encode())]
    (folder / "tars").mkdir()
    (folder / "tars/0.tar").write_bytes(tar_of(files[:30]))
    (folder / "tars/1.tar").write_bytes(tar_of(files[30:]))
    labels = [place % len(NAMES) for place in range(PICTURES)]
    pq.write_table(pa.table({"image": contents, "label": labels}), folder / "table.parquet")
    return folder


def run(root: Path, out: str, pictures: str = "folders", stage: str = "zeroshot", **fields: Any) -> pl.DataFrame:
    """The table that the stage makes, in `root`/`out`."""
    inputs = {"models": str(root / "train/models"), "pictures": str(root / pictures)} | fields.pop("inputs", {})
    config = {"inputs": inputs, "class_names": list(NAMES), "templates": list(TEMPLATES)} | fields
    run_study(Study(name="test", out=str(root / out), stages={stage: config}), QUIET)
    return pl.read_parquet(root / out / stage / stage / "*.parquet")


@pytest.fixture(scope="module")
def plain(root: Path) -> pl.DataFrame:
    """The stage as it is, on the folders."""
    return run(root, "plain")


def by_plain_open_clip(root: Path, model: str) -> tuple[float, float]:
    """Top-1 and top-5 without any of our code."""
    net, _, transform = open_clip.create_model_and_transforms(
        "idia-rn-tiny", pretrained=str(root / f"train/checkpoints/{model}.pt")
    )
    tokenizer = open_clip.get_tokenizer("idia-rn-tiny")
    weights = open_clip.build_zero_shot_classifier(net.eval(), tokenizer, NAMES, TEMPLATES)
    files = [file for file in sorted((root / "folders").rglob("*.jpg")) if file.stem != f"{PICTURES - 1:03d}"]
    images = torch.stack([transform(Image.open(file)) for file in files])
    labels = torch.tensor([int(file.parent.name[1:]) for file in files])
    with torch.no_grad():
        right = (net.encode_image(images, normalize=True) @ weights).topk(5).indices == labels[:, None]
    return right[:, 0].float().mean().item(), right.any(dim=1).float().mean().item()


def test_the_rates_are_those_of_plain_open_clip(root: Path, plain: pl.DataFrame) -> None:
    """Top-1 and top-5 of three models equal an independent computation; the broken picture is counted apart."""
    assert plain["model"].to_list() == ["K001", "K005", "K025"]
    assert plain["images_per_member"].to_list() == [1, 5, 25]
    assert plain.select("architecture", "pictures", "failed").unique().rows() == [("idia-rn-tiny", PICTURES - 1, 1)]
    for row in plain.iter_rows(named=True):
        assert (row["top1"], row["top5"]) == pytest.approx(by_plain_open_clip(root, row["model"]))
        assert 0 < row["top1_low"] < row["top1"] < row["top1_high"] < row["top5_high"] <= 1
    assert plain["top1"].n_unique() == 3  # so that the rates can be wrong


@pytest.mark.parametrize("pictures", ["tars", "table.parquet"])
def test_tars_and_tables_give_the_same_rates(root: Path, plain: pl.DataFrame, pictures: str) -> None:
    """Whatever the pictures come in."""
    assert run(root, f"of-{pictures}", pictures).equals(plain)


@pytest.mark.parametrize("resources", [{"workers": 1}, {"cpus": 2}])
def test_however_it_runs_the_bytes_are_the_same(root: Path, plain: pl.DataFrame, resources: dict[str, float]) -> None:
    """One model after another, or with two threads that decode, as with two models at once."""
    out = f"w{'-'.join(map(str, resources.values()))}"
    assert run(root, out, resources=resources).equals(plain)
    for part in (root / "plain/zeroshot/zeroshot").iterdir():
        assert (root / out / "zeroshot/zeroshot" / part.name).read_bytes() == part.read_bytes()


def test_each_model_is_one_split(root: Path, plain: pl.DataFrame) -> None:
    """So each model is loaded, and its classifier built, once; every split says what became of all the pictures."""
    manifest = read_manifest(as_path(str(root / "plain/zeroshot")))
    assert manifest is not None
    counts = {"rows_in": PICTURES, "rows_kept": PICTURES - 1, "truncated": 1}
    assert [receipt.counts for receipt in manifest.receipts] == [counts] * plain.height


def test_names_may_come_from_a_file_or_a_table(root: Path, plain: pl.DataFrame) -> None:
    """The rates are the same, and a changed file makes the stage run again."""
    (root / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    assert run(root, "file", class_names=str(root / "names.txt")).equals(plain)
    (root / "names.txt").write_text("\n".join(reversed(NAMES)), encoding="utf-8")
    assert not run(root, "file", class_names=str(root / "names.txt")).equals(plain)
    classes = pa.table({"name": NAMES[::-1], "label": range(len(NAMES))[::-1]})
    pq.write_table(classes, root / "classes.parquet")
    named = {"inputs": {"classes": str(root / "classes.parquet")}, "class_names": None}
    assert run(root, "classes", **named).equals(plain)


def test_wrong_settings_are_told(root: Path) -> None:
    """Names of another number of classes, names given twice, a template without a place for the name, a black box."""
    cases: list[tuple[type[IdiaError], str, dict[str, Any]]] = [
        (InvalidInputError, "7 folders of pictures, and the names of 1000 classes", {"class_names": None}),
        (InvalidInputError, "class 6, and the names of 6 classes", {"pictures": "tars", "class_names": NAMES[:6]}),
        (ConfigError, "each with {}", {"templates": ["a photo"]}),
        (ConfigError, "none may be blank", {"class_names": []}),
        (ConfigError, "named twice", {"inputs": {"classes": str(root / "table.parquet")}}),
    ]
    for number, (kind, complaint, fields) in enumerate(cases):
        with pytest.raises(kind, match=complaint):
            run(root, f"wrong{number}", **fields)
    (root / "boxes").mkdir()
    box = {"model": "box", "architecture": "black-box", "reference": "http://127.0.0.1:9"}
    pq.write_table(pa.Table.from_pylist([box]), root / "boxes/part.parquet")
    with pytest.raises(UsageError, match="a black box gives no embeddings"):
        run(root, "wrong-box", inputs={"models": str(root / "boxes")})
