"""The file that training goes on from after a crash. Ours alone, and loaded weights-only all the same."""

from pathlib import Path

import torch

from worker.training.loop import State


def save_state(path: Path, state: State, identity: str) -> None:
    """Writes the state of the training named by `identity` (its specification's key)."""
    with path.open("wb") as file:  # torch, given a path, does not tell why it could not write
        torch.save({"identity": identity, **vars(state)}, file)


def load_state(path: Path, identity: str) -> State | None:
    """The state to go on from; None where there is none of this training."""
    if not path.exists():
        return None
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return State(**stored) if stored.pop("identity") == identity else None
