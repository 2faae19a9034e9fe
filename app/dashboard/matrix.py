"""The study's layout as a page: variants down, architectures across."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.filters import Field, fields
from app.dashboard.leaderboard import downloads
from app.dashboard.links import Query, address
from app.dashboard.rendering import render
from app.reports.tables import clean_cells, clean_images


def matrix_page(matrix: Mapping[str, Any], offered: Mapping[str, Any], datasets: Sequence[str], query: Query) -> str:
    """`matrix` and `offered` are the API's answers, `query` is what was asked for, `datasets` have boards."""
    query = [*query]
    metric = Field("metric", "figure", [("clean_accuracy", "clean accuracy"), ("robust_accuracy", "robust accuracy")],
                   matrix["metric"])  # fmt: skip
    first, *others = fields(("dataset", "norm", "eps", "suite", "recipe", "freeze_depth"), offered, datasets, query)
    board = [(name, value) for name, value in query if name != "metric"]
    return render(
        "matrix.html", matrix=matrix, fields=[first, metric, *others],
        clean=clean_images(clean_cells(matrix), matrix["protocol"]),
        downloads=downloads("/leaderboard/matrix", query),
        empty=not any(cell for line in matrix["rows"] for cell in line["cells"].values()),
        measured=bool(offered["suite"]), board=address("/ui/leaderboard", board),
    )
