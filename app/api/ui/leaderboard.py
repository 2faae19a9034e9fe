"""`/ui/leaderboard`: who withstands what."""

import json
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from app.api import leaderboard
from app.api.boards import unconditional
from app.api.dependencies import Services, ServicesOf
from app.api.ui.boards import Radius, RowFilters, settled
from app.domain.leaderboard import SortKey

router = APIRouter(prefix="/ui", include_in_schema=False)


class BoardFilters(RowFilters):
    """Every filter of the API's leaderboard."""

    dataset: str = ""
    eps: Radius = None
    sort: SortKey = "robust_accuracy"


@router.get("/leaderboard")
def show(request: Request, services: ServicesOf, filters: Annotated[BoardFilters, Query()]) -> Response:
    """The API's answer as a page."""
    return settled(request, services) or leaderboard.show(request, services, **filters.model_dump(), format="html")


def board_of(request: Request, services: Services, dataset: str, **filters: Any) -> dict[str, Any]:
    """The API's answer for other pages, which it keeps under its own address."""
    asked = {name: value for name, value in filters.items() if value is not None}
    query = urlencode({"dataset": dataset, **asked}, safe="/").encode()
    own = unconditional(request, path="/leaderboard", raw_path=b"/leaderboard", query_string=query)
    answer = leaderboard.show(own, services, dataset, **asked, format="json")
    board: dict[str, Any] = json.loads(bytes(answer.body))
    return board
