"""The boards' filters as the fields of a form: it works without JavaScript, and offers what exists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.dashboard.links import Query
from app.domain.architectures import variant_name

NORMS = {"linf": "L∞", "l2": "L2"}
SORTS = (("robust_accuracy", "robust accuracy"), ("clean_accuracy", "clean accuracy"))
_LABELS = {"freeze_depth": "frozen groups", "images": "images"}
_ANY = {"eps": "headline", "suite": "strongest complete"}  # what the board does without the filter; else: all


@dataclass(frozen=True)
class Field:
    """A list to choose from: (value, text) each; the empty value is no filter."""

    name: str
    label: str
    options: Sequence[tuple[str, str]]
    chosen: str


def fields(names: Sequence[str], offered: Mapping[str, Any], datasets: Sequence[str], query: Query) -> list[Field]:
    """Those named, as the query has set them. A value that was asked for is offered even where nothing has it."""
    asked = dict(query)
    return [_field(name, offered, datasets, asked) for name in names]


def _field(name: str, offered: Mapping[str, Any], datasets: Sequence[str], asked: Mapping[str, str]) -> Field:
    chosen = asked.get(name, "linf" if name == "norm" else "")
    options = _options(name, offered, datasets, asked.get("norm", "linf"))
    if name not in ("dataset", "norm"):
        options = [("", _ANY.get(name, "all")), *options]
    if chosen not in dict(options):
        options = [*options, (chosen, text_of(name, chosen))]
    return Field(name, _LABELS.get(name, name.replace("dataset", "data set")), options, chosen)


def _options(name: str, offered: Mapping[str, Any], datasets: Sequence[str], norm: str) -> list[tuple[str, str]]:
    if name == "dataset":
        return [(dataset, dataset) for dataset in datasets]
    if name == "eps":
        return [(radius["eps_text"], radius["eps_text"]) for radius in offered["eps"] if radius["norm"] == norm]
    return [(str(value), text_of(name, str(value))) for value in offered[name]]


def text_of(name: str, value: str) -> str:
    """A filter's value as people read it."""
    return variant_name(value) if name == "variant" else NORMS.get(value, value)
