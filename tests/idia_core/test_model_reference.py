"""Model references: every form that can be given, and what is said about those that cannot."""

import json
from collections import defaultdict
from pathlib import Path

import open_clip
import pytest
from upath import UPath

from idia_core.errors import ConfigError, MissingInputError, UsageError
from idia_core.model_reference import TAGS, Kind, ModelReference, architecture_file, architectures, model_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a checkpoint in it, and a model that open_clip saved."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "epoch_5.pt").write_bytes(b"weights")
    (tmp_path / "saved" / "more").mkdir(parents=True)
    for name in ("open_clip_config.json", "b.bin", "more/a.txt"):
        (tmp_path / "saved" / name).write_bytes(b"{}")
    return tmp_path


def test_a_tag_of_open_clip() -> None:
    """An architecture and a tag are pretrained weights; the tag is written as open_clip lists it."""
    for text in ("ViT-B-32:laion400m_e32", "ViT-B-32:LAION400M-e32"):
        reference = ModelReference.parse(text)
        assert reference == ModelReference("ViT-B-32", "laion400m_e32", Kind.PRETRAINED)
        assert (reference.default_name, reference.files()) == ("ViT-B-32_laion400m_e32", [])
        assert str(reference) == "ViT-B-32:laion400m_e32"


def test_the_list_of_tags_is_open_clips_own() -> None:
    """It only spares the seconds in which open_clip is loaded; a new version of open_clip wants it anew."""
    tags = defaultdict(list)
    for architecture, tag in open_clip.list_pretrained():
        tags[architecture].append(tag)
    assert json.loads(TAGS.read_text()) == {
        "version": open_clip.__version__,
        "tags": {name: sorted(tags[name]) for name in tags},
    }


def test_a_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path begins at the folder that is given, or where the program runs; it is kept absolute and names its file."""
    path = folder / "run" / "epoch_5.pt"
    expected = ModelReference("idia-rn-tiny", str(path), Kind.CHECKPOINT)
    assert ModelReference.parse(f"idia-rn-tiny:{path}") == expected
    assert ModelReference.parse(f"idia-rn-tiny:{path}", UPath("/nowhere")) == expected
    assert ModelReference.parse("idia-rn-tiny:run/epoch_5.pt", UPath(folder)) == expected
    monkeypatch.chdir(folder / "run")
    assert ModelReference.parse("idia-rn-tiny:epoch_5.pt") == expected
    assert (expected.default_name, expected.files()) == ("idia-rn-tiny_epoch_5", [UPath(path)])


def test_a_checkpoint_on_an_object_store() -> None:
    """Any URL of fsspec may hold a checkpoint, and a folder of one may be what a path begins at."""
    UPath("memory://weights/epoch_1.pt").write_bytes(b"weights")
    whole = ModelReference.parse("idia-rn-tiny:memory://weights/epoch_1.pt")
    assert whole == ModelReference.parse("idia-rn-tiny:epoch_1.pt", UPath("memory://weights"))
    assert whole.files()[0].read_bytes() == b"weights"


def test_a_folder_that_open_clip_saved(folder: Path) -> None:
    """A folder with open_clip's configuration is a model, and all of its files are named by it."""
    reference = ModelReference.parse(f"local-dir:{folder / 'saved'}")
    assert (reference.kind, reference.weights, reference.default_name) == (
        Kind.LOCAL_DIR,
        str(folder / "saved"),
        "saved",
    )
    assert [path.name for path in reference.files()] == ["b.bin", "a.txt", "open_clip_config.json"]


def test_a_repository_of_the_hub() -> None:
    """The hub's owner and name are taken as they are; nothing is fetched to parse them."""
    reference = ModelReference.parse("hf-hub:org-1/name_2.x")
    assert reference == ModelReference("hf-hub", "org-1/name_2.x", Kind.HF_HUB)
    assert reference.default_name == "org-1_name_2.x"


def test_a_black_box() -> None:
    """A URL is a black box; the slash at its end is dropped."""
    reference = ModelReference.parse("http://127.0.0.1:8000/")
    assert reference == ModelReference("black-box", "http://127.0.0.1:8000", Kind.BLACK_BOX)
    assert reference.default_name == "127.0.0.1_8000"


@pytest.mark.parametrize(
    "text", ["ViT-B-32:openai", "local-dir:saved", "hf-hub:a/b", "https://x.org/clip", "RN50:run/epoch_5.pt"]
)
def test_a_reference_is_read_back_from_its_text(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What a table keeps as text is the same reference again, wherever it is read."""
    monkeypatch.chdir(folder)
    reference = ModelReference.parse(text)
    monkeypatch.chdir("/")
    assert ModelReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ViT-B/32:openai", "open_clip knows no architecture 'ViT-B/32' .* Did you mean 'ViT-B-32'"),
        ("ViT-B-33:openai", "open_clip knows no architecture 'ViT-B-33' .* Did you mean 'ViT-B-32'"),
        ("zzz:openai", "open_clip knows no architecture 'zzz' .* Write ARCHITECTURE:PRETRAINED"),
        ("../idia_core/idia-rn-tiny:x.pt", "open_clip knows no architecture"),
        ("ViT-B-32:laion400m_e23", "no weights 'laion400m_e23' for ViT-B-32 .* Did you mean 'laion400m_e32'"),
        ("idia-rn-tiny:openai", "no weights 'openai' for idia-rn-tiny .* Write idia-rn-tiny:CHECKPOINT.pt"),
        ("ViT-B-32", "'ViT-B-32' names no weights .* Write ViT-B-32:PRETRAINED"),
        ("epoch_5.pt", "'epoch_5.pt' names no weights .* Write ARCHITECTURE:PRETRAINED"),
        ("", "'' names no weights"),
        ("local-dir:", "'local-dir:' names no weights"),
        ("local-dir:s3://bucket/x", "not on this machine"),
        ("hf-hub:name", "'name' is no name on the hub"),
        ("hf-hub:../../x", "is no name on the hub"),
        ("http://", "no URL of a black box"),
        ("http://host:port", "no URL of a black box"),
    ],
)
def test_what_is_no_reference(text: str, message: str) -> None:
    """A wrong reference is a usage error that says what is wrong and what was probably meant."""
    with pytest.raises(UsageError, match=message) as caught:
        ModelReference.parse(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("url", ["https://me:secret@x.org", "https://x.org/?key=secret", "https://x.org#secret"])
def test_a_url_with_a_secret(url: str) -> None:
    """A URL is written into tables and pages, so one with a password is refused, and the message does not repeat it."""
    with pytest.raises(UsageError, match="environment variable") as caught:
        ModelReference.parse(url)
    assert "secret" not in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    """A checkpoint or folder that does not exist is missing input, and so is a folder without a configuration."""
    for text in (f"RN50:{tmp_path}/x.pt", f"RN50:{tmp_path}/", "RN50:x.safetensors", f"local-dir:{tmp_path}"):
        with pytest.raises(MissingInputError, match=r"^no (checkpoint at|open_clip_config\.json in) '/"):
            ModelReference.parse(text)


def test_our_own_architectures() -> None:
    """An architecture of idia's has a file, and open_clip knows it too; open_clip's own have none."""
    config = model_config("idia-rn-tiny")
    assert config is not None
    assert config.name == "idia-rn-tiny.json"
    assert model_config("ViT-B-32") is None
    assert {"idia-rn-tiny", "ViT-B-32"} <= set(architectures())


def test_the_file_of_an_architecture() -> None:
    """One of ours and one of open_clip's are found; for another name the nearest is proposed."""
    assert architecture_file("idia-rn-tiny").name == "idia-rn-tiny.json"
    assert json.loads(architecture_file("ViT-B-32").read_text())["vision_cfg"]["patch_size"] == 32
    with pytest.raises(ConfigError, match=r"there is no architecture 'ViT-B-23' .* Did you mean 'ViT-B-32'"):
        architecture_file("ViT-B-23")
