"""The API's process: `python -m app.api.server FD PARENT_PID`, listening on a socket that the launcher opened.

The socket outlives a crash of this process: clients wait for the next one instead of being refused.
"""

import asyncio
import gc
import signal
import socket
import sys
import threading
import time

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.application import create_application
from app.logs import configure
from app.processes import end_with_parent
from app.settings import settings

SHUTDOWN_SECONDS = 3
COLLECT_SECONDS = 60.0
NEVER = 2**30
LARGEST_HEAD = 64 * 1024  # bytes of a request's head that has no end yet; `app.api.limits` refuses less, once it has


class HeadLimit(HttpToolsProtocol):
    """Ends a connection whose head goes on and on: the parser would keep all of it."""

    _bytes, _complete = 0, False

    def data_received(self, data: bytes) -> None:
        """As uvicorn does."""
        super().data_received(data)
        self._bytes += 0 if self._complete else len(data)
        if self._bytes > LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """The next head begins."""
        self._bytes, self._complete = 0, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """This one is here."""
        self._bytes, self._complete = 0, True
        super().on_headers_complete()


class Server(uvicorn.Server):
    """Open event streams and predictions end when it stops, instead of being waited for."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does."""
        await asyncio.to_thread(self.config.app.state.services.close_waiting)  # type: ignore[union-attr]
        await super().shutdown(sockets)


def _collect_seldom() -> None:
    """A look at everything for what only refers to itself takes up to tenths of a second, in which nothing is answered:
    once a minute, instead of whenever a list was long, and never again through modules and routes."""
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, NEVER)

    def collect() -> None:
        while True:
            time.sleep(COLLECT_SECONDS)
            gc.collect()

    threading.Thread(target=collect, name="collector", daemon=True).start()


def main() -> None:
    """Serves until SIGTERM, or until the launcher has died."""
    end_with_parent(int(sys.argv[2]), signal.SIGTERM)
    configure(json=settings().log_json)
    listening = socket.socket(fileno=int(sys.argv[1]))
    plain = uvicorn.config.LOGGING_CONFIG
    application = create_application()
    _collect_seldom()
    config = uvicorn.Config(
        application, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS, lifespan="on",
        log_config=None if settings().log_json else plain, http=HeadLimit,
    )
    Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
