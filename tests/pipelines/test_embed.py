"""`embed`: the embeddings that the model itself gives, row by row beside what they are of."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from upath import UPath

from idia_core.base_inputs import ListColumns, base_splits, read_split
from idia_core.config import Study
from idia_core.embeddings import ABOUT, FAILURES, METADATA
from idia_core.errors import ConfigError, IdiaError, InvalidInputError, MissingInputError, UsageError
from idia_core.images import decode_picture
from idia_core.manifest import Manifest
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from idia_core.storage import sha256_of
from jobs.plan import PlannedStage
from jobs.run import run_study
from tests.pipelines.shard_inputs import (
    EACH,
    KEYS,
    QUIET,
    SHARDS,
    base_files,
    base_pair,
    contents,
    replaced,
    write_base,
)
from tests.shard_folders import tar_of, write
from tests.tiny_models import write_model

pytestmark = pytest.mark.usefixtures("local_ray")

CUT, EMPTY, BLANK, LOST = KEYS[EACH + 1], KEYS[EACH + 3], KEYS[EACH + 4], KEYS[EACH + 5]
"""Pairs of the second tar: a picture that ends early, one without bytes, an empty caption, no picture at all."""
FAULTS = {CUT: "truncated", EMPTY: "empty", BLANK: "empty_caption", LOST: "no_picture"}
GOOD = [key for key in KEYS if key not in FAULTS]
Embedded = dict[str, npt.NDArray[Any]]


def picture(key: str) -> bytes:
    """The picture of a pair of the base."""
    return base_pair(key)[0][1]


def caption(key: str) -> str:
    """The caption of a pair of the base."""
    return base_pair(key)[1][1].decode()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of three tars, the second with pairs that cannot be embedded, and a model that tells pictures apart."""
    folder = tmp_path_factory.mktemp("embed")
    write_base(folder)
    changes: dict[str, bytes | None] = {f"{CUT}.jpg": picture(CUT)[:400], f"{EMPTY}.jpg": b"", f"{BLANK}.txt": b" \n"}
    changes[f"{LOST}.jpg"] = None
    write(folder / "base/00001.tar", tar_of(replaced(base_files(1), changes)))
    write_model(folder / "tiny.pt", 3, [picture(key) for key in KEYS])
    return folder


def study(root: Path, out: str, base: str | None = None, **fields: Any) -> Study:
    """A study that embeds `root`/base, with captions."""
    inputs = {"background": base or str(root / "base/*")}
    config = {"inputs": inputs, "model": f"idia-rn-tiny:{root / 'tiny.pt'}", "texts": True} | fields
    return Study(name="test", out=str(root / out), stages={"embed": config})


def embed(root: Path, out: str, base: str | None = None, **fields: Any) -> Manifest:
    """Run it; returns the seal."""
    return run(root, out, base, **fields).seal()


def run(root: Path, out: str, base: str | None = None, **fields: Any) -> PlannedStage:
    """Run it; returns what was planned and done."""
    return run_study(study(root, out, base, **fields), QUIET)["embed"]


@pytest.fixture(scope="module")
def plain(root: Path) -> Manifest:
    """The stage as it is, on the tars."""
    return embed(root, "plain")


def matrix(root: Path, out: str, table: str) -> npt.NDArray[np.float16]:
    """A folder of npy files as those read it who know nothing of us: sorted by name and joined."""
    files = sorted((root / out / "embed" / table).glob("*"))
    assert all(file.suffix == ".npy" for file in files)
    found: npt.NDArray[np.float16] = np.concatenate([np.load(file) for file in files])
    assert found.dtype == np.float16
    return found


def metadata(root: Path, out: str) -> pl.DataFrame:
    """The metadata read likewise."""
    files = sorted((root / out / "embed/metadata").glob("*"))
    assert all(pq.read_schema(file).equals(METADATA) for file in files)
    return pl.concat([pl.read_parquet(file) for file in files])


def by_key(root: Path, out: str, table: str) -> Embedded:
    """Embeddings by the keys that the metadata has in the same rows."""
    return dict(zip(metadata(root, out)["image_path"], matrix(root, out, table), strict=True))


def failures(root: Path, out: str) -> pl.DataFrame:
    """What was not embedded."""
    files = sorted((root / out / "embed/failures").glob("part-*.parquet"))
    assert all(pq.read_schema(file).equals(FAILURES) for file in files)
    return pl.concat([pl.read_parquet(file) for file in files])


def model_of(root: Path) -> ClipModel:
    """The model, without the stage."""
    return ClipModel(ModelReference.parse(f"idia-rn-tiny:{root / 'tiny.pt'}"))


@pytest.mark.usefixtures("plain")
def test_every_row_is_the_models_own_embedding(root: Path) -> None:
    """Of the picture and the caption of the pair that the same row of the metadata names, to the last bit."""
    model, rows = model_of(root), metadata(root, "plain")
    assert rows["image_path"].to_list() == GOOD
    assert rows["caption"].to_list() == [caption(key) for key in GOOD]
    decoded = [decode_picture(picture(key))[0] for key in GOOD]
    images_ND = model.encode_images(one for one in decoded if one is not None).astype(np.float16)
    texts_ND = model.encode_texts(caption(key) for key in GOOD).astype(np.float16)
    assert np.array_equal(matrix(root, "plain", "img_emb"), images_ND)
    assert np.array_equal(matrix(root, "plain", "text_emb"), texts_ND)
    for embeddings_ND in (images_ND, texts_ND):
        assert len(np.unique(embeddings_ND, axis=0)) == len(GOOD)  # so that a row in another's place would be seen
        assert np.linalg.norm(embeddings_ND.astype(np.float32), axis=1) == pytest.approx(1, abs=1e-3)


@pytest.mark.usefixtures("plain")
def test_plain_open_clip_gives_the_same(root: Path) -> None:
    """Without any of our code, as near as float16 can be."""
    net, _, transform = open_clip.create_model_and_transforms("idia-rn-tiny", pretrained=str(root / "tiny.pt"))
    tokens = open_clip.get_tokenizer("idia-rn-tiny")([caption(key) for key in GOOD])
    pictures = torch.stack([transform(Image.open(io.BytesIO(picture(key)))) for key in GOOD])
    with torch.no_grad():
        images_ND = net.eval().encode_image(pictures, normalize=True).numpy()
        texts_ND = net.encode_text(tokens, normalize=True).numpy()
    assert matrix(root, "plain", "img_emb") == pytest.approx(images_ND, abs=1e-3)
    assert matrix(root, "plain", "text_emb") == pytest.approx(texts_ND, abs=1e-3)


def test_every_pair_is_a_row_or_a_failure(root: Path, plain: Manifest) -> None:
    """With the status that it has in `shards`, also where the picture was only found broken when it was decoded."""
    failed = failures(root, "plain")
    assert dict(failed.select("key", "status").iter_rows()) == FAULTS
    assert failed["key"].to_list() == [key for key in KEYS if key in FAULTS]
    assert failed["source"].unique().to_list() == [str(root / "base/00001.tar")]
    counts = {"rows_in": len(KEYS), "rows_kept": len(GOOD), **dict.fromkeys(FAULTS.values(), 1)}
    assert plain.counts == counts


@pytest.mark.parametrize("kind", ["tars", "table", "list"])
def test_a_row_leads_back_to_its_pair(root: Path, plain: Manifest, kind: str) -> None:
    """By its part, which is a split of the input, and its place there; and each kind of base gives the same."""
    del plain
    base = {"tars": None, "table": as_table, "list": as_list}[kind]
    given = str(root / "base/*") if base is None else base(root)
    if base is not None:
        embed(root, kind, given)
    out = "plain" if base is None else kind
    files = sorted(UPath(path) for path in root.glob(str(Path(given).relative_to(root))))
    parts = [list(read_split(split).samples) for split in base_splits(files, ListColumns())]
    for row in metadata(root, out).iter_rows(named=True):
        sample = parts[row["part"]][row["row"]]
        assert (sample.key, bytes(sample.caption or b"").decode()) == (row["image_path"], row["caption"])
        assert row["source"] in [str(file) for file in files]
    for table in ("img_emb", "text_emb"):
        found, expected = by_key(root, out, table), by_key(root, "plain", table)
        assert all(np.array_equal(found[key], expected[key]) for key in GOOD)


def test_the_reason_says_more_where_more_is_known(root: Path) -> None:
    """Of a pair in a table without a picture."""
    rows = [{"key": "a.b", "caption": "a", "image": picture("a")}, {"key": "c", "caption": "c", "image": picture("c")}]
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[1], "key": "d", "image": b""}]), root / "reasons.parquet")
    embed(root, "reasons", str(root / "reasons.parquet"))
    dot = "a dot, where WebDataset would cut the key"
    found = failures(root, "reasons").select("key", "status", "detail").rows()
    assert found == [("a.b", "unusable_key", dot), ("d", "empty", "the picture has no bytes")]
    assert metadata(root, "reasons").select("image_path", "row").rows() == [("c", 1)]


def as_table(root: Path) -> str:
    """The base as a Parquet table in two files, with a pair whose picture is broken."""
    rows = [{"key": key, "caption": caption(key), "image": picture(key)} for key in KEYS]
    rows[1]["image"] = b"no picture"
    (root / "table").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:7]), root / "table/0.parquet")
    pq.write_table(pa.Table.from_pylist(rows[7:]), root / "table/1.parquet")
    rows[1]["image"] = picture(KEYS[1])
    pq.write_table(pa.Table.from_pylist(rows[1:2]), root / "table/2.parquet")
    return str(root / "table/*.parquet")


def as_list(root: Path) -> str:
    """The base as a list and a folder of pictures, one of which is not there."""
    for key in KEYS:
        write(root / f"list/{key}.jpg", picture(key))
    lines = ["filepath\ttitle", f"gone.jpg\t{caption(KEYS[0])}", *(f"{key}.jpg\t{caption(key)}" for key in KEYS)]
    write(root / "list/Train.tsv", "\n".join(lines).encode())
    return str(root / "list/*.tsv")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("resources", [{"workers": 1}, {"workers": 2}, {"cpus": 2}])
def test_however_it_runs_the_bytes_are_the_same(root: Path, resources: dict[str, int]) -> None:
    """With one worker or two, and with two threads that decode."""
    out = "-".join(f"{name}{value}" for name, value in resources.items())
    embed(root, out, resources=resources)
    found = contents(root / out / "embed")
    assert found == contents(root / "plain/embed")
    assert [*found] == sorted(
        [
            "about/part-00000.parquet",
            *(f"{table}/{table}_{part:05d}.npy" for table in ("img_emb", "text_emb") for part in range(SHARDS)),
            *(f"metadata/metadata_{part:05d}.parquet" for part in range(SHARDS)),
            *(f"failures/part-{part:05d}.parquet" for part in range(SHARDS)),
        ]
    )


@pytest.mark.usefixtures("plain")
def test_captions_are_embedded_on_request_only(root: Path) -> None:
    """Without them the pictures' files and the metadata are the same."""
    seal = embed(root, "pictures", texts=False)
    found, both = contents(root / "pictures/embed"), contents(root / "plain/embed")
    assert found == {path: digest for path, digest in both.items() if not path.startswith("text_emb")}
    assert "text_emb" not in seal.tables()


def test_what_made_the_embeddings_is_told(root: Path, plain: Manifest) -> None:
    """The reference, the hash of the weights, the device, and how wide the embeddings are."""
    del plain
    about = pq.read_table(root / "plain/embed/about/part-00000.parquet")
    assert about.schema.equals(ABOUT)
    reference = f"idia-rn-tiny:{root / 'tiny.pt'}"
    width = matrix(root, "plain", "img_emb").shape[1]
    sha256 = sha256_of(UPath(root / "tiny.pt"))
    row = {"model": reference, "sha256": sha256, "device": "cpu", "dimensions": width}
    assert about.to_pylist() == [row]


def test_other_weights_under_the_same_name_are_noticed(root: Path) -> None:
    """And what is as it was is not done again."""
    shutil.copy(root / "tiny.pt", root / "moving.pt")
    model = f"idia-rn-tiny:{root / 'moving.pt'}"
    first = run(root, "moving", model=model)
    before = matrix(root, "moving", "img_emb")
    assert run(root, "moving", model=model).why.startswith("sealed")
    write_model(root / "moving.pt", 4, [picture(key) for key in KEYS])
    os.utime(root / "moving.pt", (1, 1))
    again = run(root, "moving", model=model)
    assert again.fingerprint != first.fingerprint
    assert not np.array_equal(matrix(root, "moving", "img_emb"), before)


def test_a_damaged_tar_ends_the_run_unless_it_is_tolerated(root: Path) -> None:
    """What can be read of it is embedded then, and the seal names it; no more than are tolerated may be damaged."""
    cut_at = tar_of(base_files(1)).index(f"{CUT}.jpg".encode()) + 700  # amid the picture of its second pair
    for shard in range(SHARDS):
        write(root / f"cut/{shard:05d}.tar", tar_of(base_files(shard))[: cut_at if shard == 1 else None])
    base = str(root / "cut/*.tar")
    with pytest.raises(InvalidInputError, match="tolerate-failed-inputs 1"):
        embed(root, "cut-0", base)
    seal = embed(root, "cut-1", base, tolerate_failed_inputs=1)
    (fact,) = seal.facts["failed_inputs"]
    assert fact.startswith(str(root / "cut/00001.tar"))
    rows = metadata(root, "cut-1")
    assert rows.filter(pl.col("part") != 1)["image_path"].to_list() == KEYS[:EACH] + KEYS[2 * EACH :]
    assert rows.filter(pl.col("part") == 1)["image_path"].to_list() == KEYS[EACH : EACH + 1]
    assert failures(root, "cut-1").select("key", "status").rows() == [(CUT, "cut")]
    write(root / "cut/00002.tar", tar_of(base_files(2))[:2000])
    with pytest.raises(InvalidInputError, match="2 inputs could not be read in full and 1 may fail"):
        embed(root, "cut-2", base, tolerate_failed_inputs=1)


def test_a_part_without_a_good_pair_has_no_files(root: Path) -> None:
    """As embedding_reader passes over npy files without rows, but not over their metadata.

    The parts' numbers stay those of the splits. A base without any good pair is an error.
    """
    broken = [(name, b"no picture" if name.endswith("jpg") else content) for name, content in base_files(1)]
    write(root / "bare/00000.tar", tar_of(broken))
    with pytest.raises(InvalidInputError, match="no pair that could be embedded"):
        embed(root, "bare-1", str(root / "bare/*.tar"))
    write(root / "bare/00001.tar", tar_of(base_files(2)))
    seal = embed(root, "bare-2", str(root / "bare/*.tar"))
    paths = [file.path for table in ("img_emb", "text_emb", "metadata") for file in seal.files(table)]
    assert paths == [
        "img_emb/img_emb_00001.npy",
        "text_emb/text_emb_00001.npy",
        "metadata/metadata_00001.parquet",
    ]
    assert metadata(root, "bare-2")["part"].unique().to_list() == [1]
    assert failures(root, "bare-2")["key"].to_list() == KEYS[EACH : 2 * EACH]
    assert [*by_key(root, "bare-2", "text_emb")] == KEYS[2 * EACH :]


@pytest.mark.parametrize(
    ("fields", "kind", "complaint"),
    [
        ({"model": "http://127.0.0.1:9"}, UsageError, "a black box has no weights"),
        ({"model": "idia-rn-tiny:gone.pt"}, MissingInputError, "no checkpoint"),
        ({"model": "idia-rn-tinny:a.pt"}, UsageError, "Did you mean 'idia-rn-tiny'"),
        ({"device": "gpu"}, ConfigError, "device"),
        ({"batch_size": 0}, ConfigError, "batch_size"),
        ({"text": True}, ConfigError, "Did you mean 'texts'"),
    ],
)
def test_wrong_settings_are_told(root: Path, fields: dict[str, Any], kind: type[IdiaError], complaint: str) -> None:
    """In one line, with what to do."""
    with pytest.raises(kind, match=complaint) as caught:
        embed(root, "wrong", **fields)
    assert "\n" not in str(caught.value)
