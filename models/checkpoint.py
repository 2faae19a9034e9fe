"""Networks in files: safetensors, with the specification inside, and nothing that is ever unpickled.

    sha256 = save(path, model, {"epoch": 10})
    model, metadata = load(path)

The file's metadata has the one key "spikeproof", whose value is JSON with sorted keys: the file format keeps its
own map in no stable order, and equal models with equal metadata shall be equal bytes in every process.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from models.registry import Classifier, ModelSpec, build

KEY = "spikeproof"
FORMAT = 1


class CheckpointError(Exception):
    """A file that is not one of our checkpoints, is damaged, or does not fit its own specification."""


def save(path: Path, model: Classifier, metadata: dict[str, Any]) -> str:
    """Write `model` and `metadata` (JSON-safe) to `path`; return the file's sha256 in hexadecimal.

    Written beside, synced, then renamed: whoever reads `path` finds the old file or the new one, whole.
    """
    text = _canonical({"format": FORMAT, "spec": model.spec.to_dict(), "metadata": metadata})
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return _publish(Path(path), state, text)


def load(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """The network, on the CPU and in eval mode, and its metadata. Torch's global generator is left as it was.

    Raises CheckpointError for a file that is truncated, foreign, or of other weights than it says.
    """
    spec, metadata = _read(Path(path))
    with torch.random.fork_rng(devices=[]):
        model = build(spec)
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the weights in {path} do not fit its specification: {error}") from error
    return model.eval(), metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata given to `save`, read from the file's header: no weights are loaded."""
    return _read(Path(path))[1]


def read_spec(path: Path) -> ModelSpec:
    """The specification of the network in the file, read from its header."""
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[ModelSpec, dict[str, Any]]:
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
    if KEY not in header:
        raise CheckpointError(f"{path} holds weights, but says nothing of the network they belong to")
    return _parsed(path, header[KEY])


def _parsed(path: Path, text: str) -> tuple[ModelSpec, dict[str, Any]]:
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}, this version reads {FORMAT}")
        return ModelSpec.from_dict(document["spec"]), dict(document["metadata"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} describes no network of ours: {error}") from error


def _canonical(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _publish(path: Path, state: dict[str, torch.Tensor], text: str) -> str:
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(state, beside, metadata={KEY: text})  # straight from the tensors: no copy of them in memory
        with open(beside, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return sha256


def _sync_folder(folder: Path) -> None:
    """The rename itself is on the disk only once the folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
