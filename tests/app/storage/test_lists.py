"""What lists count in the database and keep in memory is what the rows say."""

import random

import pytest
from sqlalchemy import delete, select, update

from app.api import views
from app.domain.lifecycle import RUN_STATES
from app.domain.outlook import eta, progress, tallies_of
from app.storage import deletion, experiments, listed_runs, retries, runs, tallies
from app.storage.identifiers import new_id
from app.storage.listed_runs import KnownRuns
from app.storage.tables import Experiment, ExperimentRun, Run
from app.storage.tallies import KnownTallies
from tests.app.work import Queue

KINDS = ("train", "branch", "evaluate")


def some_run(chance: random.Random) -> Run:
    """In any state, with any of its times missing."""
    name, begun = new_id("run"), chance.uniform(1e9, 2e9)
    state = chance.choice((*RUN_STATES, "succeeded", "running"))
    return Run(
        id=name, kind=chance.choice(KINDS), key=name, share_key=name, spec={}, state=state,
        progress=chance.choice((0.0, 0.01, 0.02, 0.5, chance.random())),
        started_at=chance.choice((None, begun, begun)), progress_at=chance.choice((None, begun + 10, begun + 99.5)),
        finished_at=chance.choice((None, begun + 100)),
    )  # fmt: skip


def test_the_database_counts_as_we_do(queue: Queue) -> None:
    chance = random.Random(5)
    mixes = {new_id("exp"): [some_run(chance) for _ in range(chance.randrange(12))] for _ in range(60)}
    with queue.database.writing() as session:
        session.add_all(Experiment(id=name, dataset="digits", spec={}, body_digest="") for name in mixes)
        session.add_all(run for mix in mixes.values() for run in mix)
        session.flush()
        session.add_all(
            ExperimentRun(experiment_id=name, run_id=run.id, position=n)
            for name, mix in mixes.items() for n, run in enumerate(mix)
        )  # fmt: skip
    known = KnownTallies()
    for _ in range(2):  # read, then partly known
        with queue.database.reading() as session:
            counted = known.of_experiments(session, list(mixes))
        for name, mix in mixes.items():
            ours = sorted(tallies_of(mix), key=lambda t: (t.kind, t.state))
            assert [(t.kind, t.state, t.count, t.timed, t.foreseen) for t in counted[name]] == [
                (t.kind, t.state, t.count, t.timed, t.foreseen) for t in ours
            ]
            assert progress(counted[name]) == pytest.approx(progress(ours), abs=1e-12)
            assert eta(counted[name]) == (None if eta(ours) is None else pytest.approx(eta(ours), abs=0.11))
    assert {eta(found) is None for found in counted.values()} == {True, False}


def test_time_left_is_by_ended_runs_of_the_kind_else_by_how_far_a_running_one_came() -> None:
    done = Run(kind="train", state="succeeded", progress=1.0, started_at=0.0, finished_at=100.0)
    half = Run(kind="train", state="running", progress=0.5, started_at=0.0, progress_at=30.0)
    waits = Run(kind="train", state="queued", progress=0.0)
    begun = Run(kind="train", state="running", progress=0.01, started_at=0.0, progress_at=1.0)
    assert eta(tallies_of([done, half, waits])) == 150.0
    assert eta(tallies_of([half])) == 30.0
    assert eta(tallies_of([half, waits])) is eta(tallies_of([begun])) is None
    assert (progress(tallies_of([done, half, waits])), progress([])) == (0.5, 1.0)


def test_what_failed_or_was_cancelled_counts_as_far_as_it_came() -> None:
    ended = [Run(kind="train", state=state, progress=share) for state, share in
             (("succeeded", 1.0), ("failed", 0.6), ("cancelled", 0.0), ("skipped", 0.0))]  # fmt: skip
    assert progress(tallies_of(ended)) == pytest.approx(0.4)


def test_a_listed_run_is_the_run_in_whatever_state_it_comes_to(queue: Queue) -> None:
    known = KnownRuns()
    first = queue.submit(variants=["default", "paralif"])
    queue.submit(seeds=[1, 2])

    def check() -> None:
        with queue.database.reading() as session:
            rows, _ = known.page(session, after=None, limit=100)
            in_full = session.scalars(select(Run).order_by(Run.id.desc())).all()
            assert [views.run(row) for row in rows] == [views.run(row) for row in in_full]

    check()
    fence = queue.must_claim()
    queue.do(runs.report, fence, progress=0.5, phase="epoch 1", metrics={"checkpoint": "ckpt_early"})
    check()
    queue.do(runs.succeed, fence, {"checkpoint": "ckpt_final"})
    check()
    failing = queue.must_claim()
    queue.do(runs.fail, failing, "no more memory")
    check()
    queue.do(retries.retry, failing.run_id)
    queue.do(lambda s: s.execute(update(Run).where(Run.id == queue.runs(first)[0].id).values(priority=7)))
    check()
    queue.work_off()
    check()


def test_no_more_runs_and_experiments_are_known_than_may_be(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_runs, "MOST_KNOWN", 4)
    monkeypatch.setattr(tallies, "MOST_KNOWN", 2)
    for seed in range(5):
        queue.submit(seeds=[seed])
    queue.work_off(lambda run: {})
    known, counted = KnownRuns(), KnownTallies()
    after = None
    for _ in range(6):
        with queue.database.reading() as session:
            rows, after = known.page(session, after=after, limit=2)
            assert [row.checkpoint for row in rows] == [None] * 2 if rows else True
            for row in experiments.page(session, after=None, limit=9)[0]:
                assert sum(t.count for t in counted.of_experiments(session, [row.id])[row.id]) == 2
        assert max(len(known._subjects), len(known._checkpoints)) <= 4
        assert len(counted._final) <= 2


def test_runs_that_were_deleted_are_forgotten(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_runs, "FORGET_AFTER", 6)
    known, first = KnownRuns(), queue.submit()

    def read() -> set[str]:
        with queue.database.reading() as session:
            return {row.id for row in known.page(session, after=None, limit=100)[0]}

    queue.work_off(lambda run: {})
    gone = read()
    queue.submit(seeds=[1, 2], fresh=True)
    queue.do(deletion.delete, first)
    queue.work_off(lambda run: {})
    there = read()
    assert set(known._subjects) == set(known._checkpoints) == there
    assert gone.isdisjoint(there)


def test_a_run_that_is_deleted_while_a_page_is_read_is_left_out(queue: Queue) -> None:
    run = queue.runs(queue.submit())[1]
    known = KnownRuns()
    with queue.database.writing() as session:
        rows, _ = known.page(session, after=None, limit=1)
        assert [row.id for row in rows] == [run.id]
        known._subjects = {}
        real, asked = session.execute, []

        def execute(*given: object) -> object:
            asked.append(1)
            if len(asked) == 2:
                session.connection().execute(delete(ExperimentRun).where(ExperimentRun.run_id == run.id))
                session.connection().exec_driver_sql(f"DELETE FROM run_dependencies WHERE run_id = '{run.id}'")
                session.connection().execute(delete(Run).where(Run.id == run.id))
            return real(*given)

        session.execute = execute  # type: ignore[method-assign, assignment]
        assert known.page(session, after=None, limit=1) == ([], run.id)
