"""Addresses with their query."""

from collections.abc import Iterable
from urllib.parse import urlencode

Query = Iterable[tuple[str, str]]


def address(path: str, query: Query, **changes: object) -> str:
    """`address("/leaderboard", [("dataset", "digits"), ("eps", "8/255")], eps=None, format="csv")` ->
    `"/leaderboard?dataset=digits&format=csv"`: what is None is left out, all else stays."""
    kept = [(name, value) for name, value in query if name not in changes]
    added = [(name, str(value)) for name, value in changes.items() if value is not None]
    return f"{path}?{urlencode([*kept, *added], safe='/')}" if kept or added else path
