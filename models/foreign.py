"""Weights from elsewhere: looked at by name, shape and type before a network is built for them.

    with open_tensors(path) as tensors:
        names = match(spec, tensors)        # our name -> theirs; raises ForeignWeightsError
        fill(model, tensors, names)

Names are ours, or torchvision's (conv1, bn1, layer1, ..., fc) for the default variant of ResNet-18 and -50.
Safetensors files are never unpickled. A PyTorch file is read by torch's weights-only reader, which runs no code of
the file's, and only where the caller allows it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.registry import Classifier, ModelSpec, build
from models.resnet import IMAGENET_WEIGHTS

LARGEST_HEADER = 2**20  # bytes of JSON; a ResNet-50's are 30 thousand
_SHOWN = 3
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_INTEGERS = frozenset({"I64", "I32", "I16", "I8", "U8"})
_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
}  # fmt: skip
_STEM_CONVOLUTIONS = ("encoder.stem.conv1.weight", "conv1.weight")
_LAST_LAYERS = {"default": "decoder.linear.weight", "lif": "decoder.readout.weight",
                "paralif": "decoder.paralif.linear.weight"}  # fmt: skip


class ForeignWeightsError(Exception):
    """Weights that cannot be read or do not fit; `faults` says each in a sentence."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)


@dataclass(frozen=True)
class Tensors:
    """What a file holds: shapes and types (as safetensors names them) at once, numbers one tensor at a time."""

    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    read: Callable[[str], Tensor]
    metadata: Mapping[str, str]

    @property
    def stem_convolution(self) -> tuple[int, ...] | None:
        """The shape (filters, channels, height, width) of the first convolution, under either name."""
        found = (self.shapes[name] for name in _STEM_CONVOLUTIONS if name in self.shapes)
        return next((shape for shape in found if len(shape) == 4), None)


@contextmanager
def open_tensors(path: Path, *, pickled: bool = False) -> Iterator[Tensors]:
    """The tensors of a safetensors file; where `pickled`, also of a PyTorch file. Raises ForeignWeightsError."""
    if not _is_safetensors(path):
        yield _unpickled(path, allowed=pickled)
        return
    try:
        file: Any = safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ForeignWeightsError([f"the file is damaged, or no safetensors: {error}"]) from error
    with file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        yield Tensors(
            {name: tuple(part.get_shape()) for name, part in slices.items()},
            {name: part.get_dtype() for name, part in slices.items()}, file.get_tensor, file.metadata() or {},
        )


def _is_safetensors(path: Path) -> bool:
    """By its beginning: the length of the header in 8 bytes, then JSON. (A pickle may begin as some length does.)"""
    with path.open("rb") as file:
        length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    if brace != b"{" or not 2 <= length <= path.stat().st_size - 8:
        return False
    if length > LARGEST_HEADER:
        raise ForeignWeightsError([f"the header of the file has {length} bytes; at most {LARGEST_HEADER} are taken"])
    return True


def _unpickled(path: Path, *, allowed: bool) -> Tensors:
    with path.open("rb") as file:
        start = file.read(4)
    if not allowed:
        if start == b"PK\x03\x04" or start[:1] == b"\x80":
            raise ForeignWeightsError([
                "the file is a PyTorch pickle, which is not opened here; `spikeproof import FILE.pth --output "
                "FILE.safetensors` makes a safetensors file of it"
            ])
        raise ForeignWeightsError(["the file is no safetensors file"])
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ForeignWeightsError([
            "the file is a damaged pickle, or one of more than tensors, which could run code when opened, so it was "
            "not; save model.state_dict() alone"
        ]) from error
    except Exception as error:  # what unpickling something else ends in is anyone's guess
        raise ForeignWeightsError(["the file is neither safetensors nor a PyTorch file that can be read"]) from error
    state = _state_in(content)
    types = {name: _TYPES.get(value.dtype, str(value.dtype)) for name, value in state.items()}
    return Tensors({name: tuple(value.shape) for name, value in state.items()}, types, state.__getitem__, {})


def _state_in(content: Any) -> dict[str, Tensor]:
    """The state dict itself, or below "state_dict" or "model", without the "module." of data-parallel training."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ForeignWeightsError(['the file holds no state dict, nor one under "state_dict" or "model"'])
    if foreign := [str(name) for name, value in content.items() if not isinstance(value, Tensor)]:
        raise ForeignWeightsError([f"not tensors: {_few(foreign)}; save model.state_dict() alone"])
    prefixed = all(str(name).startswith("module.") for name in content)
    return {str(name).removeprefix("module.") if prefixed else str(name): value for name, value in content.items()}


def match(spec: ModelSpec, tensors: Tensors) -> dict[str, str]:
    """Our name of each tensor of the network -> the file's. Costs no memory, whatever the specification says.

    A batch norm's counter may be missing: nothing is computed from it. Raises ForeignWeightsError for tensors that
    are missing, unknown, of another shape or type.
    """
    with torch.device("meta"):
        wanted = build(spec).state_dict()
    theirs = _our_names(spec, tensors)
    missing = [name for name in wanted if name not in theirs and not name.endswith(".num_batches_tracked")]
    unknown = [name for ours, name in theirs.items() if ours not in wanted]
    both = [name for name in wanted if name in theirs]
    shaped = [name for name in both if tensors.shapes[theirs[name]] != tuple(wanted[name].shape)]
    typed = [name for name in both if not _type_fits(tensors.types[theirs[name]], wanted[name].dtype)]
    faults = [
        *_told("missing", [_named(name, theirs, spec, tensors) for name in missing]),
        *_told(f"not of a {spec.architecture} {spec.variant}", unknown),
        *_wrong_classes(spec, tensors, theirs, shaped),
        *_told("of another shape", [
            f"{theirs[name]} is {tensors.shapes[theirs[name]]}, not {tuple(wanted[name].shape)}" for name in shaped
        ]),
        *_told("of another type", [f"{theirs[name]} is {tensors.types[theirs[name]]}" for name in typed]),
    ]
    if faults:
        raise ForeignWeightsError(faults)
    return {name: theirs[name] for name in both}


def _our_names(spec: ModelSpec, tensors: Tensors) -> dict[str, str]:
    if not _is_torchvision(spec, tensors):
        return {name: name for name in tensors.shapes}
    return {_from_torchvision(name): name for name in tensors.shapes}


def _is_torchvision(spec: ModelSpec, tensors: Tensors) -> bool:
    ours = any(name.startswith(("encoder.", "decoder.")) for name in tensors.shapes)
    return spec.variant == "default" and spec.architecture in IMAGENET_WEIGHTS and not ours


def _from_torchvision(name: str) -> str:
    first, _, rest = name.partition(".")
    place = {"conv1": "encoder.stem.conv1", "bn1": "encoder.stem.bn1", "fc": "decoder.linear"}.get(first)
    return f"{place or f'encoder.{first}'}.{rest}"


def _named(name: str, theirs: Mapping[str, str], spec: ModelSpec, tensors: Tensors) -> str:
    """A missing tensor, in the file's own way of naming."""
    if not _is_torchvision(spec, tensors):
        return name
    room, _, rest = name.removeprefix("encoder.stem.").removeprefix("encoder.").partition(".")
    return f"fc.{rest.removeprefix('linear.')}" if room == "decoder" else f"{room}.{rest}"


def _wrong_classes(
    spec: ModelSpec, tensors: Tensors, theirs: Mapping[str, str], shaped: Sequence[str]
) -> list[str]:
    last = _LAST_LAYERS.get(spec.variant, "")
    if last not in shaped or not tensors.shapes[theirs[last]]:
        return []
    found = tensors.shapes[theirs[last]][0]
    return [f"the weights are for {found} classes, not {spec.classes}"] if found != spec.classes else []


def _type_fits(found: str, wanted: torch.dtype) -> bool:
    return found in (_FLOATS if wanted.is_floating_point else _INTEGERS)


def check_finite(tensors: Tensors, names: Mapping[str, str]) -> None:
    """Raises ForeignWeightsError for tensors that hold NaN or infinity as float32; reads one at a time."""
    found = [theirs for theirs in names.values() if not bool(torch.isfinite(tensors.read(theirs).float()).all())]
    if found:
        raise ForeignWeightsError(_told("not finite", found))


def fill(model: Classifier, tensors: Tensors, names: Mapping[str, str]) -> None:
    """Copies the tensors into the network, one at a time."""
    state = model.state_dict()
    with torch.no_grad():
        for ours, theirs in names.items():
            state[ours].copy_(tensors.read(theirs))


def _told(what: str, found: Sequence[str]) -> list[str]:
    if not found:
        return []
    return [f"{len(found)} tensor{'s' if len(found) > 1 else ''} {what}: {_few(found)}"]


def _few(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 100 else name[:100] + " ..." for name in names[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")
