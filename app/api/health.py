"""`/healthz`: this process answers. `/readyz`: what it needs answers too."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.api import errors
from app.api.dependencies import Services, ServicesOf
from app.storage import workers

router = APIRouter(tags=["health"])
_REMEDIES = {
    "database": "is its server up, and SPIKEPROOF_DATABASE_URL right?",
    "broker": "is Redis up, and SPIKEPROOF_BROKER_URL right? Jobs wait until then, and none is lost",
    "worker": "none gave a sign of life lately; start one with `spikeproof worker`, or look at its log",
}


@router.get("/healthz", summary="Alive")
def healthz() -> dict[str, str]:
    """Answers as long as the process does."""
    return {"status": "ok"}


@router.get("/readyz", summary="Ready", response_model=dict[str, Any],
            responses={503: {"content": {errors.MEDIA_TYPE: {}}, "description": "names what is down"}})
def readyz(request: Request, services: ServicesOf) -> Response:
    """The database, the broker where there is one, and a live worker can be reached."""
    checks = _checks(services)
    if all(checks.values()):
        return JSONResponse({"status": "ok", "checks": checks})
    down = "; ".join(f"{name}: {_REMEDIES[name]}" for name, well in checks.items() if not well)
    return errors.problem(request, 503, f"cannot be reached: {down}", checks=checks)


def _checks(services: Services) -> dict[str, bool]:
    broker = {} if services.doorbell is None else {"broker": services.doorbell.reachable()}
    try:
        with services.database.reading() as session:
            session.execute(select(1))
            alive = workers.alive(session, services.settings.lease_seconds) > 0
            return {"database": True, **broker, "worker": alive}
    except SQLAlchemyError:
        return {"database": False, **broker, "worker": False}
