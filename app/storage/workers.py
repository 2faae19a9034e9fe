"""Which worker processes live."""

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.storage.engine import now_epoch
from app.storage.tables import Worker


def beat(session: Session, worker_id: str, *, device: str, gpu_memory: tuple[int, int] | None = None) -> None:
    """A sign of life, with bytes used and in all of its GPU. A worker's processes may give it at once."""
    used, total = gpu_memory or (None, None)
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    memory = {"gpu_memory_used": used, "gpu_memory_total": total}
    here = insert(Worker).values(id=worker_id, device=device, **memory)
    session.execute(here.on_conflict_do_update(index_elements=[Worker.id], set_={"seen_at": now_epoch(), **memory}))


def works_on(session: Session, worker_id: str, run_id: str | None) -> None:
    """What the worker is busy with; None: nothing."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(run_id=run_id))


def leave(session: Session, worker_prefix: str) -> None:
    """The worker ends, or is known to have ended."""
    session.execute(delete(Worker).where(Worker.id.startswith(worker_prefix, autoescape=True)))


def alive(session: Session, within_seconds: float) -> int:
    """How many workers gave a sign of life lately."""
    recent = select(func.count()).select_from(Worker).where(Worker.seen_at > now_epoch() - within_seconds)
    return session.scalar(recent) or 0


def any_on_gpu(session: Session, within_seconds: float) -> bool:
    """Whether a worker with a GPU gave a sign of life lately."""
    on_gpu = select(Worker.id).where(Worker.seen_at > now_epoch() - within_seconds, Worker.device == "cuda")
    return session.scalar(on_gpu.limit(1)) is not None


def any_silent(session: Session, seconds: float) -> bool:
    """Whether some worker has been silent this long."""
    return session.scalar(select(Worker.id).where(Worker.seen_at < now_epoch() - seconds).limit(1)) is not None


def forget(session: Session, silent_seconds: float) -> None:
    """Drops workers that have been silent for long."""
    session.execute(delete(Worker).where(Worker.seen_at < now_epoch() - silent_seconds))
