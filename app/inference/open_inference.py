"""Requests and answers of the Open Inference Protocol v2: tensors as JSON, or as bytes behind the JSON.

    request = read(body, header_length)               # raises InvalidInput
    content, header_length = write(...)

The binary form is the protocol's extension `binary_tensor_data`, which standard clients use unless told otherwise: the
JSON has `Inference-Header-Content-Length` bytes, and little-endian tensors follow it in order.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from app.domain.errors import InvalidInput, Problem
from app.inference.predict import Answer

HEADER = "Inference-Header-Content-Length"
PLATFORM = "spikeproof"
VERSION = "1"
INPUT = "images"
FP32 = "FP32"
EXTENSIONS = ("binary_tensor_data",)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class InputTensor(_Part):
    """`data`: flat or nested, row-major; or parameters.binary_data_size of the bytes behind the JSON."""

    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: dict[str, Any] = {}
    data: Any = None


class OutputWanted(_Part):
    """`parameters.binary_data`: as bytes behind the JSON."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(_Part):
    """`parameters`: `draws` and `seed`, and `binary_data_output` for all outputs at once."""

    id: str | None = Field(None, max_length=1000)
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[OutputWanted] = Field([], max_length=16)


def metadata(name: str, shape: Sequence[int], classes: int, *, stochastic: bool) -> dict[str, Any]:
    """Of a model: its inputs and outputs; -1 stands for any number of images."""
    outputs = [{"name": output, "datatype": FP32, "shape": [-1, classes]} for output in outputs_of(stochastic)]
    inputs = [{"name": INPUT, "datatype": FP32, "shape": [-1, *shape]}]
    return {"name": name, "versions": [VERSION], "platform": PLATFORM, "inputs": inputs, "outputs": outputs}


def outputs_of(stochastic: bool) -> tuple[str, ...]:
    """`spread` is of the probabilities over draws, and only where there is one."""
    return ("probabilities", "logits", "spread") if stochastic else ("probabilities", "logits")


def split(body: bytes, header_length: str | None) -> tuple[InferRequest, bytes]:
    """The JSON, and the bytes behind it. Raises InvalidInput."""
    size = len(body) if header_length is None else _length(header_length, len(body))
    try:
        return InferRequest.model_validate(from_json(body[:size])), body[size:]
    except ValidationError as error:
        raise InvalidInput([
            Problem("".join(f"/{step}" for step in fault["loc"]), fault["msg"]) for fault in error.errors()
        ]) from error
    except ValueError as error:
        raise InvalidInput([Problem("", f"the body is not JSON: {error}")]) from error


def _length(given: str, most: int) -> int:
    if not given.isascii() or not given.isdigit() or int(given[:20]) > most:
        detail = f"must be the number of bytes of the JSON, at most {most}, not {given[:100]}"
        raise InvalidInput([Problem(f"/{HEADER}", detail)])
    return int(given)


def images_of(tensor: InputTensor, binary: bytes, shape: tuple[int, int, int], most: int) -> int:
    """How many images there are, by the tensor's own description. Raises InvalidInput where that does not fit."""
    if tensor.name != INPUT or tensor.datatype != FP32:
        fault = f"the one input is {INPUT!r} of {FP32}, not {tensor.name!r} of {tensor.datatype!r}"
        raise InvalidInput([Problem("/inputs/0", fault)])
    images, *rest = tensor.shape or [0]
    if tuple(rest) != shape or not 1 <= images <= most:
        wanted = f"[1 to {most}, {', '.join(map(str, shape))}]"
        raise InvalidInput([Problem("/inputs/0/shape", f"must be {wanted}, not {tensor.shape}")])
    _check_content(tensor, binary, 4 * images * math.prod(shape))
    return images


def _check_content(tensor: InputTensor, binary: bytes, wanted: int) -> None:
    size = tensor.parameters.get("binary_data_size")
    if size is None and tensor.data is None:
        raise InvalidInput([Problem("/inputs/0/data", "is required, or parameters.binary_data_size")])
    if size is None:
        fault = "follow the JSON, and no input has binary_data_size" if binary else None
    elif tensor.data is not None:
        fault = "are said to follow, and there is data too: send one of both"
    elif (size, len(binary)) != (wanted, wanted):
        fault = f"follow the JSON, and binary_data_size is {size}; {wanted} are needed for this shape"
    else:
        fault = None
    if fault is not None:
        raise InvalidInput([Problem("/inputs/0", f"{len(binary)} bytes {fault}")])


def pixels_of(tensor: InputTensor, binary: bytes) -> np.ndarray:
    """float32 of the tensor's shape, in [0, 1]. Raises InvalidInput."""
    if tensor.data is None:
        array = np.frombuffer(binary, "<f4")
    else:
        try:
            array = np.asarray(tensor.data).reshape(-1)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidInput([Problem("/inputs/0/data", "must hold numbers, in lists of equal length")]) from error
    wanted = math.prod(tensor.shape)
    if array.dtype.kind not in "iuf" or array.size != wanted:
        raise InvalidInput([Problem("/inputs/0/data", f"must hold {wanted} numbers")])
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise InvalidInput([Problem("/inputs/0/data", "must hold numbers in 0..1: pixels")])
    return array.astype(np.float32).reshape(tensor.shape)


def wanted_outputs(request: InferRequest, *, stochastic: bool, draws: int) -> list[str]:
    """Names in order: those asked for, else all there are. Raises InvalidInput."""
    there = [name for name in outputs_of(stochastic) if name != "spread" or draws > 1]
    asked = [output.name for output in request.outputs]
    problems = [
        Problem(f"/outputs/{i}/name", f"is not {' or '.join(there)}, which is what there is"
                                      f"{' with one draw' if stochastic and draws == 1 else ''}")
        for i, name in enumerate(asked) if name not in there
    ]  # fmt: skip
    if len(set(asked)) < len(asked):
        problems.append(Problem("/outputs", "names one twice"))
    if problems:
        raise InvalidInput(problems)
    return asked or there


def tensors(answers: Sequence[Answer], names: Sequence[str]) -> dict[str, np.ndarray]:
    """float32 (images, classes) of each name."""
    fields = {"probabilities": "probabilities", "logits": "logits", "spread": "sd"}
    return {name: np.stack([getattr(answer, fields[name]) for answer in answers]).astype("<f4") for name in names}


def write(
    found: Mapping[str, np.ndarray], request: InferRequest, model: str, parameters: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """The body, and how many bytes of it are JSON; None: all of them."""
    all_binary = request.parameters.get("binary_data_output") is True
    said = {output.name: output.parameters.get("binary_data", all_binary) for output in request.outputs}
    outputs, behind = [], []
    for name, array in found.items():
        entry: dict[str, Any] = {"name": name, "datatype": FP32, "shape": list(array.shape)}
        if said.get(name, all_binary):
            behind.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": array.nbytes}
        else:
            entry["data"] = array.reshape(-1).tolist()
        outputs.append(entry)
    head = {"model_name": model, "model_version": VERSION, "parameters": dict(parameters), "outputs": outputs}
    text = json.dumps(head | ({} if request.id is None else {"id": request.id})).encode()
    return b"".join([text, *behind]), len(text) if behind else None
