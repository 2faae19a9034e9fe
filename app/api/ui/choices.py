"""What pages let one choose: checkpoints, with the data sets that they are of."""

from typing import Any

from app.api import views
from app.api.catalogues import show_dataset
from app.api.dependencies import Services
from app.domain.errors import Conflict, NotFound
from app.storage import results

MOST = 200  # the newest; another one can still be named in the address


def checkpoints_to_choose(services: Services, named: str | None) -> list[dict[str, Any]]:
    """The newest ones in full, and the one that is named. Raises NotFound where that is none."""
    with services.database.reading() as session:
        rows, _ = results.checkpoints(session, after=None, limit=MOST)
        if named and named not in {row.id for row in rows}:
            rows = [results.checkpoint(session, named), *rows]
        return [views.checkpoint_in_full(row, None) for row in rows]


def datasets_of(services: Services, checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """Name -> size, radii of the data sets that are known here."""
    found: dict[str, Any] = {}
    for name in {one["dataset"] for one in checkpoints}:
        try:
            dataset = show_dataset(name, services)
        except (NotFound, Conflict):  # its images are gone; one's own can still be sent
            continue
        found[name] = {key: dataset[key] for key in ("test_size", "eps", "headline_eps", "image_shape", "present")}
    return found
