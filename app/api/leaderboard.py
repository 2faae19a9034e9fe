"""`/leaderboard` and `/leaderboard/matrix`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from app.api.boards import (
    VARY,
    Eps,
    FreezeDepth,
    Images,
    answers_in,
    as_report,
    best_format,
    kept,
    measured_of,
    per_image_of,
    radius_of,
    unconditional,
)
from app.api.dependencies import ServicesOf
from app.api.fast_json import FastJson
from app.api.ui.leaderboard_page import leaderboard_page
from app.domain.architectures import ARCHITECTURES, ArchitectureName, Variant
from app.domain.attacks import Norm
from app.domain.datasets import headline_eps
from app.domain.epsilon import format_epsilon, parse_epsilon
from app.domain.leaderboard import (
    Measured,
    Metric,
    SortKey,
    choose_protocol,
    coverage,
    leaderboard,
    matrix,
    protocol_of,
)
from app.domain.recipes import MeasuredRecipe
from app.domain.spec import Precision
from app.domain.suites import MeasuredSuite
from app.reports.board_plot import board_picture
from app.reports.matrix_plot import matrix_picture
from app.reports.tables import clean_cells, clean_images, leaderboard_table, matrix_table, measured_under

router = APIRouter(prefix="/leaderboard", tags=["leaderboard"])
AnyFormat = Annotated[
    Literal["json", "csv", "md", "latex", "png", "svg", "html"] | None, Query(description="else by `Accept`")
]


@router.get("", summary="Ranked rows", responses=answers_in("text/html"))
def show(
    request: Request,
    services: ServicesOf,
    dataset: str,
    architecture: ArchitectureName | None = None,
    variant: Variant | None = None,
    recipe: MeasuredRecipe | None = None,
    precision: Precision | None = None,
    freeze_depth: FreezeDepth = None,
    norm: Norm = "linf",
    eps: Eps = None,
    suite: MeasuredSuite | None = None,
    images: Images = None,
    sort: SortKey = "robust_accuracy",
    format: AnyFormat = None,
) -> Response:
    """Rows of one protocol: by default the headline radius under the strongest suite that is complete."""
    wanted = format or best_format(request)
    form = "json" if wanted == "html" else wanted

    def make() -> Response:
        measured = measured_of(services, dataset, norm, suite=suite, images=images)
        shown = _shown(measured, dataset, norm, eps)
        chosen = _with(
            measured, architecture=architecture, variant=variant, recipe=recipe, precision=precision,
            freeze_depth=freeze_depth,
        )
        protocol = choose_protocol(shown)
        rows = leaderboard(chosen, protocol, sort, per_image_of(services), services.rows)
        told = _protocol(shown, protocol, dataset, norm, eps)
        return _as(form, {"dataset": dataset, "rows": rows, "protocol": told})

    if wanted != "html":
        return kept(services, request, dataset, form, make)
    answer = kept(services, unconditional(request), dataset, form, make)
    return leaderboard_page(request, services, dataset, answer)


def _as(wanted: str, board: dict[str, Any]) -> Response:
    report = as_report(
        wanted, lambda: leaderboard_table(board["rows"], board["dataset"], _note(board, board["rows"])),
        lambda form: board_picture(board, form),
    )
    return report or FastJson(board, headers=VARY)


def _note(answer: dict[str, Any], of: Sequence[Mapping[str, Any]]) -> str:
    """What stands below a table; `of`: what has the clean accuracies in it."""
    said = [measured_under(answer["protocol"]), clean_images(of, answer["protocol"])]
    return f"{answer['dataset']}: {'; '.join(filter(None, said))}; mean ± standard deviation over seeds"


@router.get("/matrix", summary="The study's layout: variants x architectures", responses=answers_in())
def show_matrix(
    request: Request,
    services: ServicesOf,
    dataset: str,
    metric: Metric = "clean_accuracy",
    recipe: MeasuredRecipe | None = None,
    freeze_depth: FreezeDepth = None,
    norm: Norm = "linf",
    eps: Eps = None,
    suite: MeasuredSuite | None = None,
    format: AnyFormat = None,
) -> Response:
    """Each cell mean, sd, n and `<X, Y>`; null where nothing was measured. Of several rows in one cell, as of several
    freeze depths, the one measured last is shown, of float32 before one of int8, and the `others` are counted: filter
    to tell them apart."""
    measured = measured_of(services, dataset, norm, suite=suite)
    shown = _shown(measured, dataset, norm, eps)
    chosen = _with(measured, recipe=recipe, freeze_depth=freeze_depth)
    protocol = choose_protocol(shown)
    cells = matrix(chosen, protocol, metric, list(ARCHITECTURES), per_image_of(services), services.rows)
    table = {"dataset": dataset, **cells, "protocol": _protocol(shown, protocol, dataset, norm, eps)}
    wanted = format or best_format(request)
    note = f"{metric.replace('_', ' ')}, per cent; {_note(table, clean_cells(table))}"
    report = as_report(wanted, lambda: matrix_table(table, note), lambda form: matrix_picture(table, form))
    return report or FastJson(table, headers=VARY)  # for a browser's page too


def _with(measured: Sequence[Measured], **equal: Any) -> Sequence[Measured]:
    """Those with the values that are given; all of them, the very same, where none is."""
    given = {name: value for name, value in equal.items() if value is not None}
    if not given:
        return measured
    return [m for m in measured if all(getattr(m, name) == value for name, value in given.items())]


def _shown(measured: Sequence[Measured], dataset: str, norm: Norm, eps: str | None) -> Sequence[Measured]:
    """At the radius asked for; else at the headline radius, else at the largest one measured."""
    radii = {m.protocol["eps"] for m in measured}
    radius = float(radius_of(eps) if eps is not None else parse_epsilon(headline_eps(dataset)[norm]))
    if eps is None and radius not in radii:
        radius = max(radii, default=radius)
    return tuple(m for m in measured if m.protocol["eps"] == radius)


def _protocol(
    shown: Sequence[Measured], chosen: str | None, dataset: str, norm: Norm, eps: str | None
) -> dict[str, Any]:
    """What the rows were measured under, `chosen` from what may be shown. `others` counts figures of other protocols at
    this radius, left out; `missing_rows` rows that only those have, with all their seeds."""
    if of_it := [m for m in shown if m.protocol_id == chosen]:
        covered = coverage(shown, protocol_of)[of_it[0].protocol_id]
        counts = {"others": len(shown) - len(of_it), "missing_rows": covered.of - covered.rows}
        return {name: value for name, value in of_it[0].protocol.items() if name != "gradient"} | counts  # a row's own
    radius = radius_of(eps) if eps is not None else parse_epsilon(headline_eps(dataset)[norm])
    return {"norm": norm, "eps": float(radius), "eps_text": format_epsilon(radius), "suite": None, "others": 0,
            "missing_rows": 0}
