"""What all pictures have in common. Colours are Okabe and Ito's, which colour-blind readers can tell apart; what they
tell is also told by markers or text, for a print in grey. matplotlib is imported when the first picture is asked for.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from app.domain.architectures import VARIANTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = Literal["png", "svg"]
PICTURE_TYPES: dict[Picture, str] = {"png": "image/png", "svg": "image/svg+xml"}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
VARIANT_COLOURS = dict(zip(VARIANTS, cycle(PALETTE[:-1]), strict=False))
VARIANT_MARKERS = dict(zip(VARIANTS, cycle("osD^vPX"), strict=False))
INK, QUIET, RULE = "#1a1a1a", "#6b6b6b", "#e3e3e3"
LINEAR_SPAN = 40.0  # radii further apart than this factor are drawn on a scale that is logarithmic beyond the first
CROWDED = 7  # radii whose labels stand upright no more
_DOTS_PER_INCH = 160
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.parse_math": False, "text.color": INK,
    "axes.edgecolor": QUIET, "axes.labelcolor": INK, "xtick.color": QUIET, "ytick.color": QUIET,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "svg.hashsalt": "spikeproof", "svg.fonttype": "path",
}  # fmt: skip
_lock = Lock()  # matplotlib is not made for several threads at once


def draw(form: Picture, make: "Callable[[], Figure]") -> bytes:
    """The figure that `make` answers, as a file; the same figure gives the same bytes."""
    from matplotlib import rc_context

    with _lock, rc_context(_STYLE):  # type: ignore[arg-type]  # keys are checked when it runs
        out = io.BytesIO()
        metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": "spikeproof"}
        make().savefig(out, format=form, dpi=_DOTS_PER_INCH, metadata=metadata, facecolor="white")
    return out.getvalue()


def bare(axes: "Axes", *, grid: Literal["x", "y"]) -> None:
    """Takes away what carries no information; a faint rule at each tick of the axis that has the figures."""
    axes.grid(axis=grid, color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def entitle(axes: "Axes", title: str, below: str, *, above: float = 0.0, indent: float = 0.0) -> None:
    """What it shows, and in a quieter line below under what it was measured: `above` the axes by so many points more,
    and beginning so many inches to the left of them."""
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(title, (0, 1), (-72 * indent, above + 25), fontsize=12, fontweight="bold", **style)
    axes.annotate(below, (0, 1), (-72 * indent, above + 9), color=QUIET, fontsize=8.5, **style)


def scale_of(norm: str) -> float:
    """L-inf radii are said in 255ths."""
    return 255.0 if norm == "linf" else 1.0


def radius_axis(axes: "Axes", norm: str, eps: Iterable[float]) -> None:
    """From 0 to the largest radius, a tick at each."""
    scale = scale_of(norm)
    names, unit = {"linf": "L∞", "l2": "L2"}, "255ths" if norm == "linf" else "units"
    axes.set_xlabel(f"eps ({names[norm]} radius, in {unit} of the pixel range)")
    radii = sorted({scale * e for e in eps})
    if not radii:
        axes.set_xlim(0, 8 if scale != 1 else 1)
        return
    if radii[-1] > LINEAR_SPAN * radii[0]:
        axes.set_xscale("symlog", linthresh=radii[0], linscale=0.6)
    axes.set_xlim(-0.015 * radii[-1] if axes.get_xscale() == "linear" else -0.1 * radii[0], radii[-1] * 1.02)
    crowded: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
    axes.set_xticks([0.0, *radii], [f"{r:.3g}" for r in (0.0, *radii)], **(crowded if len(radii) > CROWDED else {}))
    axes.minorticks_off()


def text_width(texts: Sequence[str], size: float = 9.5) -> float:
    """About how many inches the longest of them takes in DejaVu Sans, on the wide side."""
    return max((len(text) for text in texts), default=0) * size * 0.56 / 72


def mean_and_interval(figure: Mapping[str, Any]) -> tuple[float, float, float]:
    """Per cent: mean, low, high."""
    low, high = figure["ci95"] or (figure["mean"], figure["mean"])
    return 100 * figure["mean"], 100 * low, 100 * high
