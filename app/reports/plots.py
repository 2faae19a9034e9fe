"""Static pictures of results. Colours are Okabe and Ito's, which colour-blind readers can tell apart; lines differ in
their markers too. matplotlib is imported when the first picture is asked for."""

import io
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from app.domain.leaderboard import OK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Picture = Literal["png", "svg"]
PICTURE_TYPES: dict[Picture, str] = {"png": "image/png", "svg": "image/svg+xml"}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
VARIANT_COLOURS = {"default": PALETTE[0], "lif": PALETTE[1], "paralif": PALETTE[2]}
_MARKERS = "osD^vPX"
_INK, _QUIET, _RULE = "#1a1a1a", "#6b6b6b", "#e3e3e3"
_LINEAR_SPAN = 40.0  # radii further apart than this factor are drawn on a scale that is logarithmic beyond the first
_DOTS_PER_INCH = 160
_PLOT = (6.2, 3.6)  # inches, as the margins around it
_LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND_LINE = 0.72, 0.3, 0.72, 0.78, 0.205
_CROWDED = 7  # radii whose labels stand upright no more
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.parse_math": False, "text.color": _INK,
    "axes.edgecolor": _QUIET, "axes.labelcolor": _INK, "xtick.color": _QUIET, "ytick.color": _QUIET,
    "xtick.labelcolor": _INK, "ytick.labelcolor": _INK, "svg.hashsalt": "spikeproof", "svg.fonttype": "path",
}  # fmt: skip
_NORMS = {"linf": "L∞", "l2": "L2"}
_lock = Lock()  # matplotlib is not made for several threads at once


def curves_picture(answer: Mapping[str, Any], form: Picture) -> bytes:
    """The answer of `/curves` as a picture: per cent against eps, a band for each line's 95 % intervals.

    A line of which some figure is an upper bound only is dashed, and those figures are hollow.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with _lock, rc_context(_STYLE):  # type: ignore[arg-type]  # keys are checked when it runs
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
        out = io.BytesIO()
        metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": "spikeproof"}
        figure.savefig(out, format=form, dpi=_DOTS_PER_INCH, metadata=metadata, facecolor="white")
    return out.getvalue()


def _draw_lines(axes: "Axes", lines: Sequence[Mapping[str, Any]], norm: str) -> None:
    for number, (line, colour) in enumerate(zip(lines, _colours(lines), strict=True)):
        marker, scale = _MARKERS[number % len(_MARKERS)], _scale(norm)
        eps = [0.0, *(scale * p["eps"] for p in line["points"])]
        figures = [line["clean_accuracy"], *(p["accuracy"] for p in line["points"])]
        mean = [100 * f["mean"] for f in figures]
        low, high = ([100 * f["ci95"][end] for f in figures] for end in (0, 1))
        axes.fill_between(eps, low, high, color=colour, alpha=0.13, linewidth=0, zorder=2)
        bound = line["verdict"] != OK
        axes.plot(eps, mean, color=colour, linewidth=1.8, linestyle=(0, (5, 2.2)) if bound else "-", zorder=3)
        sure = [True, *(p["verdict"] == OK for p in line["points"])]
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
    axes.axhline(100 * chance, color=_QUIET, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate("chance", (0, 100 * chance), (3, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                  ha="left", va="bottom", fontsize=8, color=_QUIET)  # fmt: skip


def _dress(axes: "Axes", answer: Mapping[str, Any]) -> None:
    protocol = answer["protocol"]
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    what = "robust accuracy" if answer["attack"] is None else f"accuracy under {answer['attack']}"
    union = ", after the attacks before it" if answer["kind"] == "running union" else ""
    axes.set_ylabel(f"{what}, per cent")
    axes.set_title(f"{answer['dataset']}: {what}{union}", loc="left", fontsize=12, fontweight="bold", pad=24)
    measured = f"suite {protocol['suite']} v{protocol['suite_version']}, {protocol['images']} images; " \
        "bands: 95 % intervals" if protocol else "nothing has been measured yet"  # fmt: skip
    axes.annotate(measured, (0, 1), (0, 9), xycoords="axes fraction", textcoords="offset points", color=_QUIET,
                  fontsize=8.5)  # fmt: skip
    _radii(axes, answer)


def _radii(axes: "Axes", answer: Mapping[str, Any]) -> None:
    norm, scale = answer["norm"], _scale(answer["norm"])
    unit = "in 255ths of the pixel range" if scale != 1 else "in units of the pixel range"
    axes.set_xlabel(f"eps ({_NORMS[norm]} radius, {unit})")
    radii = sorted({scale * p["eps"] for line in answer["lines"] for p in line["points"]})
    if not radii:
        axes.set_xlim(0, 8 if scale != 1 else 1)
        return
    if radii[-1] > _LINEAR_SPAN * radii[0]:
        axes.set_xscale("symlog", linthresh=radii[0], linscale=0.6)
    axes.set_xlim(-0.015 * radii[-1] if axes.get_xscale() == "linear" else -0.1 * radii[0], radii[-1] * 1.02)
    crowded: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
    axes.set_xticks([0.0, *radii], [f"{r:.3g}" for r in (0.0, *radii)], **(crowded if len(radii) > _CROWDED else {}))
    axes.minorticks_off()


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


def _scale(norm: str) -> float:
    """L-inf radii are said in 255ths."""
    return 255.0 if norm == "linf" else 1.0
