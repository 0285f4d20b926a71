"""How fast and how lean the attack and its evaluation are, beside the alternatives.

    python benchmarks/attack.py [--quick] [--only texts again grid scoring memory] [--names 1000]

Votes and embeddings are generated, and ViT-B-32 has random weights. The alternatives run in turn with ours, on one
core, medians are taken, each figure is a line with its bar, and the exit code is 1 when one falls short. By open_clip's
way the paper's 21 x 1,000 prompts take more than half an hour, so that `texts` embeds those of 40 names both ways;
`--names 1000` embeds all.
"""

import argparse
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
os.environ |= dict.fromkeys(THREADS, "1")  # read when numpy and polars are imported

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pandas as pd  # noqa: E402
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402
from upath import UPath  # noqa: E402

from idia_core.attack import predict  # noqa: E402
from idia_core.candidates import NameSource, candidate_names  # noqa: E402
from idia_core.evaluation import draw_outcomes, draw_pictures, picture_counts, scores, vote_grid  # noqa: E402
from idia_core.identities import IDENTITIES  # noqa: E402
from idia_core.names import invent_names  # noqa: E402
from idia_core.prompts import TEMPLATES as PROMPTS  # noqa: E402
from idia_core.prompts import fill  # noqa: E402
from idia_core.text_cache import TextCache  # noqa: E402
from idia_core.text_tower import TextTower  # noqa: E402

PEOPLE, PICTURES, TEMPLATES, NAMES, DRAWS, DIMENSIONS = 153, 30, 21, 1000, 20, 512
COUNTS = picture_counts(PICTURES)
KEYS = ["identity", "images", "draw", "template"]

Floats = npt.NDArray[np.float32]
Person = tuple[str, str]


def show(what: str, value: float, bar: float, unit: str = "", *, at_least: bool = False) -> bool:
    """Print a figure and whether its bar holds."""
    held = value >= bar if at_least else value <= bar
    sign = ">=" if at_least else "<="
    print(f"{what:<66} {value:8.2f}{unit}  (bar: {sign} {bar:g})  {'held' if held else 'FELL SHORT'}", flush=True)
    return held


def in_turn(*jobs: Callable[[], Any], turns: int) -> list[float]:
    """The median seconds of each job; one uncounted round first, then all in turn."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for turn in range(turns + 1):
        for job, taken in zip(jobs, seconds, strict=True):
            began = time.perf_counter()
            job()
            if turn:
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]


def text_model() -> tuple[Any, Any]:
    """ViT-B-32 with random weights, and its tokenizer."""
    import open_clip  # noqa: PLC0415 - what `memory` measures should not begin with it
    import torch  # noqa: PLC0415

    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    return open_clip.create_model("ViT-B-32").eval(), open_clip.get_tokenizer("ViT-B-32")


def encode_full(model: Any, tokenizer: Any, prompts: list[str]) -> Floats:
    """What open_clip's `encode_text` gives, 64 prompts at a time."""
    parts = [tokenizer(prompts[i : i + 64]) for i in range(0, len(prompts), 64)]
    encoded: Floats = np.concatenate([model.encode_text(part, normalize=True).numpy() for part in parts])
    return encoded


def text_stage(names: int) -> Iterator[bool]:
    """Both ways to embed the prompts in turn, those of 100 names at a time."""
    model, tokenizer = text_model()
    tower, images_PD = TextTower(model, tokenizer, "cpu"), embeddings(200, seed=6)
    encode_full(model, tokenizer, ["warm up"])
    tower.encode(["warm up"])
    seconds_full = seconds_cut = 0.0
    full, cut = list[Floats](), list[Floats]()
    candidates = invent_names(names, 0)
    for some in (candidates[i : i + 100] for i in range(0, names, 100)):
        prompts, began = fill(PROMPTS, some), time.perf_counter()
        full.append(encode_full(model, tokenizer, prompts).reshape(TEMPLATES, len(some), -1))
        between = time.perf_counter()
        cut.append(tower.encode(prompts).reshape(TEMPLATES, len(some), -1))
        seconds_full += between - began
        seconds_cut += time.perf_counter() - between
    other = int((predict(images_PD, full) != predict(images_PD, cut)).sum())
    difference = max(float(abs(one - two).max()) for one, two in zip(full, cut, strict=True))
    print(f"  {TEMPLATES} x {names:,} prompts: {seconds_full:.0f} s with 77 tokens, {seconds_cut:.0f} s cut short")
    yield show("text stage, open_clip's encode_text / ours", seconds_full / seconds_cut, 5, at_least=True)
    yield show("text stage, largest difference of an element, times 1e5", difference * 1e5, 1)
    yield show(f"text stage, answers that differ of {TEMPLATES * len(images_PD):,}", other, 0)


def second_audit(names: int) -> Iterator[bool]:
    """The same model asked about other people: how many prompts of names seen before are embedded again."""
    tower, firsts = TextTower(*text_model(), "cpu"), invent_names(8, 1)
    seen, again = set[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        for audit, people in enumerate((firsts[:4], firsts[4:])):
            table = pa.Table.from_pylist([{"identity": name, "name": name} for name in people], IDENTITIES)
            candidates = set(candidate_names(table, names, 0, NameSource())["name"].to_pylist())
            cache, began = TextCache(UPath(folder), "key"), time.perf_counter()
            cache.embed(PROMPTS, sorted(candidates), tower.encode)
            again = cache.encoded_prompts - TEMPLATES * len(candidates - seen)
            seconds = time.perf_counter() - began
            print(
                f"  audit {audit + 1} of {names} names: {cache.encoded_prompts:,} prompts embedded in {seconds:.1f} s"
            )
            seen |= candidates
    yield show("prompts that a second audit embeds again", again, 0)


def make_votes() -> tuple[pl.DataFrame, list[Person]]:
    """Votes of one model on the paper's numbers of people and pictures; some names are favourites, a third is right."""
    rng = np.random.default_rng(0)
    shape = (PEOPLE, PICTURES, TEMPLATES)
    weights = 1 / np.arange(3, NAMES + 3)
    favourites = rng.choice(NAMES, shape, p=weights / weights.sum())
    right = rng.random(shape) < rng.random((PEOPLE, 1, 1)) / 1.5
    names = np.array([f"Given{number % 40} Family{number:04d}" for number in range(NAMES)])
    predicted = np.where(right, np.arange(PEOPLE)[:, None, None], favourites)
    identities = [f"person_{number:03d}" for number in range(PEOPLE)]
    columns = {
        "identity": np.repeat(identities, PICTURES * TEMPLATES),
        "image": np.tile(np.repeat([f"{number:02d}.jpg" for number in range(PICTURES)], TEMPLATES), PEOPLE),
        "template": np.tile([f"an image of {{0}}, {number}" for number in range(TEMPLATES)], PEOPLE * PICTURES),
        "predicted": names[predicted.ravel()],
    }
    return pl.DataFrame(columns), list(zip(identities, names[:PEOPLE].tolist(), strict=True))


def ours(votes: pl.DataFrame, people: list[Person]) -> list[tuple[str, int, int, int]]:
    """The score of every person for every number of pictures and draw."""
    outcomes = draw_outcomes(vote_grid("model", votes), people, COUNTS, DRAWS, 0)
    return pl.DataFrame(outcomes).select("identity", "images", "draw", "score").rows()


def pandas_draws(votes: pd.DataFrame, people: list[Person]) -> list[tuple[str, int, int, int]]:
    """The same with a group-by for each draw."""
    rows = []
    for place, (identity, name) in enumerate(people):
        mine = votes[votes["identity"] == identity]
        images = np.sort(mine["image"].unique())
        for count in COUNTS:
            for draw, chosen in enumerate(_choices(place, count)):
                counted = mine[mine["image"].isin(images[chosen == 1])].groupby(["template", "predicted"]).size()
                ranked = counted.reset_index(name="votes")
                leaders = ranked[ranked["votes"] == ranked.groupby("template")["votes"].transform("max")]
                alone = leaders[~leaders.duplicated("template", keep=False)]
                rows.append((identity, count, draw, int((alone["predicted"] == name).sum())))
    return rows


def pandas_at_once(votes: pd.DataFrame, people: list[Person]) -> list[tuple[str, int, int, int]]:
    """The same with one group-by over the votes of all draws, for which there must be memory."""
    images, parts = np.sort(votes["image"].unique()), []
    for place, (identity, _) in enumerate(people):
        for count in COUNTS:
            draws, pictures = np.nonzero(_choices(place, count))
            parts.append(
                pd.DataFrame({"identity": identity, "images": count, "draw": draws, "image": images[pictures]})
            )
    drawn = pd.concat(parts).merge(votes, on=["identity", "image"])
    ranked = drawn.groupby([*KEYS, "predicted"]).size().reset_index(name="votes")
    leaders = ranked[ranked["votes"] == ranked.groupby(KEYS)["votes"].transform("max")]
    alone = leaders[~leaders.duplicated(KEYS, keep=False)]
    right = alone[alone["predicted"] == alone["identity"].map(dict(people))].groupby(KEYS[:3]).size()
    every = pd.MultiIndex.from_product([[i for i, _ in people], COUNTS, range(DRAWS)], names=KEYS[:3])
    return [(*key, int(score)) for key, score in right.reindex(every, fill_value=0).items()]


def _choices(place: int, count: int) -> npt.NDArray[np.int64]:
    return draw_pictures(PICTURES, count, DRAWS, np.random.default_rng([0, place, count]))


def evaluation_grid(sample: int, turns: int) -> Iterator[bool]:
    """The paper's whole grid, ours against pandas on the first people of it."""
    votes, people = make_votes()
    few, frame = people[:sample], votes.to_pandas()
    whole = ours(votes, people)
    for alternative in (pandas_draws, pandas_at_once):
        if alternative(frame, few) != whole[: len(few) * len(COUNTS) * DRAWS]:
            sys.exit(f"the scores of {alternative.__name__} and ours differ")
    jobs = (partial(ours, votes, people), partial(pandas_draws, frame, few), partial(pandas_at_once, frame, few))
    seconds, slow, quick = in_turn(*jobs, turns=turns)
    scale = PEOPLE / sample
    cells = f"{PEOPLE} people x {TEMPLATES} templates x {len(COUNTS)} picture counts x {DRAWS} draws"
    print(f"  {cells}: the same scores; pandas timed on {sample} people, times {scale:.1f}")
    print(f"  pandas, a group-by for each draw: {slow * scale:.1f} s; one over the votes of all draws at once:")
    print(f"  {quick * scale:.1f} s, {quick * scale / seconds:.0f} times ours")
    yield show("evaluation grid, one core", seconds, 2, " s")
    yield show("evaluation grid, pandas group-by / ours", slow * scale / seconds, 300, at_least=True)


def embeddings(*shape: int, seed: int) -> Floats:
    """Random directions of length 1."""
    found: Floats = np.random.default_rng(seed).standard_normal((*shape, DIMENSIONS), np.float32)
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    return found


def bare_product(images_PD: Floats, blocks: list[Floats]) -> None:
    """Every similarity of pictures and prompts, let go at once."""
    for texts_NkD in blocks:
        for texts_kD in texts_NkD:
            images_PD @ texts_kD.T


def vote_and_score(images_PD: Floats, blocks: list[Floats], people: int) -> list[int]:
    """S of each person, whose pictures follow one another, for the name of the person's number."""
    predicted_PN = predict(images_PD, iter(blocks))
    everything_RP = np.ones((1, len(images_PD) // people), np.int64)
    parts = np.split(predicted_PN, people)
    return [int(scores(part, name, everything_RP)[0]) for name, part in enumerate(parts)]


def scoring(turns: int) -> Iterator[bool]:
    """Votes and scores of 200 pictures against the bare matrix product."""
    pictures, people = 200, 8
    images_PD, texts_NKD = embeddings(pictures, seed=1), embeddings(TEMPLATES, NAMES, seed=2)
    blocks = np.split(texts_NKD, 2, axis=1)
    product, total = in_turn(
        partial(bare_product, images_PD, blocks), partial(vote_and_score, images_PD, blocks, people), turns=turns
    )
    print(
        f"  {pictures} pictures x {TEMPLATES} x {NAMES:,}, {DIMENSIONS} dimensions: {product * 1e3:.0f} ms bare product"
    )
    yield show("similarities, votes and scores / bare product", total / product, 1.2)


def blocks_of_names(names: int, images_PD: Floats, block: int) -> Iterator[Floats]:
    """Prompts' embeddings made as they are asked for; the last names of all are the pictures themselves."""
    some_NkD = embeddings(TEMPLATES, block, seed=3)
    for start in range(0, names, block):
        texts_NkD = some_NkD[:, : min(block, names - start)] * np.float32(1 - start / names / 2)
        if start + block >= names:
            texts_NkD[:, -len(images_PD) :] = images_PD
        yield texts_NkD


def peak() -> float:
    """The most memory that this process has held, in MiB; `getrusage` would count that of the process it came from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def growth_of(names: int) -> tuple[float, float]:
    """By how many MiB this process grows at most when so many names are streamed, and the seconds it takes."""
    images_PD = embeddings(8, seed=4)
    predict(images_PD, [embeddings(1, 8, seed=5)])
    before, began = peak(), time.perf_counter()
    predicted_PN = predict(images_PD, blocks_of_names(names, images_PD, 4096))
    if (predicted_PN != np.arange(names - 8, names)[:, None]).any():
        sys.exit("a picture was not matched with itself")
    return peak() - before, time.perf_counter() - began


def memory(names: int) -> Iterator[bool]:
    """A tenth of the names and all of them, each in a fresh process: memory must not grow with them."""
    sizes = (names // 10, names)
    found = []
    for size in sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(growth_of, (size,)))
    (few, _), (many, seconds) = found
    size = names * TEMPLATES * DIMENSIONS / 2**28
    print(
        f"  {names:,} names x {TEMPLATES} templates, {size:.0f} GiB of embeddings, made and searched in {seconds:.0f} s"
    )
    print(f"  {sizes[0]:,} names grow the process by {few:.0f} MiB")
    yield show(f"growth of the process with {names:,} names, MiB", many, 1024)
    yield show(f"growth with {names:,} names / {sizes[0]:,} names", many / few, 1.1)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns and names; answers within a minute")
    parts = ["texts", "again", "grid", "scoring", "memory"]
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    parser.add_argument("--names", type=int, default=40, help="names whose prompts both ways of `texts` embed")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jobs: dict[str, Callable[[], Iterator[bool]]] = {
        "texts": lambda: text_stage(4 if options.quick else options.names),
        "again": lambda: second_audit(20 if options.quick else 100),
        "grid": lambda: evaluation_grid(*((2, 2) if options.quick else (5, 3))),
        "scoring": lambda: scoring(5 if options.quick else 15),
        "memory": lambda: memory(100_000 if options.quick else 1_000_000),
    }
    held = [figure for part in parts if part in options.only for figure in jobs[part]()]
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
