"""`/experiments/{id}/events`: what happens, as it happens."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.api.dependencies import ServicesOf
from app.domain.errors import InvalidInput, Problem

EVENTS = "text/event-stream"
router = APIRouter(prefix="/experiments", tags=["experiments"])
_UNTOUCHED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies pass on each event at once
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=40)]


@router.get("/{experiment_id}/events", summary="Server-sent events until the experiment has ended",
            response_class=StreamingResponse,
            responses={200: {"content": {EVENTS: {}}, "description": "events, as they happen"},
                       204: {"description": "the experiment has ended, and nothing happened since Last-Event-ID"}})
async def events(experiment_id: str, services: ServicesOf, last_event_id: LastEventId = None) -> Response:
    """`state` and `metrics` of runs are numbered: with `Last-Event-ID` all that came later are sent, each once, else
    how things stand. `progress` of runs, lines of their `log`, and state, progress and time left of the `experiment`
    come as they are. `end` is the last one."""
    loop = asyncio.get_running_loop()
    last_id = _number(last_event_id)
    watching = await run_in_threadpool(services.hub.watch, experiment_id, last_id, loop)
    if watching.ended and last_id is not None and not watching.missed:
        return Response(status_code=204)  # a browser then stops asking
    return StreamingResponse(watching.chunks(), headers=_UNTOUCHED, media_type=EVENTS)


def _number(last_event_id: str | None) -> int | None:
    if not last_event_id:
        return None
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19):
        detail = f"in the header: {last_event_id!r} is not the id of an event; leave it out, to begin with what is"
        raise InvalidInput([Problem("/Last-Event-ID", detail)])
    return int(last_event_id)
