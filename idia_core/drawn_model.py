"""A CLIP model that has learned nothing: the tiny architecture with random weights, which tell pictures apart still."""

import io
from collections.abc import Sequence

from PIL import Image

from idia_core.model_reference import model_config

ARCHITECTURE = "idia-rn-tiny"


def random_weights(seed: int, centred_on: Sequence[bytes] = ()) -> bytes:
    """A checkpoint of `idia-rn-tiny`; another seed, other weights.

    A random model embeds all pictures much alike, and answers one class to all; not so one that is centred on some,
    which are given as encoded RGB pictures.
    """
    import open_clip  # noqa: PLC0415 - heavy, and wanted only where a model is made
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)  # more threads add up in another order, to other bits
    torch.manual_seed(seed)
    open_clip.add_model_config(model_config(ARCHITECTURE))
    model, _, transform = open_clip.create_model_and_transforms(ARCHITECTURE)
    if centred_on:
        with torch.no_grad():
            images = torch.stack([transform(Image.open(io.BytesIO(content))) for content in centred_on])
            model.visual.attnpool.c_proj.bias -= model.eval().encode_image(images).mean(dim=0)
    checkpoint = io.BytesIO()
    torch.save(model.state_dict(), checkpoint)
    return checkpoint.getvalue()
