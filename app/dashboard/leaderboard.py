"""The leaderboard's page: what its template needs, from the API's answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.dashboard.figures import drawn, figure, interval
from app.dashboard.filters import SORTS, Field, fields
from app.dashboard.links import Query, address
from app.dashboard.rendering import environment, render
from app.domain.leaderboard import OK
from app.domain.suites import SUITES
from app.reports.tables import clean_images, megabytes, microjoules, milliseconds

PATH = "/ui/leaderboard"
MOST_ATTACKS = 5  # columns; more are folded away until they are asked for
_FIRST = ("dataset", "norm", "eps", "suite", "architecture", "variant")
_MORE = ("recipe", "precision", "freeze_depth", "images")
_FORMATS = ("csv", "md", "latex", "json", "png", "svg")
_TITLES = {"csv": "CSV", "md": "Markdown", "latex": "LaTeX", "json": "JSON", "png": "PNG", "svg": "SVG"}
_USUAL = {"recipe": "default", "precision": "float32"}

environment.filters.update(figure=figure, interval=interval, drawn=drawn)
environment.filters.update(megabytes=megabytes, milliseconds=milliseconds, microjoules=microjoules)


@dataclass(frozen=True)
class Attacks:
    """The columns of attacks: `shown` of `all`; `other` is where the rest is unfolded, or folded again."""

    all: Sequence[str]
    shown: Sequence[str]
    other: str | None


def leaderboard_page(
    board: Mapping[str, Any], offered: Mapping[str, Any], datasets: Sequence[str], query: Query, url: str
) -> str:
    """`board` and `offered` are the API's answers, `query` is what was asked for, `datasets` have boards; the service
    is at `url`."""
    rows, query = board["rows"], [*query]
    return render(
        "leaderboard.html", board=board, url=url, fields=fields(_FIRST, offered, datasets, query),
        more=[*fields(_MORE, offered, datasets, query), _sort(query)], more_open=any(n in _MORE for n, _ in query),
        ranked=[row for row in rows if row["verdict"] == OK], bounds=[row for row in rows if row["verdict"] != OK],
        attacks=_attacks(rows, query), columns=[name for name in _USUAL if _varies(rows, name)],
        alike={name: rows[0][name] for name in _USUAL if rows and not _varies(rows, name)},
        costs=any(row.get("size") for row in rows), clean=clean_images(rows, board["protocol"]),
        suite=SUITES.get(board["protocol"]["suite"]), sorts=_sorts(query),
        sort=dict(query).get("sort", "robust_accuracy"), measured=bool(offered["suite"]),
        downloads=downloads("/leaderboard", query), unfiltered=address(PATH, [("dataset", board["dataset"])]),
    )


def downloads(path: str, query: Query, formats: Sequence[str] = _FORMATS) -> list[tuple[str, str]]:
    """(title, address) of what the page shows, in each format."""
    query = [(name, value) for name, value in query if name != "attacks"]
    return [(_TITLES[form], address(path, query, format=form)) for form in formats]


def _sort(query: Query) -> Field:
    return Field("sort", "ranked by", SORTS, dict(query).get("sort", SORTS[0][0]))


def _sorts(query: Query) -> dict[str, str]:
    """Where the board is ranked by either accuracy: links in the headers, for those without JavaScript."""
    return {name: address(PATH, query, sort=name) for name, _ in SORTS}


def _attacks(rows: Sequence[Mapping[str, Any]], query: Query) -> Attacks:
    names = list(dict.fromkeys(name for row in rows for name in row["attacks"]))
    if len(names) <= MOST_ATTACKS:
        return Attacks(names, names, None)
    if ("attacks", "all") in query:
        return Attacks(names, names, address(PATH, query, attacks=None))
    return Attacks(names, (), address(PATH, query, attacks="all"))


def _varies(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({row[name] for row in rows}) > 1
