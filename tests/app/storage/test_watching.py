"""What a supervisor sees of a run: when it moved, how long it worked, how long it may take, how urgent it is."""

import time

import pytest
from sqlalchemy import select, update

from app.storage import experiments, retries, runs, watching
from app.storage.engine import now_epoch
from app.storage.tables import Run


def moved(queue, fence) -> float:
    """When the run moved last; then it is put into the past."""
    at = queue.do(watching.look_at, fence.run_id).progress_at
    queue.do(lambda s: s.execute(update(Run).values(progress_at=now_epoch() - 500)))
    return time.time() - at


@pytest.mark.parametrize("write", [
    lambda s, f: runs.report(s, f, progress=0.2, phase="a"), lambda s, f: runs.report(s, f, progress=0.1, phase="b"),
    lambda s, f: runs.report(s, f, metrics={"epochs": [1]}), runs.pulse, runs.checkpointed,
], ids=["progress", "phase", "metrics", "pulse", "checkpoint"])  # fmt: skip
def test_progress_phase_metrics_pulses_and_checkpoints_are_movement(queue, write) -> None:
    queue.submit()
    fence = queue.must_claim()
    assert moved(queue, fence) < 100, "a claim is"
    queue.do(runs.report, fence, progress=0.1, phase="a")
    assert moved(queue, fence) < 100
    queue.do(write, fence)
    assert moved(queue, fence) < 100


def test_saying_the_same_again_and_a_living_lease_are_none(queue) -> None:
    queue.submit()
    fence = queue.must_claim()
    queue.do(runs.report, fence, progress=0.1, phase="a")
    moved(queue, fence)
    queue.do(runs.report, fence, progress=0.1, phase="a")
    queue.do(runs.renew, fence, 60)
    queue.do(runs.check_fence, fence)
    assert moved(queue, fence) > 400


def since(queue, fence, seconds: float, lease: float) -> None:
    """As if the attempt had started so long ago, with a lease that ends in `lease` seconds."""
    values = {"attempt_started_at": now_epoch() - seconds, "lease_expires_at": now_epoch() + lease}
    queue.do(lambda s: s.execute(update(Run).where(Run.id == fence.run_id).values(values)))


def test_the_time_of_all_attempts_adds_up_and_a_lost_worker_counts_while_its_lease_was_good(queue) -> None:
    queue.submit()
    fence = queue.must_claim()
    since(queue, fence, 100, lease=60)
    queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False)
    assert queue.run(fence.run_id).worked_seconds == pytest.approx(100, abs=20)
    fence = queue.must_claim()
    since(queue, fence, 1000, lease=-700)
    queue.do(runs.sweep)
    assert queue.run(fence.run_id).worked_seconds == pytest.approx(400, abs=20)
    fence = queue.must_claim()
    since(queue, fence, 50, lease=60)
    queue.succeed(fence)
    assert queue.run(fence.run_id).worked_seconds == pytest.approx(450, abs=30)


def test_an_explicit_retry_has_all_its_time_again(queue) -> None:
    queue.submit()
    fence = queue.must_claim()
    since(queue, fence, 100, lease=60)
    assert queue.do(runs.stop_or_requeue, fence, "too long", count_try=False, final=True) == "failed"
    assert queue.run(fence.run_id).error == "too long"
    queue.do(retries.retry, fence.run_id)
    assert queue.run(fence.run_id).worked_seconds == 0
    assert queue.run(fence.run_id).state == "queued"


def test_a_run_over_its_limit_that_someone_cancelled_is_cancelled(queue) -> None:
    experiment = queue.submit()
    fence = queue.must_claim()
    queue.cancel(experiment)
    assert queue.do(runs.stop_or_requeue, fence, "too long", count_try=False, final=True) == "cancelled"


def limits(queue, experiment: str) -> set[float]:
    return {run.time_limit_seconds for run in queue.runs(experiment)}


def test_a_limit_is_no_part_of_the_specification_and_the_longest_of_those_who_want_a_run_holds(queue) -> None:
    first = queue.submit(time_limit_seconds=100)
    assert limits(queue, first) == {100}
    second = queue.submit(time_limit_seconds=1000)
    assert queue.reused(second) == [True, True]
    assert limits(queue, first) == {1000}
    queue.submit(time_limit_seconds=10)
    assert limits(queue, first) == {1000}
    last = queue.submit(time_limit_seconds=0)
    assert limits(queue, first) == {0}, "none at all is the longest"
    queue.cancel(last)
    assert limits(queue, first) == {1000}
    queue.cancel(second)
    assert limits(queue, first) == {100}


def test_an_experiment_that_says_none_has_the_limit_of_the_service(queue) -> None:
    from app.domain.plan import expand
    from app.domain.spec import ExperimentSpec
    from app.storage import datasets

    found = {}
    for given in (None, 0, 7):
        spec = ExperimentSpec.model_validate(
            {"dataset": "digits", "variants": ["default"], "seeds": [given or 0], "fresh": True,
             "time_limit_seconds": given}
        )
        planned = expand(spec, datasets.find("digits", queue.data_dir))
        found[given] = limits(queue, queue.do(
            experiments.create, spec, planned, idempotency_key=None, max_attempts=3, time_limit_seconds=55.0
        ).id)
    assert found == {None: {55.0}, 0: {0.0}, 7: {7.0}}


def priorities(queue, experiment: str) -> list[int]:
    return [run.priority for run in queue.runs(experiment)]


def test_a_shared_run_is_as_urgent_as_the_most_urgent_live_experiment_that_wants_it(queue) -> None:
    first, second = queue.submit(priority=-3), queue.submit(priority=7)
    assert priorities(queue, first) == [7, 7]
    queue.submit(priority=2)
    assert priorities(queue, first) == [7, 7]
    queue.cancel(second)
    assert priorities(queue, first) == [2, 2]


def test_runs_of_a_more_urgent_experiment_are_taken_first(queue) -> None:
    queue.submit(seeds=[0], priority=-1)
    normal, urgent = queue.submit(seeds=[1]), queue.submit(seeds=[2], priority=1)
    assert queue.must_claim().run_id == queue.runs(urgent)[0].id
    assert queue.must_claim().run_id == queue.runs(normal)[0].id


def test_what_has_ended_keeps_the_urgency_it_had(queue) -> None:
    first = queue.submit()
    fence = queue.must_claim()
    queue.succeed(fence)
    queue.submit(priority=9)
    with queue.database.reading() as session:
        assert session.scalar(select(Run.priority).where(Run.id == fence.run_id)) == 0
    assert priorities(queue, first) == [0, 9]
