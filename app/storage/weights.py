"""What trainings may start from: files of pretrained weights in the data folder, and checkpoints.

    DATA_DIR/weights/resnet50.pth     torchvision's file, for machines that are offline, or one of one's own
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.architectures import ARCHITECTURES
from app.domain.errors import InvalidInput, NotFound, Problem
from app.domain.spec import ExperimentSpec
from app.domain.weights import ALLOWED, CHECKPOINT_PREFIX, IMAGENET, SourceCheckpoint, WeightsSource
from app.storage import results, runs
from app.storage.tables import Checkpoint

POINTER = "/training/weights"


@dataclass(frozen=True)
class LocalFile:
    """A file that stands in for the download; `official`: it is torchvision's own."""

    path: Path
    sha256: str
    official: bool


def place(architecture: str) -> str:
    """Where the file belongs, as users are told: `"DATA_DIR/weights/resnet50.pth"`."""
    return f"DATA_DIR/weights/{architecture}.pth"


def local_file(data_dir: Path, architecture: str) -> LocalFile | None:
    """The file as it is now, or None. Raises OSError where it cannot be read."""
    path = data_dir / "weights" / f"{architecture}.pth"
    if not path.is_file():
        return None
    state = path.stat()
    sha256 = _sha256(path, state.st_mtime_ns, state.st_size)
    official = any(sha256.startswith(offer.sha256_prefix) for offer in ARCHITECTURES[architecture].weights)
    return LocalFile(path, sha256, official)


def own_file(data_dir: Path, architecture: str) -> str | None:
    """The sha256 of a local file that is not torchvision's; None for torchvision's, and for none."""
    found = local_file(data_dir, architecture)
    return None if found is None or found.official else found.sha256


@lru_cache(maxsize=64)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_source(session: Session, spec: ExperimentSpec, data_dir: Path) -> WeightsSource:
    """What `training.weights` names, as it is here now. Raises InvalidInput."""
    weights = spec.training.weights
    if spec.checkpoints:  # then nothing is trained
        return WeightsSource()
    if weights.startswith(CHECKPOINT_PREFIX):
        return WeightsSource(checkpoint=_source_checkpoint(session, weights, data_dir))
    if weights != IMAGENET:
        return WeightsSource()
    return WeightsSource(files={name: own for name in spec.architectures if (own := _own_file(data_dir, name))})


def _own_file(data_dir: Path, architecture: str) -> str | None:
    try:
        return own_file(data_dir, architecture)
    except OSError as error:
        raise InvalidInput([Problem(POINTER, f"{place(architecture)} cannot be read")]) from error


def _source_checkpoint(session: Session, checkpoint_id: str, data_dir: Path) -> SourceCheckpoint:
    try:
        row = results.checkpoint(session, checkpoint_id)
    except NotFound as error:
        raise InvalidInput([Problem(POINTER, f"{error.detail}; use {ALLOWED}")]) from error
    if not row.final or runs.get(session, row.run_id).state != "succeeded":
        detail = f"checkpoint {row.id} is of the middle of a training; name the last one of its run"
        raise InvalidInput([Problem(POINTER, detail)])
    if not (data_dir / row.path).is_file():
        raise InvalidInput([Problem(POINTER, f"the file of checkpoint {row.id} is gone; name another one")])
    model = row.spec["model"]
    return SourceCheckpoint(
        row.id, row.sha256, row.architecture, model["stem"], model["image_size"], channels=len(model["mean"]),
        resize=model.get("resize"),
    )


def with_content(session: Session, sha256: str) -> list[Checkpoint]:
    """The checkpoints whose file is this one, oldest first."""
    return list(session.scalars(select(Checkpoint).where(Checkpoint.sha256 == sha256).order_by(Checkpoint.id)))
