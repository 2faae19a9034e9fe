"""The pages of checkpoints: the list, and one with all that was measured of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.rendering import render
from app.domain.access import Role, covers
from app.domain.architectures import ARCHITECTURES, VARIANTS
from app.domain.subject import settings_of

LARGEST_MATRIX = 20  # classes; of more, only what is confused most is shown
CONFUSED = 15


def list_page(
    found: Mapping[str, Any], filters: Mapping[str, str | None], datasets: Sequence[str], cursor: str | None
) -> str:
    """One page of checkpoints, newest first."""
    chosen = {name: value for name, value in filters.items() if value}
    return render(
        "checkpoints.html", rows=found["items"], following=found["next"], filters=filters, chosen=chosen,
        datasets=datasets, architectures=list(ARCHITECTURES), variants=VARIANTS, later=cursor is not None,
    )


def checkpoint_page(
    checkpoint: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]], shown: Mapping[str, Any] | None, role: Role
) -> str:
    """One checkpoint. `shown`: the evaluation whose images are on show: `run`, `eps`, `verdicts`."""
    classes = checkpoint["spec"]["classes"]
    clean = evaluations[0]["clean"] if evaluations else None
    return render(
        "checkpoint.html", c=checkpoint, evaluations=[evaluation_table(one) for one in evaluations], shown=shown,
        clean=clean, settings=training_settings(checkpoint), snippet=checkpoint["snippet"],
        by_class=by_class(clean, classes), matrix=matrix(clean, classes), confused=most_confused(clean, classes),
        may_submit=covers(role, "submitter"), spiking=checkpoint["variant"] != "default",
    )


def training_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted name, as the run had them."""
    run = checkpoint["spec"].get("run") or {}
    try:
        found = settings_of(run)
    except KeyError:  # of weights from elsewhere less is known
        return {}
    hidden = ("architecture", "variant", "epochs", "dataset.name")
    return {name: value for name, value in found.items() if name not in hidden and value not in ([], "")}


def evaluation_table(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """With a column for each attack that ran at some radius."""
    figures = evaluation["figures"]
    attacks = list(dict.fromkeys(name for figure in figures for name in figure["attacks"]))
    return {**evaluation, "attacks": attacks}


def by_class(clean: Mapping[str, Any] | None, classes: Sequence[str]) -> list[tuple[str, float | None]]:
    """(class, accuracy); empty where it was not measured."""
    found = (clean or {}).get("per_class") or []
    return list(zip(classes, found, strict=False))


def matrix(clean: Mapping[str, Any] | None, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix, each cell with its count and its share of the row; empty for too many classes."""
    counts = (clean or {}).get("confusion") or []
    if not counts or len(counts) > LARGEST_MATRIX:
        return []
    return [
        {"name": name, "cells": [
            {"count": count, "level": _level(count, sum(row)), "right": i == j} for j, count in enumerate(row)
        ]}
        for i, (name, row) in enumerate(zip(classes, counts, strict=False))
    ]  # fmt: skip


def _level(count: int, total: int) -> int:
    """0..5, by a square root: rare mistakes are what one looks for."""
    return 0 if not count else max(1, round(5 * (count / total) ** 0.5))


def most_confused(clean: Mapping[str, Any] | None, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What is taken for what most often."""
    counts = (clean or {}).get("confusion") or []
    pairs = [
        {"true": classes[i], "answer": classes[j], "count": count, "share": count / sum(row)}
        for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -int(pair["count"]))[:CONFUSED]
