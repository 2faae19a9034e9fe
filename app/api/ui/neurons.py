"""`/ui/neurons`: membrane potentials and spikes over the time steps."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from app.api.dependencies import ServicesOf
from app.api.ui.choices import checkpoints_to_choose, datasets_of
from app.api.ui.html import page
from app.dashboard.neurons import neurons_page
from app.domain.architectures import SPIKING
from app.domain.errors import Conflict

router = APIRouter(prefix="/ui/neurons", include_in_schema=False)


@router.get("")
def show(
    services: ServicesOf, checkpoint: Annotated[str | None, Query(max_length=100)] = None,
    test_image: Annotated[int, Query(ge=0, le=10**9)] = 0, seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    count: Annotated[int, Query(ge=1, le=64)] = 10,
) -> HTMLResponse:
    """The form, as the address fills it in; a checkpoint without spiking neurons is left out. Raises Conflict where it
    was named."""
    known = checkpoints_to_choose(services, checkpoint)
    found = [one for one in known if one["variant"] in SPIKING]
    if checkpoint and checkpoint not in {one["id"] for one in found}:
        raise Conflict(f"checkpoint {checkpoint} is of the default variant: it has no spiking neurons to look at")
    chosen = {"checkpoint": checkpoint, "test_image": test_image, "seed": seed, "count": count}
    return page(neurons_page(found, datasets_of(services, found), chosen))
