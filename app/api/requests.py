"""Each request has a name, by which its log lines are found: X-Request-ID as it came, if it is sane, else a new one."""

import re
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from app.domain.access import role_needed
from app.logs import get_logger

HEADER = "X-Request-ID"
UNNAMED = "none"  # route of what no route takes: not the path, which anybody may choose
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_STREAMS = "text/event-stream"
logger = get_logger(__name__)
Observe = Callable[[str, str, int, float], None]  # method, route, status, seconds


def request_id(request: Request) -> str:
    """Its name, for the trail and for errors."""
    return str(getattr(request.state, "request_id", "unknown"))


class Requests:
    """Names requests, answers the name back, logs what changes something or fails, and measures latencies."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app, self._observe = app, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = _name(Headers(scope=scope).get(HEADER))
        scope.setdefault("state", {})["request_id"] = name
        answer = _Answer(scope, send, name, self._observe)
        with bound_contextvars(request_id=name):
            try:
                await self._app(scope, receive, answer.send)
            finally:
                answer.end()


class _Answer:
    """Of one request; 500 where it ends without any."""

    def __init__(self, scope: Scope, send: Send, name: str, observe: Observe) -> None:
        self._scope, self._send, self._name, self._observe = scope, send, name, observe
        self._began, self._status, self._noted = time.perf_counter(), 500, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = int(message["status"])
            headers = MutableHeaders(scope=message)
            headers[HEADER] = self._name
            if headers.get("content-type", "").startswith(_STREAMS):
                self.end()
        await self._send(message)

    def end(self) -> None:
        if self._noted:
            return
        self._noted, seconds = True, time.perf_counter() - self._began
        method = str(self._scope["method"])
        self._observe(method if method in _METHODS else UNNAMED, _route(self._scope), self._status, seconds)
        looked = method in ("GET", "HEAD") or role_needed(method, str(self._scope["path"])) == "reader"
        told = logger.debug if looked and self._status < 400 else logger.info
        path = self._scope.get("raw_path", b"").decode("ascii", "replace")[:500]  # as sent: no line breaks in it
        told("request", method=method, path=path, status=self._status, seconds=round(seconds, 4))


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _name(given: str | None) -> str:
    return given if given is not None and _SANE.fullmatch(given) else uuid4().hex


def _route(scope: Scope) -> str:
    route: Any = scope.get("route")
    return str(getattr(route, "path", UNNAMED))
