"""`/trail`: who did what."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api import views
from app.api.dependencies import ServicesOf
from app.api.pagination import Limit, Page, id_cursor
from app.storage import trail

router = APIRouter(tags=["trail"])


@router.get("/trail", response_model=Page, summary="Who did what, newest first")
def list_(
    services: ServicesOf,
    actor: Annotated[str | None, Query(max_length=100, description="a key's name, or `local`")] = None,
    subject: Annotated[str | None, Query(max_length=40, description="id of an experiment, run or checkpoint")] = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, id_cursor("trl")] = None,
) -> dict[str, Any]:
    """One page of the trail; needs an admin's key. Entries are written with what they tell of, and stay."""
    with services.database.reading() as session:
        rows, following = trail.page(session, after=cursor, limit=limit, actor=actor, subject=subject)
        return {"items": [views.trail_entry(row) for row in rows], "next": following}
