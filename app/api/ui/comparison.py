"""`/ui/compare`: two rows against each other, or the choice of two."""

import json
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from app.api import comparison
from app.api.choices import choices_of
from app.api.curves import chance_of
from app.api.dependencies import ServicesOf
from app.api.ui.boards import Radius, RowFilters, data_sets, settled
from app.api.ui.html import page
from app.api.ui.leaderboard import board_of
from app.dashboard.comparison import choosing_page, comparison_page

router = APIRouter(prefix="/ui", include_in_schema=False)
RowId = Annotated[str | None, Field(max_length=100)]


class Pair(RowFilters):
    """Two rows as `a` and `b`, or as the leaderboard's form sends them; else filters of the rows to choose from."""

    dataset: str = ""
    eps: Radius = None
    a: RowId = None
    b: RowId = None
    rows: Annotated[list[str] | None, Field(max_length=1000)] = None


@router.get("/compare")
def show(request: Request, services: ServicesOf, pair: Annotated[Pair, Query()]) -> Response:
    """The API's answer as a page."""
    if pair.a and pair.b:
        found = comparison.compared(services, pair.a, pair.b)
        return page(comparison_page(found, chance_of(services, found["dataset"])))
    ticked = [row for row in (pair.a, pair.b, *(pair.rows or ())) if row]
    if len(ticked) == 2:
        return RedirectResponse(f"{request.scope['path']}?{urlencode({'a': ticked[0], 'b': ticked[1]})}", 303)
    if (elsewhere := settled(request, services)) is not None:
        return elsewhere
    board = board_of(request, services, **pair.model_dump(exclude={"a", "b", "rows"}))
    offered = json.loads(choices_of(services, pair.dataset))
    datasets = data_sets(services, pair.dataset)
    return page(choosing_page(board, offered, datasets, request.query_params.multi_items(), ticked))
