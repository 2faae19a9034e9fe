"""A figure over seeds as pages show it: mean and deviation in columns that align, and its interval drawn."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

_WIDTH = 100  # of the scale, in the drawing's own units: one a per cent


def figure(accuracy: Mapping[str, Any] | None) -> Markup:
    """`{"mean": .9213, "sd": .0021, ...}` -> 92.1 ± 0.2; the deviation has its place also where there is none."""
    if accuracy is None:
        return Markup("–")
    sd = "" if accuracy["sd"] is None else f"± {100 * accuracy['sd']:.1f}"
    return Markup(f'{100 * accuracy["mean"]:.1f}<span class="sd">{sd}</span>')


def interval(accuracy: Mapping[str, Any]) -> str:
    """`"91.6 to 92.6"`, in per cent."""
    low, high = accuracy["ci95"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def drawn(accuracy: Mapping[str, Any]) -> Markup:
    """The interval as a bar on a scale from 0 to 100 %, the mean as a dot, each seed as a tick."""
    low, high = (_place(value) for value in accuracy["ci95"])
    seeds = "".join(f"M{_place(value)} 1v14" for value in accuracy.get("by_seed", {}).values())
    label = f"{interval(accuracy)} % (95 % interval)"
    return Markup(
        f'<svg class="interval" viewBox="-3 0 106 16" role="img"><title>{label}</title>'
        f'<path class="seeds" d="{seeds}"/><path class="bar" d="M{low} 8H{high}"/>'
        f'<circle cx="{_place(accuracy["mean"])}" cy="8" r="3"/></svg>'
    )


def _place(value: float) -> str:
    return f"{_WIDTH * value:.4g}"


def points(difference: Mapping[str, Any] | None) -> str:
    """A difference in percentage points: `"+8.1"`."""
    return "–" if difference is None else f"{100 * difference['mean']:+.1f}"


def difference_drawn(difference: Mapping[str, Any]) -> Markup:
    """Its interval about a line at 0, on a scale of its own; empty where there is no interval."""
    if difference["ci95"] is None:
        return Markup("")
    low, high = difference["ci95"]
    span = 2.2 * max(abs(low), abs(high), 1e-9)
    at_low, at_mean, at_high = (_place(0.5 + value / span) for value in (low, difference["mean"], high))
    label = f"{100 * low:+.1f} to {100 * high:+.1f} points (95 % interval)"
    return Markup(
        f'<svg class="interval" viewBox="-3 0 106 16" role="img"><title>{label}</title>'
        f'<path class="zero" d="M50 0v16"/><path class="bar" d="M{at_low} 8H{at_high}"/>'
        f'<circle cx="{at_mean}" cy="8" r="3"/></svg>'
    )
