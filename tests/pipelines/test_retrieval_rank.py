"""`retrieval_rank`: Table 2's ranks, as plain open_clip gives them, for every model of a study."""

import io
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
from jobs.run import run_study
from tests.pipelines.audits import QUIET
from tests.tar_files import tar_of
from tests.tiny_models import write_model

pytestmark = pytest.mark.usefixtures("local_ray")

PAIRS = 50


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with random weights that `models` found, and 50 pairs in tars, of which one is broken."""
    folder = tmp_path_factory.mktemp("retrieval")
    drawn = [draw_background([6, place]) for place in range(PAIRS)]
    contents = [encode_jpeg(picture) for picture, _ in drawn]
    for seed in range(2):
        write_model(folder / f"m{seed}.pt", seed, contents)
    contents[7] = contents[7][:400]
    files: list[tuple[str, bytes]] = []
    for place, (content, (_, caption)) in enumerate(zip(contents, drawn, strict=True)):
        files += [(f"{place:04d}.jpg", content), (f"{place:04d}.txt", caption.encode())]
    (folder / "shards").mkdir()
    (folder / "shards/00000.tar").write_bytes(tar_of(files[:60]))
    (folder / "shards/00001.tar").write_bytes(tar_of(files[60:]))
    columns = {"key": [f"{place}" for place in range(PAIRS)], "caption": [caption for _, caption in drawn]}
    pq.write_table(pa.table(columns | {"image": contents}), folder / "pairs.parquet")
    return folder


def run(root: Path, pairs: str, **fields: Any) -> pl.DataFrame:
    """The table that the stage makes."""
    inputs = {"models": "models.models", "pairs": str(root / pairs)}
    stages = {
        "models": {"models": [f"idia-rn-tiny:{root}/m{seed}.pt" for seed in range(2)]},
        "retrieval_rank": {"inputs": inputs} | fields,
    }
    run_study(Study(name="test", out=str(root / "out"), stages=stages), QUIET)
    return pl.read_parquet(root / "out" / "retrieval_rank/retrieval_rank/*.parquet")


def by_plain_open_clip(root: Path, seed: int) -> list[float]:
    """Rank@1 and rank@5 without any of our code."""
    net, _, transform = open_clip.create_model_and_transforms("idia-rn-tiny", pretrained=str(root / f"m{seed}.pt"))
    drawn = [draw_background([6, place]) for place in range(PAIRS) if place != 7]
    tokens = open_clip.get_tokenizer("idia-rn-tiny")([caption for _, caption in drawn])
    net.eval()
    with torch.no_grad():
        images = torch.stack([transform(Image.open(io.BytesIO(encode_jpeg(picture)))) for picture, _ in drawn])
        cosines = net.encode_image(images, normalize=True) @ net.encode_text(tokens, normalize=True).T
    ranks = (cosines > cosines.diagonal()[:, None]).sum(dim=1)
    return [(ranks < k).float().mean().item() for k in (1, 5)]


def test_the_ranks_are_those_of_plain_open_clip(root: Path) -> None:
    """Of both models; the pair with a broken picture takes no part; a table and two workers give the same bytes."""
    found = run(root, "shards")
    assert found.select("model", "pairs", "failed", "images_per_member").rows() == [
        ("idia-rn-tiny_m0", PAIRS - 1, 1, None),
        ("idia-rn-tiny_m1", PAIRS - 1, 1, None),
    ]
    for seed, row in enumerate(found.iter_rows(named=True)):
        assert [row["rank1"], row["rank5"]] == pytest.approx(by_plain_open_clip(root, seed))
        assert row["rank1_low"] <= row["rank1"] < row["rank1_high"] < row["rank5_high"] < 1
    assert found["rank5"].sum() > 0
    assert run(root, "pairs.parquet", resources={"workers": 1, "cpus": 2}).equals(found)
