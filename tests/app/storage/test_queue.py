"""Who works on which run: claims, fences, leases, on both databases."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.domain.errors import Conflict, LeaseLost, NotFound
from app.storage import experiments, results, retries, runs
from app.storage.identifiers import new_id
from app.storage.listed_runs import KnownRuns
from app.storage.runs import Fence
from app.storage.tables import Run
from app.storage.tallies import KnownTallies
from tests.app.work import in_threads


def test_the_oldest_run_is_claimed_first(queue) -> None:
    first, second = queue.submit(seeds=[0]), queue.submit(seeds=[1])
    assert queue.must_claim().run_id == queue.runs(first)[0].id
    assert queue.must_claim().run_id == queue.runs(second)[0].id


def test_a_run_of_higher_priority_goes_first(queue) -> None:
    queue.submit(seeds=[0])
    urgent = queue.runs(queue.submit(seeds=[1]))[0].id
    queue.do(lambda session: session.execute(update(Run).where(Run.id == urgent).values(priority=5)))
    assert queue.must_claim().run_id == urgent


def test_a_run_waits_until_what_it_depends_on_has_succeeded(queue) -> None:
    train, evaluation = queue.runs(queue.submit())
    fence = queue.must_claim()
    assert fence.run_id == train.id
    assert queue.claim() is None
    queue.succeed(fence)
    assert queue.must_claim().run_id == evaluation.id


def test_what_is_ready_is_seen_without_claiming_it(queue) -> None:
    assert not queue.do(runs.any_ready)
    queue.submit()
    assert queue.do(runs.any_ready)
    queue.must_claim()
    assert not queue.do(runs.any_ready)


def test_a_claim_says_who_has_the_run_since_when_and_for_how_long(queue) -> None:
    before = time.time()
    run = queue.run(queue.must_claim("host:1:2", lease=60).run_id) if queue.submit() else None
    assert run is not None
    assert (run.state, run.owner, run.attempt, run.tries) == ("running", "host:1:2", 1, 1)
    assert run.started_at == pytest.approx(before, abs=5)
    assert run.lease_expires_at == pytest.approx(before + 60, abs=5)


def test_no_two_workers_ever_get_one_run(queue) -> None:
    wanted, workers = 200, 8
    rows = [
        {"id": new_id("run"), "kind": "train", "key": str(i), "share_key": str(i), "spec": {}, "state": "queued",
         "priority": 0, "attempt": 0, "tries": 0, "max_attempts": 3, "progress": 0.0, "metrics": {}}
        for i in range(wanted)
    ]  # fmt: skip
    queue.do(lambda session: session.execute(insert(Run), rows))
    claimed: list[str] = []
    faults: list[BaseException] = []

    def work(owner: str) -> None:
        misses = 0
        try:
            while misses < 3:
                fence = queue.claim(owner)
                if fence is None:
                    misses += 1
                    continue
                claimed.append(fence.run_id)
                queue.succeed(fence)
        except BaseException as error:
            faults.append(error)

    in_threads(work, [(f"worker:{n}",) for n in range(workers)])
    assert faults == []
    assert Counter(claimed) == Counter(row["id"] for row in rows)


FENCED: dict[str, Callable[[Session, Fence], Any]] = {
    "renew": lambda s, f: runs.renew(s, f, 60),
    "report": lambda s, f: runs.report(s, f, progress=0.5),
    "checkpointed": runs.checkpointed,
    "succeed": lambda s, f: runs.succeed(s, f, {"x": 1}),
    "fail": lambda s, f: runs.fail(s, f, "no"),
    "stop": lambda s, f: runs.stop_or_requeue(s, f, "no", count_try=True),
    "check": runs.check_fence,
    "add_block": lambda s, f: results.add_block(s, f, 0, "p", []),
    "add_figures": lambda s, f: results.add_figures(s, f, []),
    "add_checkpoint": lambda s, f: results.add_checkpoint(s, f, None),  # type: ignore[arg-type]  # not reached
}


@pytest.mark.parametrize("write", FENCED.values(), ids=FENCED)
def test_a_writer_that_has_lost_its_lease_writes_nothing_more(queue, write) -> None:
    queue.submit()
    late = queue.must_claim("worker:1")
    queue.expire(late)
    queue.do(runs.sweep)
    current = queue.must_claim("worker:2")
    assert current.run_id == late.run_id
    before = vars(queue.run(late.run_id)) | {"_sa_instance_state": None}
    for fence in (late, Fence(late.run_id, "worker:2", late.attempt), Fence(late.run_id, "worker:1", current.attempt)):
        with pytest.raises(LeaseLost):
            queue.do(write, fence)
    assert vars(queue.run(late.run_id)) | {"_sa_instance_state": None} == before


@pytest.mark.parametrize("write", FENCED.values(), ids=FENCED)
def test_nothing_is_written_after_the_final_state(queue, write) -> None:
    queue.submit()
    fence = queue.must_claim()
    queue.succeed(fence)
    with pytest.raises(LeaseLost):
        queue.do(write, fence)
    assert queue.run(fence.run_id).state == "succeeded"


def test_only_the_attempt_that_ended_the_run_is_told_so(queue) -> None:
    queue.submit()
    fence = queue.must_claim()
    assert not queue.do(runs.finished, fence)
    queue.succeed(fence)
    assert queue.do(runs.finished, fence)
    assert not queue.do(runs.finished, Fence(fence.run_id, fence.owner, fence.attempt + 1))


def test_a_renewed_lease_does_not_run_out(queue) -> None:
    queue.submit()
    fence = queue.must_claim()
    queue.expire(fence)
    assert queue.do(runs.any_lost)
    assert queue.do(runs.renew, fence, 60) is False
    assert not queue.do(runs.any_lost)
    assert queue.do(runs.sweep) == {}
    assert queue.run(fence.run_id).state == "running"


def test_a_run_whose_worker_fell_silent_is_queued_again_and_its_attempt_grows(queue) -> None:
    queue.submit()
    fence = queue.must_claim("worker:1")
    queue.expire(fence)
    assert queue.do(runs.sweep) == {"queued": 1}
    run = queue.run(fence.run_id)
    assert (run.state, run.owner, run.error) == ("queued", None, runs.WORKER_LOST)
    again = queue.must_claim("worker:2")
    assert (again.run_id, again.attempt) == (fence.run_id, 2)
    assert queue.run(fence.run_id).error is None


def test_after_the_last_try_the_run_fails_and_with_it_what_waits_for_it(queue) -> None:
    experiment = queue.submit(max_attempts=2)
    for _ in range(2):
        queue.expire(queue.must_claim())
        counts = queue.do(runs.sweep)
    assert counts == {"failed": 1}
    train, evaluation = queue.runs(experiment)
    assert (train.state, train.error) == ("failed", "worker lost (tried 2 times)")
    assert (evaluation.state, evaluation.attempt) == ("failed", 0)
    assert "worker lost" in (evaluation.error or "")
    assert queue.claim() is None


def test_a_checkpoint_starts_the_count_of_tries_anew(queue) -> None:
    queue.submit(max_attempts=2)
    for attempt in range(1, 6):
        fence = queue.must_claim()
        assert fence.attempt == attempt
        queue.do(runs.checkpointed, fence)
        queue.expire(fence)
        assert queue.do(runs.sweep) == {"queued": 1}
    for expected in ({"failed": 1},):
        queue.expire(queue.must_claim())
        assert queue.do(runs.sweep) == expected


def test_a_stop_that_is_nobodys_fault_costs_no_try(queue) -> None:
    queue.submit(max_attempts=1)
    for _ in range(3):
        fence = queue.must_claim()
        assert queue.do(runs.stop_or_requeue, fence, "the worker was stopped", count_try=False) == "queued"
    assert queue.do(runs.stop_or_requeue, queue.must_claim(), "killed", count_try=True) == "failed"


def test_two_sweepers_take_a_run_back_once(queue) -> None:
    queue.submit()
    fence = queue.must_claim()
    queue.expire(fence)
    counts: list[dict[str, int]] = []
    in_threads(lambda: counts.append(queue.do(runs.sweep)), [()] * 4)
    assert sorted(map(str, counts)) == sorted(map(str, [{"queued": 1}, {}, {}, {}]))
    assert queue.run(fence.run_id).tries == 1


def test_what_a_dead_process_held_is_taken_back_at_once_and_nothing_else(queue) -> None:
    queue.submit(seeds=[0, 1])
    dead, other = queue.must_claim("host:12:9"), queue.must_claim("host:123:9")
    assert queue.do(runs.take_back_from, "host:12:") == {"queued": 1}
    assert (queue.run(dead.run_id).state, queue.run(other.run_id).state) == ("queued", "running")


def test_a_percent_sign_in_an_owner_matches_itself_alone(queue) -> None:
    queue.submit()
    fence = queue.must_claim("host:1")
    assert queue.do(runs.take_back_from, "%") == {}
    assert queue.run(fence.run_id).state == "running"


@pytest.mark.parametrize("error", ["\x00 before and after \x00", "x" * 100_000])
def test_whatever_a_job_printed_last_can_be_stored_as_its_error(queue, error: str) -> None:
    experiment = queue.submit()
    queue.do(runs.fail, queue.must_claim(), error)
    train, evaluation = queue.runs(experiment)
    assert train.state == evaluation.state == "failed"
    assert 0 < len(train.error or "") <= 10_000


def test_a_loss_that_is_no_number_is_stored_as_null(queue) -> None:
    queue.submit()
    fence = queue.must_claim()
    queue.do(runs.report, fence, metrics={"epochs": [{"loss": float("nan"), "rates": (float("inf"), 1.0)}]})
    assert queue.run(fence.run_id).metrics == {"epochs": [{"loss": None, "rates": [None, 1.0]}]}


# Retries


def test_a_failed_run_can_be_tried_again_with_what_never_started_for_it(queue) -> None:
    experiment = queue.submit(max_attempts=1)
    fence = queue.must_claim()
    queue.do(runs.fail, fence, "no")
    queue.do(retries.retry, fence.run_id)
    assert queue.states(experiment) == ["queued", "queued"]
    train = queue.runs(experiment)[0]
    assert (train.error, train.tries, train.started_at, train.finished_at) == (None, 0, None, None)
    again = queue.must_claim()
    assert again == Fence(fence.run_id, fence.owner, 2)
    queue.succeed(again)
    queue.succeed(queue.must_claim())
    assert queue.state(experiment) == "succeeded"


def test_trying_an_evaluation_again_tries_the_training_it_needs_too(queue) -> None:
    experiment = queue.submit(variants=["lif"])
    fence = queue.must_claim()
    queue.do(runs.fail, fence, "no")
    train, branch, evaluation = queue.runs(experiment)
    queue.do(retries.retry, evaluation.id)
    assert queue.states(experiment) == ["queued"] * 3
    assert [queue.run(r.id).depends_on for r in (train, branch, evaluation)] == [None, train.id, branch.id]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_only_what_has_failed_or_was_cancelled_can_be_tried_again(queue, state: str) -> None:
    run_id = queue.runs(queue.submit())[0].id
    if state != "queued":
        fence = queue.must_claim()
    if state == "succeeded":
        queue.succeed(fence)
    with pytest.raises(Conflict, match=f"is {state}"):
        queue.do(retries.retry, run_id)
    assert queue.run(run_id).state == state


def test_a_run_whose_place_another_has_taken_cannot_be_tried_again(queue) -> None:
    first = queue.submit()
    queue.cancel(first)
    second = queue.submit()
    old, new = queue.runs(first)[0].id, queue.runs(second)[0].id
    assert old != new
    with pytest.raises(Conflict, match=new):
        queue.do(retries.retry, old)


def test_an_unknown_run_is_not_found(queue) -> None:
    with pytest.raises(NotFound):
        queue.do(retries.retry, "run_none")


def test_a_run_tried_again_after_its_experiment_was_cancelled_can_be_cancelled_again(queue) -> None:
    experiment = queue.submit()
    queue.cancel(experiment)
    queue.do(retries.retry, queue.runs(experiment)[0].id)
    assert queue.states(experiment) == ["queued", "queued"]
    queue.cancel(experiment)
    assert queue.states(experiment) == ["cancelled", "cancelled"]


def test_nothing_is_left_waiting_for_a_parent_that_another_experiment_cancelled(queue) -> None:
    one, other = queue.submit(evaluation={"images": 10}), queue.submit(evaluation={"images": 20})
    queue.cancel(one)
    queue.do(retries.retry, queue.runs(one)[1].id)  # its experiment lives again, and keeps the training alive
    queue.cancel(other)
    assert queue.states(one) == ["queued", "queued"]
    queue.cancel(one)
    assert queue.states(one) == ["cancelled", "cancelled"]


def test_a_child_added_while_its_parent_fails_never_waits_for_ever(queue) -> None:
    """On PostgreSQL the two transactions overlap: the failure must see the child, or the child the failure."""
    for seed in range(12):
        queue.submit(seeds=[seed], evaluation={"images": 10})
        fence = queue.must_claim(f"worker:{seed}")
        later: list[str] = []
        in_threads(
            lambda action: action(),
            [(lambda f=fence: queue.do(runs.fail, f, "no"),),
             (lambda s=seed, ids=later: ids.append(queue.submit(seeds=[s], evaluation={"images": 20})),)],
        )  # fmt: skip
        train, evaluation = queue.runs(later[0])
        assert (train.state, evaluation.state) in {("failed", "failed"), ("queued", "queued")}
        queue.cancel(later[0]) if train.state == "queued" else None


def test_the_cursor_pages_of_runs_are_complete_and_stable_while_others_are_added(queue) -> None:
    queue.submit(seeds=list(range(5)))
    with queue.database.reading() as session:
        expected = list(session.scalars(select(Run.id).order_by(Run.id.desc())))
    found: list[str] = []
    cursor = None
    for _ in range(10):
        with queue.database.reading() as session:
            page, cursor = KnownRuns().page(session, after=cursor, limit=3)
        found += [run.id for run in page]
        queue.submit(seeds=[50 + len(found)])
        if cursor is None:
            break
    assert found == expected


def test_runs_are_filtered_by_experiment_kind_and_state(queue) -> None:
    queue.submit(seeds=[0])
    mine = queue.submit(seeds=[1])
    queue.must_claim()
    with queue.database.reading() as session:
        page, _ = KnownRuns().page(session, after=None, limit=50, experiment=mine, kind="train", state=None)
        assert [r.id for r in page] == [queue.runs(mine)[0].id]
        running, _ = KnownRuns().page(session, after=None, limit=50, state="running")
        assert len(running) == 1


def test_a_large_experiment_is_stored_in_few_statements(queue, counted_queries) -> None:
    with counted_queries() as statements:
        experiment = queue.submit(seeds=list(range(100)), variants=["default", "lif", "paralif"])
    assert len(queue.runs(experiment)) == 600
    assert len(statements) < 30
    with counted_queries() as statements, queue.database.reading() as session:
        rows, _ = experiments.page(session, after=None, limit=50)
        KnownTallies().of_experiments(session, [row.id for row in rows])
    assert len(statements) < 8
