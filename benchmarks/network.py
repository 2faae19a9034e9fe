"""What the benchmarks attack: a ResNet-20 trained on CIFAR-10, kept beside them in half precision, and test images.

    python -m benchmarks.network CHECKPOINT.safetensors     keeps that network instead

Images come from the folder SPIKEPROOF_TEST_DATA, which has `cifar10-test.npz` (packed as `read_packed` reads it).
"""

import argparse
import os
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.attacks_against_peers import read_packed
from models import checkpoint
from models.decoder import DecoderConfig
from models.registry import Classifier, branch

FILE = Path(__file__).with_name("resnet20-cifar10.safetensors")
PACKED = "cifar10-test.npz"


class NoImagesError(Exception):
    """There are no test images to attack."""


def network() -> Classifier:
    """In float32, its weights rounded to half precision."""
    return checkpoint.load(FILE)[0]


def with_head(parent: Classifier, variant: str) -> Classifier:
    """An untrained spiking head on the parent's encoder: for what a pass costs, not for how robust it is."""
    torch.manual_seed(0)
    return branch(parent, variant, DecoderConfig()).eval()


def images(count: int) -> tuple[Tensor, Tensor]:
    """The first of CIFAR-10's test split, float32 (count, 3, 32, 32) in [0, 1], and their labels."""
    folder = os.environ.get("SPIKEPROOF_TEST_DATA")
    if not folder or not (Path(folder) / PACKED).is_file():
        raise NoImagesError(f"set SPIKEPROOF_TEST_DATA to a folder with {PACKED}, CIFAR-10's test split"
                            + (f"; {folder} has none" if folder else ""))
    return read_packed(Path(folder) / PACKED, count)


def keep(path: Path) -> None:
    """`path`, a checkpoint of ours, becomes the network of the benchmarks."""
    model, metadata = checkpoint.load(path)
    known = {"accuracy": metadata.get("metrics", {}).get("validation_accuracy"), "sha256_of_float32": checkpoint.save(
        FILE, model, {})}
    checkpoint.save(FILE, model.half(), known)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    keep(parser.parse_args().checkpoint)
