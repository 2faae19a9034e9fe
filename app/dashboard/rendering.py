"""Templates to text. Everything a page needs is in this package or beside it: no request leaves the server."""

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from app.dashboard import texts
from app.dashboard.assets import address
from app.domain.architectures import variant_name
from app.reports.tables import percent

NAVIGATION = (
    ("Leaderboard", "/ui/leaderboard"),
    ("Curves", "/ui/curves"),
    ("Matrix", "/ui/matrix"),
    ("Compare", "/ui/compare"),
    ("Experiments", "/ui/experiments"),
    ("Checkpoints", "/ui/checkpoints"),
    ("Playground", "/ui/playground"),
    ("Architectures", "/ui/architectures"),
    ("Neurons", "/ui/neurons"),
)


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
environment.globals.update(signs=texts.SIGNS, kinds=texts.KINDS, between=texts.between)
environment.filters.update(duration=texts.duration, moment=texts.moment, run_name=texts.run_name,
                           variant_name=variant_name, setting_text=texts.setting_text)


def render(template: str, **values: Any) -> str:
    """A page."""
    return environment.get_template(template).render(**values)


def sign_in_page(then: str, problem: str, known_as: str | None = None) -> str:
    """Asks a browser for a key; `then`: where it goes with it; `known_as`: whose key it has already."""
    return render("sign_in.html", then=then, problem=problem, known_as=known_as)


def problem_page(problem: Mapping[str, Any]) -> str:
    """A problem document as a page; `query`: whether it was asked for with one."""
    return render("problem.html", problem=problem)
