"""A trained float32 network in eight bits: after training, or with training on top.

    rounded = quantise(calibrated(prepared(model), batches))            # post-training
    twin = calibrated(prepared(model), batches); train(twin); quantise(twin)   # quantisation-aware

The encoder is quantised whole: batch norm is folded into the convolutions first, then what each convolution and each
sum with a skip puts out is rounded (arXiv 1712.05877, section 3). So are the weights of the heads' linear maps, and
the default head's input. Neurons, their filters, normalisation and the average pool compute in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.decoder import Decoder, LIFDecoder, LinearDecoder, ParaLIFDecoder
from models.encoder import Encoder
from models.folding import folded
from models.freezing import evaluating
from models.quantisation import QuantisedConv, QuantisedLinear, Quantiser, RoundedWeight
from models.registry import Classifier


class QuantisedStem(nn.Module):
    """Normalised pixels to the first activations; their range is known beforehand."""

    def __init__(self, stem: nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.input = Quantiser(low, high, fixed=True)
        self.conv = QuantisedConv(_conv(stem, "conv1"))
        self.output = Quantiser()
        self.maxpool = getattr(stem, "maxpool", None)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, C, h, w) to (batch, channels, h', w')."""
        hidden: Tensor = self.output(self.conv(self.input(x)).relu())
        return hidden if self.maxpool is None else self.maxpool(hidden)


class QuantisedBlock(nn.Module):
    """A residual block of two or three convolutions, relu(conv(.. relu(conv(x)))) + shortcut(x)).

    Rounded is what the next convolution takes, and what a projection puts out; a sum only once it is whole.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        convs = [QuantisedConv(_conv(block, name)) for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
        self.convs = nn.ModuleList(convs)
        self.rounding = nn.ModuleList(Quantiser() for _ in convs)
        skip = getattr(block, "shortcut", getattr(block, "downsample", None))
        self.shortcut = None if skip is None else QuantisedConv(_first_conv(skip))
        self.shortcut_rounding = None if skip is None else Quantiser()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, C, h, w) to (batch, channels, h', w')."""
        hidden, last = x, len(self.convs) - 1
        for number, (conv, rounding) in enumerate(zip(self.convs, self.rounding, strict=True)):
            hidden = conv(hidden)
            hidden = rounding((hidden + self._skip(x) if number == last else hidden).relu())
        return hidden

    def _skip(self, x: Tensor) -> Tensor:
        if self.shortcut is None or self.shortcut_rounding is None:
            return x
        found: Tensor = self.shortcut_rounding(self.shortcut(x))
        return found


def _conv(module: nn.Module, name: str) -> nn.Conv2d:
    conv = module.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    return conv


def _first_conv(module: nn.Module) -> nn.Conv2d:
    """Of a projection: batch norm behind it is folded."""
    return next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))


def prepared(model: Classifier) -> Classifier:
    """A twin of a float32 network whose weights and activations are rounded, and which can be calibrated and trained.

    Its ranges mean nothing yet: see `calibrated`. Raises ValueError for a network that is quantised already.
    """
    if model.spec.precision != "float32":
        raise ValueError(f"this network is quantised already: {model.spec.precision}")
    spec = replace(model.spec, precision="int8")
    with evaluating(model):
        encoder = _prepared_encoder(model.encoder)
    twin = Classifier(spec, encoder=encoder, decoder=_prepared_decoder(model.decoder))
    return twin.to(next(model.parameters()).device).eval()


def calibrated(model: Classifier, batches: Iterable[Tensor]) -> Classifier:
    """The same network, its ranges set to what these pixels (batch, C, H, W) reach, averaged over the batches."""
    quantisers = [module for module in model.modules() if isinstance(module, Quantiser) and not module.fixed]
    for quantiser in quantisers:
        quantiser.observing, quantiser.seen = True, 0
    with evaluating(model), torch.no_grad():
        for pixels in batches:
            features = model.encoder(pixels)
            if isinstance(model.decoder, LinearDecoder):
                model.decoder(features)
    for quantiser in quantisers:
        quantiser.observing = False
    if not all(quantiser.seen for quantiser in quantisers):
        raise ValueError("calibration needs at least one batch of images")
    return model


def quantise(model: Classifier) -> Classifier:
    """A prepared network as it is stored: weights are integers, ranges stand still. On the CPU, in evaluation mode."""
    twin = copy.deepcopy(model).cpu().eval()
    for module in twin.modules():
        if isinstance(stored := getattr(module, "stored", None), RoundedWeight):
            module.stored = stored.rounded()
        if isinstance(module, Quantiser):
            module.fixed = True
    return twin


def _prepared_encoder(encoder: Encoder) -> Encoder:
    plain, normalize = folded(encoder), encoder.normalize
    bounds = torch.cat([(pixel - normalize.mean) / normalize.std for pixel in (0.0, 1.0)]).flatten().tolist()
    stem = QuantisedStem(plain.stem, min(*bounds, 0.0), max(*bounds, 0.0))
    layers = [
        nn.Sequential(*(QuantisedBlock(block) for block in layer.children()))
        for layer in plain.stages(plain.depths)[1:]
    ]
    return Encoder(copy.deepcopy(normalize), stem, layers, features=encoder.features)


def _prepared_decoder(decoder: Decoder) -> Decoder:
    twin = copy.deepcopy(decoder)
    if isinstance(twin, LinearDecoder):
        twin.add_module("linear", QuantisedLinear(twin.linear, Quantiser()))
    elif isinstance(twin, LIFDecoder):
        twin.add_module("linear", QuantisedLinear(twin.linear))
        twin.add_module("readout", QuantisedLinear(twin.readout))
    elif isinstance(twin, ParaLIFDecoder):
        twin.paralif.add_module("linear", QuantisedLinear(twin.paralif.linear))
    else:
        raise ValueError(f"no quantised form of {type(decoder).__name__}")
    return twin
