"""Encoders and decoders by name: what the modules of this folder declare, and what installed packages bring.

A module declares a table, from names to functions or classes:

    ENCODERS = {"resnet20": resnet20_encoder}   # (normalize, *, stem) -> Encoder
    DECODERS = {"lif": LIFDecoder}              # (features, classes, config) -> Decoder

A package does so in its pyproject.toml, and is imported when a network of its is built:

    [project.entry-points."spikeproof.encoders"]
    tinynet = "lab_plugin.tinynet:tinynet_encoder"
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Any, Literal

import models

Table = Literal["ENCODERS", "DECODERS"]


def names(table: Table) -> tuple[str, ...]:
    """All that can be built, ours first; nothing of another package is imported for it."""
    return tuple(dict.fromkeys((*_ours(table), *_installed(table))))


def find(table: Table, name: str) -> Any:
    """The function or class of that name. Raises KeyError."""
    ours = _ours(table)
    return ours[name] if name in ours else _installed(table)[name].load()


@cache
def _ours(table: Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in iter_modules(models.__path__, "models."):
        declared = getattr(import_module(module.name), table, {})
        if twice := sorted(found.keys() & declared.keys()):
            raise ValueError(f"{module.name} declares {', '.join(twice)} a second time in {table}")
        found |= declared
    return found


@cache
def _installed(table: Table) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"spikeproof.{table.lower()}")}
