"""Networks that tell people apart, and what they say of crops of faces.

Axes: B crops, P people, D width of the embedding.
"""

import itertools
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.models import CPU_PICTURES, GPU_PICTURES, LOADING_ERRORS, REASON_LENGTH, batches

Backbone = Literal["resnet50", "small"]
SMALL_WIDTHS = (16, 32, 64, 128)
"""Channels of the stages of `small`."""
SIDES: Mapping[str, int] = {"resnet50": 224, "small": 64}
"""Pixels of what a backbone is shown, if nothing else is asked for; 224 is the paper's."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD = "fc"
"""The last layer; its weights are those of the people, all others are the backbone's."""
State = dict[str, Any]
"""Names of weights -> tensors."""


def build_network(backbone: str, people: int) -> Any:
    """A network [B, 3, side, side] -> [B, P] with random weights from torch's generator; `fc` is its last layer."""
    from torchvision.models import resnet50  # noqa: PLC0415 - heavy

    return resnet50(num_classes=people) if backbone == "resnet50" else _small(people)


def _small(people: int) -> Any:
    """A ResNet of four blocks, 0.3 million weights: what a CPU can train."""
    from torch import nn  # noqa: PLC0415 - heavy
    from torchvision.models.resnet import BasicBlock, conv1x1  # noqa: PLC0415

    first = SMALL_WIDTHS[0]
    stem = nn.Sequential(nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True))
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=stem, stage1=BasicBlock(first, first))
    for place, (before, width) in enumerate(itertools.pairwise(SMALL_WIDTHS), 2):
        shortcut = nn.Sequential(conv1x1(before, width, 2), nn.BatchNorm2d(width))
        parts[f"stage{place}"] = BasicBlock(before, width, 2, shortcut)
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), HEAD: nn.Linear(SMALL_WIDTHS[-1], people)}
    return nn.Sequential(parts)


def read_state(path: UPath) -> State:
    """The weights in a file, on the CPU; read with torch's `weights_only`, so that no code in it can run.

    Raises `MissingInputError` where there is no file and `InvalidInputError` for one that holds no weights.
    """
    import torch  # noqa: PLC0415 - heavy

    if not path.is_file():
        raise MissingInputError("there is no file of weights", str(path), "Check the path.")
    fix = "Give a state dict that torch.save wrote."
    try:
        with path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InvalidInputError("the file is damaged or holds more than weights", str(path), fix) from None
    except LOADING_ERRORS as error:
        raise InvalidInputError(f"the weights cannot be read: {_reason(error)}", str(path), fix) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not content or not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise InvalidInputError("the file holds no weights", str(path), fix)
    return dict(content)


def fit(network: Any, state: State, what: str) -> Any:
    """The network with those weights; `InvalidInputError` where they are of another one, or not finite."""
    import torch  # noqa: PLC0415 - heavy

    try:
        network.load_state_dict(state)
    except LOADING_ERRORS as error:
        fix = "Check which network they are of."
        raise InvalidInputError(f"the weights do not fit: {_reason(error)}", what, fix) from None
    if not all(bool(torch.isfinite(weight).all()) for weight in state.values()):
        raise InvalidInputError("the weights are not finite", what, "Its training diverged.")
    return network


def start_from(network: Any, state: State, what: str) -> Any:
    """The network with the weights of a backbone that was trained on anything; the last layer stays random."""
    kept = {name: weight for name, weight in state.items() if not name.startswith(f"{HEAD}.")}
    own = {name: weight for name, weight in network.state_dict().items() if name.startswith(f"{HEAD}.")}
    return fit(network, kept | own, what)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:REASON_LENGTH] or type(error).__name__


class NetworkRunner:
    """Shows crops to a network, with the same bits whatever else it is shown; CPU or GPU."""

    def __init__(self, network: Any, side: int, mean: Sequence[float], std: Sequence[float], device: str) -> None:
        import torch  # noqa: PLC0415 - heavy

        if device == "cpu":
            torch.set_num_threads(1)  # more threads add up in another order, to other bits
        self._network = network.eval().to(device)
        self._mean, self._std = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (mean, std))
        self._side, self._device = side, device
        self._batch = CPU_PICTURES if device == "cpu" else GPU_PICTURES

    def run(self, crops: Sequence[Image.Image], width: int) -> npt.NDArray[np.float32]:
        """What the network says of each crop: [B, width]; `InvalidInputError` where that is not finite."""
        import torch  # noqa: PLC0415 - heavy

        autocast = torch.autocast(self._device.partition(":")[0], enabled=self._device != "cpu")
        with torch.inference_mode(), autocast:
            found = [self._run_batch(batch) for batch in batches(crops, self._batch)]
        outputs = np.concatenate([np.empty((0, width), np.float32), *found])
        if not np.isfinite(outputs).all():
            raise InvalidInputError("what the network says is not finite", "of crops of faces", "Check its weights.")
        return outputs

    def _run_batch(self, crops: list[Image.Image]) -> npt.NDArray[np.float32]:
        import torch  # noqa: PLC0415 - heavy

        # Filled up, for the shape of a batch chooses the order of sums inside, and with it the last bits.
        pixels = np.stack([as_pixels(crop, self._side) for crop in crops])
        filled = np.concatenate([pixels, np.repeat(pixels[-1:], self._batch - len(crops), axis=0)])
        shown = torch.from_numpy(filled)
        if self._device.startswith("cuda"):
            shown = shown.pin_memory()
        shown = shown.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float().div(255)
        output: npt.NDArray[np.float32] = self._network((shown - self._mean) / self._std).float().cpu().numpy()
        return output[: len(crops)]


def as_pixels(crop: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """An RGB crop as [side, side, 3]."""
    if crop.size != (side, side):
        crop = crop.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(crop.convert("RGB"))


class Classifier:
    """A network that was trained to tell people apart; its scores are probabilities."""

    def __init__(self, backbone: str, state: State, side: int, device: str = "cpu") -> None:
        head = state.get(f"{HEAD}.weight")
        if head is None or head.ndim != 2:
            raise InvalidInputError("the weights do not fit: they have no last layer", f"a classifier {backbone}")
        self.people, self.width = head.shape
        self.side = side
        network = fit(build_network(backbone, self.people), state, f"a classifier {backbone}")
        self._head = getattr(network, HEAD).weight.detach().numpy(), getattr(network, HEAD).bias.detach().numpy()
        setattr(network, HEAD, _identity())
        self._runner = NetworkRunner(network, side, IMAGENET_MEAN, IMAGENET_STD, device)

    def features(self, crops: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """What the last layer is given: [B, D]."""
        return self._runner.run(crops, self.width)

    def embed(self, crops: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """The features at length 1: [B, D]."""
        return normalised(self.features(crops))

    def scores(self, crops: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """The probability of each person: [B, P]."""
        weight_PD, bias_P = (array.astype(np.float64) for array in self._head)
        # A product for each crop alone: a matrix of another height may be added up in another order.
        logits = [weight_PD @ features_D + bias_P for features_D in self.features(crops).astype(np.float64)]
        logits_BP = np.stack(logits) if logits else np.empty((0, self.people))
        raised_BP = np.exp(logits_BP - logits_BP.max(axis=1, keepdims=True, initial=-np.inf))
        probabilities_BP: npt.NDArray[np.float32] = (raised_BP / raised_BP.sum(axis=1, keepdims=True)).astype(
            np.float32
        )
        return probabilities_BP


def _identity() -> Any:
    from torch import nn  # noqa: PLC0415 - heavy

    return nn.Identity()


def normalised(vectors_BD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The vectors at length 1; one of length 0 stays."""
    lengths = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = (vectors_BD / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return unit
