"""The leaderboard as a picture: a line a row, with the intervals of its clean and its robust accuracy."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.domain.architectures import variant_name
from app.domain.leaderboard import OK
from app.reports.plots import (
    INK,
    PALETTE,
    QUIET,
    VARIANT_COLOURS,
    VARIANT_MARKERS,
    Picture,
    bare,
    draw,
    entitle,
    mean_and_interval,
    text_width,
)
from app.reports.tables import clean_images, measured_under, percent, row_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 60  # a page; what is below says that there are more
_PLOT_WIDTH, _PITCH = 4.4, 0.36  # inches
_TOP, _BOTTOM, _NUMBERS, _MARGIN = 0.72, 1.0, 2.05, 0.18


def board_picture(board: Mapping[str, Any], form: Picture) -> bytes:
    """The answer of `/leaderboard` as a picture: per cent with 95 % intervals, in the order of the ranking.

    What is an upper bound only is hollow, and its figure has a `≤`.
    """
    return draw(form, lambda: _figure(board))


def _figure(board: Mapping[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    rows: Sequence[Mapping[str, Any]] = board["rows"][:MOST_ROWS]
    names = [f"{row['rank'] or '–'}   {row_label(row, board['rows'])}" for row in rows]
    left = max(0.3, text_width(names)) + _MARGIN
    height = _TOP + _PITCH * max(1, len(rows)) + _BOTTOM
    width = left + _PLOT_WIDTH + _NUMBERS
    figure = Figure(figsize=(width, height))
    place = (left / width, _BOTTOM / height, _PLOT_WIDTH / width, 1 - (_TOP + _BOTTOM) / height)
    axes = figure.add_axes(place)
    for line, row in enumerate(rows):
        _draw_row(axes, line, row)
    _dress(axes, board, names)
    if rows:
        _numbers(axes, rows)
        _legend(axes, board, rows, (place[0], 0.08 / height))
    return figure


def _draw_row(axes: "Axes", line: int, row: Mapping[str, Any]) -> None:
    colour, sure = VARIANT_COLOURS.get(row["variant"], PALETTE[-1]), row["verdict"] == OK
    marker = VARIANT_MARKERS.get(row["variant"], "o")
    for name, ink, size, thick, above in (("clean", QUIET, 4.5, 1.0, -0.16), ("robust", colour, 7.0, 2.0, 0.08)):
        figure = row[f"{name}_accuracy"]
        mean, low, high = mean_and_interval(figure)
        y = line + above
        axes.plot([low, high], [y, y], color=ink, linewidth=thick, solid_capstyle="butt", zorder=2)
        seeds = [100 * value for value in figure["by_seed"].values()]
        if len(seeds) > 1:
            axes.plot(seeds, [y] * len(seeds), linestyle="none", marker="|", markersize=7, color=ink, alpha=0.55,
                      zorder=3, clip_on=False)  # fmt: skip
        filled = sure and name == "robust"
        axes.plot([mean], [y], linestyle="none", marker=marker if name == "robust" else "o", markersize=size, color=ink,
                  markerfacecolor=ink if filled else "white", markeredgewidth=1.5, zorder=4, clip_on=False)  # fmt: skip


def _dress(axes: "Axes", board: Mapping[str, Any], names: Sequence[str]) -> None:
    axes.set_xlim(0, 100)
    axes.set_ylim(max(1, len(names)) - 0.4, -0.6)  # the first above
    axes.set_yticks(range(len(names)), names, ha="left")
    axes.tick_params(axis="y", pad=72 * text_width(names))
    bare(axes, grid="x")
    axes.set_xlabel("accuracy, per cent; bars: 95 % intervals")
    more = len(board["rows"]) - len(names)
    below = measured_under(board["protocol"]) + (f"; {more} more rows are not shown" if more else "")
    entitle(axes, f"{board['dataset']}: robust and clean accuracy", below)


def _numbers(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    """The figures themselves, to the right."""
    def write(x: float, y: float, text: str, colour: str, **style: Any) -> None:
        axes.annotate(text, (1, y), (x * 72, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", va="center", color=colour, fontsize=8.5, **style)  # fmt: skip

    columns = (("clean", 0.9), ("robust", 1.85))
    for name, x in columns:
        write(x, -0.55, f"{name} %", QUIET)
    for line, row in enumerate(rows):
        for name, x in columns:
            bound = "≤ " if name == "robust" and row["verdict"] != OK else ""
            write(x, line, bound + percent(row[f"{name}_accuracy"]), INK)


def _legend(
    axes: "Axes", board: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], corner: tuple[float, float]
) -> None:
    from matplotlib.lines import Line2D

    def sign(marker: str, colour: str, label: str, size: float = 6.5, face: str | None = None) -> "Line2D":
        return Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=size, markeredgewidth=1.5,
                      markerfacecolor=face or colour, label=label)  # fmt: skip

    variants = [v for v in VARIANT_COLOURS if any(row["variant"] == v for row in rows)]
    handles = [sign(VARIANT_MARKERS[v], VARIANT_COLOURS[v], f"robust, {variant_name(v)}") for v in variants]
    handles.append(sign("o", QUIET, clean_images(rows, board["protocol"]) or "clean", 4.5, "white"))
    if any(row["robust_accuracy"]["n"] > 1 for row in rows):
        handles.append(sign("|", QUIET, "one seed", 7))
    if any(row["verdict"] != OK for row in rows):
        handles.append(sign("s", INK, "upper bound only", 6.5, "white"))
    axes.figure.legend(handles=handles, loc="lower left", bbox_to_anchor=corner, ncols=3, borderaxespad=0, borderpad=0,
                       frameon=False, fontsize=8.5, handletextpad=0.3, columnspacing=1.4)  # fmt: skip
