"""An experiment as one HTML page: all that is shown is inside, so that it can be sent, kept and opened anywhere."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.domain.architectures import variant_name
from app.domain.leaderboard import OK
from app.reports.curve_plot import curves_picture
from app.reports.model_card import conditions_text
from app.reports.plots import PICTURE_TYPES, Picture
from app.reports.tables import Table, clean_images, leaderboard_table, measured_under, row_label
from app.reports.training_plot import training_picture

_environment = Environment(
    loader=PackageLoader("app.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(variant_name=variant_name)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Board:
    """What was measured under one protocol: its leaderboard at each radius (protocol, rows), and its curves as
    `/curves` answers them."""

    leaderboards: Sequence[tuple[Row, Sequence[Row]]]
    curves: Mapping[str, Any]


@dataclass(frozen=True)
class Gallery:
    """The contact sheet of one evaluation at one radius, a PNG."""

    run: Row
    eps: str
    png: bytes


def experiment_report(
    experiment: Mapping[str, Any], boards: Sequence[Board], checkpoints: Sequence[Row], galleries: Sequence[Gallery], *,
    epochs: Mapping[str, Sequence[Row]], conditions: Sequence[Row], galleries_left_out: int, version: str, made_at: str,
) -> str:
    """`experiment`, `checkpoints`: as the API shows them; `epochs`: records by run; `conditions`: of measuring."""
    trainings = [(run["variant"], epochs[run["id"]]) for run in experiment["runs"] if epochs.get(run["id"])]
    return _environment.get_template("experiment.html").render(
        e=experiment, boards=[_shown(board) for board in boards], checkpoints=checkpoints,
        runs=[{**run, "seconds": _seconds(run)} for run in experiment["runs"]],
        training=_inline(training_picture(trainings, "svg"), "svg") if trainings else None,
        galleries=[(_gallery_title(g), _inline(g.png, "png")) for g in galleries], left_out=galleries_left_out,
        conditions=[conditions_text(one) for one in conditions], version=version, made_at=made_at,
        spec=json.dumps(experiment["spec"], indent=2),
    )


def _shown(board: Board) -> dict[str, Any]:
    protocol, dataset = {**board.curves["protocol"], "norm": board.curves["norm"]}, board.curves["dataset"]
    rows = [row for _, of_radius in board.leaderboards for row in of_radius]
    title = "; ".join(filter(None, [measured_under(protocol, radius=False), clean_images(rows, protocol)]))
    return {
        "title": title, "survivors": protocol["survivors"],
        "tables": [(at["eps_text"], leaderboard_table(rows, dataset)) for at, rows in board.leaderboards],
        "verdicts": _verdicts(board), "curves": _inline(curves_picture(board.curves, "svg"), "svg"),
    }


def _verdicts(board: Board) -> Table:
    """A line for each row and radius, and why."""
    lines = [
        [row_label(row, rows), at["eps_text"], row["verdict"],
         "; ".join(row["reasons"]) or ("no check failed" if row["verdict"] == OK else "")]
        for at, rows in board.leaderboards
        for row in rows
    ]  # fmt: skip
    return Table(["row", "eps", "verdict", "reasons"], lines, [], [])


def _inline(picture: bytes, form: Picture) -> str:
    return f"data:{PICTURE_TYPES[form]};base64,{base64.b64encode(picture).decode()}"


def _gallery_title(gallery: Gallery) -> str:
    run = gallery.run
    branch = "" if run["branch_seed"] is None else f", branch {run['branch_seed']}"
    network = f"{run['architecture']} {variant_name(run['variant'])} {run['epochs']}"
    return f"{network}, seed {run['seed']}{branch}, eps {gallery.eps}"


def _seconds(run: Row) -> float | None:
    """From its start to its end; None where it has not ended."""
    if not run["started_at"] or not run["finished_at"]:
        return None
    return (datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()
