"""Accuracy against eps as a picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.domain.leaderboard import OK
from app.reports.plots import (
    PALETTE,
    QUIET,
    VARIANT_COLOURS,
    Picture,
    bare,
    draw,
    entitle,
    radius_axis,
    scale_of,
)
from app.reports.tables import measured_under, unattacked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX*"  # one more than there are colours: no two lines of fifty look alike
_PLOT = (6.2, 3.6)  # inches, as the margins around it
_LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND_LINE = 0.72, 0.55, 0.72, 0.78, 0.205


def curves_picture(answer: Mapping[str, Any], form: Picture) -> bytes:
    """The answer of `/curves` as a picture: per cent against eps, a band for each line's 95 % intervals.

    A line of which some figure is an upper bound only is dashed, and those figures are hollow.
    """
    return draw(form, lambda: _figure(answer))


def _figure(answer: Mapping[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    lines: Sequence[Mapping[str, Any]] = answer["lines"]
    legend = _LEGEND_LINE * len(lines)
    width, height = _PLOT[0] + _LEFT + _RIGHT, _PLOT[1] + _TOP + _BOTTOM + legend
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((_LEFT / width, (_BOTTOM + legend) / height, _PLOT[0] / width, _PLOT[1] / height))
    _draw_lines(axes, lines, answer["norm"])
    _draw_chance(axes, answer["chance"])
    _dress(axes, answer)
    if lines:
        _legend(axes, lines, ((_LEFT - 0.08) / width, 0.06 / height))
    return figure


def _draw_lines(axes: "Axes", lines: Sequence[Mapping[str, Any]], norm: str) -> None:
    for number, (line, colour) in enumerate(zip(lines, _colours(lines), strict=True)):
        marker, scale = _MARKERS[number % len(_MARKERS)], scale_of(norm)
        points = [unattacked(line), *line["points"]]
        eps, figures = [scale * p["eps"] for p in points], [p["accuracy"] for p in points]
        mean = [100 * f["mean"] for f in figures]
        low, high = ([100 * f["ci95"][end] for f in figures] for end in (0, 1))
        axes.fill_between(eps, low, high, color=colour, alpha=0.13, linewidth=0, zorder=2)
        bound = line["verdict"] != OK
        axes.plot(eps, mean, color=colour, linewidth=1.8, linestyle=(0, (5, 2.2)) if bound else "-", zorder=3)
        sure = [p["verdict"] == OK for p in points]
        for kind, face in ((True, colour), (False, "white")):
            shown = [(x, y) for x, y, ok in zip(eps, mean, sure, strict=True) if ok is kind]
            axes.plot(*zip(*shown, strict=True) if shown else ([], []), linestyle="none", marker=marker, markersize=5.5,
                      color=colour, markerfacecolor=face, markeredgewidth=1.4, zorder=4, clip_on=False)  # fmt: skip


def _colours(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """A variant keeps its colour from picture to picture where there is one line of it."""
    variants = [line["variant"] for line in lines]
    if len(set(variants)) == len(variants):
        return [VARIANT_COLOURS.get(variant, PALETTE[-1]) for variant in variants]
    return [PALETTE[number % len(PALETTE)] for number in range(len(lines))]


def _draw_chance(axes: "Axes", chance: float | None) -> None:
    if chance is None:
        return
    axes.axhline(100 * chance, color=QUIET, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate("chance", (1, 100 * chance), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                  ha="left", va="center", fontsize=8, color=QUIET)  # fmt: skip


def _dress(axes: "Axes", answer: Mapping[str, Any]) -> None:
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 20))
    bare(axes, grid="y")
    what = "robust accuracy" if answer["attack"] is None else f"accuracy under {answer['attack']}"
    union = ", after the attacks before it" if answer["kind"] == "running union" else ""
    axes.set_ylabel(f"{what}, per cent")
    bands = "; bands: 95 % intervals; at 0 unchanged" if answer["protocol"] else ""
    entitle(axes, f"{answer['dataset']}: {what}{union}",
            measured_under({"norm": answer["norm"], **(answer["protocol"] or {})}, radius=False) + bands)
    radius_axis(axes, answer["norm"], (p["eps"] for line in answer["lines"] for p in line["points"]))


def _legend(axes: "Axes", lines: Sequence[Mapping[str, Any]], corner: tuple[float, float]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for number, (line, colour) in enumerate(zip(lines, _colours(lines), strict=True)):
        bound = line["verdict"] != OK
        seeds = line["clean_accuracy"]["n"]
        label = f"{line['label']} ({seeds} seed{'s' if seeds > 1 else ''}{', ' + line['verdict'] if bound else ''})"
        handles.append(Line2D([], [], color=colour, linewidth=1.8, linestyle=(0, (5, 2.2)) if bound else "-",
                              marker=_MARKERS[number % len(_MARKERS)], markersize=5.5, markeredgewidth=1.4,
                              markerfacecolor="white" if bound else colour, label=label))  # fmt: skip
    axes.figure.legend(handles=handles, loc="lower left", bbox_to_anchor=corner, borderaxespad=0, borderpad=0,
                       frameon=False, fontsize=9, handlelength=3.2)  # fmt: skip
