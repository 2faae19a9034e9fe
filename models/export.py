"""Networks for other runtimes: `torch.export` and ONNX, compared with the network itself before they count as done.

    parity = export(model, Path("net.onnx"), format="onnx", part="network", images=images)

A spiking network answers with random spikes, which neither format can hold reproducibly: exporters write the numbers
drawn while tracing into the file as constants, or a generator of their own. So of a stochastic network there are two
parts: `encoder`, pixels to features, and `expected`, pixels to the mean logits over all noise, where that has a closed
form (`Decoder.expected`). The softmax of mean logits is not the mean softmax that the service answers with.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.registry import Classifier
from models.surrogate import refuse_unknown

FORMATS = ("torch", "onnx")
PARTS = ("network", "expected", "encoder")
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}
INPUT = "images"
# Of the largest output: other kernels add in another order, and ONNX runtimes fuse batch norms into convolutions.
TOLERANCES = {"torch": 1e-5, "onnx": 1e-4}


class ExportError(Exception):
    """What cannot be exported, or does not answer as the network does."""


@dataclass(frozen=True)
class Parity:
    """How far the file's outputs are from the network's: `difference`, as a share of the largest output."""

    images: int
    difference: float
    tolerance: float
    same_first: int  # images whose largest output is the same one

    @property
    def holds(self) -> bool:
        """Whether the file may be used in the network's place."""
        return self.difference <= self.tolerance


class _Expected(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decoder.expected(self.encoder(images))[0]
        return logits


class _Network(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.encoder(images))[0]
        return logits


class _Features(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images)
        return features


def part_of(model: Classifier, part: str) -> nn.Module:
    """pixels (batch, C, H, W) in [0, 1] to one tensor. Raises ExportError, with the reason, for what has none."""
    refuse_unknown(part, allowed=PARTS, what="part")
    if model.spec.precision != "float32":
        raise ExportError(
            f"exporters have no form of our {model.spec.precision} rounding; export the float32 checkpoint that this"
            " one was made of"
        )
    if part == "encoder":
        return _Features(model).eval()
    if part == "expected" and not model.decoder.has_expectation:
        raise ExportError(
            f"the mean logits of this {model.spec.variant} network have no closed form; --part encoder is left"
        )
    if part == "network" and model.stochastic:
        left = "--part encoder" + (" or --part expected" if model.decoder.has_expectation else "")
        raise ExportError(
            f"the {model.spec.variant} network draws spikes at random, which an exported file cannot repeat; try {left}"
        )
    return (_Network if part == "network" else _Expected)(model).eval()


def export(model: Classifier, path: Path, *, format: str, part: str, images: Tensor) -> Parity:
    """Writes the file, runs it on `images` (two or more, on the CPU), and keeps it only where it answers as the part.

    Raises ExportError: what cannot be exported, a library that is missing, a file whose answers differ.
    """
    refuse_unknown(format, allowed=FORMATS, what="format")
    module = part_of(model, part)
    beside = path.with_name(f".{path.name}.part{SUFFIXES[format]}")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # exporters warn of their own inner workings
            (_write_torch if format == "torch" else _write_onnx)(module, beside, images)
            found = (_run_torch if format == "torch" else _run_onnx)(beside, images)
            parity = compare(found, module(images), TOLERANCES[format])
        if not parity.holds:
            raise ExportError(
                f"the file answers otherwise than the network: by {parity.difference:.1e} of the largest output, where"
                f" {parity.tolerance:.0e} is allowed; {parity.same_first} of {parity.images} images come first alike"
            )
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return parity


def compare(found: Tensor, expected: Tensor, tolerance: float) -> Parity:
    """Outputs (images, numbers) of the file and of the network."""
    if found.shape != expected.shape:
        raise ExportError(f"the file answers with shape {tuple(found.shape)}, the network {tuple(expected.shape)}")
    scale = float(expected.abs().max().clamp(min=1e-12))
    difference = float((found - expected).abs().max()) / scale
    same = int((found.argmax(-1) == expected.argmax(-1)).sum())
    return Parity(len(expected), difference if difference == difference else float("inf"), tolerance, same)


def _traced(module: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    batch = {"images": {0: torch.export.Dim("batch", min=1, max=4096)}}
    return torch.export.export(module, (images,), dynamic_shapes=batch)


def _write_torch(module: nn.Module, path: Path, images: Tensor) -> None:
    torch.export.save(_refusing("torch.export", lambda: _traced(module, images)), path)


def _run_torch(path: Path, images: Tensor) -> Tensor:
    found: Tensor = torch.export.load(path).module()(images)
    return found


def _write_onnx(module: nn.Module, path: Path, images: Tensor) -> None:
    _needs("onnx", "onnxscript", "onnxruntime")
    program = _refusing("ONNX", lambda: torch.onnx.export(
        _traced(module, images), (images,), dynamo=True, verbose=False, input_names=[INPUT], output_names=["output"],
    ))  # fmt: skip
    program.save(path, external_data=False)


def _run_onnx(path: Path, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])


def _refusing(what: str, work: Callable[[], Any]) -> Any:
    """Exporters raise whatever they like for what they cannot take."""
    try:
        return work()
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise ExportError(f"{what} cannot take this network: {type(error).__name__}: {first}") from error


def _needs(*libraries: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        raise ExportError(f"{', '.join(missing)} not installed; say pip install 'spikeproof[export]'")
