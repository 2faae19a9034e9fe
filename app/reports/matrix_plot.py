"""The matrix as a picture: variants down, architectures across, each accuracy in figures and as a shade."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.domain.architectures import variant_name
from app.domain.leaderboard import OK
from app.reports.plots import INK, QUIET, RULE, Picture, draw, entitle
from app.reports.tables import clean_cells, clean_images, measured_under, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = (1.75, 0.78)  # inches, as the margins and the least width of all cells together
_LEFT, _RIGHT, _TOP, _BOTTOM, _NARROWEST = 0.85, 0.2, 0.98, 0.6, 5.0
_SHADES = ("#ffffff", "#0072B2")  # of 0 and 100 per cent; in grey they grow darker evenly
_DARK = 0.9  # from here on writing is white


def matrix_picture(matrix: Mapping[str, Any], form: Picture) -> bytes:
    """The answer of `/leaderboard/matrix` as a picture; architectures that have no figure at all are left out."""
    return draw(form, lambda: _figure(matrix))


def _figure(matrix: Mapping[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    rows: Sequence[Mapping[str, Any]] = matrix["rows"]
    known = [name for name in matrix["architectures"] if any(row["cells"][name] for row in rows)]
    columns = known or list(matrix["architectures"])
    grid = (max(_NARROWEST, _CELL[0] * len(columns)), _CELL[1] * len(rows))
    width, height = _LEFT + grid[0] + _RIGHT, _TOP + grid[1] + _BOTTOM
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((_LEFT / width, _BOTTOM / height, grid[0] / width, grid[1] / height))
    for line, row in enumerate(rows):
        for column, name in enumerate(columns):
            _draw_cell(axes, column, line, row["cells"][name], bound=_is_bound(row["cells"][name], matrix["metric"]))
    _dress(axes, matrix, columns)
    return figure


def _is_bound(cell: Mapping[str, Any] | None, metric: str) -> bool:
    """Whether it is an upper bound only; a clean accuracy never is."""
    return cell is not None and cell["verdict"] != OK and metric == "robust_accuracy"


def _draw_cell(axes: "Axes", column: int, line: int, cell: Mapping[str, Any] | None, *, bound: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    share = 0.0 if cell is None else cell["mean"]
    shade = LinearSegmentedColormap.from_list("accuracy", _SHADES)(share)
    axes.add_patch(Rectangle((column, line), 1, 1, facecolor=shade, edgecolor="white" if cell else RULE, linewidth=2))
    ink = "white" if share > _DARK else INK
    if cell is None:
        axes.text(column + 0.5, line + 0.5, "–", ha="center", va="center", color=QUIET)
        return
    sign = "≤ " if bound else ""
    axes.text(column + 0.5, line + 0.4, sign + percent(cell), ha="center", va="center", color=ink, fontsize=11,
              fontweight="bold")  # fmt: skip
    more = f", {cell['others']} more" if cell["others"] else ""
    seeds = f"{cell['n']} seed{'s' if cell['n'] > 1 else ''}"
    axes.text(column + 0.5, line + 0.7, f"{cell['epochs']}, {seeds}{more}", ha="center", va="center", color=ink,
              fontsize=8)  # fmt: skip


def _dress(axes: "Axes", matrix: Mapping[str, Any], columns: Sequence[str]) -> None:
    rows = matrix["rows"]
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns)
    axes.set_yticks([i + 0.5 for i in range(len(rows))], [variant_name(row["variant"]) for row in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=5)
    for side in axes.spines.values():
        side.set_visible(False)
    below = "mean ± standard deviation over seeds, <epochs, epochs of the branch>"
    if any(_is_bound(cell, matrix["metric"]) for row in rows for cell in row["cells"].values()):
        below += "\n≤: an upper bound only"
    axes.annotate(below, (0, 0), (0, -8), xycoords="axes fraction", textcoords="offset points", va="top", color=QUIET,
                  fontsize=8.5, linespacing=1.5)  # fmt: skip
    said = [measured_under(matrix["protocol"]), clean_images(clean_cells(matrix), matrix["protocol"])]
    entitle(axes, f"{matrix['dataset']}: {matrix['metric'].replace('_', ' ')}, per cent",
            "; ".join(filter(None, said)), above=20)  # fmt: skip
