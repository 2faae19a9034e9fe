"""An epoch of a training with frozen layers: their output read from where it was kept, against computing it anew.

Both are ours, `worker.training.loop.train` with and without it: training, then validation on a tenth as many images.
What it took to compute the output once, about one forward pass, is not in the row.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from app.domain.datasets import Augmentation
from benchmarks.contest import Contest
from models.registry import ModelSpec, build
from worker.data import Split
from worker.data.shared_files import SharedFiles
from worker.training.features import keep
from worker.training.loop import Config, train

PEER = "frozen layers computed in every epoch (ours)"
UNALTERED = Augmentation(0, flip=False)


def contest(
    images: Tensor, labels: Tensor, architecture: str, depth: int, target: float, *, image_size: int | None,
    repeats: int = 3, device: str = "cpu",
) -> Contest:
    """`images` (n, 3, H, W) in [0, 1]; a tenth is validated on. Weights do not matter to what an epoch takes."""
    torch.manual_seed(0)
    stem = "cifar" if image_size is None else "imagenet"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    model = build(ModelSpec(architecture, "default", 10, (3, 32, 32), mean, std, image_size=image_size, stem=stem))
    model.to(device)
    pixels = images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    held_out = max(1, len(pixels) // 10)
    splits = [Split(pixels[part], labels[part].cpu().numpy()) for part in (slice(held_out, None), slice(held_out))]
    config = Config("bench", 1, 64, 1e-3, 1e-3, 0.9, False, 1e-4, "constant", False, False, depth)
    with tempfile.TemporaryDirectory() as folder:  # a mapping outlives its file
        frozen = keep(
            model, splits[0], splits[1], depth=depth, files=SharedFiles(Path(folder), 2**34),
            memory=2**32,
        )
    assert frozen.training is not None, f"no room in {folder}"

    def read(seed: int) -> None:
        train(model, splits[0], splits[1], config, UNALTERED, device=device, frozen=frozen)

    def computed(seed: int) -> None:
        train(model, splits[0], splits[1], config, UNALTERED, device=device)

    name = f"epoch of {architecture}" + (f" at {image_size}" if image_size else "") + f", frozen to depth {depth}"
    return Contest(name, read, {PEER: computed}, target, repeats=repeats, device=device)


def contests(images: Tensor, labels: Tensor, device: str) -> list[Callable[[], Contest]]:
    """As the study trains: ResNet-18 on images of 224 pixels."""
    return [
        lambda depth=depth, target=target: contest(  # type: ignore[misc]
            images[:71], labels[:71], "resnet18", depth, target, image_size=224, device=device
        )
        for depth, target in ((3, 3.0), (4, 10.0))
    ]
