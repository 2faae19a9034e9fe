"""A typed client of the API; `docs/how-to/client.md` has more.

    from app.client import Client

    with Client() as client:                                # SPIKEPROOF_URL, SPIKEPROOF_API_KEY
        experiment = client.submit({"dataset": "digits"})
        client.wait(experiment["id"], show_progress)
        client.leaderboard("digits")["rows"]

It loads neither torch nor anything of the server.
"""

from app.client.client import FINAL, Client
from app.client.errors import (
    Conflict,
    Damaged,
    Forbidden,
    InvalidInput,
    MissingExtra,
    NotFound,
    ServiceError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from app.client.events import Event
from app.client.progress import show_progress

__all__ = [
    "FINAL", "Client", "Conflict", "Damaged", "Event", "Forbidden", "InvalidInput", "MissingExtra", "NotFound",
    "ServiceError", "TooManyRequests", "Unauthorized", "Unavailable", "Unreachable", "show_progress",
]  # fmt: skip
