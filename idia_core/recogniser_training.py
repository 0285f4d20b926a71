"""How a classifier of faces is trained: its recipe, its pictures, and what a rank of the training does.

Axes: N pictures, B those of a rank's batch.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps
from pydantic import Field, model_validator

from idia_core.classifier import IMAGENET_MEAN, IMAGENET_STD, SIDES, Backbone, build_network, read_state, start_from
from idia_core.config import Strict
from idia_core.errors import TrainingError
from idia_core.face_crops import crop_face
from idia_core.face_detection import DetectorConfig, make_detector
from idia_core.images import PictureStatus, decode_picture
from idia_core.storage import as_path

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
CROPS = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("picture", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # train, test or stranger
        pa.field("status", pa.string(), nullable=False),  # a `PictureStatus`, or `no_face`
        pa.field("image", pa.binary()),  # a square JPEG; null unless the status is ok
    ]
)
NO_FACE = "no_face"
JPEG_QUALITY = 95
STORED = 8 / 7
"""How much larger a picture is kept than the network's side: 256 for 224, so that random crops are not blown up."""
LABELLED = pa.schema([pa.field("label", pa.int64(), nullable=False), pa.field("image", pa.binary(), nullable=False)])
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.2, 0.2, 0.1, 0.1
"""The paper's colour jitter, from its code."""
DECAY, DECAYS_AT = 0.1, (0.75, 0.9)
"""The learning rate is multiplied by this after these shares of the epochs (paper, Appendix C)."""
GPU_LOADERS = 4
"""Processes that prepare pictures for a rank on a GPU; a rank on a CPU prepares its own."""


class ClassifierRecipe(Strict):
    """What decides a classifier's weights; the defaults are the paper's."""

    backbone: Backbone = "resnet50"
    """`resnet50`, or `small`, which a CPU trains in minutes."""
    weights: str | None = None
    """A state dict of the backbone to start from, such as torchvision's of ImageNet; random weights when not given."""
    side: Annotated[int, Field(ge=32)] | None = None
    """Pixels of what the network is shown: 224 (`resnet50`) or 64 (`small`) when not given."""
    epochs: Count = 100
    """Times that all training pictures are shown."""
    batch_size: Count = 128
    """Pictures of a step, over all processes."""
    learning_rate: Positive = 3e-3
    """Adam's; a tenth of it after 75% of the epochs and a hundredth after 90%."""
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of a picture that a random crop of it has at least."""
    processes: Count = 1
    """Ranks that share a batch, each on a GPU of its own where there are GPUs."""

    @model_validator(mode="after")
    def _shared_evenly(self) -> "ClassifierRecipe":
        if self.batch_size % self.processes or self.batch_size < 2 * self.processes:
            raise ValueError("batch_size must be a multiple of processes, and two pictures or more for each")
        return self

    @property
    def stored_pixels(self) -> int:
        """The side of the pictures that are kept to be trained on."""
        return round(self.pixels * STORED)

    @property
    def pixels(self) -> int:
        """The side of what the network is shown."""
        return self.side or SIDES[self.backbone]

    def learning_rate_in(self, epoch: int) -> float:
        """The rate in an epoch, counted from 0."""
        return self.learning_rate * DECAY ** sum(epoch >= int(self.epochs * share) for share in DECAYS_AT)


class TrainingJob(Strict):
    """What every rank is told, as JSON."""

    recipe: ClassifierRecipe
    people: Annotated[int, Field(ge=2)]
    """Whom the network tells apart."""
    pictures: str
    """An Arrow file of LABELLED that all ranks see."""
    seed: int
    """Of first weights, order and augmentation."""
    device: Literal["cpu", "cuda"] = "cpu"
    """On cuda most of the arithmetic is in bfloat16."""


class CropMaker:
    """Cuts the square out of people's pictures that a network is trained on, or an embedder shown."""

    def __init__(self, side: int, detector: DetectorConfig | None, margin: float, device: str = "cpu") -> None:
        self._side, self._margin = side, margin
        self._detector = None if detector is None else make_detector(detector, device)
        self._detecting = Lock()  # a detector need not stand two threads at once

    def crop(self, status: str, image: bytes | None) -> tuple[bytes | None, str]:
        """A JPEG of the square, and `ok`; or None, and the status of a picture that gave none."""
        if status != PictureStatus.OK or image is None:
            return None, status
        picture, found = decode_picture(image)
        if picture is None:
            return None, str(found)
        square = self._square(picture)
        if square is None:
            return None, NO_FACE
        buffer = io.BytesIO()
        square.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return buffer.getvalue(), str(PictureStatus.OK)

    def _square(self, picture: Image.Image) -> Image.Image | None:
        """The middle of the picture, as the paper cuts FaceScrub's crops; with a detector, its largest face."""
        if self._detector is None:
            return ImageOps.fit(picture, (self._side, self._side), Image.Resampling.BILINEAR)
        with self._detecting:
            faces = self._detector.detect([picture])[0]
        return crop_face(picture, faces[0].box, self._margin, self._side) if faces else None


def held_out(pictures: Sequence[str], share: float, seed: int, identity: str) -> set[str]:
    """Those of a person's pictures that are kept from the training, by a seeded draw; one at least of two or more.

    Other people's pictures play no part in the draw.
    """
    count = min(max(1, int(len(pictures) * share + 0.5)), len(pictures) - 1)
    own = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8])
    order = np.random.default_rng([seed, own]).permutation(len(pictures))
    names = sorted(pictures)
    return {names[place] for place in order[: max(count, 0)]}


def write_pictures(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of LABELLED so that ranks can look at single rows without reading all."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, LABELLED) as writer:
        for table in tables:
            writer.write_table(table.combine_chunks())


class LabelledPictures:
    """Pictures in an Arrow file, mapped into memory, augmented anew in every epoch; a data set of torch's."""

    def __init__(self, path: str, transform: Any, seed: int) -> None:
        self._path, self._transform, self._seed = path, transform, seed
        self.epoch = 0
        self._open()

    def _open(self) -> None:
        self._table = pa.ipc.open_file(pa.memory_map(self._path)).read_all()
        self.labels_N: npt.NDArray[np.int64] = self._table["label"].to_numpy()

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        """A picture as the network takes it, [3, side, side], the same whoever loads it; and whose it is."""
        seed_torch(self._seed, self.epoch, int(place))
        picture = Image.open(io.BytesIO(self._table["image"][int(place)].as_py()))
        return self._transform(picture.convert("RGB")), int(self.labels_N[place])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in {"_table", "labels_N"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def augmentation(recipe: ClassifierRecipe) -> Any:
    """The paper's, from its code: a random crop that keeps most of the picture, colour jitter and a flip."""
    import torch  # noqa: PLC0415 - heavy
    from torchvision.transforms import v2  # noqa: PLC0415 - heavy

    crop = v2.RandomResizedCrop(recipe.pixels, scale=(recipe.smallest_crop, 1), ratio=(1, 1), antialias=True)
    jitter = v2.ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE)
    as_numbers = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(IMAGENET_MEAN), list(IMAGENET_STD))]
    return v2.Compose([v2.PILToTensor(), crop, jitter, v2.RandomHorizontalFlip(), *as_numbers])


def seed_torch(*numbers: int) -> None:
    """Start torch's random numbers from all of the numbers together."""
    import torch  # noqa: PLC0415 - heavy

    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


def epoch_order(pictures: int, batch_size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The pictures of each step of an epoch, in a seeded order: [steps, batch_size].

    The last step is filled up from the start of the order, so those are shown twice.
    """
    order_N = np.random.default_rng([seed, epoch]).permutation(pictures)
    steps = -(-pictures // batch_size)
    return np.resize(order_N, (steps, batch_size))


class Trainer:
    """One rank of a training; the same weights for the same job, whether it was interrupted or not."""

    def __init__(self, job: TrainingJob, rank: int, local_rank: int) -> None:
        import torch  # noqa: PLC0415 - heavy

        self._job, self._rank = job, rank
        self._device = torch.device("cuda", local_rank) if job.device == "cuda" else torch.device("cpu")
        seed_torch(job.seed)
        network = build_network(job.recipe.backbone, job.people)
        if job.recipe.weights is not None:
            network = start_from(network, read_state(as_path(job.recipe.weights)), job.recipe.weights)
        self.network = network.to(self._device)
        self._parallel = self._shared() if job.recipe.processes > 1 else self.network
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=job.recipe.learning_rate)
        self._pictures = LabelledPictures(job.pictures, augmentation(job.recipe), job.seed)
        self.losses: list[float] = []
        """The mean loss of every epoch that is done."""

    def _shared(self) -> Any:
        from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415 - heavy

        if self._device.type == "cuda":
            return DistributedDataParallel(self.network, device_ids=[self._device.index])
        # To look for unused weights keeps the buckets of the first step for all: sent in another order, the gradients
        # of three and more ranks add up to other last bits, and a resumed training would not be the uninterrupted one.
        return DistributedDataParallel(self.network, gradient_as_bucket_view=True, find_unused_parameters=True)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        weights = self.network.state_dict()
        return {
            "state_dict": weights,
            "optimizer": self._optimiser.state_dict(),
            "epoch": len(self.losses),
            "losses": self.losses,
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Be where the training was when it had this state."""
        self.network.load_state_dict(state["state_dict"])
        self._optimiser.load_state_dict(state["optimizer"])
        self.losses = list(state["losses"])

    def train_epoch(self) -> None:
        """Show all pictures once more; `TrainingError` where the loss is not finite, which no rank survives."""
        import torch  # noqa: PLC0415 - heavy

        epoch = len(self.losses)
        for group in self._optimiser.param_groups:
            group["lr"] = self._job.recipe.learning_rate_in(epoch)
        self._parallel.train()
        losses = torch.stack([self._step(images, labels) for images, labels in self._batches(epoch)])
        mean = losses.double().mean()
        if self._job.recipe.processes > 1:
            torch.distributed.all_reduce(mean)
            mean /= self._job.recipe.processes
        if not torch.isfinite(mean):
            where, fix = f"epoch {epoch + 1}", "Lower recipe.learning_rate."
            raise TrainingError(f"the loss is {mean.item()}", where, fix)
        self.losses.append(float(mean))

    def _step(self, images: Any, labels: Any) -> Any:
        import torch  # noqa: PLC0415 - heavy

        on_gpu = self._device.type == "cuda"
        images, labels = (tensor.to(self._device, non_blocking=True) for tensor in (images, labels))
        self._optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=on_gpu):
            loss = torch.nn.functional.cross_entropy(self._parallel(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotations leave it out
        self._optimiser.step()
        return loss.detach()

    def _batches(self, epoch: int) -> Iterator[Any]:
        """This rank's part of every batch of the epoch."""
        from torch.utils.data import DataLoader  # noqa: PLC0415 - heavy

        recipe, on_gpu = self._job.recipe, self._device.type == "cuda"
        self._pictures.epoch = epoch
        order = epoch_order(len(self._pictures), recipe.batch_size, self._job.seed, epoch)
        mine: Sequence[list[int]] = order[:, self._rank :: recipe.processes].tolist()
        loaders = GPU_LOADERS if on_gpu else 0
        yield from DataLoader(self._pictures, batch_sampler=mine, num_workers=loaders, pin_memory=on_gpu)  # type: ignore[arg-type]  # all that it asks of a data set is there
