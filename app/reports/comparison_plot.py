"""Two rows against each other as a picture: the paired difference over eps, and for each attack."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.domain.leaderboard import OK
from app.reports.plots import (
    INK,
    PALETTE,
    QUIET,
    Picture,
    bare,
    draw,
    entitle,
    mean_and_interval,
    radius_axis,
    scale_of,
    text_width,
)
from app.reports.tables import clean_images, measured_under, points, row_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR = PALETTE[0]
_CURVE, _DOTS, _PITCH = 3.3, 3.0, 0.34  # inches, as the margins
_LEFT, _RIGHT, _TOP, _BOTTOM, _LEAST_HEIGHT, _GAP = 0.75, 0.7, 0.74, 0.82, 2.3, 0.3


def comparison_picture(answer: Mapping[str, Any], form: Picture) -> bytes:
    """The answer of `/compare` as a picture: A minus B in points of a per cent, with 95 % intervals and every seed.

    To the left over eps, where there are several radii; to the right at the rows' own radius: clean, robust, and under
    each attack.
    """
    return draw(form, lambda: _figure(answer))


def _figure(answer: Mapping[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    lines, title, below = _lines(answer), *_title(answer)
    names = text_width([name for name, _ in lines]) + _GAP
    curve = _LEFT + _CURVE if len(answer["curve"]) > 1 else 0.0  # the width of the left half
    inner = max(_LEAST_HEIGHT, _PITCH * len(lines))
    width = max(curve + names + _DOTS + _RIGHT, _LEFT + text_width([title], 13), _LEFT + text_width([below], 8.5))
    height = _TOP + inner + _BOTTOM

    def place(left: float, wide: float) -> "Axes":
        return figure.add_axes((left / width, _BOTTOM / height, wide / width, inner / height))

    figure = Figure(figsize=(width, height))
    first = dots = place(curve + names, _DOTS)
    if curve:
        first = place(_LEFT, _CURVE)
        _draw_curve(first, answer)
    _draw_dots(dots, lines, answer)
    indent = 0.0 if curve else names - _GAP
    entitle(first, title, below, indent=indent)
    first.annotate("bars and bands: 95 % intervals; ticks: single seeds", (0, 0), (-72 * indent, -48), color=QUIET,
                   xycoords="axes fraction", textcoords="offset points", fontsize=8.5)  # fmt: skip
    return figure


def _title(answer: Mapping[str, Any]) -> tuple[str, str]:
    """What is compared, and in the line below under what it was measured."""
    sides, common = (answer["a"], answer["b"]), len(answer["seeds"]["common"])
    names = [f"{letter}: {row_label(row, sides)}" for letter, row in zip("AB", sides, strict=True)]
    weak = [letter for letter, row in zip("AB", sides, strict=True) if row["verdict"] != OK]
    bound = f"; upper bound only: {' and '.join(weak)}" if weak else ""
    seeds = f"{common} common seed{'' if common == 1 else 's'}"
    return ",  ".join(names), f"{answer['dataset']}: {measured_under(answer['protocol'])}; {seeds}{bound}"


def _lines(answer: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Of the right half, from above: what is compared, and by how much it differs."""
    if answer["robust_accuracy"] is None:
        return []
    how = "after" if answer["protocol"].get("survivors") else "under"
    attacks = [(f"{how} {name}", difference) for name, difference in answer["attacks"].items()]
    images = (clean_images((answer["a"], answer["b"]), answer["protocol"]) or "clean").replace("clean:", "clean,")
    return [(images, answer["clean_accuracy"]), *attacks, ("robust", answer["robust_accuracy"])]


def _draw_curve(axes: "Axes", answer: Mapping[str, Any]) -> None:
    scale, curve = scale_of(answer["protocol"]["norm"]), answer["curve"]
    at = [0.0, *(scale * point["eps"] for point in curve)]
    figures = [answer["clean_accuracy_subset"], *(point["robust_accuracy"] for point in curve)]
    mean, low, high = zip(*map(mean_and_interval, figures), strict=True)
    axes.fill_between(at, low, high, color=_COLOUR, alpha=0.15, linewidth=0, zorder=2)
    for x, figure in zip(at, figures, strict=True):
        seeds = _seeds(figure)
        _tick(axes, [x] * len(seeds), seeds, "_")
    axes.plot(at, mean, color=_COLOUR, linewidth=1.8, marker="o", markersize=5.5, zorder=4, clip_on=False)
    axes.axhline(0, color=INK, linewidth=1, zorder=1)
    bare(axes, grid="y")
    axes.set_ylabel("A − B, robust accuracy, points")
    radius_axis(axes, answer["protocol"]["norm"], (point["eps"] for point in curve))


def _draw_dots(axes: "Axes", lines: Sequence[tuple[str, Mapping[str, Any]]], answer: Mapping[str, Any]) -> None:
    for line, (name, figure) in enumerate(lines):
        colour = _COLOUR if name == "robust" else QUIET
        mean, low, high = mean_and_interval(figure)
        axes.plot([low, high], [line, line], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
        seeds = _seeds(figure)
        _tick(axes, seeds, [line] * len(seeds), "|")
        axes.plot([mean], [line], linestyle="none", marker="o", markersize=7, color=colour, zorder=4)
        axes.annotate(points(figure["mean"]), (1, line), (8, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", va="center", fontsize=8.5, color=INK)  # fmt: skip
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.set_ylim(max(1, len(lines)) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    bare(axes, grid="x")
    axes.set_xlabel(f"A − B at eps {answer['protocol']['eps_text']}, points")
    if not lines:
        axes.set_xlim(-1, 1)
        axes.text(0.5, 0.5, "no common seed: nothing to compare", transform=axes.transAxes, ha="center", color=QUIET,
                  bbox={"facecolor": "white", "edgecolor": "none"})  # fmt: skip


def _seeds(figure: Mapping[str, Any]) -> list[float]:
    """Per cent of every seed; none where one is all there is."""
    values = [100 * value for value in figure["by_seed"].values()]
    return values if len(values) > 1 else []


def _tick(axes: "Axes", xs: Sequence[float], ys: Sequence[float], marker: str) -> None:
    axes.plot(xs, ys, linestyle="none", marker=marker, markersize=7, color=INK, alpha=0.5, zorder=3, clip_on=False)
