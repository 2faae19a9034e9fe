"""What a training starts from, as its specification names it: by content, not by where that content is found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NO_WEIGHTS = "none"
IMAGENET = "imagenet"
CHECKPOINT_PREFIX = "ckpt_"
CONTENT_PREFIX = "sha256:"
ALLOWED = "'imagenet', 'none', or the id of a checkpoint (ckpt_...)"


@dataclass(frozen=True)
class SourceCheckpoint:
    """A checkpoint whose encoder is the start. `channels`: of the network's input, which grey images fill alike."""

    id: str
    sha256: str
    architecture: str
    stem: str
    image_size: int | None
    channels: int
    resize: int | None = None


@dataclass(frozen=True)
class WeightsSource:
    """What `training.weights` was found to be at submission.

    `files`: architecture -> sha256 of a file of one's own that stands in for torchvision's ImageNet weights.
    """

    checkpoint: SourceCheckpoint | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def identity(self, asked: str, architecture: str) -> dict[str, Any]:
        """The members of a specification that say which weights: one content, one identity."""
        if self.checkpoint is not None:
            return {"weights": CONTENT_PREFIX + self.checkpoint.sha256}
        file = self.files.get(architecture) if asked == IMAGENET else None
        return {"weights": asked} | ({"weights_sha256": file} if file else {})


NO_SOURCE = WeightsSource()


def weights_name(value: str) -> str:
    """The value, if it is one that `training.weights` takes. Raises ValueError."""
    if value not in (NO_WEIGHTS, IMAGENET) and not value.startswith(CHECKPOINT_PREFIX):
        raise ValueError(f"must be {ALLOWED}")
    return value


def weights_text(model: Mapping[str, Any]) -> str:
    """The `model` of a specification -> `"imagenet"`, `"imagenet, file 1a2b3c4d"`, `"ckpt 1a2b3c4d"`."""
    weights = str(model["weights"])
    if weights.startswith(CONTENT_PREFIX):
        return f"ckpt {weights.removeprefix(CONTENT_PREFIX)[:8]}"
    file = model.get("weights_sha256")
    return f"{weights}, file {file[:8]}" if file else weights
