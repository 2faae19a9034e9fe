"""The real application behind a real server, in this process."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from app.settings import Settings

START_SECONDS = 60.0  # of a machine that has much other work
LOOK_SECONDS = 0.005


def make_settings(**given: Any) -> Settings:
    """Settings whatever the environment and `.env` say."""
    defaults = {name: field.get_default() for name, field in Settings.model_fields.items()}
    return Settings(_env_file=None, **{**defaults, **given})


class PromptServer(uvicorn.Server):
    """uvicorn's, but it looks every few milliseconds whether it is to stop: it is started a thousand times."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(LOOK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in [*self.servers, *(sockets or [])]:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        while (self.server_state.connections or self.server_state.tasks) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """The application served by uvicorn on a free port, in a thread."""
    from app.api.application import create_application  # only once a test needs a service
    from app.api.server import HeadLimit
    from app.logs import configure

    configure()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = PromptServer(
        uvicorn.Config(
            create_application(settings), log_level="critical", lifespan="on", timeout_graceful_shutdown=2,
            http=HeadLimit,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="service")
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            assert time.monotonic() < deadline, "the service took too long to start"
            time.sleep(LOOK_SECONDS)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listening.close()
