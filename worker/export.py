"""Writes a checkpoint's network for another runtime, and compares both on images of its data set's test split.

    python -m worker.export CHECKPOINT [--format torch|onnx] [--part network|expected|encoder] [--output FILE]

Ends with 0 and the file's path, else with 1 and the reason on standard error.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from app.domain.errors import SpikeproofError
from app.settings import settings
from app.storage import datasets, migrate, results
from app.storage.engine import Database
from app.storage.tables import Checkpoint
from models.checkpoint import CheckpointError, load
from models.export import FORMATS, PARTS, SUFFIXES, ExportError, Parity, export
from worker.data import load as load_data

IMAGES = 32


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--format", choices=FORMATS, default="torch")
    parser.add_argument("--part", choices=PARTS, default="network")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    name = given.checkpoint + ("" if given.part == "network" else f"-{given.part}")
    output = given.output or Path(f"{name}{SUFFIXES[given.format]}")
    try:
        parity = _export(given.checkpoint, output, given.format, given.part)
    except (SpikeproofError, CheckpointError, ExportError) as error:
        print(f"spikeproof: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"{output}: on {parity.images} test images at most {parity.difference:.1e} of the largest output away from"
          f" the network ({parity.tolerance:.0e} is allowed); {parity.same_first} come first alike")  # fmt: skip
    return 0


def _export(checkpoint_id: str, output: Path, format: str, part: str) -> Parity:
    if not output.resolve().parent.is_dir():
        raise SpikeproofError(f"there is no folder {output.parent}")
    row = _row(checkpoint_id)
    model, _ = load(settings().data_dir / row.path)
    return export(model, output, format=format, part=part, images=_images(row))


def _row(checkpoint_id: str) -> Checkpoint:
    database = Database(settings().resolved_database_url)
    try:
        migrate.require_current(database)
        with database.reading() as session:
            return results.checkpoint(session, checkpoint_id)
    finally:
        database.close()


def _images(row: Checkpoint) -> torch.Tensor:
    """The first of the test split: float32 (n, C, H, W) in [0, 1]."""
    dataset = datasets.find(row.dataset, settings().data_dir)
    arrays = load_data(dataset.name, dataset.fingerprint, dataset.classes, dataset.shape, settings().data_dir)
    pixels = np.array(arrays.test.images[:IMAGES].transpose(0, 3, 1, 2), order="C")  # a copy: the map is read-only
    return torch.from_numpy(pixels).float() / 255


if __name__ == "__main__":
    sys.exit(main())
