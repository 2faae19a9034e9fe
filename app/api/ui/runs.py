"""`/ui/runs/ID`: one run."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.api import runs as api
from app.api.dependencies import ServicesOf
from app.api.security import ActorOf
from app.api.ui.html import page
from app.api.ui.workers import worker_lives
from app.dashboard.runs import run_page

router = APIRouter(prefix="/ui/runs", include_in_schema=False)


@router.get("/{run_id}")
def show(run_id: str, services: ServicesOf, actor: ActorOf) -> HTMLResponse:
    """State, metrics, log, and what came of it."""
    return page(run_page(api.show(run_id, services), actor, worker=worker_lives(services)))
