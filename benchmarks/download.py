"""How fast pictures are fetched, beside plain img2dataset with the same settings.

    python benchmarks/download.py [--quick] [--pictures 4000]

A server in a process of its own gives pictures of 640 x 480 pixels, each after 20 ms. Both sides fetch them with 64
threads in one process, scale them to 512 pixels and write a WebDataset tar: img2dataset as each process of its
`download` does (`Reader`, `Downloader`, `WebDatasetSampleWriter`), ours as a worker of the stage does with a split.
They run in turn in this process, after both are warm; medians are taken, and the exit code is 1 when ours does less
than 90% of img2dataset's pictures a second.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.download import OPT_OUTS, WHO, load_img2dataset
from idia_core.wanted_urls import read_wanted
from pipelines.download import STAGE, DownloadConfig
from pipelines.stage import ResolvedInput, SplitWriter, StageContext

LATENCY_SECONDS, THREADS, LONGEST_SIDE = 0.02, 64, 512
BAR = 0.9
SERVER = """
import asyncio, sys
import cv2, numpy as np
coarse = np.random.default_rng(0).integers(0, 255, (32, 12, 16, 3), np.uint8)
large = [cv2.resize(one, (640, 480), interpolation=cv2.INTER_CUBIC) for one in coarse]
pictures = [cv2.imencode(".jpg", one)[1].tobytes() for one in large]

async def answer(reader, writer):
    line = await reader.readline()
    while (await reader.readline()).strip():
        pass
    await asyncio.sleep(float(sys.argv[1]))
    body = pictures[int(line.split()[1].strip(b"/").partition(b".")[0]) % len(pictures)]
    head = b"HTTP/1.1 200 OK", b"Content-Type: image/jpeg", b"Content-Length: %d" % len(body), b"Connection: close"
    writer.write(b"\\r\\n".join((*head, b"", body)))
    await writer.drain()
    writer.close()

async def serve():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(serve())
"""


@contextmanager
def serving() -> Iterator[int]:
    """The port of the server, while the block lasts."""
    words = [sys.executable, "-c", SERVER, str(LATENCY_SECONDS)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield int(next(iter(server.stdout or ())))
        finally:
            server.terminate()


def plain(urls: Path, folder: Path, pictures: int) -> float:
    """Pictures a second of img2dataset, put together as its `download` does."""
    from img2dataset.reader import Reader  # noqa: PLC0415 - loaded quietly before
    from img2dataset.writer import WebDatasetSampleWriter  # noqa: PLC0415

    downloader, resizer = load_img2dataset()
    folder.mkdir()
    began = time.perf_counter()
    reader = Reader(str(urls), "parquet", "url", None, None, None, None, pictures, set(), str(folder))
    loader = downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=resizer(LONGEST_SIDE, "keep_ratio_largest", resize_only_if_bigger=True, max_aspect_ratio=3),
        thread_count=THREADS,
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=reader.column_list,
        timeout=10,
        number_sample_per_shard=pictures,
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=2,
        user_agent_token=WHO,
        disallowed_header_directives=OPT_OUTS,
    )
    with redirect_stdout(io.StringIO()):
        for shard in reader:
            loader.download_shard(shard)
    seconds = time.perf_counter() - began
    told = json.loads(next(folder.glob("*_stats.json")).read_text())
    if told["successes"] != pictures:
        sys.exit(f"img2dataset fetched {told['successes']} of {pictures}: {told['status_dict']}")
    return pictures / seconds


def ours(urls: Path, folder: Path, pictures: int, port: int) -> float:
    """Pictures a second of a worker of the stage, from the list of URLs to the tar and the ledger."""
    config = DownloadConfig(allow_private_addresses=(f"127.0.0.1:{port}",), longest_side=LONGEST_SIDE)
    given = ResolvedInput(str(urls), UPath(urls.parent), (UPath(urls),), "")
    context = StageContext("download", config, {"candidates": given}, UPath(folder))
    (folder / "urls").mkdir(parents=True)
    worker = STAGE.phases[1].worker(context)
    writer = SplitWriter(context.folder, "fetch-000000", 0, lambda *_: None)
    began = time.perf_counter()
    pq.write_table(read_wanted(given.files).table, folder / "urls/part-00000.parquet")
    worker({"urls": "urls/part-00000.parquet"}, writer)
    seconds = time.perf_counter() - began
    if writer.counts["rows_kept"] != pictures:
        sys.exit(f"we fetched {dict(writer.counts)}")
    return pictures / seconds


def turn(port: int, pictures: int, *, ours_first: bool) -> dict[str, float]:
    """Both sides' pictures a second, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        urls = Path(name) / "urls.parquet"
        pq.write_table(pa.table({"url": [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(pictures)]}), urls)
        sides = {
            "img2dataset": partial(plain, urls, Path(name) / "plain", pictures),
            "ours": partial(ours, urls, Path(name) / "ours", pictures, port),
        }
        return {side: sides[side]() for side in sorted(sides, reverse=ours_first)}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 pictures in three turns")
    parser.add_argument("--pictures", type=int, default=4000)
    options = parser.parse_args()
    pictures, turns = (min(options.pictures, 1000), 3) if options.quick else (options.pictures, 7)
    load_img2dataset()
    with serving() as port:
        turn(port, 200, ours_first=False)  # for the caches
        found = [turn(port, pictures, ours_first=bool(number % 2)) for number in range(turns)]
    for side in sorted(found[0]):
        rates = [each[side] for each in found]
        print(f"  {side}: {statistics.median(rates):,.0f} pictures/s, from {min(rates):,.0f} to {max(rates):,.0f}")
    ratio = statistics.median(each["ours"] / each["img2dataset"] for each in found)
    held = ratio >= BAR
    print(f"pictures/s, ours / img2dataset  {ratio:.2f}  (bar: >= {BAR:.2f})  {'held' if held else 'FELL SHORT'}")
    sys.exit(not held)


if __name__ == "__main__":
    main()
