"""What holds for every answer, whoever gives it."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import errors

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",  # no page of another site shows it
    "Cache-Control": "private",  # it was for whoever had the key
}


class EveryAnswer:
    """ASGI middleware: headers that no answer goes without, and a problem document where a body was too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        replaced = False

        async def finish(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if message["status"] == 413 and headers.get("content-type") != errors.MEDIA_TYPE:
                    await errors.too_large(Request(scope))(scope, receive, finish)
                    replaced = True
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            if not replaced:
                await send(message)

        await self._app(scope, receive, finish)

