"""How fast people's pairs are retrieved from an index here, beside one question after another to a service over it.

    python benchmarks/retrieval.py [--quick] [--rows 2000000] [--people 500] [--only codes exact]

500 people with 30 pictures each, 999 neighbours a picture, over 2,000,000 vectors of 512 dimensions. `codes` is an
IVF-PQ index in one shard, as large collections have, `exact` compares all vectors. Ours are the phases of the stage
`retrieve` after the pictures are embedded, on Ray, from the mapped index to the candidates on disk. The other side is
the paper's way: clip-retrieval 2.45.0's service (in an environment of its own; see index.py) is asked about one picture
after another over HTTP, and its answers go through the same loop. Embeddings are given to both. The service would take
hours, so a part of the questions is asked and THE TIME IS SCALED UP to all of them; for these both sides must find the
same candidates. Vectors are random: hardly a neighbour names the person, so that every picture is needed. Memory is
what the workers have beside the mapped index, at its peak. Each figure is a line, those with a bar are held against it,
and the exit code is 1 when one falls short.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from index import build, clip_retrieval_python, served, show, vectors
from rich.console import Console
from upath import UPath

from idia_core.identities import IDENTITIES
from idia_core.names import invent_names
from idia_core.retrieval import retrieve_person
from idia_core.retrieval_service import RetrievalService, ServiceConfig, ServiceSettings
from idia_core.storage import find_files, write_whole
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.retrieve import STAGE
from pipelines.retrieve_config import RetrieveConfig
from pipelines.retrieve_queries import QUERIES, blocks, caption_names, queries_file, read_queries
from pipelines.stage import ResolvedInput, StageContext

PICTURES, BAR = 30, 20.0
NAMED_EACH = 50
"""Of so many captions one names somebody."""
KINDS = {"codes": "IVF1024,PQ32x8np", "exact": "Flat"}
"""Without `np` faiss would take minutes to order the codes for a kind of search that nobody asks for here."""
QUIET = Progress(Console(quiet=True))
MEGABYTE = 1 << 20


class Size(NamedTuple):
    """How many vectors there are, people who are looked for, and questions that the service is asked."""

    rows: int
    people: int
    questions: int


def write_metadata(index: Path, rows: int, names: list[str]) -> None:
    """URLs and captions of the rows, instead of those that there are."""
    captions = [
        f"{names[row // NAMED_EACH % len(names)]} {row}" if row % NAMED_EACH == 0 else f"a picture {row}"
        for row in range(rows)
    ]
    columns = {"url": [f"http://pictures/{row}.jpg" for row in range(rows)], "caption": captions}
    pq.write_table(pa.table(columns), index / "metadata/metadata_00000.parquet", row_group_size=65_536)


def write_people(file: Path, names: list[str]) -> None:
    """A table of people who are called so."""
    people = [{"identity": f"{place:05d}", "name": name} for place, name in enumerate(names)]
    pq.write_table(pa.Table.from_pylist(people, IDENTITIES), file)


def context_of(out: Path, people: Path, index: Path) -> StageContext:
    """The stage, with the questions of all people written as its first phase would write them."""
    inputs = {}
    for name, place in (("identities", people), ("index", index)):
        files = find_files(str(place), STAGE.inputs[name].patterns, "benchmark")
        inputs[name] = ResolvedInput(name, UPath(place), tuple(files), "")
    context = StageContext("retrieve", RetrieveConfig(model="given"), inputs, UPath(out))
    for block, identities in enumerate(blocks(context)):
        embeddings_BD = vectors(PICTURES * len(identities), 1_000_000 + block)
        asked = [
            {
                "identity": identity,
                "picture": f"{picture:02d}.jpg",
                "embedding": embeddings_BD[PICTURES * place + picture],
            }
            for place, identity in enumerate(identities)
            for picture in range(PICTURES)
        ]
        with write_whole(queries_file(context, block)) as file:
            pq.write_table(pa.Table.from_pylist(asked, QUERIES), file)
    return context


def retrieve_here(context: StageContext) -> dict[str, float]:
    """Run the stage from its second phase on; the seconds of each."""
    taken = dict[str, float]()
    for phase in STAGE.phases[1:]:
        began = time.perf_counter()
        run_phase(phase, context, context.config.resources, QUIET)
        taken[phase.name] = time.perf_counter() - began
    return taken


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """The most bytes that a worker, and all together, have of their own while the block lasts."""
    peaks, ended = [0, 0], Event()

    def watch() -> None:
        while not ended.wait(0.2):
            own = [one for process in psutil.Process().children(recursive=True) if (one := own_memory(process))]
            peaks[:] = [max(peaks[0], *own, 0), max(peaks[1], sum(own))]

    thread = Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def own_memory(process: psutil.Process) -> int:
    """The bytes of one of Ray's workers that are no mapped file; 0 of another process, or one that has ended."""
    try:
        if not process.name().startswith("ray::"):
            return 0
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)


def ask_service(context: StageContext, url: str, kind: str, questions: int) -> tuple[float, pl.DataFrame]:
    """Ask about the first person with so many pictures; seconds a question, and the candidates."""
    config: RetrieveConfig = context.config
    settings = ServiceSettings(retries=0, timeout_seconds=300)
    service = RetrievalService(ServiceConfig(url=url, index_name=kind), config.neighbours, settings)
    names = caption_names(context)
    first, *queries = read_queries(context, 0)[: questions + 1]
    retrieve_person([first], service, names, config.goal)  # for the caches
    began = time.perf_counter()
    found = retrieve_person(queries[:questions], service, names, config.goal)
    return (time.perf_counter() - began) / len(queries), pl.DataFrame(found.candidates)


def check(context: StageContext, theirs: pl.DataFrame, questions: int) -> int:
    """How many candidates of the first person those pictures brought here; ends where the service misses any."""
    ours = pl.read_parquet(f"{context.folder}/candidates/*.parquet").filter(identity="00000")
    asked = [f"{picture:02d}.jpg" for picture in range(1, questions + 1)]
    urls = set(ours.filter(pl.col("picture").is_in(asked))["url"])
    if not urls <= set(theirs["url"] if theirs.height else []):
        sys.exit("both sides should find the same candidates")
    return len(urls)


def measure(folder: Path, kind: str, factory: str, size: Size) -> list[bool]:
    """Retrieve in both ways from one index."""
    began = time.perf_counter()
    names = invent_names(size.people, 0)
    build(folder / "index", factory, size.rows)
    write_metadata(folder / "index", size.rows, names)
    write_people(folder / "all.parquet", names)
    write_people(folder / "few.parquet", names[:2])
    print(f"  {factory} of {size.rows:,} rows, built in {time.perf_counter() - began:.0f} s", flush=True)
    retrieve_here(context_of(folder / "first", folder / "few.parquet", folder / "index"))  # starts the workers
    context = context_of(folder / "out", folder / "all.parquet", folder / "index")
    with watched_memory() as peaks:
        taken = retrieve_here(context)
    asked, ours = size.people * PICTURES, sum(taken.values())
    print(
        f"  {kind}, ours: {asked:,} questions in {ours:.1f} s, " + ", ".join(f"{n} {s:.1f}" for n, s in taken.items())
    )
    with served({kind: folder / "index"}, ["url", "caption"]) as url:
        each, theirs = ask_service(context, url, kind, size.questions)
    print(f"  {kind}: {check(context, theirs, size.questions)} candidates of the first person are the same")
    theirs_s = each * asked
    print(
        f"  {kind}, service: {size.questions} questions, {each:.3f} s each; all {asked:,} would take {theirs_s:,.0f} s"
    )
    mapped = (folder / "index/image.index").stat().st_size
    show(f"{kind}: mapped index, MB", mapped / MEGABYTE)
    show(f"{kind}: peak of a worker's own memory, MB", peaks[0] / MEGABYTE)
    show(f"{kind}: peak of all workers' own memory, MB", peaks[1] / MEGABYTE)
    show(f"{kind}: neighbours that were found in all, MB", asked * context.config.neighbours * 12 / MEGABYTE)
    return [show(f"{kind}: service (scaled up) / ours, seconds", theirs_s / ours, BAR)]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the rows and a tenth of the people")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--only", nargs="*", choices=[*KINDS], default=None)
    options = parser.parse_args()
    size = Size(options.rows, options.people, PICTURES - 1)
    if options.quick:
        size = Size(options.rows // 20, options.people // 10, 10)
    clip_retrieval_python()  # not within what is timed
    ray.init("local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    held = list[bool]()
    for kind in options.only or (["codes"] if options.quick else [*KINDS]):
        factory = "IVF256,PQ32x8np" if options.quick and kind == "codes" else KINDS[kind]
        with tempfile.TemporaryDirectory() as folder:
            held += measure(Path(folder), kind, factory, size)
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
