"""What a second of this machine does, for `idia plan`: prints a file of rates.

    python benchmarks/rates.py [--device cuda] [--architectures ViT-B-32 RN50] [--seconds 5] > rates.yaml
    idia plan cc3m.yaml --rates rates.yaml

Networks have random weights, which cost as much as others. On a CPU there is one thread, and the time is that of the
CPU, which other work disturbs less than the clock: so a rate is that of one core. On a GPU it is the clock's, and what
prepares pictures for it is not in it: that is done beside it, by the CPUs that a stage reserves. Pictures are drawn
scenes of 500 x 375 pixels; prompts are the attack's; `train`, on a GPU alone, is a step of CLIP's loss and AdamW with
mixed precision, of one process.
"""

import argparse
import io
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import faiss
import numpy as np
import open_clip
import torch
import yaml
from faces import draw_scene
from PIL import Image

from idia_core.classifier import SIDES, build_network
from idia_core.face_detection import Detector, DetectorConfig, make_detector
from idia_core.index_building import lists_for, new_index, probes_for, set_probes
from idia_core.model_reference import architectures
from idia_core.prompts import TEMPLATES
from idia_core.reduced_pictures import find_faces
from idia_core.text_tower import TextTower

PICTURES, PEOPLE, NEIGHBOURS = 64, 530, 50
ROWS, DIMENSIONS, QUERIES = 100_000, 512, 1000
ARCHITECTURES = ["ViT-B-32", "ViT-B-16", "ViT-L-14", "RN50", "RN50x4"]
CODES = 128
"""Bytes of a code, as CC3M's size would have them."""


class Clock:
    """Measures how many units a second some work does."""

    def __init__(self, device: str, seconds: float) -> None:
        self.device, self._seconds = device, seconds
        self._now = time.process_time if device == "cpu" else self._synchronised

    @staticmethod
    def _synchronised() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    def rate(self, units: int, work: Callable[[], object]) -> float:
        """Units a second, after a first go that does not count."""
        work()
        began, turns = self._now(), 0
        while turns < 2 or self._now() - began < self._seconds:
            work()
            turns += 1
        return units * turns / (self._now() - began)


def clip(clock: Clock, architecture: str, contents: list[bytes]) -> Iterator[tuple[str, str, float]]:
    """Pictures and prompts that a model embeds, and pairs that it is trained on."""
    architectures()
    model, _, transform = open_clip.create_model_and_transforms(architecture, device=clock.device)
    model.eval()
    tokenizer, cuda = open_clip.get_tokenizer(architecture), clock.device != "cpu"
    batch = 256 if cuda else 8
    some = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    prepared = torch.stack([transform(some[i % PICTURES]) for i in range(batch)]).to(clock.device)
    asked = [template.format("Ann Ash") for template in TEMPLATES] * (batch // 8)
    texts, tower = tokenizer(asked).to(clock.device), TextTower(model, tokenizer, clock.device)

    def pictures() -> None:
        shown = prepared
        if not cuda:  # where there is no other processor to do it
            shown = torch.stack([transform(Image.open(io.BytesIO(one)).convert("RGB")) for one in contents[:batch]])
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=cuda):
            model.encode_image(shown)

    def prompts() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=cuda):
            tower.encode(asked)

    yield f"clip_pictures.{architecture}", "pictures", clock.rate(batch, pictures)
    yield f"clip_texts.{architecture}", "texts", clock.rate(len(asked), prompts)
    if cuda:  # with the small batches of a CPU a step is mostly the optimiser's
        yield f"train.{architecture}", "pairs", clock.rate(*step(model.train(), prepared[:128], texts[:128]))


def step(model: torch.nn.Module, pictures: torch.Tensor, texts: torch.Tensor) -> tuple[int, Callable[[], object]]:
    """The pairs of a step of a training on a GPU, and the step."""
    optimiser, scaler = torch.optim.AdamW(model.parameters(), fused=True), torch.amp.GradScaler()
    loss = open_clip.ClipLoss()

    def one() -> None:
        optimiser.zero_grad()
        with torch.autocast("cuda", torch.float16):
            found = loss(*model(pictures, texts))
        scaler.scale(found).backward()
        scaler.step(optimiser)
        scaler.update()

    return len(pictures), one


def recogniser(clock: Clock) -> Iterator[tuple[str, str, float]]:
    """Faces that the paper's recogniser names, and that it is trained on."""
    cuda = clock.device != "cpu"
    network, batch = build_network("resnet50", PEOPLE).to(clock.device), 128 if cuda else 8
    faces = torch.rand(batch, 3, SIDES["resnet50"], SIDES["resnet50"], device=clock.device)
    people = torch.randint(PEOPLE, (batch,), device=clock.device)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)

    def named() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            network(faces)

    def trained() -> None:
        optimiser.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            loss = torch.nn.functional.cross_entropy(network(faces), people)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    yield "recogniser.train.resnet50", "faces", clock.rate(batch, trained)
    network.eval()
    yield "recogniser.faces.resnet50", "faces", clock.rate(batch, named)


def faces(clock: Clock, contents: list[bytes]) -> Iterator[tuple[str, str, float]]:
    """Pictures that faces are looked for on."""
    for kind in ("haar", "mtcnn"):
        detector = make_detector(DetectorConfig(kind=kind))
        yield f"faces.{kind}", "pictures", clock.rate(16, partial(find_all, contents[:16], detector))


def find_all(contents: list[bytes], detector: Detector) -> None:
    """Look for faces on all pictures."""
    for _ in find_faces(contents, detector):
        pass


def index(clock: Clock) -> Iterator[tuple[str, str, float]]:
    """Rows that are added to an index, and rows that queries are compared with."""
    faiss.omp_set_num_threads(1)
    rows = np.random.default_rng(0).standard_normal((ROWS, DIMENSIONS), np.float32)
    lists = lists_for(ROWS)
    for kind, factory in (("flat", "Flat"), ("codes", f"IVF{lists},PQ{CODES}x8")):
        made = new_index(factory, DIMENSIONS)
        if not made.is_trained:
            made.train(rows[: 50 * lists])
            set_probes(made, probes_for(lists))
        began = time.process_time()
        made.add(rows)
        yield f"index.{kind}", "rows", ROWS / (time.process_time() - began)
        queries = rows[:QUERIES] + 0.1
        yield (
            f"search.{kind}",
            "rows x queries",
            clock.rate(QUERIES * ROWS, partial(made.search, queries, NEIGHBOURS)),
        )


def main() -> int:
    """Measure, and print the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--architectures", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--seconds", type=float, default=5, help="for each rate")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock, contents = Clock(options.device, options.seconds), [draw_scene(number) for number in range(PICTURES)]
    on = platform.processor() or platform.machine() if clock.device == "cpu" else torch.cuda.get_device_name()
    measured = f"benchmarks/rates.py, {on}, {time.strftime('%Y-%m-%d')}"
    found = dict[str, dict[str, object]]()

    def take(rates: Iterator[tuple[str, str, float]]) -> None:
        for work, unit, rate in rates:
            kind = "cpu" if clock.device == "cpu" else "gpu"
            found[work] = {"unit": unit, kind: float(f"{rate:.3g}"), "measured": measured}
            print(f"# {work}: {rate:,.4g} {unit}/s", file=sys.stderr, flush=True)

    for architecture in options.architectures:
        take(clip(clock, architecture, contents))
    take(recogniser(clock))
    if clock.device == "cpu":
        take(faces(clock, contents))
        take(index(clock))
    print(yaml.safe_dump({"rates": found}, sort_keys=False, width=120), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
