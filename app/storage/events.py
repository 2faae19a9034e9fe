"""What happened, for whoever watches: a row a change, written by the transaction that makes the change.

    events.note(session, "state", run_id=run.id, state="running")     # stored just before the commit

Numbers rise in the order of the commits, so whoever has seen number n has missed nothing before it: the rows are
written last, under a lock held to the commit (on Postgres a sequence alone gives its numbers out of order). Last,
so that nobody who holds it waits for a row that another holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, event, func, insert, or_, select, text
from sqlalchemy.orm import Session

from app.storage.engine import now_epoch, to_json
from app.storage.tables import Event

LARGEST = 32 * 1024  # bytes of one event; of metrics beyond it only the names are told
_PENDING = "events to write"
_SWEPT = "swept"
_LOCK = 727_001_736  # of this product, for Postgres


def note(
    session: Session, kind: str, *, run_id: str | None = None, experiment_id: str | None = None, **data: Any
) -> None:
    """Will be stored with the transaction's commit, if it commits."""
    pending = session.info.setdefault(_PENDING, [])
    if not pending:
        event.listen(session, "before_commit", _write, once=True)
    pending.append({"kind": kind, "run_id": run_id, "experiment_id": experiment_id, "data": data})


def note_metrics(session: Session, run_id: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """What is new in a run's metrics; of a list that has grown, what was added."""
    news = {name: _added(old.get(name), value) for name, value in new.items() if old.get(name) != value}
    if news:
        note(session, "metrics", run_id=run_id, **brief_metrics(news))


def brief_metrics(news: Mapping[str, Any]) -> dict[str, Any]:
    """`{"new": {...}}`; of what is too much for an event `{"names": [...]}`."""
    return {"names": sorted(news)} if len(to_json(news)) > LARGEST else {"new": dict(news)}


def _added(old: Any, new: Any) -> Any:
    grown = isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old
    return new[len(old):] if grown else new


def _write(session: Session) -> None:
    pending = session.info.pop(_PENDING)
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    session.execute(insert(Event), pending)


def newest(session: Session) -> int:
    """The number of the last event; 0 where there was none."""
    return session.scalar(select(func.max(Event.id))) or 0


def is_kept(session: Session, number: int) -> bool:
    """Whether everything after that event is still here, and the event is not one that is yet to come."""
    oldest = session.scalar(select(func.min(Event.id)))
    if oldest is None or number > newest(session):
        return number == 0
    if number >= oldest:
        return True
    return session.scalar(select(Event.id).where(Event.kind == _SWEPT).limit(1)) is None


def after(session: Session, number: int, limit: int) -> list[Event]:
    """The next events, of all runs and experiments."""
    return list(session.scalars(select(Event).where(Event.id > number).order_by(Event.id).limit(limit)))


def after_of(session: Session, number: int, experiment_id: str, run_ids: Sequence[str]) -> list[Event]:
    """Every later event of an experiment and its runs."""
    ours = or_(Event.run_id.in_(run_ids), Event.experiment_id == experiment_id)
    return list(session.scalars(select(Event).where(Event.id > number, ours).order_by(Event.id)))


def any_old(session: Session, keep_seconds: float, keep_rows: int) -> bool:
    """Whether a sweep would find something."""
    oldest = session.execute(select(Event.id, Event.created_at).order_by(Event.id).limit(1)).first()
    if oldest is None:
        return False
    now = session.scalar(select(now_epoch())) or 0.0
    return bool(newest(session) - oldest.id >= keep_rows or oldest.created_at < now - keep_seconds)


def sweep(session: Session, keep_seconds: float, keep_rows: int) -> None:
    """Drops old events and those beyond a number; never the last one. One of nobody's says
    from then on that some are gone."""
    last = newest(session)
    old = or_(Event.created_at < now_epoch() - keep_seconds, Event.id <= last - keep_rows)
    session.execute(delete(Event).where(Event.id < last, old))
    note(session, _SWEPT)
