"""Ranks that read a training set through open_clip's own loader and note which picture comes with which caption.

Run as a module it is two ranks with two workers each, as under torchrun, that read in the stage's folder.
"""

import hashlib
import json
import multiprocessing
import os
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
from open_clip_train.data import get_wds_dataset
from PIL import Image

from cluster.training_entry import shuffle_from_seed

RANKS, WORKERS, BATCH_SIZE, EPOCHS, SEED = 2, 2, 2, 2, 0


def pixels(picture: Image.Image) -> str:
    """The hash of a picture's pixels, where open_clip has its preprocessing."""
    return hashlib.sha256(np.asarray(picture.convert("RGB")).tobytes()).hexdigest()


def _as_it_is(caption: str) -> list[str]:
    """The caption as a batch of one, where open_clip has its tokenizer."""
    return [caption]


def _read(folder: Path, name: str, samples: int, rank: int) -> None:
    """Note the pairs of each epoch that one rank is shown of a set, in a file beside the stage's folder."""
    os.chdir(folder)
    settings = Namespace(
        train_data=Path(f"train_data/{name}.txt").read_text(encoding="utf-8").strip(),
        train_num_samples=samples,
        train_data_upsampling_factors=None,
        batch_size=BATCH_SIZE,
        workers=WORKERS,
        world_size=RANKS,
        seed=SEED,
    )
    data = get_wds_dataset(settings, pixels, is_train=True, epoch=0, tokenizer=_as_it_is)
    epochs = []
    for epoch in range(EPOCHS):
        data.set_epoch(epoch)
        batches = [list(zip(*batch, strict=True)) for batch in data.dataloader]
        assert {len(batch) for batch in batches} == {BATCH_SIZE}
        epochs.append([pair for batch in batches for pair in batch])
    folder.with_name(f"rank{rank}.json").write_text(json.dumps(epochs), encoding="utf-8")


def _read_all(folders: list[str], name: str, samples: int, rank: int) -> None:
    """What one rank is shown, of the same set in several folders."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    shuffle_from_seed(SEED)
    for folder in folders:
        _read(Path(folder), name, samples, rank)


def main() -> None:
    """Two ranks, forked here so that open_clip is imported once: SET SAMPLES FOLDER..."""
    name, samples, *folders = sys.argv[1:]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=_read_all, args=(folders, name, int(samples), rank)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    sys.exit(any(rank.exitcode for rank in ranks))


if __name__ == "__main__":
    main()
