"""Whether anybody works: without a worker what is queued waits for ever, and a page says so."""

from app.api.dependencies import Services
from app.storage import workers


def worker_lives(services: Services) -> bool:
    """Whether some worker gave a sign of life lately."""
    with services.database.reading() as session:
        return workers.alive(session, services.settings.lease_seconds) > 0
