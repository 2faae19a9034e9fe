"""Where a newcomer lands: what this service is for, what was measured, what is under way, how to start."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.rendering import render
from app.reports.tables import clean_images

Answer = Mapping[str, Any]


def home_page(
    datasets: Sequence[Answer], boards: Sequence[Answer], experiments: Sequence[Answer], *, may_submit: bool,
    worker: bool, url: str,
) -> str:
    """`boards` are the leaderboards of the data sets that have one, latest first; the service is
    at `url`; `worker`: whether one lives."""
    titles = {dataset["name"]: dataset["title"] for dataset in datasets}
    measured = {board["dataset"] for board in boards}
    return render(
        "home.html", boards=[{**board, "title": titles.get(board["dataset"], board["dataset"]), "best": best(board),
                              "clean": clean_images(board["rows"], board["protocol"])} for board in boards],
        others=[dataset for dataset in datasets if dataset["name"] not in measured], experiments=experiments,
        may_submit=may_submit, worker=worker, url=url,
    )  # fmt: skip


def best(board: Answer) -> list[Answer]:
    """The first row of each variant, as the board has them."""
    firsts: dict[str, Answer] = {}
    for row in board["rows"]:
        firsts.setdefault(row["variant"], row)
    return [*firsts.values()]
