"""CLIP models: what they encode, and which weights they refuse."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError, UsageError
from idia_core.model_reference import Kind, ModelReference, model_config
from idia_core.models import ClipModel, _creation, weights_sha256
from idia_core.prompts import TEMPLATES, fill

open_clip = pytest.importorskip("open_clip")
safetensors_torch = pytest.importorskip("safetensors.torch")
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


def of(path: Path, architecture: str = ARCHITECTURE) -> ModelReference:
    """The reference of a checkpoint that need not be there."""
    return ModelReference(architecture, str(path), Kind.CHECKPOINT)


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
    return ClipModel(of(checkpoint))


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


def test_pictures_may_be_prepared_elsewhere(model: ClipModel) -> None:
    """One at a time, for instance in another thread: the embeddings have the same bits."""
    prepared = [model.prepare(picture) for picture in PICTURES]
    assert model.encode_prepared(prepared).tobytes() == model.encode_images(PICTURES).tobytes()


def test_shapes_and_norms(model: ClipModel) -> None:
    """One row of float32 of length one for each picture or prompt, different ones for different content."""
    for encoded_BD, count in ((model.encode_images(PICTURES), 7), (model.encode_texts(PROMPTS), 11)):
        assert (encoded_BD.shape, encoded_BD.dtype) == ((count, 64), np.float32)
        np.testing.assert_allclose(np.linalg.norm(encoded_BD, axis=1), 1, atol=1e-6)
        assert len(np.unique(encoded_BD.round(5), axis=0)) == count


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 50])
def test_the_batch_size_does_not_matter(checkpoint: Path, model: ClipModel, batch_size: int) -> None:
    """However the work is cut, the embeddings and their order are the same."""
    other = ClipModel(of(checkpoint), batch_size=batch_size)
    np.testing.assert_allclose(other.encode_images(PICTURES), model.encode_images(PICTURES), atol=1e-6)
    np.testing.assert_allclose(other.encode_texts(PROMPTS), model.encode_texts(PROMPTS), atol=1e-6)
    np.testing.assert_allclose(other.encode_texts(PROMPTS[3:4]), model.encode_texts(PROMPTS)[3:4], atol=1e-6)


def test_an_embedding_does_not_depend_on_the_others(model: ClipModel) -> None:
    """Alone, among others or in another order, a picture's embedding has the same bits."""
    whole_BD = model.encode_images(PICTURES * 3)
    for rows in (np.random.default_rng(0).permutation(21), np.arange(9), np.array([4])):
        np.testing.assert_array_equal(model.encode_images(PICTURES[row % 7] for row in rows), whole_BD[rows])


def test_pictures_are_taken_as_they_are_needed(model: ClipModel) -> None:
    """No more pictures than two batches of 8 are in memory, however many there are."""
    alive: list[int] = []

    class Counted(Image.Image):
        def __del__(self) -> None:
            alive.remove(0)

    def decoded() -> Iterator[Image.Image]:
        for _ in range(80):
            picture = Counted()
            picture.__dict__.update(PICTURES[0].copy().__dict__)
            alive.append(0)
            assert len(alive) <= 17
            yield picture

    assert model.encode_images(decoded()).shape == (80, 64)


def test_nothing_to_encode(model: ClipModel) -> None:
    """No pictures and no prompts have no embeddings, of the model's width."""
    for empty_BD in (model.encode_images([]), model.encode_texts(iter(()))):
        assert (empty_BD.shape, empty_BD.dtype) == ((0, 64), np.float32)


def test_a_training_checkpoint_is_read(network: Any, model: ClipModel, tmp_path: Path) -> None:
    """What open_clip_train saves, with the prefix of distributed training, holds the same weights."""
    weights = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": weights, "optimizer": {"state": {}}}, tmp_path / "epoch_3.pt")
    trained = ClipModel(of(tmp_path / "epoch_3.pt"))
    np.testing.assert_array_equal(trained.encode_texts(PROMPTS), model.encode_texts(PROMPTS))


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    """A missing file and a folder are missing input."""
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(MissingInputError, match=rf"^no checkpoint at '{path}' \(model idia-rn-tiny\)\.$"):
            ClipModel(of(path))


def test_a_checkpoint_on_an_object_store(checkpoint: Path, model: ClipModel) -> None:
    """A checkpoint that lies at a URL is read from there."""
    UPath("memory://models/weights.pt").write_bytes(checkpoint.read_bytes())
    other = ClipModel(ModelReference.parse(f"{ARCHITECTURE}:memory://models/weights.pt"))
    np.testing.assert_array_equal(other.encode_texts(PROMPTS), model.encode_texts(PROMPTS))


def test_a_black_box_is_not_loaded() -> None:
    """Nobody has the weights of a black box: it has no hash and cannot be loaded."""
    reference = ModelReference.parse("http://127.0.0.1:1")
    assert weights_sha256(reference) is None
    with pytest.raises(UsageError, match=r"^a black box has no weights"):
        ClipModel(reference)


def test_weights_are_run_with_the_activation_they_were_trained_with() -> None:
    """Weights of QuickGELU, such as laion400m's of ViT-B-32, are not put into an architecture of GELU."""
    for tag, quick in (("laion400m_e32", True), ("openai", True), ("laion2b_s34b_b79k", False)):
        made = _creation(ModelReference.parse(f"ViT-B-32:{tag}"), Path())
        assert made == {"pretrained": tag, "force_quick_gelu": quick}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder as open_clip pushes it to the hub, without its weights."""
    config = model_config(ARCHITECTURE)
    assert config is not None
    architecture = json.loads(config.read_text(encoding="utf-8"))
    content = {"model_cfg": architecture, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def save_weights(network: Any, saved: Path) -> str:
    """Add the weights to such a folder; returns their hash."""
    path = saved / "open_clip_model.safetensors"
    safetensors_torch.save_file(network.state_dict(), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_that_open_clip_saved(network: Any, model: ClipModel, saved: Path) -> None:
    """`local-dir:` reads the weights and the preprocessing that lie in a folder."""
    sha256 = save_weights(network, saved)
    reference = ModelReference.parse(f"local-dir:{saved}")
    other = ClipModel(reference)
    np.testing.assert_array_equal(other.encode_texts(PROMPTS), model.encode_texts(PROMPTS))
    assert np.abs(other.encode_images(PICTURES) - model.encode_images(PICTURES)).max() > 1e-4
    assert weights_sha256(reference) == sha256


def test_a_folder_with_a_malicious_pickle(saved: Path) -> None:
    """Weights in a folder that would run a command when unpickled are refused, and the command is not run."""
    torch.save({"state_dict": Malicious(saved / "trace")}, saved / "open_clip_pytorch_model.bin")
    with pytest.raises(InvalidInputError, match="holds more than weights, and is not read"):
        ClipModel(ModelReference.parse(f"local-dir:{saved}"))
    assert not (saved / "trace").exists()


def test_a_folder_that_wants_to_run_code(network: Any, saved: Path) -> None:
    """A configuration that lets a tokenizer bring code along is refused."""
    save_weights(network, saved)
    path = saved / "open_clip_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="asks to run code of its own"):
        ClipModel(ModelReference.parse(f"local-dir:{saved}"))


def test_a_folder_without_weights(saved: Path) -> None:
    """A folder without weights is missing input; open_clip would take random ones."""
    with pytest.raises(MissingInputError, match=r"^there are no weights"):
        ClipModel(ModelReference.parse(f"local-dir:{saved}"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {"embed_dim": 4}}'])
def test_a_folder_with_a_broken_configuration(network: Any, saved: Path, content: str) -> None:
    """A configuration that is no JSON, or describes no model, is refused."""
    save_weights(network, saved)
    (saved / "open_clip_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"^its configuration "):
        ClipModel(ModelReference.parse(f"local-dir:{saved}"))


class Hub(SimpleHTTPRequestHandler):
    """Answers for one repository as the hub does."""

    def translate_path(self, path: str) -> str:
        return str(Path(self.directory) / Path(path).name) if "/org/tiny/resolve/" in path else "/nowhere"

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", hashlib.sha256(self.path.encode()).hexdigest())
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


ASK_HUB = """
from idia_core.errors import MissingInputError
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel, weights_sha256
print(weights_sha256(ModelReference.parse("hf-hub:org/tiny")))
print(ClipModel(ModelReference.parse("hf-hub:org/tiny")).encode_texts(["Ann Ash"]).shape)
try:
    weights_sha256(ModelReference.parse("hf-hub:org/none"))
except MissingInputError as error:
    print(error)
"""


def test_a_repository_of_the_hub(network: Any, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`hf-hub:` loads and hashes what a hub gives; one that gives nothing is missing input that says so."""
    sha256 = save_weights(network, saved)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Hub(*args, directory=str(saved)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        home, endpoint = str(tmp_path_factory.mktemp("hub")), f"http://127.0.0.1:{server.server_port}"
        environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": home, "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", ASK_HUB], env=environment, capture_output=True, text=True, check=False
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    lines = done.stdout.splitlines()
    assert lines[:2] == [sha256, "(1, 64)"], done.stderr
    assert lines[2].startswith("the weights cannot be fetched: ")
    assert "(model hf-hub:org/none)" in lines[2]


def _refusal(path: Path, architecture: str = ARCHITECTURE) -> str:
    with pytest.raises(InvalidInputError) as caught:
        ClipModel(of(path, architecture))
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
    said = _refusal(tmp_path / name)
    assert said.startswith(("the weights do not fit idia-rn-tiny: ", "the checkpoint is damaged or holds more")), said


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
    model = ClipModel(of(tmp_path / "nan.pt"))
    with pytest.raises(InvalidInputError, match="not finite"):
        model.encode_texts(["Ann Ash"])
