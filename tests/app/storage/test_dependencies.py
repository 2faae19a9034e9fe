"""A run that waits for several others: what is ready, what ends with what, what comes back with what."""

import pytest
from sqlalchemy import select

from app.storage import retries, runs
from app.storage.tables import Run, RunDependency
from tests.app.work import in_threads

POOL = {"attacks": [{"name": "fgsm"}, {"name": "transfer"}]}


@pytest.fixture
def pooled(queue) -> list[Run]:
    """Two trainings, and two evaluations that each wait for both."""
    found = queue.runs(queue.submit(seeds=[0, 1], evaluation=POOL))
    assert [run.kind for run in found] == ["train", "train", "evaluate", "evaluate"]
    return found


def states(queue, pooled) -> list[str]:
    return [queue.run(run.id).state for run in pooled]


def test_needs_are_listed_the_origin_first(queue, pooled) -> None:
    first, second, one, other = pooled
    needs = [[run.id for run in queue.do(runs.needs, evaluation.id)] for evaluation in (one, other)]
    assert needs == [[first.id, second.id], [second.id, first.id]]
    assert (one.depends_on, other.depends_on) == (first.id, second.id)


def test_it_is_ready_when_the_last_of_them_has_succeeded(queue, pooled) -> None:
    first, second = queue.must_claim(), queue.must_claim("worker:2")
    queue.succeed(first)
    assert queue.claim() is None
    assert queue.do(runs.to_announce, 60.0) == []
    queue.succeed(second)
    assert [waiting.run_id for waiting in queue.do(runs.to_announce, 60.0)] == [pooled[2].id, pooled[3].id]
    assert queue.must_claim().run_id == pooled[2].id


@pytest.mark.parametrize("failing", [0, 1])
def test_whichever_fails_the_evaluation_fails_with_it_and_names_it(queue, pooled, failing: int) -> None:
    fences = [queue.must_claim(), queue.must_claim("worker:2")]
    queue.do(runs.fail, fences[failing], "out of memory")
    queue.succeed(fences[1 - failing])
    expected = ["succeeded", "succeeded", "failed", "failed"]
    expected[failing] = "failed"
    assert states(queue, pooled) == expected
    assert "out of memory" in queue.run(pooled[2].id).error
    assert queue.claim() is None


def test_two_that_fail_at_once_end_what_waits_for_both(queue) -> None:
    """On PostgreSQL each transaction updates the same evaluations: without one order there would be deadlocks."""
    everything = queue.runs(queue.submit(seeds=list(range(6)), evaluation=POOL))
    fences = [queue.must_claim(f"worker:{n}") for n in range(6)]
    faults: list[BaseException] = []

    def fail(fence) -> None:
        try:
            queue.do(runs.fail, fence, "no")
        except BaseException as error:
            faults.append(error)

    in_threads(fail, [(fence,) for fence in fences])
    assert faults == []
    assert states(queue, everything) == ["failed"] * 12


def test_cancelling_ends_all_of_it(queue) -> None:
    experiment = queue.submit(seeds=[0, 1], evaluation=POOL)
    queue.must_claim()
    queue.cancel(experiment)
    assert queue.states(experiment) == ["running", "cancelled", "cancelled", "cancelled"]


def test_retrying_one_of_two_that_failed_does_not_wake_what_needs_both(queue, pooled) -> None:
    for fence in [queue.must_claim(), queue.must_claim("worker:2")]:
        queue.do(runs.fail, fence, "no")
    queue.do(retries.retry, pooled[0].id)
    assert states(queue, pooled) == ["queued", "failed", "failed", "failed"]
    queue.do(retries.retry, pooled[1].id)
    assert states(queue, pooled) == ["queued"] * 4


def test_retrying_the_evaluation_wakes_every_one_it_needs(queue, pooled) -> None:
    for fence in [queue.must_claim(), queue.must_claim("worker:2")]:
        queue.do(runs.fail, fence, "no")
    queue.do(retries.retry, pooled[3].id)
    assert states(queue, pooled) == ["queued", "queued", "failed", "queued"]


def test_retrying_a_parent_wakes_what_waits_for_it_through_both_its_branches(queue) -> None:
    experiment = queue.submit(seeds=[0], variants=["lif", "paralif"], evaluation=POOL)
    queue.do(runs.fail, queue.must_claim(), "no")
    assert set(queue.states(experiment)) == {"failed"}
    queue.do(retries.retry, queue.runs(experiment)[0].id)
    assert set(queue.states(experiment)) == {"queued"}
    assert len(queue.states(experiment)) == 5


def test_an_evaluation_with_the_same_pool_is_shared_and_with_another_it_is_not(queue, pooled) -> None:
    again = queue.submit(seeds=[1, 0], evaluation=POOL)
    assert {run.id for run in queue.runs(again)} == {run.id for run in pooled}
    alone = queue.submit(seeds=[0], evaluation=POOL)
    assert queue.reused(alone) == [True, False]


def test_a_fresh_experiment_waits_for_its_own_siblings(queue, pooled) -> None:
    fresh = queue.runs(queue.submit(seeds=[0, 1], evaluation=POOL, fresh=True))
    assert {run.id for run in queue.do(runs.needs, fresh[2].id)} == {fresh[0].id, fresh[1].id}


def test_every_dependency_is_in_the_table_with_the_origin(queue) -> None:
    experiment = queue.submit(variants=["default", "lif"], seeds=[0])
    with queue.database.reading() as session:
        stored = dict(session.execute(select(RunDependency.run_id, RunDependency.needs_id)).all())
    assert stored == {run.id: run.depends_on for run in queue.runs(experiment) if run.depends_on}
