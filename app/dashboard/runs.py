"""A run's page."""

from collections.abc import Mapping
from typing import Any

from app.dashboard.experiments import missing_role, training_of
from app.dashboard.rendering import render
from app.dashboard.texts import run_name
from app.domain.access import Actor
from app.domain.lifecycle import TERMINAL


def run_page(run: dict[str, Any], actor: Actor, *, worker: bool) -> str:
    """State, progress, metrics, log, and what came of it. `run`: as the API answers it; `worker`: whether one
    lives."""
    metrics = run["metrics"]
    robust = metrics.get("robust") or []
    wanting = [e for e in run["experiments"] if not e["cancelled"]]
    return render(
        "run.html", run=run, name=run_name(run), metrics=metrics, training=training_of(run, metrics), robust=robust,
        attacks=_attacks(robust), checks=_checks(robust), gallery=_gallery(metrics), wanting=wanting,
        over=run["state"] in TERMINAL, actor=actor, worker=worker,
        missing={"cancel": missing_role(actor, "POST", f"/runs/{run['id']}/cancel"),
                 "retry": missing_role(actor, "POST", f"/runs/{run['id']}/retry")},
    )  # fmt: skip


def _attacks(robust: list[dict[str, Any]]) -> list[str]:
    """The names of the attacks, in their order."""
    return list(dict.fromkeys(name for figure in robust for name in figure["attacks"]))


def _checks(robust: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every check of every radius, those that need a look first; a check of all radii alike is listed once."""
    order = {"fail": 0, "warn": 1}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for figure in robust:
        for check in figure.get("checks") or []:
            key = (check["check"], check["verdict"], check["text"])
            found.setdefault(key, {**check, "at": []})["at"].append(figure["eps_text"])
    return sorted(found.values(), key=lambda check: order.get(check["verdict"], 2))


def _gallery(metrics: Mapping[str, Any]) -> list[str]:
    """The radii that there is a picture of, as figures write them."""
    stored = metrics.get("gallery") or {}
    return [f["eps_text"] for f in metrics.get("robust") or [] if f["eps_exact"] in stored]
