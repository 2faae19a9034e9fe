"""`/ui/playground`: attack an image by hand."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from app.api.catalogues import list_attacks
from app.api.dependencies import ServicesOf
from app.api.security import ActorOf
from app.api.ui.choices import checkpoints_to_choose, datasets_of
from app.api.ui.html import page
from app.api.ui.workers import worker_lives
from app.dashboard.playground import playground_page

router = APIRouter(prefix="/ui/playground", include_in_schema=False)
Given = Annotated[str | None, Query(max_length=100)]


@router.get("")
def show(
    services: ServicesOf, actor: ActorOf, checkpoint: Given = None, eps: Given = None, attack: Given = None,
    test_image: Annotated[int | None, Query(ge=0, le=10**9)] = None,
) -> HTMLResponse:
    """The form; the address may fill it in."""
    found = checkpoints_to_choose(services, checkpoint)
    chosen = {"checkpoint": checkpoint, "eps": eps, "attack": attack or "pgd", "test_image": test_image}
    known, worker = datasets_of(services, found), worker_lives(services)
    return page(playground_page(found, known, list_attacks()["items"], chosen, actor.role, worker=worker))
