"""`faces`: which base pictures are looked at, what is found on them, and what is counted."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from idia_core.config import Study
from idia_core.errors import ConfigError, InvalidInputError
from idia_core.face_crops import crop_face
from idia_core.face_detection import DetectorConfig, make_detector
from idia_core.images import decode_picture
from idia_core.manifest import read_manifest
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from idia_core.recognition import load_recogniser
from idia_core.storage import as_path
from jobs.run import run_study
from tests.pipelines.audits import QUIET
from tests.tiny_models import write_model

pytestmark = pytest.mark.usefixtures("local_ray")
WORLD = {
    "people": 3,
    "training_pictures": 0,
    "attack_pictures": 5,
    "background_pairs": 12,
    "planted_pictures": 6,
    "strangers": 2,
    "caption_rows": 600,
}
HAAR = {"kind": "haar"}
BASE = "base/*.parquet"


def stages(root: Path) -> dict[str, dict[str, Any]]:
    """From a base on disk to the faces on it; a gallery of random CLIP embeddings names everybody somebody."""
    model = f"idia-rn-tiny:{root}/tiny.pt"
    world = f"{root}/world/world"
    people = {"identities": f"{world}/identities", "pictures": f"{world}/pictures"}
    found = {"index": "index.shards", "embeddings": "embed.img_emb", "embedded_by": "embed.about"}
    return {
        "embed": {"inputs": {"background": f"{root}/{BASE}"}, "model": model},
        "index": {"inputs": {"embeddings": "embed.img_emb", "metadata": "embed.metadata"}},
        "recogniser": {
            "inputs": people,
            "kind": "gallery",
            "gallery": {"embedder": "clip", "model": model},
            "threshold": 0.0,
            "detector": HAAR,
        },
        "faces": {
            "inputs": {**people, **found, "background": f"{root}/{BASE}", "recogniser": "recogniser.recogniser"},
            "model": model,
            "neighbours": 4,
            "detector": HAAR,
            "crops_per_person": 2,
            "people_per_split": 2,
        },
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - must be up first
    """A world with people in its base, one of whose pictures is spoiled, and all stages up to `faces`."""
    root = tmp_path_factory.mktemp("faces")
    run_study(Study(name="test", out=str(root / "world"), stages={"world": WORLD}), QUIET)
    base = pl.read_parquet(root / "world/world/background/*.parquet").sort("key")
    spoiled = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit(b"no picture")).otherwise("image")
    base = base.with_columns(spoiled.alias("image"))
    (root / "base").mkdir()
    for part in range(2):
        base[part::2].write_parquet(root / f"base/{part}.parquet")
    pictures = [row for row in base["image"].to_list() if row != b"no picture"]
    write_model(root / "tiny.pt", centred_on=pictures[:8])
    run_study(Study(name="test", out=str(root / "out"), stages=stages(root)), QUIET)
    return root


def table(root: Path, name: str, out: str = "out") -> pl.DataFrame:
    """A table of `faces`."""
    return pl.read_parquet(root / out / f"faces/{name}/*.parquet")


def base_picture(root: Path, part: int, row: int) -> bytes:
    """The bytes of a base picture."""
    content: bytes = pl.read_parquet(root / f"base/{part}.parquet")["image"][row]
    return content


def test_the_nearest_pictures_are_candidates(root: Path) -> None:
    """The four with the highest cosine to each picture of a person, as numpy finds them; the broken one never."""
    model = ClipModel(ModelReference.parse(f"idia-rn-tiny:{root}/tiny.pt"))
    places, pictures = [], []
    for part in range(2):
        for row, content in enumerate(pl.read_parquet(root / f"base/{part}.parquet")["image"]):
            if (picture := decode_picture(content)[0]) is not None:
                places.append((part, row))
                pictures.append(picture)
    base_ND = model.encode_images(pictures).astype(np.float16).astype(np.float32)
    candidates = table(root, "candidates")
    assert candidates.group_by("identity", "picture").len()["len"].to_list() == [4] * 15
    people = pl.read_parquet(root / "world/world/pictures/*.parquet")
    for (identity, name), mine in candidates.partition_by("identity", "picture", as_dict=True).items():
        own = people.filter(pl.col("identity") == identity, pl.col("picture") == name)["image"][0]
        cosines_N = base_ND @ model.encode_images([Image.open(io.BytesIO(own))])[0]
        expected = np.sort(cosines_N)[::-1][:4]
        assert mine["rank"].to_list() == [1, 2, 3, 4]
        np.testing.assert_allclose(mine["similarity"], expected, atol=1e-5)
        shown = [cosines_N[places.index(place)] for place in mine.select("part", "row").iter_rows()]
        np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_clip_is_asked_once_about_each_candidate(root: Path) -> None:
    """Its answer is the name whose prompt is nearest to the picture, for every picture and everybody it is near to."""
    model = ClipModel(ModelReference.parse(f"idia-rn-tiny:{root}/tiny.pt"))
    people = pl.read_parquet(root / "world/world/identities/*.parquet").sort("identity")
    names_CD = model.encode_texts([f"an image of {name}" for name in people["name"]])
    agreement = table(root, "agreement")
    candidates = table(root, "candidates").unique(["identity", "part", "row"])
    assert (
        agreement.select("identity", "part", "row")
        .sort(pl.all())
        .equals(candidates.select("identity", "part", "row").sort(pl.all()))
    )
    for part, row, answer in agreement.select("part", "row", "clip_identity").iter_rows():
        picture, _ = decode_picture(base_picture(root, part, row))
        assert picture is not None
        cosines = (names_CD @ model.encode_images([picture])[0]).tolist()
        assert cosines[people["identity"].to_list().index(answer)] == pytest.approx(max(cosines), abs=2e-3)


def test_faces_on_candidates_are_found_and_named(root: Path) -> None:
    """Every candidate is looked at once; boxes, names and scores are those of the detector and the recogniser alone."""
    candidates = table(root, "candidates").select("part", "row").unique().sort("part", "row")
    looked = table(root, "looked").sort("part", "row")
    assert looked.select("part", "row").equals(candidates)
    assert set(looked["status"]) == {"ok"}
    faces = table(root, "faces").sort("part", "row", "face")
    assert faces.height == looked["faces"].sum() > 3
    detector = make_detector(DetectorConfig(kind="haar"))
    recogniser = load_recogniser(as_path(str(root / "out/recogniser/recogniser")))
    for part, row, count in looked.select("part", "row", "faces").iter_rows():
        picture, _ = decode_picture(base_picture(root, part, row))
        assert picture is not None
        found = detector.detect([picture])[0]
        mine = faces.filter(pl.col("part") == part, pl.col("row") == row)
        assert (len(found), mine["face"].to_list()) == (count, list(range(count)))
        for face, here in zip(found, mine.iter_rows(named=True), strict=True):
            assert tuple(face.box) == (here["x"], here["y"], here["width"], here["height"])
            crop = crop_face(picture, face.box, recogniser.margin, recogniser.side)
            (named,) = recogniser.recognise([crop])
            assert (named.identity, named.score) == (here["identity"], pytest.approx(here["identity_score"], abs=1e-5))


def test_crops_are_kept_of_the_nearest(root: Path) -> None:
    """The faces of the two pictures most like a person's own, for the person's sheet."""
    crops, faces = table(root, "crops"), table(root, "faces")
    best = table(root, "candidates").group_by("identity", "part", "row").agg(pl.col("similarity").max())
    nearest = best.sort("identity", "similarity", descending=[False, True]).group_by("identity").head(2)
    expected = nearest.join(faces, on=["part", "row"], how="inner").select("identity", "part", "row", "face")
    assert crops.select(expected.columns).sort(pl.all()).equals(expected.sort(pl.all()))
    for content in crops["image"]:
        assert max(Image.open(io.BytesIO(content)).size) <= 112


def test_in_full_mode_all_of_the_base_is_looked_at(root: Path) -> None:
    """Without an index; scenes have no faces, the broken picture its status, and each is counted."""
    parts = stages(root)
    full = {key: parts["faces"][key] for key in ("detector", "crops_per_person")}
    inputs = {key: parts["faces"]["inputs"][key] for key in ("identities", "pictures", "background")}
    inputs["recogniser"] = f"{root}/out/recogniser/recogniser"
    run_study(
        Study(name="test", out=str(root / "full"), stages={"faces": full | {"mode": "full", "inputs": inputs}}), QUIET
    )
    looked = table(root, "looked", "full")
    base = pl.concat([pl.read_parquet(root / f"base/{part}.parquet") for part in range(2)])
    assert sorted(looked["key"]) == sorted(base["key"])
    assert looked.filter(pl.col("status") != "ok")["status"].to_list() == ["broken"]
    scenes = looked.filter(pl.col("key").str.starts_with("background"))
    assert scenes["faces"].sum() <= 1
    manifest = read_manifest(as_path(str(root / "full/faces")))
    assert manifest is not None
    counts = manifest.counts
    without = looked.filter(pl.col("status") == "ok", pl.col("faces") == 0).height
    assert counts["rows_in"] == looked.height
    assert (counts["broken"], counts["no_face"]) == (1, without)
    assert counts["rows_kept"] == looked.height - without - 1


def test_settings_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    """No model or no index in mode retrieved; another model than the base's."""
    parts = stages(root)
    sealed = {
        key: f"{root}/out/{value.replace('.', '/')}"
        for key, value in parts["faces"]["inputs"].items()
        if "/" not in value
    }
    faces = parts["faces"] | {"inputs": parts["faces"]["inputs"] | sealed}

    def run(settings: dict[str, Any]) -> None:
        run_study(Study(name="test", out=str(tmp_path / "out"), stages={"faces": settings}), QUIET)

    with pytest.raises(ConfigError, match="needs the model"):
        run({key: value for key, value in faces.items() if key != "model"})
    with pytest.raises(InvalidInputError, match="needs the input 'index'"):
        run(faces | {"inputs": {key: value for key, value in faces["inputs"].items() if key != "index"}})
    other = write_model(tmp_path / "other.pt", seed=1)
    with pytest.raises(InvalidInputError, match="embedded with other weights"):
        run(faces | {"model": f"idia-rn-tiny:{other}"})
