"""Accuracy against eps as a page: a chart, and a table of its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.filters import NORMS, Field, fields
from app.dashboard.leaderboard import downloads
from app.dashboard.links import Query, address
from app.dashboard.rendering import render
from app.reports.tables import unattacked

PATH = "/ui/curves"
MOST_LINES = 30  # in the chart: more cannot be told apart; the table has all
_FIRST = ("dataset", "norm", "suite", "architecture", "variant")
_MORE = ("recipe", "precision", "freeze_depth", "images")


def curves_page(answer: Mapping[str, Any], offered: Mapping[str, Any], datasets: Sequence[str], query: Query) -> str:
    """`answer` and `offered` are the API's, `query` is what was asked for, `datasets` have boards."""
    lines, query = answer["lines"], [*query]
    first, *others = fields(_FIRST, offered, datasets, query)
    ticked = [value for name, value in query if name == "rows"]
    return render(
        "curves.html", answer=answer, lines=lines, ticked=ticked, drawn=min(len(lines), MOST_LINES),
        measured=bool(offered["suite"]),
        fields=[first, _attack(answer, offered, query), *others], more=fields(_MORE, offered, datasets, query),
        more_open=any(name in _MORE for name, _ in query), chart=chart(_drawn(lines), answer["norm"], answer["chance"]),
        radii=dict(sorted((p["eps"], p["eps_text"]) for line in lines for p in line["points"])),
        all_rows=address(PATH, query, rows=None), downloads=downloads("/curves", query),
    )


def chart(lines: Sequence[Mapping[str, Any]], norm: str, chance: float | None) -> dict[str, Any]:
    """What `curves.js` draws. A line begins at eps 0, with the unchanged images."""
    return {
        "norm": norm, "title": NORMS[norm], "chance": chance,
        "lines": [
            {
                "label": line["label"], "variant": line["variant"], "ok": line["verdict"] == "ok",
                "points": [
                    _point(p["eps"], p["eps_text"], p["accuracy"], p["verdict"])
                    for p in (unattacked(line), *line["points"])
                ],
            }
            for line in lines
        ],
    }


def _point(eps: float, text: str, accuracy: Mapping[str, Any], verdict: str) -> dict[str, Any]:
    low, high = accuracy["ci95"]
    return {"eps": eps, "text": text, "mean": accuracy["mean"], "sd": accuracy["sd"], "n": accuracy["n"], "low": low,
            "high": high, "ok": verdict == "ok"}  # fmt: skip


def _drawn(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All, or those that keep most over their radii, in the order of all."""
    if len(lines) <= MOST_LINES:
        return [*lines]
    best = sorted(lines, key=lambda line: -sum(p["accuracy"]["mean"] for p in line["points"]) / len(line["points"]))
    kept = {line["id"] for line in best[:MOST_LINES]}
    return [line for line in lines if line["id"] in kept]


def _attack(answer: Mapping[str, Any], offered: Mapping[str, Any], query: Query) -> Field:
    """The attacks of the suite that is shown."""
    suite = answer["protocol"] and answer["protocol"]["suite"]
    names = offered["attacks"].get(suite, [name for names in offered["attacks"].values() for name in names])
    chosen = dict(query).get("attack", "")
    known = dict.fromkeys([*names, *([chosen] if chosen else [])])
    return Field("attack", "attack", [("", "all: robust accuracy"), *((name, name) for name in known)], chosen)
