"""From the figures of single checkpoints to the rows of the leaderboard and the cells of the matrix.

A row is one recipe (everything but the seeds) under one protocol.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any, Literal

from app.domain.architectures import VARIANTS
from app.domain.protocol import digest
from app.domain.ranking import rank
from app.domain.statistics import estimate
from app.domain.suites import SUITE_STRENGTH

if TYPE_CHECKING:
    from app.domain.statistics import Shares

SortKey = Literal["robust_accuracy", "clean_accuracy"]
Metric = Literal["clean_accuracy", "robust_accuracy"]
OK = "ok"
MOST_KNOWN_ROWS = 50  # beside those of two boards as long as the one in hand; with their figures some 20 KiB each
FEW = 4  # sets of figures of which is remembered how they belong together: those of boards asked for by turns


@dataclass(frozen=True, eq=False)  # a figure is itself: what was made of it is found by it, without looking into it
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
    clean_accuracy: float  # of all of them
    clean_accuracy_subset: float  # of the attacked ones, unchanged
    robust_accuracy: float
    attacks: Mapping[str, float]
    verdict: str
    reasons: Sequence[str]
    draws: int
    parameters: int
    freeze_depth: int | None = None  # not known of a network that was trained elsewhere
    eps: str = ""  # the exact fraction
    mean_norm: float | None = None  # of the perturbations in the worst candidates, in the protocol's norm
    size: int | None = None  # bytes of the file
    latency: Mapping[str, Any] | None = None  # of a prediction, as it was measured when the checkpoint was made
    energy: Mapping[str, Any] | None = None  # of a prediction, estimated (`app.domain.energy`)
    corruptions: Mapping[str, Any] | None = None  # accuracy under common corruptions, where it was asked for
    as_published: Sequence[str] = ()  # options of `app.domain.published` behind it
    ssim: float | None = None  # of the worst candidates to the unchanged images; both over images that changed


# (run ids, exact eps) -> the correct share of each image on its worst candidate, by run and in one order of images;
# a run of which they are not known is left out.
PerImage = Callable[[Sequence[str], str], "Mapping[str, Shares]"]


Group = tuple[tuple[Measured, ...], tuple[Measured, ...]]  # a row's figures: at its radius, and at all radii


@dataclass(frozen=True)
class Coverage:
    """How many rows (with all their seeds) of those that any protocol shows a protocol has figures of."""

    rows: int
    of: int

    @property
    def complete(self) -> bool:
        """Whether none is missing."""
        return self.rows == self.of


def coverage(measured: Iterable[Measured], by: Callable[[Measured], str]) -> dict[str, Coverage]:
    """Of each protocol; `by` names a figure's. A row of which one seed is missing under it does not count."""
    return _coverage(tuple(measured), by)


@lru_cache(maxsize=FEW)
def _coverage(measured: tuple[Measured, ...], by: Callable[[Measured], str]) -> dict[str, Coverage]:
    wanted: dict[str, set[Any]] = defaultdict(set)
    found: dict[str, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for m in measured:
        wanted[m.group].add((m.seed, m.branch_seed))
        found[by(m)][m.group].add((m.seed, m.branch_seed))
    return {
        name: Coverage(sum(seeds == wanted[group] for group, seeds in rows.items()), len(wanted))
        for name, rows in found.items()
    }


def choose_protocol(measured: Sequence[Measured]) -> str | None:
    """The protocol to show where the filters leave several (`measured`: of one data set, norm and radius).

    The strongest suite that is complete: under which every row that any protocol shows has figures, with all its
    seeds. Where none is complete, the protocol that covers most rows, then the strongest. Of equals the newest
    version, most images, most checkpoints, measured last. Never by how anyone fares under it.
    """
    return _choose(measured, protocol_of)


def protocol_of(m: Measured) -> str:
    """The id of what a figure was measured under."""
    return m.protocol_id


def choose_family(measured: Sequence[Measured]) -> str | None:
    """The same for curves: `measured` at several radii, of which the protocols differ in nothing but those."""
    return _choose(measured, _family_of)


def _family_of(m: Measured) -> str:
    return str(m.protocol["family"])


def _choose(measured: Sequence[Measured], by: Callable[[Measured], str]) -> str | None:
    if not measured:
        return None
    covered = coverage(measured, by)
    protocols: dict[str, Mapping[str, Any]] = {}
    checkpoints = defaultdict(set)
    latest_at: dict[str, float] = defaultdict(float)
    for m in measured:
        name = by(m)
        protocols[name] = m.protocol  # of one name they are equal in all that is asked for here
        checkpoints[name].add(m.checkpoint_id)
        latest_at[name] = max(latest_at[name], m.created_at)

    def strength(name: str) -> tuple[int, int, int, int, int, float, str]:
        p = protocols[name]
        known = SUITE_STRENGTH.index(p["suite"]) if p["suite"] in SUITE_STRENGTH else -1
        return (
            covered[name].rows, known, p["suite_version"], p["images"], len(checkpoints[name]), latest_at[name], name
        )

    return max(protocols, key=strength)


def latest(measured: Iterable[Measured]) -> list[Measured]:
    """One figure a (row, seed, branch seed): the newest, where a run was repeated."""
    newest: dict[tuple[Any, ...], Measured] = {}
    for m in sorted(measured, key=lambda m: m.created_at):
        newest[m.group, m.protocol_id, m.seed, m.branch_seed] = m
    return list(newest.values())


class KnownRows:
    """Rows without their ranks, from one board to the next: what was made of the very same figures is not made again.

    For figures and per-image rows that, once published, never change. Rows are shared, and not to be written to.
    Threads may ask at once: at worst both make the same.
    """

    def __init__(self) -> None:
        self._known: dict[Group, dict[str, Any]] = {}

    def rows(self, groups: Sequence[Group], per_image: PerImage | None) -> list[dict[str, Any]]:
        """One for each group, as it stands on a board; what other boards have is not kept for ever."""
        known = self._known
        known |= {group: _row(*group, per_image) for group in groups if group not in known}
        if len(known) > 2 * len(groups) + MOST_KNOWN_ROWS:
            self._known = {group: known[group] for group in groups}
        return [known[group] for group in groups]


def leaderboard(
    measured: Iterable[Measured], protocol_id: str | None, sort: SortKey = "robust_accuracy",
    per_image: PerImage | None = None, known: KnownRows | None = None,
) -> list[dict[str, Any]]:
    """Ranked rows of one protocol; those marked "upper bound only" come unranked below the others.

    `measured` may have other radii too: a row's `curve` has its robust accuracy at all of them.
    `per_image` is asked where there are enough seeds for an interval that needs it.
    """
    groups = _groups(tuple(measured)).get(protocol_id, ())
    rows = known.rows(groups, per_image) if known else [_row(*group, per_image) for group in groups]
    second: SortKey = "clean_accuracy" if sort == "robust_accuracy" else "robust_accuracy"
    ordered = rank(rows, lambda r: (r[sort]["mean"], r[second]["mean"]), ranked=lambda r: r["verdict"] == OK)
    return [{**row, "rank": place} for place, row in ordered]


@lru_cache(maxsize=FEW)
def _groups(measured: tuple[Measured, ...]) -> dict[str | None, tuple[Group, ...]]:
    """Protocol id -> the newest figures of its rows. Worked out once for all boards of the same figures."""
    rows: dict[str, dict[str, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    curves: dict[tuple[str, str | None], list[Measured]] = defaultdict(list)
    for m in latest(measured):
        curves[m.group, m.protocol.get("family")].append(m)
        rows[m.protocol_id][m.group].append(m)
    all_radii = {name: tuple(found) for name, found in curves.items()}
    return {
        protocol_id: tuple(
            (tuple(members), all_radii[group, members[0].protocol.get("family")]) for group, members in groups.items()
        )
        for protocol_id, groups in rows.items()
    }


def row_id(group: str, protocol_id: str) -> str:
    """The id of a row: the same for as long as its recipe and its protocol are."""
    return digest([group, protocol_id])[:16]


def by_radius(members: Iterable[Measured]) -> list[tuple[float, list[Measured]]]:
    """Figures by eps, ascending."""
    by_eps: dict[float, list[Measured]] = defaultdict(list)
    for m in members:
        by_eps[m.protocol["eps"]].append(m)
    return sorted(by_eps.items())


def _curve(members: Sequence[Measured], per_image: PerImage | None) -> list[dict[str, Any]]:
    return [
        {
            "eps": eps, "eps_text": at_eps[0].protocol["eps_text"],
            "robust_accuracy": robust_accuracy(at_eps, per_image),
        }
        for eps, at_eps in by_radius(members)
    ]


def _row(members: Sequence[Measured], all_radii: Sequence[Measured], per_image: PerImage | None) -> dict[str, Any]:
    first = members[0]
    images = int(first.protocol["images"])
    attacks = {name: over_seeds(members, images, name) for name in first.attacks}
    return {
        "id": row_id(first.group, first.protocol_id), "rank": None,
        "architecture": first.architecture, "variant": first.variant, "recipe": first.recipe,
        "precision": first.precision, "epochs": first.epochs, "settings": first.settings,
        "clean_accuracy": over_seeds(members, first.test_images, "clean_accuracy"),
        "clean_accuracy_subset": over_seeds(members, images, "clean_accuracy_subset"), "test_images": first.test_images,
        "robust_accuracy": robust_accuracy(members, per_image),
        "attacks": attacks, "curve": _curve(all_radii, per_image),
        "mean_norm": _mean(m.mean_norm for m in members), "ssim": _mean(m.ssim for m in members),
        "verdict": next((m.verdict for m in members if m.verdict != OK), OK),
        "reasons": sorted({reason for m in members for reason in m.reasons}),
        "as_published": list(first.as_published),
        "protocol": dict(first.protocol), "draws": first.draws, "parameters": first.parameters,
        "size": _mean(m.size for m in members), "latency": _latency([m.latency for m in members if m.latency]),
        "energy": _energy([m.energy for m in members if m.energy]), "corruptions": _corruptions(members),
        "checkpoints": [m.checkpoint_id for m in members],
    }


def _latency(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The median of the seeds' medians; of one machine, or none: times of several are not one number."""
    where = [{name: value for name, value in one.items() if name not in ("p50_ms", "predictions")} for one in measured]
    if not measured or any(one != where[0] for one in where):
        return None
    return {"p50_ms": median(one["p50_ms"] for one in measured), **where[0]}


def _energy(estimated: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Means over the seeds."""
    if not estimated:
        return None
    numbers = ("microjoules", "multiply_adds", "synaptic_operations")
    rates = estimated[0]["spike_rates"]
    return {
        **{name: fmean(one[name] for one in estimated) for name in numbers},
        "spike_rates": {layer: fmean(one["spike_rates"][layer] for one in estimated) for layer in rates},
        "source": estimated[0]["source"],
    }


def _corruptions(members: Sequence[Measured]) -> dict[str, Any] | None:
    """Over the seeds that have them, as other accuracies; None where none has."""
    known = {(m.seed, m.branch_seed): m.corruptions for m in members if m.corruptions}
    if not known:
        return None
    having = [m for m in members if (m.seed, m.branch_seed) in known]

    def by_seed(type: str | None) -> list[float]:
        def value(m: Measured) -> float:
            of = known[m.seed, m.branch_seed]
            return float(of["mean"] if type is None else of["by_type"][type])

        return list(seed_means(having, value).values())

    means = by_seed(None)
    by_type = {type: fmean(by_seed(type)) for type in next(iter(known.values()))["by_type"]}
    return {"mean": fmean(means), "sd": stdev(means) if len(means) > 1 else None, "n": len(means), "by_type": by_type}


def _mean(values: Iterable[float | None]) -> float | None:
    """Over the seeds that have one."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def robust_accuracy(members: Sequence[Measured], per_image: PerImage | None) -> dict[str, Any]:
    """Over the seeds of one row at one radius."""
    return over_seeds(
        members, int(members[0].protocol["images"]), "robust_accuracy",
        None if per_image is None else lambda: seed_shares(members, per_image),
    )


def over_seeds(
    members: Sequence[Measured], images: int, name: str, shares: "Callable[[], Shares | None] | None" = None
) -> dict[str, Any]:
    """An accuracy or an attack's figure over seeds: the branches of one seed are averaged first, so that n counts
    seeds."""
    by_branch = {f"{m.seed}:{m.branch_seed}": m.attacks[name] if name in m.attacks else getattr(m, name)
                 for m in members}  # fmt: skip
    seeds = seed_means(members, lambda m: float(by_branch[f"{m.seed}:{m.branch_seed}"]))
    figure = estimate(seeds, images, shares).to_dict()
    return figure | ({"by_branch_seed": by_branch} if len(by_branch) > len(seeds) else {})


def seed_means(members: Iterable[Measured], value: Callable[[Measured], float]) -> dict[str, float]:
    """Seed -> mean over its branches."""
    by_seed: dict[int, list[float]] = defaultdict(list)
    for m in members:
        by_seed[m.seed].append(value(m))
    return {str(seed): sum(values) / len(values) for seed, values in sorted(by_seed.items())}


def seed_shares(members: Sequence[Measured], per_image: PerImage) -> "Shares | None":
    """Correct shares (seeds in ascending order, images) of one row, over the branches of each seed; None where they
    are not known of all."""
    import numpy as np

    known = per_image([m.run_id for m in members], members[0].eps)
    if len(known) < len(members) or len({len(shares) for shares in known.values()}) != 1:
        return None
    seeds = sorted({m.seed for m in members})
    return np.stack([np.mean([known[m.run_id] for m in members if m.seed == seed], axis=0) for seed in seeds])


def matrix(
    measured: Iterable[Measured], protocol_id: str | None, metric: Metric, architectures: Sequence[str],
    per_image: PerImage | None = None, known: KnownRows | None = None,
) -> dict[str, Any]:
    """The study's layout: variants down, architectures across; each cell mean, sd, n and `<X, Y>`.

    A cell with several rows shows the one measured last, of float32 before one of int8, and counts the others.
    """
    cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    when: dict[str, float] = defaultdict(float)
    for m in (measured := latest(measured)):
        name = row_id(m.group, m.protocol_id)
        when[name] = max(when[name], m.created_at)
    for row in leaderboard(measured, protocol_id, per_image=per_image, known=known):
        cells[row["variant"], row["architecture"]].append(row)
    rows = []
    for variant in VARIANTS:
        line: dict[str, Any] = {"variant": variant, "cells": {}}
        for architecture in architectures:
            found = sorted(cells[variant, architecture], key=lambda r: (r["precision"] == "float32", when[r["id"]]))
            line["cells"][architecture] = _cell(found, metric) if found else None
        rows.append(line)
    return {"metric": metric, "architectures": list(architectures), "rows": rows}


def _cell(found: Sequence[dict[str, Any]], metric: Metric) -> dict[str, Any]:
    row = found[-1]
    shown = {name: row[metric][name] for name in ("mean", "sd", "n", "ci95")}
    kept = {name: row[name] for name in ("test_images", "epochs", "settings", "recipe", "precision", "verdict", "id")}
    return shown | kept | {"others": len(found) - 1}
