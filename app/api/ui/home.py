"""`/`: where a browser lands."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.api.catalogues import list_datasets
from app.api.dependencies import ServicesOf
from app.api.experiments import listed
from app.api.ui.html import page
from app.dashboard.rendering import home_page

router = APIRouter(include_in_schema=False)


@router.get("/")
def home(services: ServicesOf) -> HTMLResponse:
    """Data sets with their leaderboards, the latest experiments."""
    latest = listed(services, limit=20, after=None)["items"]
    return page(home_page(list_datasets(services)["items"], latest))
