"""Which worker processes live."""

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.storage.engine import now_epoch
from app.storage.tables import Worker


def beat(session: Session, worker_id: str, *, device: str, run_id: str | None) -> None:
    """A sign of life."""
    seen = update(Worker).where(Worker.id == worker_id).values(seen_at=now_epoch(), run_id=run_id)
    if session.execute(seen).rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE's result has it
        session.add(Worker(id=worker_id, device=device, run_id=run_id))
        session.flush()


def leave(session: Session, worker_prefix: str) -> None:
    """The worker ends, or is known to have ended."""
    session.execute(delete(Worker).where(Worker.id.startswith(worker_prefix, autoescape=True)))


def alive(session: Session, within_seconds: float) -> int:
    """How many workers gave a sign of life lately."""
    recent = select(func.count()).select_from(Worker).where(Worker.seen_at > now_epoch() - within_seconds)
    return session.scalar(recent) or 0


def any_silent(session: Session, seconds: float) -> bool:
    """Whether some worker has been silent this long."""
    return session.scalar(select(Worker.id).where(Worker.seen_at < now_epoch() - seconds).limit(1)) is not None


def forget(session: Session, silent_seconds: float) -> None:
    """Drops workers that have been silent for long."""
    session.execute(delete(Worker).where(Worker.seen_at < now_epoch() - silent_seconds))
