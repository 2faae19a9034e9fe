"""`/`: where a browser lands."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.api import views
from app.api.catalogues import list_datasets
from app.api.dependencies import ServicesOf
from app.dashboard.pages import home_page
from app.storage import experiments

router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse)
def home(services: ServicesOf) -> str:
    """Data sets with their leaderboards, the latest experiments."""
    with services.database.reading() as session:
        rows, _ = experiments.page(session, after=None, limit=20)
        found = services.tallies.of_experiments(session, [row.id for row in rows])
        shown = [views.summary(row, found[row.id], row.submitted_by) for row in rows]
    return home_page(list_datasets(services)["items"], shown)
