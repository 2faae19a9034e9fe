"""The page that shows neurons at work."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.playground import choice, grouped
from app.dashboard.rendering import render


def neurons_page(
    checkpoints: Sequence[Mapping[str, Any]], datasets: Mapping[str, Mapping[str, Any]], chosen: Mapping[str, Any]
) -> str:
    """`checkpoints`: those whose decoder spikes, in full; `chosen`: what the address names."""
    setup = {"checkpoints": {c["id"]: choice(c) for c in checkpoints}, "datasets": datasets}
    return render("neurons.html", setup=setup, groups=grouped(checkpoints), chosen=chosen)
