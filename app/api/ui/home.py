"""`/`: where a browser lands."""

import time

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.api import views
from app.api.catalogues import list_datasets
from app.api.dependencies import ServicesOf
from app.api.ui.html import page
from app.dashboard.rendering import home_page
from app.storage import experiments, trail

router = APIRouter(include_in_schema=False)


@router.get("/")
def home(services: ServicesOf) -> HTMLResponse:
    """Data sets with their leaderboards, the latest experiments."""
    with services.database.reading() as session:
        rows, _ = experiments.page(session, after=None, limit=20)
        ids = [row.id for row in rows]
        wanted, by = experiments.runs_of_many(session, ids, in_full=False), trail.submitters(session, ids)
        shown = [views.summary(row, wanted[row.id], time.time(), by.get(row.id)) for row in rows]
    return page(home_page(list_datasets(services)["items"], shown))
