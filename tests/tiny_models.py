"""Checkpoints of the tiny architecture with random weights, for tests that need a model and not what it knows."""

import io
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from PIL import Image

from idia_core.model_reference import model_config


def write_model(path: Path, seed: int = 0, centred_on: Sequence[bytes] = ()) -> Path:
    """A checkpoint of `idia-rn-tiny`; another seed, other weights.

    A random model embeds all pictures much alike, and answers one class to all; not so one that is centred on some.
    """
    torch.manual_seed(seed)
    open_clip.add_model_config(model_config("idia-rn-tiny"))
    path.parent.mkdir(parents=True, exist_ok=True)
    model, _, transform = open_clip.create_model_and_transforms("idia-rn-tiny")
    if centred_on:
        with torch.no_grad():
            images = torch.stack([transform(Image.open(io.BytesIO(content))) for content in centred_on])
            model.visual.attnpool.c_proj.bias -= model.eval().encode_image(images).mean(dim=0)
    torch.save(model.state_dict(), path)
    return path
