"""The real application behind a real server, in this process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from app.settings import Settings

START_SECONDS = 20.0


def make_settings(**given: Any) -> Settings:
    """Settings whatever the environment and `.env` say."""
    defaults = {name: field.get_default() for name, field in Settings.model_fields.items()}
    return Settings(_env_file=None, **{**defaults, **given})


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """The application served by uvicorn on a free port, in a thread."""
    from app.api.application import create_application  # only once a test needs a service
    from app.api.server import HeadLimit
    from app.logs import configure

    configure()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = uvicorn.Server(
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
            time.sleep(0.005)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listening.close()
