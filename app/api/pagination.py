"""Lists answer `{"items": [...], "next": cursor or null}`."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel

Limit = Annotated[int, Query(ge=1, le=500, description="items a page")]
Cursor = Annotated[str | None, Query(max_length=100, description="`next` of the page before")]



def id_cursor(kind: str) -> Any:
    """The cursor of a list in the order of ids, which begin with their kind."""
    return Query(max_length=100, pattern=rf"^{kind}_[0-9a-z]+$", description="`next` of the page before")


class Page(BaseModel):
    """One page; `next` is null on the last."""

    items: list[dict[str, Any]]
    next: str | None
