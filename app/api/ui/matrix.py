"""`/ui/matrix`: the study's layout."""

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api import leaderboard
from app.api.choices import choices_of
from app.api.dependencies import ServicesOf
from app.api.ui.boards import Filters, Radius, data_sets, settled
from app.api.ui.html import page
from app.dashboard.matrix import matrix_page
from app.domain.leaderboard import Metric

router = APIRouter(prefix="/ui", include_in_schema=False)


class MatrixFilters(Filters):
    """Every filter of the API's matrix."""

    dataset: str = ""
    eps: Radius = None
    metric: Metric = "clean_accuracy"


@router.get("/matrix")
def show(request: Request, services: ServicesOf, filters: Annotated[MatrixFilters, Query()]) -> Response:
    """The API's answer as a page."""
    if (elsewhere := settled(request, services)) is not None:
        return elsewhere
    answer = leaderboard.show_matrix(request, services, **filters.model_dump(), format="json")
    offered = json.loads(choices_of(services, filters.dataset))
    datasets = data_sets(services, filters.dataset)
    return page(matrix_page(json.loads(bytes(answer.body)), offered, datasets, request.query_params.multi_items()))
