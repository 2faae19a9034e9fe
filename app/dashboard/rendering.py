"""Templates to text. Everything a page needs is in this package or beside it: no request leaves the server."""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from app.dashboard.assets import address
from app.reports.tables import leaderboard_table, percent

NAVIGATION = (("Leaderboard", "/ui/leaderboard"), ("Experiments", "/ui/experiments"),
              ("Checkpoints", "/ui/checkpoints"), ("Playground", "/ui/playground"),
              ("Architectures", "/ui/architectures"), ("Neurons", "/ui/neurons"))


def as_json(value: Any) -> Markup:
    """For `<script type="application/json">`: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


environment = Environment(
    loader=PackageLoader("app.dashboard"), autoescape=select_autoescape(), undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)
environment.globals.update(asset=address, navigation=NAVIGATION)
environment.filters.update(percent=percent, as_json=as_json)


def render(template: str, **values: Any) -> str:
    """A page."""
    return environment.get_template(template).render(**values)


def leaderboard_page(board: dict[str, Any]) -> str:
    """The leaderboard's answer as a page."""
    return render("leaderboard.html", board=board, table=leaderboard_table(board["rows"]))


def home_page(datasets: list[dict[str, Any]], experiments: list[dict[str, Any]]) -> str:
    """Where a newcomer lands: data sets with their boards, and the latest experiments."""
    return render("home.html", datasets=datasets, experiments=experiments)


def sign_in_page(then: str, problem: str) -> str:
    """Asks a browser for a key; `then`: where it goes with it."""
    return render("sign_in.html", then=then, problem=problem)
