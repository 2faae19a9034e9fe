"""What the pages of the boards have in common: their filters, and an address that says all it shows."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field, model_validator

from app.api.dependencies import Services
from app.domain.architectures import ArchitectureName, Variant
from app.domain.attacks import Norm
from app.storage import results

FIRST_BOARD = "digits"  # comes with the service


class Filters(BaseModel):
    """As the API has them; what a form sends empty is no filter."""

    norm: Norm = "linf"
    recipe: str | None = None
    freeze_depth: Annotated[int | None, Field(ge=0, le=4)] = None
    suite: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        return {name: value for name, value in dict(values).items() if value != ""}


class RowFilters(Filters):
    """Those of the boards that list rows."""

    architecture: ArchitectureName | None = None
    variant: Variant | None = None
    precision: str | None = None
    images: Annotated[int | None, Field(ge=1, le=100_000)] = None


Radius = Annotated[str | None, Field(max_length=50)]


def settled(request: Request, services: Services) -> RedirectResponse | None:
    """Where a request is sent whose query has empty fields, or names no data set: then to the one measured last."""
    asked = request.query_params.multi_items()
    given = [(name, value) for name, value in asked if value]
    if "dataset" not in dict(given):
        given.insert(0, ("dataset", data_sets(services)[0]))
    return None if given == asked else RedirectResponse(f"{request.scope['path']}?{urlencode(given, safe='/')}", 303)


def data_sets(services: Services, shown: str | None = None) -> list[str]:
    """Data sets that have boards, measured last first, and the one that is shown; never none."""
    with services.database.reading() as session:
        measured = results.measured_datasets(session)
    return list(dict.fromkeys([*measured, *([shown] if shown else [])])) or [FIRST_BOARD]
