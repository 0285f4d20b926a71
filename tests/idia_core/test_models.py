"""CLIP models: what they encode, and which weights they refuse."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.models import ClipModel, model_config
from idia_core.prompts import TEMPLATES, fill

open_clip = pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")

ARCHITECTURE = "idia-rn-tiny"
PICTURES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (40 + 9 * i, 90 - 7 * i, 3), np.uint8)) for i in range(7)
]
PROMPTS = [*fill(TEMPLATES[:3], ["Ann Ash", "Zoë Müller", "漢字"]), "", "word " * 200]


class Malicious:
    """Unpickled carelessly, it leaves a folder behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small models are fastest on one thread, and repeat exactly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> Any:
    """A tiny CLIP with random weights, made by open_clip itself."""
    logging.getLogger().setLevel(logging.ERROR)  # it warns of random weights
    torch.manual_seed(0)
    open_clip.add_model_config(model_config(ARCHITECTURE))
    return open_clip.create_model(ARCHITECTURE).eval()


@pytest.fixture(scope="module")
def checkpoint(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights as a plain state dict."""
    path: Path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> ClipModel:
    """The model under test."""
    return ClipModel(ARCHITECTURE, checkpoint)


def test_embeddings_are_open_clips_own(model: ClipModel, network: Any) -> None:
    """Pictures of any size and prompts of any length give what open_clip's transform, tokenizer and encoders give."""
    transform = open_clip.image_transform(64, is_train=False)
    tokens = open_clip.get_tokenizer(ARCHITECTURE)(PROMPTS)
    with torch.inference_mode():
        images_BD = network.encode_image(torch.stack([transform(p) for p in PICTURES]), normalize=True).numpy()
        texts_BD = network.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(model.encode_images(PICTURES), images_BD, atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(PROMPTS), texts_BD, atol=1e-6)
    assert tokens.shape[1] == 32


def test_shapes_and_norms(model: ClipModel) -> None:
    """One row of float32 of length one for each picture or prompt, different ones for different content."""
    for encoded_BD, count in ((model.encode_images(PICTURES), 7), (model.encode_texts(PROMPTS), 11)):
        assert (encoded_BD.shape, encoded_BD.dtype) == ((count, 64), np.float32)
        np.testing.assert_allclose(np.linalg.norm(encoded_BD, axis=1), 1, atol=1e-6)
        assert len(np.unique(encoded_BD.round(5), axis=0)) == count


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 1000])
def test_the_batch_size_does_not_matter(checkpoint: Path, model: ClipModel, batch_size: int) -> None:
    """However the work is cut, the embeddings and their order are the same."""
    other = ClipModel(ARCHITECTURE, checkpoint, batch_size=batch_size)
    np.testing.assert_allclose(other.encode_images(PICTURES), model.encode_images(PICTURES), atol=1e-6)
    np.testing.assert_allclose(other.encode_texts(PROMPTS), model.encode_texts(PROMPTS), atol=1e-6)
    np.testing.assert_allclose(other.encode_texts(PROMPTS[3:4]), model.encode_texts(PROMPTS)[3:4], atol=1e-6)


def test_a_training_checkpoint_is_read(network: Any, model: ClipModel, tmp_path: Path) -> None:
    """What open_clip_train saves, with the prefix of distributed training, holds the same weights."""
    weights = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": weights, "optimizer": {"state": {}}}, tmp_path / "epoch_3.pt")
    trained = ClipModel(ARCHITECTURE, tmp_path / "epoch_3.pt")
    np.testing.assert_array_equal(trained.encode_texts(PROMPTS), model.encode_texts(PROMPTS))


def test_our_own_architectures() -> None:
    """An architecture of idia's has a file; open_clip's own do not."""
    config = model_config(ARCHITECTURE)
    assert config is not None
    assert config.name == "idia-rn-tiny.json"
    assert model_config("ViT-B-32") is None


@pytest.mark.parametrize("architecture", ["ViT-B-99", "", "../idia_core/idia-rn-tiny", "hf-hub:a/b", "local-dir:/tmp"])
def test_an_unknown_architecture(architecture: str, checkpoint: Path) -> None:
    """What open_clip does not list is refused by name, and nothing is fetched or read from elsewhere."""
    with pytest.raises(InvalidInputError, match=f"^open_clip knows no architecture '{architecture}'. See"):
        ClipModel(architecture, checkpoint)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    """A missing file and a folder are missing input."""
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(MissingInputError, match=rf"^no checkpoint at '{path}' \(model idia-rn-tiny\)\.$"):
            ClipModel(ARCHITECTURE, path)


def _refusal(path: Path, architecture: str = ARCHITECTURE) -> str:
    with pytest.raises(InvalidInputError) as caught:
        ClipModel(architecture, path)
    line = str(caught.value)
    assert line.splitlines() == [line]
    assert f"({path})" in line
    assert len(line) < 400 + len(str(path))
    return line


def test_a_malicious_pickle_is_not_run(tmp_path: Path) -> None:
    """A checkpoint that would run a command when unpickled is refused, and the command is not run."""
    torch.save({"state_dict": Malicious(tmp_path / "trace")}, tmp_path / "evil.pt")
    assert _refusal(tmp_path / "evil.pt").startswith(
        "the checkpoint is damaged or holds more than weights, and is not read ("
    )
    assert not (tmp_path / "trace").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
def test_a_truncated_checkpoint(checkpoint: Path, tmp_path: Path, share: float) -> None:
    """A file that was cut, even to nothing, is refused."""
    content = checkpoint.read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: int(len(content) * share)])
    assert "idia-rn-tiny" in _refusal(tmp_path / "cut.pt")


@pytest.mark.parametrize("name", ["page.pt", "page.safetensors", "page.npz"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    """Text that was saved under the name of weights is refused."""
    (tmp_path / name).write_text("<html>not found</html>")
    _refusal(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {1: 2}, {"state_dict": None}, "text", 3])
def test_a_checkpoint_of_something_else(tmp_path: Path, content: object) -> None:
    """A file that torch reads but that holds no state dict is refused."""
    torch.save(content, tmp_path / "other.pt")
    assert _refusal(tmp_path / "other.pt").startswith("the weights do not fit idia-rn-tiny: ")


def test_weights_of_another_architecture(network: Any, checkpoint: Path, tmp_path: Path) -> None:
    """Weights with tensors missing, too many or of other shapes are refused; the message says which does not fit."""
    weights = network.state_dict()
    torch.save({name: value for name, value in weights.items() if name != "text_projection"}, tmp_path / "less.pt")
    assert 'Missing key(s) in state_dict: "text_projection"' in _refusal(tmp_path / "less.pt")
    torch.save(weights | {"more": torch.zeros(1)}, tmp_path / "more.pt")
    assert 'Unexpected key(s) in state_dict: "more"' in _refusal(tmp_path / "more.pt")
    torch.save(weights | {"text_projection": torch.zeros(9, 9)}, tmp_path / "shape.pt")
    assert "size mismatch for text_projection" in _refusal(tmp_path / "shape.pt")
    assert _refusal(checkpoint, "ViT-S-32-alt").startswith("the weights do not fit ViT-S-32-alt: ")


def test_weights_of_a_training_that_diverged(network: Any, tmp_path: Path) -> None:
    """Embeddings that are not finite are an error: every argmax over them would be the first name."""
    weights = {name: w * torch.nan if w.is_floating_point() else w for name, w in network.state_dict().items()}
    torch.save(weights, tmp_path / "nan.pt")
    model = ClipModel(ARCHITECTURE, tmp_path / "nan.pt")
    with pytest.raises(InvalidInputError, match="not finite"):
        model.encode_texts(["Ann Ash"])
