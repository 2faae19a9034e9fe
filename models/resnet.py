"""ResNet-18 and ResNet-50 bodies from torchvision, cut before the classifier, and their ImageNet weights.

Errors:

    WeightsError                  a weights file that does not fit
    └── WeightsUnavailableError   the weights cannot be had: offline, or no such file
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.encoder import Encoder
from models.normalize import Normalize
from models.surrogate import refuse_unknown

IMAGENET_WEIGHTS = {"resnet18": "ResNet18_Weights.IMAGENET1K_V1", "resnet50": "ResNet50_Weights.IMAGENET1K_V2"}
IMAGENET_TOP1 = {"resnet18": 69.76, "resnet50": 80.86}
STEMS = ("imagenet", "cifar")
SILENCE_SECONDS = 30.0  # of a server in the middle of a download


class WeightsError(Exception):
    """Pretrained weights that do not fit the network."""


class WeightsUnavailableError(WeightsError):
    """Pretrained weights that can be neither downloaded nor read."""


def resnet_encoder(architecture: str, normalize: Normalize, *, stem: str = "imagenet") -> Encoder:
    """The body of `resnet18` (512 features) or `resnet50` (2048), freshly initialised.

    stem: "imagenet" is the published 7x7 convolution of stride 2 and the max pool; "cifar" a 3x3 convolution of
    stride 1 and no pool, for images of about 32x32. Input channels: as many as `normalize` puts out.
    """
    from torchvision import models  # here, since importing torchvision takes seconds

    refuse_unknown(architecture, allowed=tuple(IMAGENET_WEIGHTS), what="architecture")
    refuse_unknown(stem, allowed=STEMS, what="stem")
    body = models.get_model(architecture, weights=None)
    layers = [body.layer1, body.layer2, body.layer3, body.layer4]
    front = _stem(body, len(normalize.mean), stem)
    return Encoder(normalize, front, layers, features=body.fc.in_features)


def _stem(body: Any, channels: int, stem: str) -> nn.Module:
    conv = body.conv1
    if stem == "cifar":
        conv = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    elif channels != 3:
        conv = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    if conv is not body.conv1:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    parts = OrderedDict(conv1=conv, bn1=body.bn1, relu=body.relu)
    if stem == "imagenet":
        parts["maxpool"] = body.maxpool
    return nn.Sequential(parts)


def load_imagenet_weights(encoder: Encoder, architecture: str, *, file: Path | None = None) -> None:
    """Put torchvision's ImageNet weights into an encoder with the "imagenet" stem and three channels.

    file: a state dict in torchvision's format, as torchvision downloads it; None downloads it, or finds it in
    torch's cache. Raises WeightsUnavailableError where that fails, WeightsError where the weights do not fit.
    """
    refuse_unknown(architecture, allowed=tuple(IMAGENET_WEIGHTS), what="architecture")
    state = _downloaded(architecture) if file is None else _read(file)
    renamed = {_our_name(name): value for name, value in state.items() if not name.startswith("fc.")}
    try:
        encoder.load_state_dict(renamed)
    except RuntimeError as error:  # its text is as long as the network
        raise WeightsError(
            f"these weights do not fit {architecture} with the imagenet stem and three channels: tensors are missing, "
            f"unknown or of another shape, such as {_first_misfit(encoder, renamed)}"
        ) from error


def _first_misfit(encoder: Encoder, given: Mapping[str, Tensor]) -> str:
    wanted = {name: value.shape for name, value in encoder.state_dict().items()}
    shapes = {name: value.shape for name, value in given.items()}
    names = [name for name in {**wanted, **shapes} if not name.endswith(".num_batches_tracked")]  # may be missing
    return next((name for name in names if wanted.get(name) != shapes.get(name)), "a counter of a batch norm")


def _our_name(name: str) -> str:
    return f"stem.{name}" if name.startswith(("conv1.", "bn1.")) else name


def _downloaded(architecture: str) -> Mapping[str, Tensor]:
    from torchvision import models

    weights = models.get_weight(IMAGENET_WEIGHTS[architecture])
    try:
        with _no_endless_wait():
            state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailableError(
            f"cannot download the ImageNet weights of {architecture} ({error}). Fetch {weights.url} on a machine "
            "that is online, or train from scratch (weights: none)."
        ) from error
    return state


@contextmanager
def _no_endless_wait() -> Iterator[None]:
    """torch sets no timeout: a server that falls silent would hold the job for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsUnavailableError(f"cannot read the weights file {file}: {error}") from error
    except Exception as error:  # what unpickling something else ends in is anyone's guess
        raise WeightsError(
            f"{file} is not a torchvision weights file: it is damaged, or holds more than a state dict"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{file} holds no state dict")
    return state


ENCODERS = {name: partial(resnet_encoder, name) for name in IMAGENET_WEIGHTS}
