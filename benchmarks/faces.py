"""How fast faces are detected on one core, beside facenet-pytorch's own loop and that of the paper's notebook.

    python benchmarks/faces.py [--quick] [--pictures FOLDER] [--only mtcnn haar processes]

The pictures are JPEGs of 500 x 375 pixels: drawn scenes with up to four portraits of many sizes; or those of a folder.
`mtcnn`: a picture is opened by Pillow and shown to `MTCNN(keep_all=True).detect`, one after another. `haar`: it is
decoded in full by OpenCV, made grey and shown to `detectMultiScale(1.1, 5, minSize=(32, 32))`. Ours is `find_faces`
with its defaults, of which one is that faces of 40 pixels and more are looked for. Each side has one thread. A few
pictures go through one side and then the other, so that both meet the same machine, each time twice, of which the
second counts: the first brings back what the other side has pushed out of the caches. The ratio is of CPU time, which
other work disturbs less than the clock: the median over these batches. Faces of at least 40 pixels that the other side
found should be found by ours, with an overlap (IoU) of 0.5. `processes`: decoding, detection and recognition by a small
embedding network, in two processes and in one, by the clock; it wants two idle cores. Each figure is a line, those with
a bar are held against it, and the exit code is 1 when one falls short.
"""

import argparse
import io
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image

from idia_core.drawing import draw_background, draw_face, encode_jpeg, invent_people
from idia_core.face_crops import crops_of
from idia_core.face_detection import Box, DetectorConfig, Face, make_detector
from idia_core.reduced_pictures import find_faces

WIDTH, HEIGHT = 500, 375
LEAST, BATCH = 40, 20
BAR, FOUND_BAR, PROCESSES_BAR = 3.0, 0.98, 1.8
SPAWN = multiprocessing.get_context("spawn")
Loop = Callable[[Sequence[bytes]], list[list[Box]]]
Recogniser = Callable[[Sequence[Image.Image]], Any]
"""Is shown crops of faces."""


def show(what: str, value: float, bar: float | None = None) -> bool:
    """Print a figure and, where it has a bar, whether that holds."""
    held = bar is None or value >= bar
    told = "" if bar is None else f"  (bar: >= {bar:g})  {'held' if held else 'FELL SHORT'}"
    print(f"{what:<66} {value:8.3f}{told}", flush=True)
    return held


def draw_scene(number: int) -> bytes:
    """A JPEG of a scene with up to four portraits, whose faces are 35 to 170 pixels high."""
    rng, people = np.random.default_rng(number), invent_people(24, 7, ["F", "M"] * 12)
    picture = cv2.resize(draw_background((3, number))[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    taken = list[tuple[int, int, int]]()
    for portrait in range(int(rng.integers(0, 5))):
        side = int(rng.uniform(56, 260))
        drawn = cv2.resize(
            draw_face(people[int(rng.integers(24))], (number, portrait)), (side, side), interpolation=cv2.INTER_AREA
        )
        for x, y in rng.integers((0, 0), (WIDTH - side, HEIGHT - side), (20, 2)).tolist():
            if all(x >= a + s or a >= x + side or y >= b + s or b >= y + side for a, b, s in taken):
                picture[y : y + side, x : x + side] = drawn
                taken.append((x, y, side))
                break
    return encode_jpeg(np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8), 92)


def facenet() -> Loop:
    """facenet-pytorch's loop with its defaults."""
    detector = MTCNN(keep_all=True)

    def loop(contents: Sequence[bytes]) -> list[list[Box]]:
        found = [detector.detect(Image.open(io.BytesIO(content)).convert("RGB"))[0] for content in contents]
        return [[] if corners is None else [from_corners(row) for row in corners.tolist()] for corners in found]

    return loop


def from_corners(corners: Sequence[float]) -> Box:
    """The box between two corners."""
    left, top, right, bottom = map(round, corners)
    return Box(left, top, right - left, bottom - top)


def notebook() -> Loop:
    """The loop of the paper's notebook."""
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def of(content: bytes) -> list[Box]:
        grey = cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2GRAY)
        boxes = cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(32, 32))
        return [Box(*map(int, box)) for box in boxes]

    return lambda contents: [of(content) for content in contents]


def ours(kind: Any) -> Loop:
    """Ours with its defaults."""
    detector = make_detector(DetectorConfig(kind=kind, min_face=LEAST))
    return lambda contents: [boxes_of(found.faces) for found in find_faces(contents, detector)]


def boxes_of(faces: Sequence[Face]) -> list[Box]:
    """Their boxes."""
    return [face.box for face in faces]


class Timed(NamedTuple):
    """What a loop found in all pictures, and the seconds of CPU that each batch took for a picture."""

    boxes: list[list[Box]]
    seconds: list[float]


def in_turn(contents: Sequence[bytes], turns: int, *loops: Loop) -> list[Timed]:
    """Show the pictures to all loops, a batch to each in turn; each is warmed up by one batch."""
    sides = [Timed(loop(contents[:BATCH]) and [], []) for loop in loops]
    for turn in range(turns):
        for start in range(0, len(contents), BATCH):
            batch = contents[start : start + BATCH]
            for loop, side in zip(loops, sides, strict=True):
                loop(batch)
                began = time.process_time()
                found = loop(batch)
                side.seconds.append((time.process_time() - began) / len(batch))
                if turn == 0:
                    side.boxes.extend(found)
    return sides


def compare(name: str, contents: Sequence[bytes], turns: int, theirs: Loop, mine: Loop) -> list[bool]:
    """The ratio of both loops' speeds, and how much of what theirs finds is found."""
    their_side, my_side = in_turn(contents, turns, theirs, mine)
    rates = [len(side.seconds) / sum(side.seconds) for side in (their_side, my_side)]
    ratios = [one / other for one, other in zip(their_side.seconds, my_side.seconds, strict=True)]
    pairs = list(zip(their_side.boxes, my_side.boxes, strict=True))
    wanted = [
        max((box.overlap(other) for other in found), default=0) >= 0.5
        for boxes, found in pairs
        for box in boxes
        if max(box.width, box.height) >= LEAST
    ]
    counts = [sum(map(len, side.boxes)) for side in (their_side, my_side)]
    print(f"  {name}: {rates[0]:.1f} pictures/s/core, ours {rates[1]:.1f}; {counts[0]} faces, ours {counts[1]};")
    print(f"  all together {rates[1] / rates[0]:.2f}; {len(wanted)} of theirs have {LEAST} pixels and more")
    return [
        show(f"{name}: pictures/s/core, ours / theirs", statistics.median(ratios), BAR),
        show(f"{name}: share of their faces that ours found", sum(wanted) / max(len(wanted), 1), FOUND_BAR),
    ]


def recogniser() -> Recogniser:
    """A small embedding network with random weights, as large as what people are recognised with on a CPU."""
    from torchvision.models import mobilenet_v3_small  # noqa: PLC0415 - of this part alone

    torch.manual_seed(0)
    network = mobilenet_v3_small(weights=None).eval()

    def recognise(crops: Sequence[Image.Image]) -> Any:
        pixels_BHWC = torch.from_numpy(np.stack([np.asarray(crop) for crop in crops]))
        with torch.inference_mode():
            return network(pixels_BHWC.permute(0, 3, 1, 2).float() / 255)

    return recognise


def recognise_all(contents: Sequence[bytes], recognise: Recogniser) -> float:
    """Decode, detect and recognise; returns when it began, after a batch to warm up."""
    one_thread()
    detector = make_detector(DetectorConfig())
    find_faces(contents[:BATCH], detector)
    began = time.time()
    for start in range(0, len(contents), BATCH):
        found = find_faces(contents[start : start + BATCH], detector)
        if crops := [crop for one in found for crop in crops_of(one)]:
            recognise(crops)
    return began


def _share(contents: Sequence[bytes], gate: Any) -> tuple[float, float]:
    recognise = recogniser()
    gate.wait()
    return recognise_all(contents, recognise), time.time()


def _send_share(contents: Sequence[bytes], gate: Any, out: Any) -> None:
    out.send(_share(contents, gate))


def pictures_per_second(contents: Sequence[bytes], processes: int) -> float:
    """Of so many processes, each with its share, from when all have started."""
    gate, pipes = SPAWN.Barrier(processes), [SPAWN.Pipe() for _ in range(processes)]
    shares = [
        SPAWN.Process(target=_send_share, args=(contents[number::processes], gate, pipe[1]))
        for number, pipe in enumerate(pipes)
    ]
    for share in shares:
        share.start()
    times = [pipe[0].recv() for pipe in pipes]
    for share in shares:
        share.join()
    return len(contents) / (max(end for _, end in times) - min(began for began, _ in times))


def compare_processes(contents: Sequence[bytes], turns: int) -> bool:
    """Two processes beside one."""
    found = [(pictures_per_second(contents, 1), pictures_per_second(contents, 2)) for _ in range(turns)]
    one, two = (statistics.median(side) for side in zip(*found, strict=True))
    print(f"  decode, detect, recognise: {one:.1f} pictures/s in one process, {two:.1f} in two")
    return show("two processes / one", two / one, PROCESSES_BAR)


def one_thread() -> None:
    """A worker's share of a machine."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["mtcnn", "haar", "processes"]
    parser.add_argument("--quick", action="store_true", help="fewer pictures and turns; within a minute")
    parser.add_argument("--pictures", type=Path, help="a folder with JPEGs instead of drawn ones")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    options = parser.parse_args()
    one_thread()
    count, turns = (96, 1) if options.quick else (320, 3)
    if options.pictures:
        contents = [file.read_bytes() for file in sorted(options.pictures.rglob("*.jp*g"))[:count]]
    else:
        contents = [draw_scene(number) for number in range(count)]
    print(f"  {len(contents)} pictures, {sum(map(len, contents)) / len(contents) / 1000:.0f} KB each")
    held = list[bool]()
    if "mtcnn" in options.only:
        held += compare("MTCNN", contents, turns, facenet(), ours("mtcnn"))
    if "haar" in options.only:
        held += compare("Haar", contents, turns, notebook(), ours("haar"))
    if "processes" in options.only:
        held.append(compare_processes(contents * (2 if options.quick else 4), turns))
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
