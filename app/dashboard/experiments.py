"""The pages about experiments: the list, and one with its graph of runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from app.dashboard.rendering import render
from app.dashboard.texts import run_name
from app.domain.access import Actor, covers, role_needed
from app.domain.architectures import variant_name
from app.domain.lifecycle import EXPERIMENT_STATES, RETRIABLE
from app.domain.spec import ExperimentSpec

EPOCH_COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "seconds")
Figures = Mapping[str, Sequence[Mapping[str, Any]]]  # by run, one a radius


@dataclass
class Node:
    """A run of the graph, with those that start from its checkpoint."""

    run: dict[str, Any]
    children: list["Node"] = field(default_factory=list)


def graph(runs: Sequence[dict[str, Any]]) -> list[Node]:
    """Trees of runs: each below the one whose checkpoint it is about; what starts from elsewhere is a root."""
    nodes = {run["id"]: Node(run) for run in runs}
    roots: list[Node] = []
    for run in runs:
        parent = nodes.get(run["depends_on"])
        (parent.children if parent else roots).append(nodes[run["id"]])
    return roots


def settings(spec: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """What was asked for by dotted name: what differs from the defaults, and all the rest."""
    usual = dict(_flat(ExperimentSpec(dataset=spec["dataset"]).model_dump(mode="json")))
    asked = [(name, value) for name, value in _flat(spec) if name != "name"]
    differs = [(name, value) for name, value in asked if name == "dataset" or value != usual.get(name)]
    return differs, [one for one in asked if one not in differs]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def permissions(actor: Actor, experiment_id: str) -> dict[str, str | None]:
    """What the page's buttons need that whoever looks does not have; None where they may."""
    calls = {
        "submit": ("POST", "/experiments"), "cancel": ("POST", f"/experiments/{experiment_id}/cancel"),
        "retry": ("POST", "/runs/run/retry"), "archive": ("DELETE", f"/experiments/{experiment_id}"),
    }
    return {name: missing_role(actor, *call) for name, call in calls.items()}


def missing_role(actor: Actor, method: str, path: str) -> str | None:
    """The role that a call needs, where the actor's is a lesser one."""
    needed = role_needed(method, path)
    return None if needed is None or covers(actor.role, needed) else needed


def list_page(
    experiments: Sequence[dict[str, Any]], following: str | None, chosen: Mapping[str, Any],
    datasets: Sequence[str], actor: Actor,
) -> str:
    """Newest first; `chosen`: the filters of the address."""
    filters = {name: value for name, value in chosen.items() if value and name != "cursor"}
    return render(
        "experiments.html", experiments=experiments, chosen=chosen, datasets=datasets, states=EXPERIMENT_STATES,
        next=f"?{urlencode({**filters, 'cursor': following})}" if following else None,
        first=f"?{urlencode(filters)}" if chosen["cursor"] else None,
        missing=permissions(actor, "id"), actor=actor,
    )


def experiment_page(
    experiment: dict[str, Any], metrics: Mapping[str, Mapping[str, Any]], figures: Figures, actor: Actor, *,
    worker: bool,
) -> str:
    """What was asked, its runs, how they go, and what came of them. `metrics`: of the trainings;
    `worker`: whether one lives."""
    runs = experiment["runs"]
    differs, rest = settings(experiment["spec"])
    trainings = [training_of(run, metrics[run["id"]]) for run in runs if run["id"] in metrics]
    counts = {state: sum(run["state"] == state for run in runs) for state in EXPERIMENT_STATES}
    return render(
        "experiment.html", e=experiment, differs=differs, rest=rest, graph=graph(runs), counts=counts,
        trainings=trainings, results=_results(runs, figures), boards=_boards(experiment, figures),
        failures=failures(runs), unfinished=[run for run in runs if run["state"] in RETRIABLE],
        live=any(run["state"] in ("queued", "running") for run in runs),
        missing=permissions(actor, experiment["id"]), actor=actor, worker=worker, first_log=_first_log(runs),
    )


def training_of(run: dict[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the charts and their table need of a training."""
    epochs = [{name: epoch.get(name) for name in EPOCH_COLUMNS} for epoch in metrics.get("epochs", [])]
    seeds = f"{run['seed']}" if run["branch_seed"] is None else f"{run['seed']}/{run['branch_seed']}"
    label = f"{run['architecture']} {variant_name(run['variant'])}, seed {seeds}"
    return {"id": run["id"], "name": run_name(run), "label": label, "kind": run["kind"], "variant": run["variant"],
            "epochs": epochs}  # fmt: skip


def failures(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs that failed by themselves: what depends on them failed with them."""
    failed = {run["id"] for run in runs if run["state"] == "failed"}
    return [
        run for run in runs
        if run["id"] in failed and run["depends_on"] not in failed and not _waited_in_vain(run)
    ]


def _waited_in_vain(run: Mapping[str, Any]) -> bool:
    """Such as an evaluation of which a shard failed, or a sibling."""
    return bool(run["attempt"] == 0)


def _first_log(runs: Sequence[dict[str, Any]]) -> str:
    """The log that is of most interest: of what runs, else of what failed, else the last one's."""
    for state in ("running", "failed", "succeeded"):
        found = [run["id"] for run in runs if run["state"] == state]
        if found:
            return str(found[0] if state != "succeeded" else found[-1])
    return str(runs[0]["id"]) if runs else ""


def _results(runs: Sequence[dict[str, Any]], figures: Figures) -> list[dict[str, Any]]:
    """A row an evaluation that has figures."""
    found = [(run, figures[run["id"]]) for run in runs if run["id"] in figures]
    bad = [next((f["verdict"] for f in of_run if f["verdict"] != "ok"), None) for _, of_run in found]
    return [{"run": run, "figures": of_run, "bad": one} for (run, of_run), one in zip(found, bad, strict=True)]


def _boards(experiment: dict[str, Any], figures: Figures) -> list[tuple[str, str]]:
    """Where its figures stand among others: text and address of the leaderboard of each radius."""
    found: dict[str, str] = {}
    for figure in (one for of_run in figures.values() for one in of_run):
        p = figure["protocol"]
        asked = {"dataset": experiment["dataset"], "norm": p["norm"], "eps": p["eps_text"], "suite": p["suite"],
                 "images": p["images"]}  # fmt: skip
        found[f"{p['norm']} {p['eps_text']}"] = f"/ui/leaderboard?{urlencode(asked)}"
    return list(found.items())
