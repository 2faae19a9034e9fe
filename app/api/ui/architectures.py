"""`/ui/architectures`: the networks, layer by layer."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from app.api.catalogues import LARGEST_SHOWN, list_architectures, show_architecture
from app.api.dependencies import ServicesOf
from app.api.ui.html import page
from app.dashboard.architectures import architecture_page, list_page
from app.domain.architectures import ARCHITECTURES, Variant

router = APIRouter(prefix="/ui/architectures", include_in_schema=False)


@router.get("")
def list_(services: ServicesOf) -> HTMLResponse:
    """All of them, with the weights on offer."""
    return page(list_page(list_architectures(services)["items"]))


@router.get("/{name}")
def show(
    name: str, services: ServicesOf, variant: Variant = "default", stem: Literal["imagenet", "cifar"] | None = None,
    image_size: Annotated[int | None, Query(ge=8, le=LARGEST_SHOWN)] = None,
    classes: Annotated[int, Query(ge=2, le=1000)] = 10, channels: Annotated[int, Query(ge=1, le=3)] = 3,
) -> HTMLResponse:
    """One of them, as the address wants it built."""
    shown = show_architecture(name, services, variant, stem, image_size, classes, channels)
    return page(architecture_page(shown | {"channels": channels}, list(ARCHITECTURES)))
