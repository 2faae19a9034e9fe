"""`/`: where a browser lands."""

import time

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.api import views
from app.api.catalogues import list_datasets
from app.api.dependencies import ServicesOf
from app.api.security import ActorOf
from app.api.ui.html import page
from app.api.ui.leaderboard import board_of
from app.dashboard.home import home_page
from app.domain.access import covers
from app.storage import experiments, results, trail

router = APIRouter(include_in_schema=False)
EXPERIMENTS, BOARDS = 8, 6


@router.get("/")
def home(request: Request, services: ServicesOf, actor: ActorOf) -> HTMLResponse:
    """Data sets with the best of their leaderboards, the latest experiments."""
    with services.database.reading() as session:
        rows, _ = experiments.page(session, after=None, limit=EXPERIMENTS)
        ids = [row.id for row in rows]
        wanted, by = experiments.runs_of_many(session, ids, in_full=False), trail.submitters(session, ids)
        shown = [views.summary(row, wanted[row.id], time.time(), by.get(row.id)) for row in rows]
        measured = results.measured_datasets(session)[:BOARDS]
    boards = [board_of(request, services, dataset) for dataset in measured]
    datasets, may_submit = list_datasets(services)["items"], covers(actor.role, "submitter")
    return page(home_page(datasets, boards, shown, may_submit=may_submit, url=str(request.base_url)))
