"""From the figures of single checkpoints to the rows of the leaderboard and the cells of the matrix.

A row is one recipe (everything but the seeds) under one protocol.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.domain.architectures import VARIANTS
from app.domain.protocol import digest
from app.domain.ranking import rank
from app.domain.statistics import estimate
from app.domain.suites import SUITE_STRENGTH

SortKey = Literal["robust_accuracy", "clean_accuracy"]
Metric = Literal["clean_accuracy", "robust_accuracy"]
OK = "ok"


@dataclass(frozen=True)
class Measured:
    """One checkpoint at one radius under one protocol."""

    run_id: str
    checkpoint_id: str
    created_at: float
    dataset: str
    architecture: str
    variant: str
    recipe: str
    precision: str
    epochs: str
    settings: str
    group: str
    seed: int
    branch_seed: int | None
    protocol_id: str
    protocol: Mapping[str, Any]
    test_images: int
    clean_accuracy: float
    robust_accuracy: float
    attacks: Mapping[str, float]
    verdict: str
    reasons: Sequence[str]
    draws: int
    parameters: int
    freeze_depth: int | None = None  # not known of a network that was trained elsewhere


def choose_protocol(measured: Sequence[Measured]) -> str | None:
    """The protocol to show where the filters leave several: strongest suite, newest version, most
    images, most checkpoints, measured last. Never by how anyone fares under it."""
    if not measured:
        return None
    checkpoints = defaultdict(set)
    latest_at: dict[str, float] = defaultdict(float)
    for m in measured:
        checkpoints[m.protocol_id].add(m.checkpoint_id)
        latest_at[m.protocol_id] = max(latest_at[m.protocol_id], m.created_at)

    def strength(m: Measured) -> tuple[int, int, int, int, float, str]:
        p, name = m.protocol, m.protocol_id
        known = SUITE_STRENGTH.index(p["suite"]) if p["suite"] in SUITE_STRENGTH else -1
        return known, p["suite_version"], p["images"], len(checkpoints[name]), latest_at[name], name

    return max(measured, key=strength).protocol_id


def latest(measured: Iterable[Measured]) -> list[Measured]:
    """One figure a (row, seed, branch seed): the newest, where a run was repeated."""
    newest: dict[tuple[Any, ...], Measured] = {}
    for m in sorted(measured, key=lambda m: m.created_at):
        newest[m.group, m.protocol_id, m.seed, m.branch_seed] = m
    return list(newest.values())


def leaderboard(
    measured: Iterable[Measured], protocol_id: str | None, sort: SortKey = "robust_accuracy"
) -> list[dict[str, Any]]:
    """Ranked rows of one protocol; those marked "upper bound only" come unranked below the others.

    `measured` may have other radii too: a row's `curve` has its robust accuracy at all of them.
    """
    groups: dict[str, list[Measured]] = defaultdict(list)
    curves: dict[tuple[str, str | None], list[Measured]] = defaultdict(list)
    for m in latest(measured):
        curves[m.group, m.protocol.get("family")].append(m)
        if m.protocol_id == protocol_id:
            groups[m.group].append(m)
    rows = [_row(members, curves[group, members[0].protocol.get("family")]) for group, members in groups.items()]
    second: SortKey = "clean_accuracy" if sort == "robust_accuracy" else "robust_accuracy"
    ordered = rank(rows, lambda r: (r[sort]["mean"], r[second]["mean"]), ranked=lambda r: r["verdict"] == OK)
    return [{**row, "rank": place} for place, row in ordered]


def _row_id(m: Measured) -> str:
    return digest([m.group, m.protocol_id])[:16]


def _curve(members: Sequence[Measured]) -> list[dict[str, Any]]:
    by_eps: dict[float, list[Measured]] = defaultdict(list)
    for m in members:
        by_eps[m.protocol["eps"]].append(m)
    return [
        {
            "eps": eps, "eps_text": at_eps[0].protocol["eps_text"],
            "robust_accuracy": _over_seeds(at_eps, int(at_eps[0].protocol["images"]), "robust_accuracy"),
        }
        for eps, at_eps in sorted(by_eps.items())
    ]


def _row(members: Sequence[Measured], all_radii: Sequence[Measured]) -> dict[str, Any]:
    first = members[0]
    images = int(first.protocol["images"])
    attacks = {name: _over_seeds(members, images, name) for name in first.attacks}
    return {
        "id": _row_id(first), "rank": None,
        "architecture": first.architecture, "variant": first.variant, "recipe": first.recipe,
        "precision": first.precision, "epochs": first.epochs, "settings": first.settings,
        "clean_accuracy": _over_seeds(members, first.test_images, "clean_accuracy"),
        "robust_accuracy": _over_seeds(members, images, "robust_accuracy"),
        "attacks": attacks, "curve": _curve(all_radii),
        "verdict": next((m.verdict for m in members if m.verdict != OK), OK),
        "reasons": sorted({reason for m in members for reason in m.reasons}),
        "protocol": dict(first.protocol), "draws": first.draws, "parameters": first.parameters,
        "checkpoints": [m.checkpoint_id for m in members],
    }


def _over_seeds(members: Sequence[Measured], images: int, name: str) -> dict[str, Any]:
    """Over seeds: the branches of one seed are averaged first, so that n counts seeds."""
    by_seed: dict[int, list[float]] = defaultdict(list)
    by_branch: dict[str, float] = {}
    for m in members:
        value = m.attacks[name] if name in m.attacks else getattr(m, name)
        by_seed[m.seed].append(value)
        by_branch[f"{m.seed}:{m.branch_seed}"] = value
    figure = estimate({str(seed): sum(v) / len(v) for seed, v in by_seed.items()}, images).to_dict()
    return figure | ({"by_branch_seed": by_branch} if len(by_branch) > len(by_seed) else {})


def matrix(
    measured: Iterable[Measured], protocol_id: str | None, metric: Metric, architectures: Sequence[str]
) -> dict[str, Any]:
    """The study's layout: variants down, architectures across; each cell mean, sd, n and `<X, Y>`.

    A cell with several recipes shows the one measured last and counts the others.
    """
    cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    when: dict[str, float] = defaultdict(float)
    for m in (measured := latest(measured)):
        row_id = _row_id(m)
        when[row_id] = max(when[row_id], m.created_at)
    for row in leaderboard(measured, protocol_id):
        cells[row["variant"], row["architecture"]].append(row)
    rows = []
    for variant in VARIANTS:
        line: dict[str, Any] = {"variant": variant, "cells": {}}
        for architecture in architectures:
            found = sorted(cells[variant, architecture], key=lambda r: when[r["id"]])
            line["cells"][architecture] = _cell(found, metric) if found else None
        rows.append(line)
    return {"metric": metric, "architectures": list(architectures), "rows": rows}


def _cell(found: Sequence[dict[str, Any]], metric: Metric) -> dict[str, Any]:
    row = found[-1]
    shown = {name: row[metric][name] for name in ("mean", "sd", "n", "ci95")}
    kept = {name: row[name] for name in ("epochs", "settings", "recipe", "precision", "verdict", "id")}
    return shown | kept | {"others": len(found) - 1}
