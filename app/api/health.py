"""`/healthz`: this process answers. `/readyz`: what it needs answers too."""

from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.api.dependencies import Services, ServicesOf
from app.storage import workers

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Alive")
def healthz() -> dict[str, str]:
    """Answers as long as the process does."""
    return {"status": "ok"}


@router.get("/readyz", summary="Ready", responses={503: {"description": "names what is down"}})
def readyz(services: ServicesOf, response: Response) -> dict[str, Any]:
    """The database and a live worker can be reached."""
    checks = _checks(services)
    if not all(checks.values()):
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return {"status": "ok" if all(checks.values()) else "not ready", "checks": checks}


def _checks(services: Services) -> dict[str, bool]:
    try:
        with services.database.reading() as session:
            session.execute(select(1))
            return {"database": True, "worker": workers.alive(session, services.settings.lease_seconds) > 0}
    except SQLAlchemyError:
        return {"database": False, "worker": False}
