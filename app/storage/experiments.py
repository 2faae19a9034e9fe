"""Experiments: creating them with their runs, finding, cancelling."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, Select, bindparam, case, func, select, update
from sqlalchemy.orm import Session

from app.domain.access import LOCAL, Actor
from app.domain.errors import Conflict, NotFound
from app.domain.lifecycle import SHARED, ExperimentState, RunState, experiment_state
from app.domain.plan import PlannedRun
from app.domain.protocol import digest
from app.domain.spec import ExperimentSpec
from app.storage import events, runs, trail
from app.storage.engine import lock_graph, now_epoch
from app.storage.identifiers import new_id
from app.storage.tables import Experiment, ExperimentRun, Run, RunDependency, TrailEntry


@dataclass(frozen=True)
class WantedRun:
    """A run as part of an experiment."""

    run: Run
    reused: bool


class ListedExperiment(NamedTuple):
    """An experiment without its specification: for lists."""

    id: str
    created_at: float
    name: str | None
    dataset: str
    priority: int
    time_limit_seconds: float
    cancelled_at: float | None
    archived_at: float | None
    submitted_by: str | None  # null where that is not known


_SUBMITTED_BY = (
    select(TrailEntry.actor).where(TrailEntry.subject == Experiment.id, TrailEntry.action == "submitted").limit(1)
    .correlate(Experiment).scalar_subquery()
)  # fmt: skip
_COLUMNS: list[Any] = [getattr(Experiment, name) for name in ListedExperiment._fields[:-1]]
_LISTED: Select[Any] = select(*_COLUMNS, _SUBMITTED_BY).order_by(Experiment.id.desc())

def create(
    session: Session,
    spec: ExperimentSpec,
    planned: Sequence[PlannedRun],
    *,
    idempotency_key: str | None,
    max_attempts: int,
    time_limit_seconds: float = 0.0,
    by: Actor = LOCAL,
) -> Experiment:
    """Stores the experiment and its runs, sharing those that others asked for.

    `time_limit_seconds`: of its runs where it says none itself; 0: none.

    A repeat with the same idempotency key returns the first one, also where an upgrade lies between them; raises
    Conflict if the body differs, or where a checkpoint that it names is gone.
    """
    lock_graph(session)
    if earlier := _find_repeat(session, idempotency_key, spec):
        return earlier
    body = spec.model_dump(mode="json")
    experiment = Experiment(
        id=new_id("exp"), name=spec.name, dataset=spec.dataset, spec=body,
        idempotency_key=idempotency_key, body_digest=_digest_as_sent(spec), priority=spec.priority,
        time_limit_seconds=time_limit_seconds if spec.time_limit_seconds is None else spec.time_limit_seconds,
    )
    session.add(experiment)
    session.flush()
    _add_runs(session, experiment, planned, fresh=spec.fresh, max_attempts=max_attempts)
    trail.note(session, by, "submitted", experiment.id)
    session.flush()
    session.refresh(experiment)
    return experiment


def _find_repeat(session: Session, key: str | None, spec: ExperimentSpec) -> Experiment | None:
    if key is None:
        return None
    earlier = session.scalar(select(Experiment).where(Experiment.idempotency_key == key))
    if earlier is not None and not _is_of(earlier, spec):
        raise Conflict(f"Idempotency-Key {key!r} was used for another body, by experiment {earlier.id}")
    return earlier


def _is_of(earlier: Experiment, spec: ExperimentSpec) -> bool:
    """Whether the body is the earlier one: as it was sent, whatever the defaults are by now; or spelled otherwise, with
    the fields that have come since at their defaults."""
    if earlier.body_digest == _digest_as_sent(spec):
        return True
    try:
        return ExperimentSpec.model_validate(earlier.spec) == spec
    except ValidationError:  # it has what is no longer there
        return False


def _digest_as_sent(spec: ExperimentSpec) -> str:
    return digest(spec.model_dump(mode="json", exclude_unset=True))


def _add_runs(
    session: Session, experiment: Experiment, planned: Sequence[PlannedRun], *, fresh: bool, max_attempts: int
) -> None:
    suffix = f":{experiment.id}" if fresh else ""
    planned = planned if fresh else as_stored(session, planned)
    shared = _shared_runs(session, [plan.key + suffix for plan in planned])
    ids = {key: run.id for key, run in shared.items()} | _finished_parents(session, planned)
    new = [plan for plan in planned if plan.key not in shared]
    ids |= {plan.key: new_id("run") for plan in new}
    session.add_all(
        Run(
            id=ids[plan.key], kind=plan.kind, key=plan.key, share_key=plan.key + suffix, spec=plan.spec,
            depends_on=ids[plan.depends_on] if plan.depends_on else None, max_attempts=max_attempts,
        )
        for plan in new  # in the order of the plan: each after the one it depends on
    )
    session.flush()
    session.add_all(
        RunDependency(run_id=ids[plan.key], needs_id=ids[key], position=position)
        for plan in new
        for position, key in enumerate(plan.needs)
    )
    for position, plan in enumerate(planned):
        reused = plan.key in shared
        link = ExperimentRun(experiment_id=experiment.id, run_id=ids[plan.key], position=position, reused=reused)
        session.add(link)
    _settle(session, ids.values())


def _settle(session: Session, run_ids: Iterable[str]) -> None:
    """Of the live experiments that want a run, the most urgent says when it starts, and the most patient how long it
    may take (0: for ever). One that nobody wants any more stays as it was. The rows are held by the caller."""
    live = (ExperimentRun.run_id == Run.id, Experiment.cancelled_at.is_(None))
    limit = case((func.min(Experiment.time_limit_seconds) == 0, 0.0), else_=func.max(Experiment.time_limit_seconds))
    unfinished = update(Run).where(Run.id.in_(list(run_ids)), Run.state.in_(("queued", "running")))
    values = {
        name: func.coalesce(
            select(value).join(ExperimentRun, ExperimentRun.experiment_id == Experiment.id).where(*live)
            .correlate(Run).scalar_subquery(), getattr(Run, name),
        )
        for name, value in (("priority", func.max(Experiment.priority)), ("time_limit_seconds", limit))
    }  # fmt: skip
    session.execute(unfinished.values(**values).execution_options(synchronize_session=False))


def as_stored(session: Session, planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The plan where an evaluation that would be shared has the shards it has there, whatever was asked for: what it
    waits for is part of every experiment that wants it, and nothing is attacked that it does not wait for."""
    here = _stored_shards(session, [plan.key for plan in planned if plan.kind == "evaluate"])
    asked = {plan.key: plan for plan in planned if plan.kind == "shard"}
    found: dict[str, PlannedRun] = {}
    for plan in planned:
        if plan.kind == "shard":
            continue
        specs = here.get(plan.key)
        shards = [asked[key] for key in plan.shards] if specs is None else [
            replace(plan, kind="shard", spec=spec, shards=()) for spec in specs
        ]
        found |= {run.key: run for run in shards}
        keys = tuple(run.key for run in shards)
        found[plan.key] = plan if plan.shards == keys else replace(plan, shards=keys)
    return list(found.values())


def _stored_shards(session: Session, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Of the evaluations with these keys that would be shared: the specifications of their shards, by key."""
    ids = {str(run_id): str(key) for run_id, key in session.execute(_shared(keys).with_only_columns(Run.id, Run.key))}
    query = select(RunDependency.run_id, Run.spec).join(Run, Run.id == RunDependency.needs_id)
    query = query.where(RunDependency.run_id.in_(ids), Run.kind == "shard").order_by(RunDependency.position)
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in ids.values()}
    for run_id, spec in session.execute(query) if ids else ():
        found[ids[run_id]].append(spec)
    return found


def shared_runs(session: Session, keys: Iterable[str]) -> dict[str, Run]:
    """The runs that an experiment with runs of these keys would share now, by key."""
    return {run.key: run for run in session.scalars(_shared(keys))}


def _shared(share_keys: Iterable[str]) -> Select[Run]:
    return select(Run).where(Run.share_key.in_(list(share_keys)), Run.state.in_(SHARED))


def _shared_runs(session: Session, share_keys: Iterable[str]) -> dict[str, Run]:
    """Runs that others asked for, by key. Held until the commit: none may end without seeing what waits for it."""
    shared = {run.key: run for run in session.scalars(_shared(share_keys).order_by(Run.id).with_for_update())}
    for run in shared.values():
        if run.state == "running" and run.cancel_requested_at is not None:
            run.cancel_requested_at = None  # wanted again
            events.note(session, "state", run_id=run.id, state="running", cancel_requested=False)
    return shared


def _finished_parents(session: Session, planned: Sequence[PlannedRun]) -> dict[str, str]:
    """Runs that are not part of the plan but whose checkpoints it starts from: key -> id. Raises Conflict where one
    has been deleted since the plan was made."""
    outside = {key for plan in planned for key in plan.needs} - {plan.key for plan in planned}
    query = select(Run.share_key, Run.id).where(Run.share_key.in_(outside), Run.state == "succeeded")
    found = {str(key): str(run_id) for key, run_id in session.execute(query)} if outside else {}
    if outside - found.keys():
        raise Conflict("a checkpoint that the experiment names was deleted just now")
    return found


def get(session: Session, experiment_id: str) -> Experiment:
    """The experiment. Raises NotFound."""
    experiment = session.get(Experiment, experiment_id)
    if experiment is None:
        raise NotFound.of("experiment", experiment_id)
    return experiment


def having(session: Session, run_id: str) -> list[Experiment]:
    """The experiments that the run is part of, newest first."""
    linked = select(Experiment).join(ExperimentRun, ExperimentRun.experiment_id == Experiment.id)
    return list(session.scalars(linked.where(ExperimentRun.run_id == run_id).order_by(Experiment.id.desc())))


def runs_of(session: Session, experiment_id: str) -> list[WantedRun]:
    """Its runs in the order of the plan."""
    query = select(Run, ExperimentRun.reused).join(ExperimentRun, ExperimentRun.run_id == Run.id)
    query = query.where(ExperimentRun.experiment_id == experiment_id).order_by(ExperimentRun.position)
    return [WantedRun(run, reused) for run, reused in session.execute(query)]


def state_of(experiment: Experiment, wanted: Sequence[WantedRun]) -> ExperimentState:
    """The state that follows from its runs'."""
    states: list[RunState] = [w.run.state for w in wanted]  # type: ignore[misc]  # the column is plain text
    return experiment_state(states, cancelled=experiment.cancelled_at is not None)


def page(
    session: Session | Connection,
    *,
    after: str | None,
    limit: int,
    dataset: str | None = None,
    state: str | None = None,
    archived: bool = False,
) -> tuple[list[ListedExperiment], str | None]:
    """Newest first: one page and the cursor of the next, or None."""
    query = _listed(archived=archived, dataset=dataset is not None, state=state is not None, after=after is not None)
    values = {"dataset": dataset, "state": state, "after": after, "limit": limit + 1}
    found = [ListedExperiment(*row) for row in session.execute(query, values)]
    return found[:limit], (found[limit - 1].id if len(found) > limit else None)


@cache
def _listed(*, archived: bool, dataset: bool, state: bool, after: bool) -> Select[Any]:
    """Built once for each way of asking. Values: limit, and those of what is asked for."""
    query = _LISTED.limit(bindparam("limit"))
    query = query.where(Experiment.archived_at.is_not(None) if archived else Experiment.archived_at.is_(None))
    if dataset:
        query = query.where(Experiment.dataset == bindparam("dataset"))
    if state:
        query = query.where(_state_column() == bindparam("state"))
    if after:
        query = query.where(Experiment.id < bindparam("after"))
    return query


def _state_column() -> Any:
    """`app.domain.lifecycle.experiment_state` as SQL, for filtering in the database."""

    def count(*states: str) -> Any:
        counted = select(func.count()).select_from(ExperimentRun).join(Run, Run.id == ExperimentRun.run_id)
        chosen = counted.where(ExperimentRun.experiment_id == Experiment.id)
        return (chosen.where(Run.state.in_(states)) if states else chosen).correlate(Experiment).scalar_subquery()

    return case(
        (count("succeeded") == count(), "succeeded"),
        (Experiment.cancelled_at.is_not(None), "cancelled"),
        (count("queued") == count(), "queued"),
        (count("queued", "running") != 0, "running"),
        (count("cancelled") == count(), "cancelled"),
        (count("succeeded") != 0, "partial"),
        else_="failed",
    )


def cancel(session: Session, experiment_id: str) -> Experiment:
    """Stops its runs, except those that another live experiment wants. Raises NotFound, Conflict."""
    lock_graph(session)
    experiment = get(session, experiment_id)
    wanted = runs_of(session, experiment_id)
    state = state_of(experiment, wanted)
    if state not in ("queued", "running", "cancelled"):
        raise Conflict(f"experiment {experiment_id} has already {state}; there is nothing to cancel")
    own = {w.run.id for w in wanted}  # also of a cancelled one: some may have been tried again since
    runs.hold(session, sorted(own))
    runs.request_cancel(session, sorted(own - runs.wanted_by_others(session, own, experiment_id)))
    if experiment.cancelled_at is None:
        experiment.cancelled_at = session.scalar(now_epoch().select())
        events.note(session, "cancelled", experiment_id=experiment_id)
    _settle(session, own)
    return experiment


def archive(session: Session, experiment_id: str, *, restore: bool) -> None:
    """Hides the experiment from lists, or shows it again. Raises NotFound."""
    get(session, experiment_id).archived_at = None if restore else session.scalar(now_epoch().select())
