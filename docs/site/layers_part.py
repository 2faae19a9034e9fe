"""The layer study of an architecture, traced through the network itself."""

from collections.abc import Sequence

import torch
from tables import table

from app.domain.architectures import ARCHITECTURES
from models.registry import ModelSpec, build
from models.summary import Layer, layer_table, totals

CLASSES = 10


def layer_study(name: str) -> str:
    """A row a layer, for ten classes: at 32 pixels with the CIFAR stem, and totals for each other stem."""
    facts = ARCHITECTURES[name]
    shown = {stem: layers_of(name, stem, side=32 if stem == "cifar" else 224) for stem in facts.stems}
    stem = facts.stems[0]
    lines = [_totals(stem, layers) for stem, layers in shown.items()]
    return f"Reference: {facts.reference}.\n\n" + "\n".join(lines) + "\n" + _table(shown[stem])


def layers_of(name: str, stem: str, *, side: int, variant: str = "default") -> list[Layer]:
    """The network is built without memory for its weights: only shapes are asked for."""
    grey = (0.5, 0.5, 0.5)
    with torch.device("meta"):
        model = build(ModelSpec(name, variant, CLASSES, (3, side, side), mean=grey, std=grey, stem=stem))
    return layer_table(model)


def _totals(stem: str, layers: Sequence[Layer]) -> str:
    sums, side = totals(layers), layers[0].output_shape[-1]
    return (
        f"- stem `{stem}`, {side}x{side} pixels: **{sums.parameters:,} parameters**, "
        f"{sums.multiply_adds / 1e6:,.1f} million multiply-adds an image"
    )


def _table(layers: Sequence[Layer]) -> str:
    rows = [
        (f"`{layer.name}`", layer.kind, _pair(layer.kernel), _pair(layer.stride), _pair(layer.padding),
         f"({', '.join(map(str, layer.output_shape))})", f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
        for layer in layers
    ]  # fmt: skip
    head = ("layer", "kind", "kernel", "stride", "padding", "output", "parameters", "multiply-adds")
    return table(head, rows)


def _pair(value: tuple[int, int] | None) -> str:
    if value is None:
        return ""
    return str(value[0]) if value[0] == value[1] else f"{value[0]}x{value[1]}"
