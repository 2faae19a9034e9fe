"""`/ui/curves`: accuracy against eps."""

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from app.api import curves
from app.api.choices import choices_of
from app.api.dependencies import ServicesOf
from app.api.ui.boards import RowFilters, data_sets, settled
from app.api.ui.html import page
from app.dashboard.curves import curves_page

router = APIRouter(prefix="/ui", include_in_schema=False)


class CurveFilters(RowFilters):
    """Every filter of the API's curves."""

    dataset: str = ""
    attack: Annotated[str | None, Field(max_length=100)] = None
    rows: Annotated[list[str] | None, Field(max_length=1000)] = None


@router.get("/curves")
def show(request: Request, services: ServicesOf, filters: Annotated[CurveFilters, Query()]) -> Response:
    """The API's answer as a page."""
    if (elsewhere := settled(request, services)) is not None:
        return elsewhere
    answer = curves.show(request, services, **filters.model_dump(), format="json")
    offered = json.loads(choices_of(services, filters.dataset))
    datasets = data_sets(services, filters.dataset)
    return page(curves_page(json.loads(bytes(answer.body)), offered, datasets, request.query_params.multi_items()))
