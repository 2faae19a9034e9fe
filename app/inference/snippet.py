"""Ten lines that load a checkpoint without the service: with `models/`, which needs torch and safetensors alone."""

from collections.abc import Sequence

TEMPLATE = """\
from pathlib import Path
import torch
from models.checkpoint import load
from models.noise import KeyedNoise, image_keys
model, metadata = load(Path("{id}.safetensors"))  # GET /checkpoints/{id}/file
pixels = torch.rand(2, {shape})  # images in [0, 1]
noise = KeyedNoise(image_keys(0, "predict", torch.arange(len(pixels))))  # seed 0; as the service draws it
with torch.inference_mode():
    logits = model.decoder(model.encoder(pixels), draws={draws}, generator=noise)  # (draws, images, {classes})
print(logits.softmax(-1).mean(0).argmax(-1).tolist())  # numbers of classes, in the order of spec.classes
"""


def snippet(checkpoint_id: str, shape: Sequence[int], classes: int, *, stochastic: bool) -> str:
    """Python that runs where the file lies; shape: (channels, height, width)."""
    return TEMPLATE.format(
        id=checkpoint_id, shape=", ".join(map(str, shape)), classes=classes, draws=20 if stochastic else 1
    )
