"""`/`: where a browser lands."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.api.catalogues import list_datasets
from app.api.dependencies import ServicesOf
from app.api.experiments import listed
from app.api.security import ActorOf
from app.api.ui.html import page
from app.api.ui.leaderboard import board_of
from app.api.ui.workers import worker_lives
from app.dashboard.home import home_page
from app.domain.access import covers
from app.storage import results

router = APIRouter(include_in_schema=False)
EXPERIMENTS, BOARDS = 8, 6


@router.get("/ui")
@router.get("/ui/")
def start() -> RedirectResponse:
    """What people type who know the addresses of the other pages."""
    return RedirectResponse("/", status_code=308)


@router.get("/")
def home(request: Request, services: ServicesOf, actor: ActorOf) -> HTMLResponse:
    """Data sets with the best of their leaderboards, the latest experiments."""
    latest = listed(services, limit=EXPERIMENTS, after=None)["items"]
    with services.database.reading() as session:
        measured = results.measured_datasets(session)[:BOARDS]
    boards = [board_of(request, services, dataset) for dataset in measured]
    datasets, may_submit = list_datasets(services)["items"], covers(actor.role, "submitter")
    worker, url = worker_lives(services), str(request.base_url)
    return page(home_page(datasets, boards, latest, may_submit=may_submit, worker=worker, url=url))
