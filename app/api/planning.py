"""From the body of `POST /experiments` to its runs: checked, and what they will cost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from app.api.dependencies import Services
from app.domain.checks import check_experiment
from app.domain.datasets import Dataset
from app.domain.errors import Conflict, InvalidInput, NotFound, Problem
from app.domain.estimate import (
    Estimate,
    Step,
    Timed,
    Workload,
    estimate,
    longest_chain_seconds,
    total_seconds,
    workload,
)
from app.domain.lifecycle import RunKind
from app.domain.plan import PlannedRun, expand
from app.domain.spec import ExperimentSpec
from app.domain.subject import shown_subject
from app.domain.weights import WeightsSource
from app.storage import datasets, durations, experiments, results, runs, weights
from app.storage.tables import Checkpoint, Run

_SHOWN = ("architecture", "variant", "seed", "branch_seed", "epochs", "recipe", "settings", "precision")


def planned_runs(spec: ExperimentSpec, services: Services) -> list[PlannedRun]:
    """All runs of the experiment, each after those it needs. Raises InvalidInput."""
    return expand(spec, *_checked(spec, services))


def _checked(spec: ExperimentSpec, services: Services) -> tuple[Dataset, list[PlannedRun], WeightsSource]:
    dataset = _usable_dataset(spec, services)
    with services.database.reading() as session:
        source = weights.find_source(session, spec, services.settings.data_dir)
    if problems := check_experiment(spec, dataset, source):
        raise InvalidInput(problems)
    return dataset, _trained(spec, dataset, services), source


def _usable_dataset(spec: ExperimentSpec, services: Services) -> Dataset:
    """One that is not here yet is downloaded by the first job that needs it."""
    try:
        return datasets.find(spec.dataset, services.settings.data_dir)
    except (NotFound, Conflict) as error:
        raise InvalidInput([Problem("/dataset", error.detail)]) from error


def _trained(spec: ExperimentSpec, dataset: Dataset, services: Services) -> list[PlannedRun]:
    """The runs that made the checkpoints to evaluate."""
    found, problems = [], []
    with services.database.reading() as session:
        for index, checkpoint_id in enumerate(spec.checkpoints):
            try:
                row = results.checkpoint(session, checkpoint_id)
            except NotFound as error:
                problems.append(Problem(f"/checkpoints/{index}", error.detail))
                continue
            run = runs.get(session, row.run_id)
            if fault := _unfit(row, run, dataset):
                problems.append(Problem(f"/checkpoints/{index}", f"checkpoint {checkpoint_id} {fault}"))
            kind: RunKind = run.kind  # type: ignore[assignment]  # the column is plain text
            found.append(PlannedRun(kind, run.spec, stored_as=run.share_key))
    if problems:
        raise InvalidInput(problems)
    return found


def _unfit(row: Checkpoint, run: Run, dataset: Dataset) -> str | None:
    """Why the checkpoint cannot be evaluated on the data set, or None."""
    if row.dataset != dataset.name:
        return f"was trained on {row.dataset}, not on {dataset.name}"
    if run.kind == "import":
        return _unfit_import(row, dataset)
    if run.spec["dataset"]["fingerprint"] != dataset.fingerprint:
        return f"was trained on other images of {dataset.name} than those that are here now"
    if not row.final or run.state != "succeeded":
        return "is of the middle of a training; name the last one of its run"
    return None


def _unfit_import(row: Checkpoint, dataset: Dataset) -> str | None:
    """On which images it was trained nobody here knows; that it takes these, and knows their classes, can be seen."""
    if row.spec["classes"] != list(dataset.classes):
        return f"was imported for other classes than {dataset.name} has now"
    if row.spec["model"]["image_shape"] != list(dataset.shape):
        return f"was imported for images of another shape than those of {dataset.name} have now"
    return None


def cost(spec: ExperimentSpec, services: Services) -> dict[str, Any]:
    """The graph of runs that submission would make, which of them are there already, and how long the others take."""
    dataset, trained, source = _checked(spec, services)
    planned = expand(spec, dataset, trained, source)
    with services.database.reading() as session:
        planned = planned if spec.fresh else experiments.as_stored(session, planned)
        by_key = {run.key: run for run in (*trained, *planned)}
        shared = {} if spec.fresh else experiments.shared_runs(session, [plan.key for plan in planned])
        new = [plan for plan in planned if plan.key not in shared]
        estimates = _estimates(session, new, by_key, _known(services, dataset))
    steps = [Step(plan.key, plan.needs, estimates[plan.key].seconds) for plan in new]
    reasons = dict.fromkeys(e.reason for e in estimates.values() if e.reason)
    names = {plan.key: number for number, plan in enumerate(planned)}
    return {
        "dataset": spec.dataset, "run_count": len(planned), "new_runs": len(new), "reused_runs": len(shared),
        "estimated_seconds": total_seconds(steps), "shortest_seconds": longest_chain_seconds(steps),
        "reason": "; ".join(reasons) or None,
        "runs": [_shown(plan, by_key, names, shared.get(plan.key), estimates.get(plan.key)) for plan in planned],
    }


def _known(services: Services, dataset: Dataset) -> dict[str, Dataset]:
    """The data sets that are here, by fingerprint."""
    found = {dataset.fingerprint: dataset}
    for name in datasets.names(services.settings.data_dir):
        try:
            one = datasets.find(name, services.settings.data_dir)
        except Conflict:  # a folder that cannot be used
            continue
        found[one.fingerprint] = one
    return found


def _estimates(
    session: Session, new: Sequence[PlannedRun], by_key: Mapping[str, PlannedRun], known: Mapping[str, Dataset]
) -> dict[str, Estimate]:
    origins = {plan.key: _origin(plan, by_key) for plan in new}
    sorts = {
        ("evaluate" if plan.kind == "shard" else plan.kind, origin["architecture"], origin["variant"])
        for plan in new for origin in [origins[plan.key]]
    }  # fmt: skip
    timed = [
        Timed(load, one.seconds, one.growing_seconds)
        for one in durations.latest(session, sorts)
        if (load := workload(one.spec, one.trained, known)) is not None
    ]
    return {plan.key: estimate(_workload(plan, origins[plan.key], known), timed) for plan in new}


def _workload(plan: PlannedRun, origin: Mapping[str, Any], known: Mapping[str, Dataset]) -> Workload | None:
    """An evaluation leaves its attacks to its shards, where it has any."""
    load = workload(plan.spec, origin, known)
    return replace(load, share=0.0) if load is not None and plan.shards else load


def _origin(plan: PlannedRun, by_key: Mapping[str, PlannedRun]) -> Mapping[str, Any]:
    """The specification behind the network that the run is about."""
    return by_key[plan.depends_on].spec if plan.kind in ("evaluate", "shard") and plan.depends_on else plan.spec


def _shown(
    plan: PlannedRun, by_key: Mapping[str, PlannedRun], names: Mapping[str, int], run: Run | None,
    found: Estimate | None,
) -> dict[str, Any]:
    subject = plan.spec.get("subject") or shown_subject(plan.spec)
    cost = {"estimated_seconds": found.seconds, "basis": found.basis, "reason": found.reason} if found else {
        "estimated_seconds": None, "basis": None, "reason": "it is shared with whoever asked for it before"}
    return {
        "number": names[plan.key], "kind": plan.kind, **{name: subject[name] for name in _SHOWN},
        "needs": [names[key] for key in plan.needs if key in names], "reused": run is not None,
        "run": run.id if run else None, "state": run.state if run else None, **cost,
    }
