"""The operations of a network's prediction, from its layer table and the spikes that were counted."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.domain.energy import Operations, energy
from models.decoder import LIFDecoder, SpikingDecoder
from models.registry import Classifier
from models.summary import Layer, layer_table

_SPIKING_INPUT = {"decoder.linear": "input", "decoder.paralif.linear": "input", "decoder.readout": "neurons"}


def energy_of(model: Classifier, rates: Mapping[str, float]) -> dict[str, Any]:
    """`app.domain.energy` of the network; `rates` as `SpikingDecoder.spike_rate` has them, empty without spikes."""
    return energy(_operations(model, rates), rates)


def _operations(model: Classifier, rates: Mapping[str, float]) -> Iterator[Operations]:
    spiking = isinstance(model.decoder, SpikingDecoder)
    for layer in layer_table(model):
        if not layer.multiply_adds:
            continue
        # Filters of neurons compute in float32 in every network.
        precision = model.spec.precision if layer.kind in ("convolution", "linear") else "float32"
        fed_by = _SPIKING_INPUT.get(layer.name) if spiking else None
        if fed_by is None:
            yield Operations(layer.multiply_adds, precision)
        else:
            yield Operations(layer.multiply_adds * _steps(model, layer), precision, rates[fed_by])


def _steps(model: Classifier, layer: Layer) -> int:
    """How often the layer runs on spikes beyond what its row says: the read-out is applied to their mean instead."""
    decoder = model.decoder
    return decoder.config.timesteps if isinstance(decoder, LIFDecoder) and layer.name == "decoder.readout" else 1
