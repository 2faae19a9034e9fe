"""The pages. Everything they need is in this package: no request leaves the server."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from app.reports.tables import leaderboard_table

_environment = Environment(
    loader=PackageLoader("app.dashboard"), autoescape=select_autoescape(), undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)


def leaderboard_page(board: dict[str, Any]) -> str:
    """The leaderboard's answer as a page."""
    table = leaderboard_table(board["rows"])
    return _environment.get_template("leaderboard.html").render(board=board, table=table)


def home_page(datasets: list[dict[str, Any]], experiments: list[dict[str, Any]]) -> str:
    """Where a newcomer lands: data sets with their boards, and the latest experiments."""
    return _environment.get_template("home.html").render(datasets=datasets, experiments=experiments)


def sign_in_page(then: str, problem: str) -> str:
    """Asks a browser for a key; `then`: where it goes with it."""
    return _environment.get_template("sign_in.html").render(then=then, problem=problem)
