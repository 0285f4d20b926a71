"""Pictures that are numbers, in tars, and ranks that read them through open_clip's own loader and note the numbers.

Run as a module it is two ranks: processes that find in RANK and WORLD_SIZE which they are, as under torchrun.
"""

import io
import json
import multiprocessing
import os
import sys
import tarfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from open_clip_train.data import DataInfo, get_wds_dataset
from PIL import Image

from cluster.training_entry import shuffle_from_seed
from idia_core.exposure import Loader
from idia_core.train_data import train_data


@dataclass(frozen=True)
class Case:
    """What is read, and how; a JSON object of the same fields makes one."""

    train_data: str
    samples: int
    loader: Loader
    epochs: tuple[int, ...]


def write_numbered_tars(folder: Path, sizes: Sequence[int]) -> str:
    """Write tars of 8x8 PNGs, numbered through in colour and caption; the string for --train-data."""
    folder.mkdir()
    numbers, paths = count(), [folder / f"{shard:05d}.tar" for shard in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for _ in range(size):
                number = next(numbers)
                colour, png = (number % 256, number // 256 % 256, number // 65536), io.BytesIO()
                Image.new("RGB", (8, 8), colour).save(png, "PNG")
                for suffix, content in (("png", png.getvalue()), ("txt", str(number).encode())):
                    entry = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return train_data([str(path) for path in paths])


def _number_of(picture: Image.Image) -> int:
    """The number that the colour of a picture stands for, where open_clip has its preprocessing."""
    red, green, blue = picture.getpixel((0, 0))
    return int(red + 256 * green + 65536 * blue)


def _numbers_in(caption: str) -> list[int]:
    """The number that a caption is, as a batch of one, where open_clip has its tokenizer."""
    return [int(caption)]


def open_loader(case: Case, preprocess: Callable[[Image.Image], float] = _number_of) -> DataInfo:
    """open_clip's loader for this rank, with `preprocess` in place of its crop."""
    loader = case.loader
    settings = Namespace(
        train_data=case.train_data,
        train_num_samples=case.samples,
        train_data_upsampling_factors=None,
        batch_size=loader.batch_size,
        workers=loader.workers,
        world_size=loader.ranks,
        seed=loader.seed,
    )
    return get_wds_dataset(settings, preprocess, is_train=True, epoch=case.epochs[0], tokenizer=_numbers_in)


def shown(data: DataInfo, case: Case) -> list[list[int]]:
    """The numbers of the pairs that this rank is shown, as they come, for each epoch of the case."""
    epochs: list[list[int]] = []
    for epoch in case.epochs:
        data.set_epoch(epoch)
        epochs.append([])
        for pictures, captions in data.dataloader:
            assert pictures.tolist() == captions.tolist(), "a picture has the caption of another"
            assert len(pictures) == case.loader.batch_size
            epochs[-1] += captions.tolist()
    return epochs


def _read(cases_file: Path, rank: int) -> None:
    """Note what one rank is shown, of the cases that it takes part in, beside their file."""
    os.environ["RANK"], told = str(rank), []
    for fields in json.loads(cases_file.read_text(encoding="utf-8")):
        case = Case(**{**fields, "loader": Loader(**fields["loader"])})
        shuffle_from_seed(case.loader.seed)
        os.environ["WORLD_SIZE"] = str(case.loader.ranks)
        told.append(shown(open_loader(case), case) if rank < case.loader.ranks else [[] for _ in case.epochs])
    cases_file.with_name(f"rank{rank}.json").write_text(json.dumps(told), encoding="utf-8")


def main() -> None:
    """Two ranks, forked here so that open_clip is imported once."""
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=_read, args=(Path(sys.argv[1]), rank)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    sys.exit(any(rank.exitcode for rank in ranks))


if __name__ == "__main__":
    main()
