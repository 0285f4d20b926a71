"""How fast nearest neighbours are searched, beside faiss called directly and clip-retrieval's service.

    python benchmarks/index.py [--quick] [--rows 1000000] [--only codes exact]

1,000 queries over 1,000,000 vectors of 512 dimensions, 50 neighbours each. `codes` is an IVF-PQ index, as it is made
of large collections, `exact` compares all vectors. The sides run in turn on the same file, medians are taken, each
figure is a line, those with a bar are held against it, and the exit code is 1 when one falls short. faiss gets all
queries at once, as ours does. The service, clip-retrieval 2.45.0 in an environment of its own (6 GB in a cache folder,
made at the first run by pip), takes one query at a time over HTTP and answers with captions: so what is compared with
it reads ours, too. On the exact index that has no bar: a single query waits for the memory to be read, 2 GB each, a
batch computes, and the machine sets the ratio of the two. Vectors are random and codes trained briefly: times do not
depend on it.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from upath import UPath

from idia_core.index import ShardedIndex
from idia_core.index_building import new_index, train_index, write_index

DIMENSIONS, QUERIES, NEIGHBOURS = 512, 1000, 50
COLUMNS = ("image_path", "caption")
ROWS_AT_ONCE = 50_000
PACKAGES = ("clip-retrieval==2.45.0", "setuptools<81")
"""It imports `pkg_resources`, which later ones do not have."""
LAUNCHER = """
import json, sys
import all_clip, flask
all_clip.load_clip = lambda *given, **named: (None, None, None)  # the model that it would download, for text queries
run = flask.Flask.run
flask.Flask.run = lambda app, host, **options: run(app, host="127.0.0.1", **options)
from clip_retrieval.clip_back import clip_back
clip_back(**json.loads(sys.argv[1]))
"""


def clip_retrieval_python() -> str:
    """The interpreter of an environment with clip-retrieval in the cache folder; made where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir())
    folder = cache / "idia-clip-retrieval-2.45.0"
    python, done = folder / "bin/python", folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        done.touch()
    return str(python)


@contextmanager
def served(indices: Mapping[str, Path], columns: Sequence[str] = COLUMNS) -> Iterator[str]:
    """clip-retrieval's service over index folders by their names, while the block lasts; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "indices_paths.json"
        paths.write_text(json.dumps({name: str(path) for name, path in indices.items()}))
        settings = {"indices_paths": str(paths), "port": port, "columns_to_return": columns}
        settings |= {"enable_mclip_option": False, "provide_aesthetic_embeddings": False}
        command = [clip_retrieval_python(), "-c", LAUNCHER, json.dumps(settings)]
        with (Path(folder) / "log").open("w+") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
            try:
                _wait_for(server, url, Path(log.name))
                yield url
            finally:
                server.terminate()
                server.wait()


def _wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(1200):
        if server.poll() is not None:
            sys.exit(f"the service ended: {log.read_text()[-2000:]}")
        try:
            requests.get(f"{url}/indices-list", timeout=5)
        except requests.RequestException:
            time.sleep(0.2)
        else:
            return
    sys.exit(f"the service does not answer: {log.read_text()[-2000:]}")


def ask(url: str, name: str, query_D: np.ndarray, k: int) -> list[dict[str, Any]]:
    """What the service answers to an embedding: rows with `id`, `similarity` and metadata, from the nearest on."""
    question = {"embedding_input": query_D.tolist(), "modality": "image", "num_images": k, "indice_name": name}
    answer = requests.post(f"{url}/knn-service", json=question, timeout=300)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()
    return found


def vectors(rows: int, seed: int) -> np.ndarray:
    """Random rows of length 1, float32."""
    rows_ND = np.random.default_rng(seed).standard_normal((rows, DIMENSIONS), dtype=np.float32)
    return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)


def build(folder: Path, factory: str, rows: int) -> None:
    """An index folder of so many random rows; the codebooks are trained in few rounds."""
    index = new_index(factory, DIMENSIONS)
    if isinstance(index, faiss.IndexIVFPQ):
        index.cp.niter = index.pq.cp.niter = 2
    train_index(index, vectors(1_500, 1))
    for first in range(0, rows, ROWS_AT_ONCE):
        index.add(vectors(min(ROWS_AT_ONCE, rows - first), first + 2))
    (folder / "metadata").mkdir(parents=True)
    with (folder / "image.index").open("wb") as file:
        write_index(index, file)
    columns = {
        "image_path": [f"{row:09d}" for row in range(rows)],
        "caption": [f"a picture {row}" for row in range(rows)],
    }
    pq.write_table(pa.table(columns), folder / "metadata/metadata_00000.parquet", row_group_size=65_536)


def seconds_of(job: Callable[[], object]) -> float:
    """How long a job takes."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def show(what: str, value: float, bar: float | None = None) -> bool:
    """Print a figure and, where it has a bar, whether that holds."""
    held = bar is None or value >= bar
    told = "" if bar is None else f"  (bar: >= {bar:g})  {'held' if held else 'FELL SHORT'}"
    print(f"{what:<64} {value:8.2f}{told}", flush=True)
    return held


def with_captions(index: ShardedIndex, queries_BD: np.ndarray) -> pa.Table:
    """The neighbours' metadata, as the service answers."""
    _, ids = index.search(queries_BD, NEIGHBOURS)
    return index.metadata(ids[ids >= 0], COLUMNS)


def measure(folder: Path, kind: str, factory: str, rows: int, turns: int) -> list[bool]:
    """Search one index in all ways, in turn; the service gets ten queries a turn."""
    began = time.perf_counter()
    build(folder, factory, rows)
    print(f"  {factory} of {rows:,} rows, built in {time.perf_counter() - began:.0f} s")
    queries_BD = vectors(QUERIES, 0)
    index, raw = ShardedIndex.open(UPath(folder)), faiss.read_index(str(folder / "image.index"))
    some = queries_BD[:10]
    with served({kind: folder}) as url:
        check(index, url, kind, some)
        jobs = {
            "faiss": partial(raw.search, queries_BD, NEIGHBOURS),
            "ours": partial(index.search, queries_BD, NEIGHBOURS),
            "ours with captions": partial(with_captions, index, queries_BD),
            "service": lambda: [ask(url, kind, query_D, NEIGHBOURS) for query_D in some],
        }
        taken = {name: list[float]() for name in jobs}
        for turn in range(turns + 1):
            for name, job in jobs.items():
                seconds = seconds_of(job) / (len(some) if name == "service" else QUERIES)
                if turn:  # the first is for the caches
                    taken[name].append(seconds)
    median = {name: statistics.median(each) for name, each in taken.items()}
    for name, seconds in median.items():
        print(f"  {kind}, {name}: {1 / seconds:,.0f} queries/s")
    bar = 20 if kind == "codes" else None
    return [
        show(f"{kind}: queries/s, ours / faiss", median["faiss"] / median["ours"], 0.95),
        show(f"{kind}: queries/s, ours with captions / service", median["service"] / median["ours with captions"], bar),
    ]


def check(index: ShardedIndex, url: str, name: str, queries_BD: np.ndarray) -> None:
    """End where the service finds other neighbours than ours."""
    similarities, ids = index.search(queries_BD, NEIGHBOURS)
    for b, query_D in enumerate(queries_BD):
        answer = ask(url, name, query_D, NEIGHBOURS)
        same = {one["id"] for one in answer} == {int(row) for row in ids[b] if row >= 0}
        if not same and abs(answer[-1]["similarity"] - similarities[b, len(answer) - 1]) > 1e-6:
            sys.exit(f"both should find the same neighbours of query {b}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the rows; bars are for all")
    parser.add_argument("--rows", type=int, default=1_000_000)
    kinds = {"codes": "IVF1024,PQ32x8", "exact": "Flat"}
    parser.add_argument("--only", nargs="*", choices=[*kinds], default=[*kinds])
    options = parser.parse_args()
    rows, turns = (options.rows // 20, 5) if options.quick else (options.rows, 11)
    clip_retrieval_python()  # not within what is timed
    held = list[bool]()
    for kind in options.only:
        factory = "IVF256,PQ32x8" if options.quick and kind == "codes" else kinds[kind]
        with tempfile.TemporaryDirectory() as folder:
            held += measure(Path(folder) / kind, kind, factory, rows, turns if kind == "codes" else turns // 4)
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
