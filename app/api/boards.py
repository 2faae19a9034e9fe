"""What the leaderboard, the curves and the comparison of rows have in common."""

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Annotated, Any

from fastapi import Query, Request, Response

from app.api.dependencies import Services
from app.domain.attacks import Norm
from app.domain.epsilon import parse_epsilon
from app.domain.errors import InvalidInput, NotFound, Problem
from app.domain.leaderboard import Measured, PerImage
from app.reports.markup import MEDIA_TYPES, Format, render
from app.reports.plots import PICTURE_TYPES, Picture
from app.reports.tables import Table
from app.storage import datasets, results

VARY = {"Vary": "Accept"}
Answers = dict[int | str, dict[str, Any]]  # of the OpenAPI document: status -> what there is
Eps = Annotated[str | None, Query(max_length=50, description="a number or a fraction such as 8/255")]
FreezeDepth = Annotated[int | None, Query(ge=0, le=4, description="residual groups frozen with the stem")]
Images = Annotated[int | None, Query(ge=1, le=100_000)]


def measured_of(services: Services, dataset: str, norm: Norm | None, **filters: Any) -> Sequence[Measured]:
    """What is stored, whether or not the images are still here; of any norm for None. Raises NotFound where there never
    were any."""
    known = datasets.names(services.settings.data_dir)
    with services.database.reading() as session:
        if dataset not in known and not results.any_measured(session, dataset):
            raise NotFound.of("data set", dataset, known)
        return services.figures.measured(session, dataset, norm=norm, **filters)


def expect_dataset(services: Services, name: str) -> None:
    """For a filter that found nothing. Raises NotFound where no data set has the name, here or in what is stored."""
    known = datasets.names(services.settings.data_dir)
    with services.database.reading() as session:
        if name not in known and not results.any_stored(session, name):
            raise NotFound.of("data set", name, known)


def kept(services: Services, request: Request, dataset: str, wanted: str, make: Callable[[], Response]) -> Response:
    """The answer to this very request in the format that is wanted, made of the data set's figures alone."""
    figures = partial(figures_of, services, dataset)
    return services.answers.of(request, services.database, figures, lambda _: make(), wanted=wanted)


def figures_of(services: Services, dataset: str) -> tuple[int, float]:
    """Another one whenever something else is published of the data set, or no more."""
    with services.database.glancing() as connection:
        return results.figures_version(connection, dataset)


def unconditional(request: Request, **scope: Any) -> Request:
    """The same request for a page made of the answer: what the browser has already is the page."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"if-none-match"]
    return Request({**request.scope, "headers": headers, **scope})


def per_image_of(services: Services) -> PerImage:
    """Reads correct shares when a statistic asks for them."""
    def read(run_ids: Sequence[str], eps: str) -> Mapping[str, Any]:
        with services.database.reading() as session:
            return results.correct_shares(session, run_ids, eps)

    return read


def answers_in(*media_types: str) -> Answers:
    """For the OpenAPI document: JSON, as a table, as a picture, and as the other media types."""
    return {200: {"content": {kind: {} for kind in (*MEDIA_TYPES.values(), *PICTURE_TYPES.values(), *media_types)}}}


def radius_of(eps: str) -> Fraction:
    """The radius that a query names. Raises InvalidInput."""
    try:
        return parse_epsilon(eps)
    except ValueError as error:
        raise InvalidInput([Problem("/eps", f"in the query: {error}")]) from error


def best_format(request: Request) -> str:
    """The format that the `Accept` header likes best; a browser's page is "html"."""
    known = {"application/json": "json", "text/html": "html"}
    known |= {kind: name for types in (MEDIA_TYPES, PICTURE_TYPES) for name, kind in types.items()}
    offers = [_offer(part) for part in request.headers.get("accept", "").split(",")]
    wanted = sorted((o for o in offers if o[1] in known and o[0] > 0), key=lambda o: -o[0])  # stable: first of equals
    return known[wanted[0][1]] if wanted else "json"


def _offer(part: str) -> tuple[float, str]:
    """`"text/csv;q=0.5"` -> (0.5, "text/csv")."""
    kind, *parameters = (p.strip().lower() for p in part.split(";"))
    quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    return (float(quality) if re.fullmatch(r"[01](\.\d{0,3})?", quality) else 0.0), kind


def as_report(wanted: str, table: Callable[[], Table], picture: Callable[[Picture], bytes]) -> Response | None:
    """The table in a text form, or the picture; None where another form is wanted."""
    for form, media_type in PICTURE_TYPES.items():
        if form == wanted:
            return Response(picture(form), media_type=media_type, headers=VARY)
    for text_form in MEDIA_TYPES:
        if text_form == wanted:
            return rendered(render(table(), text_form), text_form)
    return None


def rendered(text: str, wanted: Format) -> Response:
    """A table as an answer."""
    return Response(text, media_type=MEDIA_TYPES[wanted], headers=VARY)
