"""What a request handler may ask for."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from app.api.answers import Answers
from app.api.hub import Hub
from app.broker import Doorbell
from app.domain.leaderboard import KnownRows
from app.inference.batcher import Batcher
from app.inference.loader import ModelCache
from app.settings import Settings
from app.storage.engine import Database
from app.storage.listed_runs import KnownRuns
from app.storage.results import KnownFigures
from app.storage.tallies import KnownTallies
from app.sweeper import Sweeper

if TYPE_CHECKING:
    from app.api.metrics import Metrics

DECODERS = 4  # threads that decode what is to be predicted: the others answer the rest of the API


@dataclass
class Services:
    """One of each a process, made when the application starts."""

    settings: Settings
    database: Database
    sweeper: Sweeper
    hub: Hub
    metrics: "Metrics"
    models: ModelCache
    batcher: Batcher
    doorbell: Doorbell | None = None  # None: workers poll the database
    figures: KnownFigures = field(default_factory=KnownFigures)
    rows: KnownRows = field(default_factory=KnownRows)
    runs: KnownRuns = field(default_factory=KnownRuns)
    tallies: KnownTallies = field(default_factory=KnownTallies)
    answers: Answers = field(default_factory=Answers)
    imports: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))  # a file at a time: they are large
    decoding: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(DECODERS))

    def close_waiting(self) -> None:
        """Whoever waits for events or predictions is let go, for the server waits for them when it stops."""
        self.hub.close()
        self.batcher.close()


async def get_services(request: Request) -> Services:
    """The application's services. Not a plain function: that would be called in a thread, for each request."""
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(get_services)]
