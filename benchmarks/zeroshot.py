"""How fast zero-shot classification is on a CPU, and how long the model waits for pictures.

    python benchmarks/zeroshot.py [--quick] [--pictures 400] [--classes 20]

The set has ImageNet's layout and sizes, folders of JPEGs of 500 x 375 pixels, of which there are fewer: 400 for 50,000,
of 20 classes for 1,000. ViT-B-32 has random weights. The model computes in one thread, as in a worker of the stage. A
plain loop that decodes each picture when it is due runs in turn with ours; medians are taken, each figure is a line,
those with a bar are held against it, and the exit code is 1 when one falls short. Where all cores compute, as with a
worker on each, decoding in another thread takes its time from them: then no pictures/s are gained, so that what has a
bar beside the plain loop is the time of the CPU.
"""

import argparse
import io
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import open_clip
import torch
from PIL import Image

from idia_core.labelled_pictures import PATTERNS, labelled_pictures
from idia_core.model_reference import ModelReference
from idia_core.models import CPU_PICTURES, ClipModel, batches
from idia_core.picture_stream import PictureStream
from idia_core.storage import find_files
from idia_core.zeroshot import build_classifier, classification_hits, imagenet_names

ARCHITECTURE = "ViT-B-32"
WIDTH, HEIGHT = 500, 375
IMAGENET_PICTURES, IMAGENET_CLASSES = 50_000, 1000
DRAWN = 50
"""Different pictures; the others are the same again."""


class Turn(NamedTuple):
    """What a walk over all pictures showed."""

    pictures_per_second: float
    cpu: float
    """Seconds of all threads together for each picture."""
    wait: float
    """The share of the time in which the model had no picture to work on."""
    hits: float
    """The share of the pictures that are right among the first five."""


def photograph(number: int) -> bytes:
    """A JPEG that is as smooth and as grained as a photograph, about 100 KB."""
    rng = np.random.default_rng(number)
    smooth = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grained = np.clip(smooth + rng.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grained).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def write_set(folder: Path, pictures: int, classes: int) -> int:
    """Folders of classes with their pictures; returns the mean size of a picture in bytes."""
    contents = [photograph(number) for number in range(DRAWN)]
    for number in range(pictures):
        path = folder / f"n{number % classes:08d}/ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % DRAWN])
    return sum(map(len, contents)) // len(contents)


def ours(model: ClipModel, classifier_CD: np.ndarray, folder: Path) -> Turn:
    """As the stage does it: another thread reads, and a third decodes."""
    files = find_files(str(folder), PATTERNS, "benchmark")
    stream, cpu = PictureStream(model), time.process_time()
    hits = classification_hits(stream, labelled_pictures(files, len(classifier_CD)), classifier_CD)
    cpu = (time.process_time() - cpu) / stream.shown
    return Turn(stream.shown / stream.seconds, cpu, stream.waited / stream.seconds, hits[5] / stream.shown)


def plain(network: Any, transform: Any, classifier_CD: np.ndarray, folder: Path) -> Turn:
    """open_clip's functions in a loop that decodes a batch and then encodes it."""
    folders = sorted(folder.iterdir())
    files = [(label, file) for label, place in enumerate(folders) for file in sorted(place.iterdir())]
    classifier_DC, waited, right = torch.from_numpy(classifier_CD.T), 0.0, 0
    began, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for batch in batches(files, CPU_PICTURES):
            asked = time.perf_counter()
            images = torch.stack([transform(Image.open(file).convert("RGB")) for _, file in batch])
            waited += time.perf_counter() - asked
            first = (network.encode_image(images, normalize=True) @ classifier_DC).topk(5).indices
            right += int((first == torch.tensor([label for label, _ in batch])[:, None]).sum())
    seconds, cpu = time.perf_counter() - began, (time.process_time() - cpu) / len(files)
    return Turn(len(files) / seconds, cpu, waited / seconds, right / len(files))


def show(what: str, value: float, bar: str, held: bool) -> bool:
    """Print one figure and whether its bar holds."""
    print(f"{what:<52} {value:8.3f}  (bar: {bar})  {'held' if held else 'FELL SHORT'}")
    return held


def measure(folder: Path, pictures: int, classes: int, turns: int) -> list[bool]:
    """Build the classifier once, then classify the set both ways in turn."""
    torch.manual_seed(0)
    network, _, transform = open_clip.create_model_and_transforms(ARCHITECTURE)
    torch.save(network.eval().state_dict(), folder / "random.pt")
    model = ClipModel(ModelReference.parse(f"{ARCHITECTURE}:{folder}/random.pt"))
    size = write_set(folder / "val", pictures, classes)
    began = time.perf_counter()
    classifier_CD = build_classifier(model, imagenet_names()[:classes])
    built = time.perf_counter() - began
    print(f"  {pictures} pictures of {WIDTH} x {HEIGHT}, {size / 1000:.0f} KB each, {classes} classes of 80 prompts")
    found = [
        (ours(model, classifier_CD, folder / "val"), plain(network, transform, classifier_CD, folder / "val"))
        for _ in range(turns)
    ]
    mine, theirs = zip(*found, strict=True)
    if any(abs(one.hits - other.hits) > 2 / pictures for one, other in found):
        sys.exit(f"both ways should find the same: {found}")
    rate, their_rate = (statistics.median(turn.pictures_per_second for turn in side) for side in (mine, theirs))
    wait, their_wait = (statistics.median(turn.wait for turn in side) for side in (mine, theirs))
    extra = statistics.median(one.cpu / other.cpu for one, other in found)
    whole, once = IMAGENET_PICTURES / rate, built * IMAGENET_CLASSES / classes
    images, names = f"{IMAGENET_PICTURES:,} pictures", f"{IMAGENET_CLASSES:,} classes"
    print(f"  {rate:.1f} pictures/s, the plain loop {their_rate:.1f}, which decodes for {their_wait:.1%} of its time")
    print(f"  the classifier took {built:.1f} s, once a model; for {names} it would take {once:,.0f} s,")
    print(f"  beside {whole:,.0f} s for {images}: {once / (once + whole):.0%} of the time")
    return [
        show("data wait / time", wait, "< 0.10", wait < 0.10),
        show("CPU time a picture, ours / plain loop", extra, "<= 1.10", extra <= 1.10),
    ]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, classes and turns; within a minute")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--classes", type=int, default=20)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights
    sizes = (48, 5, 2) if options.quick else (options.pictures, options.classes, 5)
    with tempfile.TemporaryDirectory() as folder:
        held = measure(Path(folder), *sizes)
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
