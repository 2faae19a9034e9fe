"""`/leaderboard/choices`: which filters of the boards would find something."""

from functools import partial

from fastapi import APIRouter, Response

from app.api.boards import figures_of, measured_of
from app.api.dependencies import Services, ServicesOf
from app.api.fast_json import FastJson
from app.domain.choices import choices

router = APIRouter(prefix="/leaderboard", tags=["leaderboard"])


@router.get("/choices", summary="The filters' values that some row of the data set has")
def show(services: ServicesOf, dataset: str) -> Response:
    """Architectures, variants, recipes, precisions, freeze depths, norms, eps, suites, numbers of images, and the
    attacks of each suite."""
    return Response(choices_of(services, dataset), media_type="application/json")


def choices_of(services: Services, dataset: str) -> bytes:
    """The same as JSON, for pages. Raises NotFound."""
    def make(_: object) -> Response:
        return FastJson({"dataset": dataset, **choices(measured_of(services, dataset, None))})

    latest = services.database.commits.latest
    figures = partial(figures_of, services, dataset)
    return services.answers.get(("/leaderboard/choices", dataset), latest, figures, make).body
