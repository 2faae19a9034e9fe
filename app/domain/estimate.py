"""How long a run will take, from how long comparable ones took.

    wanted = workload(plan.spec, plan.spec, known)
    estimate(wanted, timed).seconds                    # None, with `reason`, where nothing comparable was measured

Comparable runs do the same to each image: one network at one image size, trained or attacked in one way. Of their
seconds some were spent once (starting, the clean accuracy of the test split), the others grow with the amount: epochs x
images of a training, images x radii x budget of an evaluation. A shard takes its share of what grows, and leaves the
rest to its evaluation.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.domain.architectures import variant_name
from app.domain.datasets import Dataset
from app.domain.protocol import Protocol

MOST_COMPARED = 5  # of the nearest amounts
_FACTORS = ("steps", "restarts", "searches", "tries")  # of a budget; draws cost a pass of the decoder only
_GRADIENT_COST = 3  # forward passes that one forward and one backward pass take as long as


@dataclass(frozen=True)
class Workload:
    """`likeness`: equal for comparable runs; `amount`: what their seconds grow with; `text`: what they are.

    `share` of the amount is done by this very run, and what is spent `once`, or not.
    """

    likeness: tuple[Any, ...]
    amount: float
    text: str
    share: float = 1.0
    once: bool = True


@dataclass(frozen=True)
class Timed:
    """A run that succeeded: all seconds it worked, and those of them that grow with its amount."""

    workload: Workload
    seconds: float
    growing_seconds: float

    def at(self, wanted: Workload) -> float:
        """Seconds it would have taken with that one's amount, and as much of it."""
        growing = min(self.seconds, self.growing_seconds)
        once = self.seconds - growing if wanted.once else 0.0
        return once + wanted.share * growing * wanted.amount / self.workload.amount


@dataclass(frozen=True)
class Estimate:
    """Seconds with what they rest on (`basis`), or neither, and why (`reason`)."""

    seconds: float | None
    basis: str | None = None
    reason: str | None = None


def workload(spec: Mapping[str, Any], trained: Mapping[str, Any], known: Mapping[str, Dataset]) -> Workload | None:
    """Of a train, branch, evaluate or shard run; `trained`: the specification behind the network, which may be its own.

    `known`: data sets by fingerprint. None where the run's images are of no data set that is here now.
    """
    if spec["kind"] in ("evaluate", "shard"):
        return _of_evaluation(spec, trained, known.get(spec["protocol"]["fingerprint"]))
    return _of_training(spec, known.get(spec["dataset"]["fingerprint"]))


def _of_training(spec: Mapping[str, Any], dataset: Dataset | None) -> Workload | None:
    if dataset is None:
        return None
    if spec["kind"] == "quantise":
        return _of_quantisation(spec, dataset)
    training, network = spec["training"], _network(spec, dataset)
    how = tuple(training.get(name) for name in ("freeze_depth", "batch_size", "draws", "augment", "mixed_precision"))
    frozen = f", {training['freeze_depth']} groups frozen" if training["freeze_depth"] else ""
    text = f"trainings of {_network_text(spec, dataset)}{frozen}, batches of {training['batch_size']}"
    return Workload((spec["kind"], *network, *how), spec["epochs"] * dataset.train_size, text)


def _of_quantisation(spec: Mapping[str, Any], dataset: Dataset) -> Workload:
    given = spec["quantisation"]
    amount = given.get("epochs", 0) * dataset.train_size + given["images"]
    text = f"quantisations ({given['method']}) of {_network_text(spec, dataset)}"
    return Workload(("quantise", given["method"], *_network(spec, dataset)), amount, text)


def _of_evaluation(
    spec: Mapping[str, Any], trained: Mapping[str, Any], dataset: Dataset | None
) -> Workload | None:
    if dataset is None:
        return None
    protocol = Protocol.from_dict(spec["protocol"])
    attacks = tuple((s.attack, *(v for _, v in sorted(s.parameters.items()) if isinstance(v, str)))
                    for s in protocol.stages)  # fmt: skip
    how = (attacks, protocol.survivors, protocol.diagnostics, dataset.test_size, len(spec.get("pool") or ()))
    budget = sum(_cost(stage.parameters) for eps in protocol.eps for stage in protocol.stages_at(eps))
    named = f"suite {protocol.suite}" if protocol.suite != "custom" else ", ".join(s.attack for s in protocol.stages)
    text = f"evaluations of {_network_text(trained, dataset)} under {named}"
    load = Workload(("evaluate", *_network(trained, dataset), *how), protocol.images * budget, text)
    if spec["kind"] == "evaluate":
        return load
    mine = range(spec["shard"], protocol.blocks, spec["shards"])
    return replace(load, share=len(mine) / protocol.blocks, once=False)


def _network(spec: Mapping[str, Any], dataset: Dataset) -> tuple[Any, ...]:
    steps = (spec.get("decoder") or {}).get("timesteps")
    return (spec["architecture"], spec["variant"], spec["model"].get("stem"), _sides(spec, dataset), steps)


def _sides(spec: Mapping[str, Any], dataset: Dataset) -> tuple[int, int]:
    """Height and width that the network sees."""
    side = spec["model"].get("image_size")
    return dataset.shape[1:] if side is None else (side, side)


def _network_text(spec: Mapping[str, Any], dataset: Dataset) -> str:
    height, width = _sides(spec, dataset)
    return f"{spec['architecture']} {variant_name(spec['variant'])} at {height}x{width} pixels"


def _cost(parameters: Mapping[str, Any]) -> float:
    """Forward passes an image; of an attack without steps, one gradient."""
    if "queries" in parameters:
        return float(parameters["queries"])
    found = math.prod(parameters[name] for name in _FACTORS if name in parameters)
    targets = parameters.get("targets", 1) if "targeted" in str(parameters.get("loss", "targeted")) else 1
    return float(_GRADIENT_COST * found * targets)


def estimate(wanted: Workload | None, timed: Iterable[Timed]) -> Estimate:
    """The median of the nearest comparable runs, each scaled to the wanted amount."""
    if wanted is None:
        return Estimate(None, reason="its images are not here yet")
    like = [one for one in timed if one.workload.likeness == wanted.likeness]
    if not like:
        return Estimate(None, reason=f"no {wanted.text} were measured here")
    nearest = sorted(like, key=lambda one: abs(math.log(one.workload.amount / wanted.amount)))[:MOST_COMPARED]
    seconds = statistics.median(one.at(wanted) for one in nearest)
    scale = wanted.share * wanted.amount / statistics.median(one.workload.amount for one in nearest)
    scaled = "" if math.isclose(scale, 1) else f", scaled to {scale:.2g} times their amount"
    if not wanted.share:
        scaled = ", without their attacks"
    return Estimate(round(seconds, 1), basis=f"median of {len(nearest)} measured {wanted.text}{scaled}")


@dataclass(frozen=True)
class Step:
    """A run of a plan: its key, those it waits for, its seconds; None where they are unknown."""

    key: str
    needs: Sequence[str]
    seconds: float | None


def total_seconds(steps: Sequence[Step]) -> float | None:
    """One run after another; None where one is unknown."""
    known = [step.seconds for step in steps if step.seconds is not None]
    return round(sum(known), 1) if len(known) == len(steps) else None


def longest_chain_seconds(steps: Sequence[Step]) -> float | None:
    """With a worker for each run that is ready; `steps` come after what they wait for. None where one is unknown."""
    ends: dict[str, float] = {}
    for step in steps:
        if step.seconds is None:
            return None
        ends[step.key] = step.seconds + max((ends.get(key, 0.0) for key in step.needs), default=0.0)
    return round(max(ends.values(), default=0.0), 1)
