"""How networks were trained, as a picture: loss and validation accuracy, epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.domain.architectures import variant_name
from app.reports.plots import PALETTE, QUIET, VARIANT_COLOURS, VARIANT_MARKERS, Picture, bare, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Training = tuple[str, Sequence[Mapping[str, Any]]]  # the variant, and a record an epoch
_SIZE = (7.4, 3.0)  # inches
_FEW = 8  # lines that still have room for a marker at each epoch


def training_picture(trainings: Sequence[Training], form: Picture) -> bytes:
    """A line a training, in the colour of its variant: training loss to the left, validation accuracy to the right."""
    return draw(form, lambda: _figure(trainings))


def _figure(trainings: Sequence[Training]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=_SIZE, layout="constrained")
    left, right = figure.subplots(1, 2)
    marked = len(trainings) <= _FEW
    for variant, records in trainings:
        epochs = [record["epoch"] for record in records]
        _line(left, variant, epochs, [record["train_loss"] for record in records], marked)
        _line(right, variant, epochs, [100 * record["validation_accuracy"] for record in records], marked)
    for axes, what in ((left, "training loss"), (right, "validation accuracy, per cent")):
        bare(axes, grid="y")
        axes.set_xlabel("epoch")
        axes.set_title(what, loc="left", fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # also of a single epoch
    left.set_ylim(bottom=0)
    _legend(figure, [variant for variant, _ in trainings])
    return figure


def _line(axes: "Axes", variant: str, epochs: Sequence[int], values: Sequence[float], marked: bool) -> None:
    axes.plot(epochs, values, color=VARIANT_COLOURS.get(variant, PALETTE[-1]), linewidth=1.4, alpha=0.85,
              marker=VARIANT_MARKERS.get(variant, "o") if marked else None, markersize=4)  # fmt: skip


def _legend(figure: "Figure", variants: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    shown = [v for v in VARIANT_COLOURS if v in variants]
    handles = [
        Line2D([], [], color=VARIANT_COLOURS[v], marker=VARIANT_MARKERS[v], markersize=4, label=variant_name(v))
        for v in shown
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles) or 1, frameon=False, fontsize=9,
                  labelcolor=QUIET)  # fmt: skip
