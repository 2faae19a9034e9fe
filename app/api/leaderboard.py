"""`/leaderboard` and `/leaderboard/matrix`."""

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from app.api.dependencies import Services, ServicesOf
from app.dashboard.pages import leaderboard_page
from app.domain.architectures import ARCHITECTURES, Variant
from app.domain.attacks import Norm
from app.domain.datasets import headline_eps
from app.domain.epsilon import format_epsilon, parse_epsilon
from app.domain.errors import InvalidInput, NotFound, Problem
from app.domain.leaderboard import Measured, Metric, SortKey, choose_protocol, leaderboard, matrix
from app.domain.spec import ArchitectureName
from app.reports.tables import MEDIA_TYPES, Format, leaderboard_table, matrix_table, render
from app.storage import datasets, results

VARY = {"Vary": "Accept"}
router = APIRouter(prefix="/leaderboard", tags=["leaderboard"])
Eps = Annotated[str | None, Query(max_length=50, description="a number or a fraction such as 8/255")]
FreezeDepth = Annotated[int | None, Query(ge=0, le=4, description="residual groups frozen with the stem")]
AnyFormat = Annotated[Literal["json", "csv", "md", "latex", "html"] | None, Query(description="else by `Accept`")]


@router.get("", summary="Ranked rows")
def show(
    request: Request,
    services: ServicesOf,
    dataset: str,
    architecture: ArchitectureName | None = None,
    variant: Variant | None = None,
    recipe: str | None = None,
    precision: str | None = None,
    freeze_depth: FreezeDepth = None,
    norm: Norm = "linf",
    eps: Eps = None,
    suite: str | None = None,
    images: Annotated[int | None, Query(ge=1, le=100_000)] = None,
    sort: SortKey = "robust_accuracy",
    format: AnyFormat = None,
) -> Response:
    """Rows of one protocol: by default the headline radius under the strongest suite that has rows."""
    measured = _measured(services, dataset, norm, suite=suite, images=images)
    shown = _shown(measured, dataset, norm, eps)
    kept = [
        m for m in measured
        if architecture in (None, m.architecture) and variant in (None, m.variant)
        and recipe in (None, m.recipe) and precision in (None, m.precision)
        and freeze_depth in (None, m.freeze_depth)
    ]
    rows = leaderboard(kept, choose_protocol(shown), sort)
    board: dict[str, Any] = {"dataset": dataset, "rows": rows, "protocol": _protocol(shown, dataset, norm, eps)}
    wanted = format or _accepted(request)
    if wanted == "html":
        return Response(leaderboard_page(board), media_type="text/html", headers=VARY)
    if wanted == "json":
        return JSONResponse(board, headers=VARY)
    return _rendered(render(leaderboard_table(board["rows"]), wanted), wanted)


@router.get("/matrix", summary="The study's layout: variants x architectures")
def show_matrix(
    request: Request,
    services: ServicesOf,
    dataset: str,
    metric: Metric = "clean_accuracy",
    recipe: str | None = None,
    freeze_depth: FreezeDepth = None,
    norm: Norm = "linf",
    eps: Eps = None,
    suite: str | None = None,
    format: AnyFormat = None,
) -> Response:
    """Each cell mean, sd, n and `<X, Y>`; null where nothing was measured. Of several rows in one cell, as of several
    freeze depths, the one measured last is shown and the `others` are counted: filter to tell them apart."""
    measured = _measured(services, dataset, norm, suite=suite)
    shown = _shown(measured, dataset, norm, eps)
    kept = [m for m in measured if recipe in (None, m.recipe) and freeze_depth in (None, m.freeze_depth)]
    cells = matrix(kept, choose_protocol(shown), metric, list(ARCHITECTURES))
    table = {"dataset": dataset, **cells, "protocol": _protocol(shown, dataset, norm, eps)}
    wanted = format or _accepted(request)
    if wanted == "json" or wanted == "html":
        return JSONResponse(table, headers=VARY)
    return _rendered(render(matrix_table(table), wanted), wanted)


def _measured(services: Services, dataset: str, norm: Norm, **filters: Any) -> list[Measured]:
    """What is stored, whether or not the images are still here. Raises NotFound where there never were any."""
    known = datasets.names(services.settings.data_dir)
    with services.database.reading() as session:
        if dataset not in known and not results.any_measured(session, dataset):
            raise NotFound.of("data set", dataset, known)
        return results.measured(session, dataset, norm=norm, **filters)


def _shown(measured: list[Measured], dataset: str, norm: Norm, eps: str | None) -> list[Measured]:
    """At the radius asked for; else at the headline radius, else at the largest one measured."""
    radii = {m.protocol["eps"] for m in measured}
    radius = float(_radius(eps) if eps is not None else parse_epsilon(headline_eps(dataset)[norm]))
    if eps is None and radius not in radii:
        radius = max(radii, default=radius)
    return [m for m in measured if m.protocol["eps"] == radius]


def _radius(eps: str) -> Fraction:
    try:
        return parse_epsilon(eps)
    except ValueError as error:
        raise InvalidInput([Problem("/eps", f"in the query: {error}")]) from error


def _protocol(shown: list[Measured], dataset: str, norm: Norm, eps: str | None) -> dict[str, Any]:
    """What the rows were measured under; `others` counts figures of other protocols at this radius, left out."""
    chosen = choose_protocol(shown)
    of_it = [m for m in shown if m.protocol_id == chosen]
    if of_it:
        return dict(of_it[0].protocol) | {"others": len(shown) - len(of_it)}
    radius = _radius(eps) if eps is not None else parse_epsilon(headline_eps(dataset)[norm])
    return {"norm": norm, "eps": float(radius), "eps_text": format_epsilon(radius), "suite": None, "others": 0}


def _accepted(request: Request) -> Literal["json", "csv", "md", "latex", "html"]:
    """The format that the `Accept` header likes best."""
    known = {"application/json": "json", "text/html": "html", **{kind: name for name, kind in MEDIA_TYPES.items()}}
    offers = [_offer(part) for part in request.headers.get("accept", "").split(",")]
    wanted = sorted((o for o in offers if o[1] in known and o[0] > 0), key=lambda o: -o[0])  # stable: first of equals
    return known[wanted[0][1]] if wanted else "json"  # type: ignore[return-value]  # all keys of AnyFormat


def _offer(part: str) -> tuple[float, str]:
    """`"text/csv;q=0.5"` -> (0.5, "text/csv")."""
    kind, *parameters = (p.strip().lower() for p in part.split(";"))
    quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    return (float(quality) if re.fullmatch(r"[01](\.\d{0,3})?", quality) else 0.0), kind


def _rendered(text: str, wanted: Format) -> Response:
    return Response(text, media_type=MEDIA_TYPES[wanted], headers=VARY)
