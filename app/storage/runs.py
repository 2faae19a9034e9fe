"""The queue: who works on which run. Every change is one compare-and-set on state, owner and attempt.

Nothing here commits: the caller's transaction does, at its edge.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session, aliased

from app.domain.errors import Conflict, LeaseLost, NotFound
from app.domain.lifecycle import RETRIABLE, TERMINAL
from app.storage import events
from app.storage.engine import lock_graph, now_epoch
from app.storage.tables import Experiment, ExperimentRun, Run, RunDependency

WORKER_LOST = "worker lost"
PARENT_CANCELLED = "the run it depends on was cancelled"
LONGEST_ERROR = 10_000


@dataclass(frozen=True)
class Fence:
    """What a worker holds while it works on a run. A later attempt makes it void."""

    run_id: str
    owner: str
    attempt: int


@dataclass(frozen=True)
class Waiting:
    """A run that waits for a worker; `repeated`: the broker has been told before."""

    run_id: str
    kind: str
    repeated: bool


def get(session: Session, run_id: str) -> Run:
    """The run. Raises NotFound."""
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound.of("run", run_id)
    return run


def _ready() -> Select[Run]:
    waits = needs_one(lambda needed: needed.state != "succeeded")
    return select(Run).where(Run.state == "queued", ~waits).order_by(Run.priority.desc(), Run.id)


def needs_one(condition: Callable[[Any], ColumnElement[bool]]) -> ColumnElement[bool]:
    """For a query: whether a run needs one of which the condition holds."""
    needed = aliased(Run)
    links = select(RunDependency.run_id).join(needed, needed.id == RunDependency.needs_id)
    return links.where(RunDependency.run_id == Run.id, condition(needed)).correlate(Run).exists()


def needs(session: Session, run_id: str) -> list[Run]:
    """The runs it waits for: the one whose checkpoint it is about, then siblings in the order of its pool."""
    found = select(Run).join(RunDependency, RunDependency.needs_id == Run.id).where(RunDependency.run_id == run_id)
    return list(session.scalars(found.order_by(RunDependency.position)))


def any_ready(session: Session) -> bool:
    """Whether a claim would find something, without a lock."""
    return session.scalars(_ready().limit(1)).first() is not None


def to_announce(session: Session, every_seconds: float) -> list[Waiting]:
    """Ready runs that the broker was not told of lately, the most urgent first."""
    due = or_(Run.announced_at.is_(None), Run.announced_at < now_epoch() - every_seconds)
    found = session.execute(_ready().where(due).with_only_columns(Run.id, Run.kind, Run.announced_at))
    return [Waiting(run_id, kind, repeated=at is not None) for run_id, kind, at in found]


def count_ready(session: Session) -> int:
    """How many runs wait for nothing but a worker."""
    return session.scalar(select(func.count()).select_from(_ready().subquery())) or 0


def announced(session: Session, run_ids: Sequence[str]) -> None:
    """The broker has been told of these."""
    hold(session, run_ids)
    told = update(Run).where(Run.id.in_(run_ids), Run.state == "queued").values(announced_at=now_epoch())
    session.execute(told, execution_options={"synchronize_session": False})


def announce_again(session: Session, run_id: str) -> None:
    """The message of a run that waits was spent on another."""
    waits = update(Run).where(Run.id == run_id, Run.state == "queued").values(announced_at=None)
    session.execute(waits, execution_options={"synchronize_session": False})


def claim(session: Session, owner: str, lease_seconds: float, *, wait: bool = False) -> Run | None:
    """Takes the most urgent run whose dependencies have succeeded; None where there is none, or another was faster.

    `wait`: also for one that somebody holds just now, and may be only marking.
    """
    wanted = _ready().limit(1).with_for_update(of=Run, skip_locked=not wait)
    run = session.scalars(wanted).first()
    if run is None:
        return None
    taken = update(Run).where(Run.id == run.id, Run.state == "queued", Run.attempt == run.attempt)
    values = {
        "state": "running", "owner": owner, "attempt": run.attempt + 1, "tries": run.tries + 1,
        "lease_expires_at": now_epoch() + lease_seconds, "finished_at": None, "error": None,
        "started_at": func.coalesce(Run.started_at, now_epoch()), "phase": "starting",
        "attempt_started_at": now_epoch(), "progress_at": now_epoch(),
    }
    if not _changed(session, taken.values(**values)):
        return None
    session.refresh(run)
    note_state(session, run.id, "running", attempt=run.attempt)
    return run


def renew(session: Session, fence: Fence, lease_seconds: float) -> bool:
    """Prolongs the lease; returns whether someone asked to cancel. Raises LeaseLost."""
    _change(session, fence, lease_expires_at=now_epoch() + lease_seconds)
    return cancel_requested(session, fence.run_id)


def finished(session: Session, fence: Fence) -> bool:
    """Whether this very attempt has written the run's final state."""
    held = select(Run.state).where(Run.id == fence.run_id, Run.owner == fence.owner, Run.attempt == fence.attempt)
    return session.scalar(held) in TERMINAL


def cancel_requested(session: Session, run_id: str) -> bool:
    """Whether someone asked to cancel the run."""
    asked = session.scalar(select(Run.cancel_requested_at).where(Run.id == run_id))
    return asked is not None


def check_fence(session: Session, fence: Fence) -> None:
    """Raises LeaseLost when another attempt owns the run. In a writing transaction it holds until the commit."""
    _change(session, fence, owner=fence.owner)


def report(session: Session, fence: Fence, **values: Any) -> None:
    """Writes progress (0..1), phase or metrics of a running run. Raises LeaseLost.

    `progress_at` is set where something differs from what was there: a job that says the same again and again
    does not move.
    """
    if "metrics" in values:
        _note_metrics(session, fence, values["metrics"])
        moved: Any = now_epoch()
    else:
        differs = [getattr(Run, name).is_distinct_from(value) for name, value in values.items()]
        moved = case((or_(*differs), now_epoch()), else_=Run.progress_at)
    _change(session, fence, progress_at=moved, **values)


def pulse(session: Session, fence: Fence) -> None:
    """The job works, though it has nothing new to tell. Raises LeaseLost."""
    _change(session, fence, progress_at=now_epoch())


def checkpointed(session: Session, fence: Fence) -> None:
    """There is a new checkpoint to resume from: attempts are counted anew. Raises LeaseLost."""
    _change(session, fence, tries=1, progress_at=now_epoch())


def succeed(session: Session, fence: Fence, metrics: dict[str, Any]) -> None:
    """The last write of an attempt. Raises LeaseLost: then nothing of it may be published."""
    _note_metrics(session, fence, metrics)
    _finish(session, fence, state="succeeded", progress=1.0, phase=None, metrics=metrics, cancel_requested_at=None)


def fail(session: Session, fence: Fence, error: str) -> None:
    """Ends the run and what waits for it. Raises LeaseLost."""
    error = _storable(error)
    _finish(session, fence, state="failed", error=error, phase=None)
    _end_dependents(session, [fence.run_id], "failed", f"the run it depends on failed: {error}")


def stop_or_requeue(session: Session, fence: Fence, reason: str, *, count_try: bool, final: bool = False) -> str:
    """After a job ended without a result: cancelled if someone asked for it, else queued again while tries
    remain and it is not `final`, else failed with `reason`. Returns the new state. Raises LeaseLost."""
    check_fence(session, fence)
    run = session.get_one(Run, fence.run_id, populate_existing=True)
    if run.cancel_requested_at is not None:
        _finish(session, fence, state="cancelled", phase=None)
        _end_dependents(session, [run.id], "cancelled", PARENT_CANCELLED)
        return "cancelled"
    if final:
        fail(session, fence, reason)
        return "failed"
    tries = run.tries if count_try else run.tries - 1
    if tries >= run.max_attempts:
        fail(session, fence, f"{reason} (tried {run.max_attempts} times)")
        return "failed"
    _change(
        session, fence, state="queued", owner=None, lease_expires_at=None, tries=tries, phase=None,
        announced_at=None, error=_storable(reason), worked_seconds=_worked(), attempt_started_at=None,
    )
    note_state(session, run.id, "queued", attempt=fence.attempt, error=_storable(reason))
    return "queued"


def owners(session: Session) -> list[str]:
    """Who holds running runs."""
    held = select(Run.owner).where(Run.state == "running", Run.owner.is_not(None)).distinct()
    return [owner for owner in session.scalars(held) if owner]


def any_lost(session: Session) -> bool:
    """Whether a sweep would find something, without a lock."""
    lost = select(Run.id).where(Run.state == "running", Run.lease_expires_at < now_epoch()).limit(1)
    return session.scalar(lost) is not None


def sweep(session: Session) -> dict[str, int]:
    """Takes back runs whose lease has run out. Returns how many went to which state."""
    return _take_back(session, Run.lease_expires_at < now_epoch())


def take_back_from(session: Session, owner_prefix: str) -> dict[str, int]:
    """Takes back at once what owners of this prefix hold: their process is known to be dead."""
    return _take_back(session, Run.owner.startswith(owner_prefix, autoescape=True))


def _take_back(session: Session, condition: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    lost = select(Run).where(Run.state == "running", condition).with_for_update(skip_locked=True)
    for run in session.scalars(lost).all():
        fence = Fence(run.id, run.owner or "", run.attempt)
        state = stop_or_requeue(session, fence, WORKER_LOST, count_try=True)
        counts[state] = counts.get(state, 0) + 1
    return counts


def request_cancel(session: Session, run_ids: Sequence[str]) -> None:
    """Queued runs end at once; running ones are asked to, and their worker sees to it."""
    if not run_ids:
        return
    hold(session, run_ids)  # else a run that a worker hands back just now would slip through between the two
    queued = update(Run).where(Run.id.in_(run_ids), Run.state == "queued")
    for run_id in _which(session, queued.values(state="cancelled", finished_at=now_epoch(), phase=None)):
        note_state(session, run_id, "cancelled")
    running = update(Run).where(Run.id.in_(run_ids), Run.state == "running", Run.cancel_requested_at.is_(None))
    for run_id in _which(session, running.values(cancel_requested_at=now_epoch())):
        note_state(session, run_id, "running", cancel_requested=True)
    _end_dependents(session, run_ids, "cancelled", PARENT_CANCELLED)


def cancel(session: Session, run_id: str) -> None:
    """Stops one run, and what waits for it. Raises NotFound, Conflict (it has ended, or a live experiment wants it)."""
    lock_graph(session)
    run = get(session, run_id)
    if run.state in TERMINAL:
        raise Conflict(f"run {run.id} has already {run.state}; there is nothing to cancel")
    if wanting := _wanted_by(session, [run.id]):
        raise Conflict(f"run {run.id} is wanted by experiment {wanting[0][1]}; cancel that")
    request_cancel(session, [run.id])
    session.expire(run)


def wanted_by_others(session: Session, run_ids: Iterable[str], experiment_id: str) -> set[str]:
    """Which of the runs another experiment, not cancelled, still wants."""
    return {run_id for run_id, wanting in _wanted_by(session, run_ids) if wanting != experiment_id}


def _wanted_by(session: Session, run_ids: Iterable[str]) -> list[tuple[str, str]]:
    """(run, experiment) for every experiment, not cancelled, that wants one of the runs."""
    wanted = (
        select(ExperimentRun.run_id, ExperimentRun.experiment_id)
        .join(Experiment, Experiment.id == ExperimentRun.experiment_id)
        .where(ExperimentRun.run_id.in_(list(run_ids)), Experiment.cancelled_at.is_(None))
    )
    return [(run_id, wanting) for run_id, wanting in session.execute(wanted)]


def _end_dependents(session: Session, run_ids: Sequence[str], state: str, reason: str) -> None:
    """Whatever waits, directly or not, for a run that has ended without a result."""
    ended = [*run_ids]
    while ended:
        waiting = (
            select(RunDependency.run_id)
            .join(Run, Run.id == RunDependency.run_id)
            .join(needed := aliased(Run), RunDependency.needs_id == needed.id)
            .where(RunDependency.needs_id.in_(ended), Run.state == "queued", needed.state.in_(RETRIABLE))
        )
        ended = sorted(set(session.scalars(waiting)))
        hold(session, ended)  # two runs that one waits for may end at the same time
        end = update(Run).where(Run.id.in_(ended), Run.state == "queued")
        end = end.values(state=state, error=literal(reason), finished_at=now_epoch(), phase=None)
        for run_id in _which(session, end):
            note_state(session, run_id, state, error=reason)


def hold(session: Session, run_ids: Sequence[str]) -> None:
    """Holds the rows until the commit, in one order everywhere (SQLite: the whole database is held)."""
    session.execute(select(Run.id).where(Run.id.in_(run_ids)).order_by(Run.id).with_for_update())


def _storable(error: str) -> str:
    """Postgres takes no NUL in a text; a job's last words may hold one, or be endless."""
    return error.replace("\x00", "\ufffd")[:LONGEST_ERROR]


def _finish(session: Session, fence: Fence, *, state: str, error: str | None = None, **values: Any) -> None:
    if error is not None:
        values["error"] = error
    ended = {"worked_seconds": _worked(), "attempt_started_at": None, "lease_expires_at": None}
    _change(session, fence, state=state, finished_at=now_epoch(), **ended, **values)
    note_state(session, fence.run_id, state, attempt=fence.attempt, error=error)


def _worked() -> ColumnElement[float]:
    """Seconds worked with the attempt that ends now; of a lost worker, as long as its lease was good."""
    end = case((Run.lease_expires_at < now_epoch(), Run.lease_expires_at), else_=now_epoch())
    return Run.worked_seconds + end - func.coalesce(Run.attempt_started_at, end)


def note_state(session: Session, run_id: str, state: str, **more: Any) -> None:
    """For whoever watches: an event with the transaction's commit."""
    told = {name: value for name, value in more.items() if value is not None}
    events.note(session, "state", run_id=run_id, state=state, **told)


def _note_metrics(session: Session, fence: Fence, metrics: dict[str, Any]) -> None:
    known = session.scalar(select(Run.metrics).where(Run.id == fence.run_id))
    events.note_metrics(session, fence.run_id, known or {}, metrics)


def _change(session: Session, fence: Fence, **values: Any) -> None:
    held = update(Run).where(
        Run.id == fence.run_id, Run.state == "running", Run.owner == fence.owner, Run.attempt == fence.attempt
    )
    if not _changed(session, held.values(**values)):
        raise LeaseLost(f"attempt {fence.attempt} no longer owns run {fence.run_id}")


def _changed(session: Session, statement: Any) -> bool:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def _which(session: Session, statement: Any) -> list[str]:
    """The runs that the update changed."""
    changed = statement.returning(Run.id).execution_options(synchronize_session=False)
    return sorted(session.scalars(changed))
