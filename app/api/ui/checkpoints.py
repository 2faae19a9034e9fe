"""`/ui/checkpoints`: the list, and a page for each."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import BeforeValidator

from app.api import checkpoints, evaluations, runs
from app.api.dependencies import ServicesOf
from app.api.pagination import Cursor
from app.api.security import ActorOf
from app.api.ui.html import page
from app.dashboard.checkpoints import checkpoint_page, list_page
from app.domain.architectures import ArchitectureName, Variant
from app.storage import datasets

router = APIRouter(prefix="/ui/checkpoints", include_in_schema=False)
PAGE = 50
EXAMPLES = 12
_OPEN = BeforeValidator(lambda value: value or None)  # what a form left open is empty
OpenArchitecture = Annotated[ArchitectureName | None, _OPEN]
OpenVariant = Annotated[Variant | None, _OPEN]
Filter = Annotated[str | None, Query(max_length=100)]


@router.get("")
def list_(
    services: ServicesOf, dataset: Filter = None, architecture: OpenArchitecture = None, variant: OpenVariant = None,
    cursor: Cursor = None,
) -> HTMLResponse:
    """Newest first, filtered by what the address says; an empty filter is none."""
    found = checkpoints.list_(
        services, dataset=dataset or None, architecture=architecture, variant=variant, limit=PAGE, cursor=cursor
    )
    filters = {"dataset": dataset or None, "architecture": architecture, "variant": variant}
    return page(list_page(found, filters, datasets.names(services.settings.data_dir), cursor))


@router.get("/{checkpoint_id}")
def show(
    checkpoint_id: str, services: ServicesOf, actor: ActorOf, run: Filter = None, eps: Filter = None
) -> HTMLResponse:
    """One checkpoint; `run` and `eps` choose whose images are on show (by default the newest's, at its largest eps)."""
    found = checkpoints.show(checkpoint_id, services)
    measured = evaluations.list_(checkpoint_id, services)["items"]
    return page(checkpoint_page(found, measured, _examples(services, measured, run, eps), actor.role))


def _examples(
    services: ServicesOf, measured: list[dict[str, Any]], run: str | None, eps: str | None
) -> dict[str, Any] | None:
    chosen = next((one for one in measured if one["run"] == run), measured[0] if measured else None)
    if chosen is None or not chosen["figures"]:
        return None
    radii = [figure["eps_text"] for figure in chosen["figures"]]
    radius = eps if eps in radii else radii[-1]
    verdicts = runs.verdicts(chosen["run"], services, eps=radius, limit=EXAMPLES)["items"]
    return {"run": chosen["run"], "eps": radius, "radii": radii, "verdicts": verdicts}
