"""Verifications as they are asked for: shared while under way, anew afterwards, shown on the checkpoint."""

import pytest

from app.domain.errors import Conflict, InvalidInput, NotFound
from app.domain.spec import VerifySpec
from app.storage import results, retries, runs, verifications
from app.storage.tables import Checkpoint, Run
from tests.app.work import in_threads


@pytest.fixture
def evaluated(queue) -> tuple[str, str]:
    """(checkpoint, its evaluation), both as if they had been worked on."""
    _, evaluation = queue.runs(queue.submit())
    fence = queue.must_claim()
    checkpoint = queue.checkpoint(fence)
    queue.succeed(fence)
    queue.do(runs.succeed, queue.must_claim(), {"checkpoint": checkpoint})
    return checkpoint, evaluation.id


def ask(queue, checkpoint: str, **wanted) -> Run:
    return queue.do(verifications.request, checkpoint, VerifySpec(**wanted), max_attempts=3)


def finish(queue, agrees: bool) -> None:
    queue.do(runs.succeed, queue.must_claim(), {"agrees": agrees, "text": str(agrees)})


def test_it_is_ready_at_once_and_names_what_it_will_look_at(queue, evaluated) -> None:
    checkpoint, evaluation = evaluated
    run = ask(queue, checkpoint)
    assert (run.kind, run.state) == ("verify", "queued")
    assert (run.spec["checkpoint"], run.spec["runs"], run.spec["clean"]) == (checkpoint, [evaluation], True)
    assert run.spec["subject"]["epochs"] == "<5>"
    assert [waiting.kind for waiting in queue.do(runs.to_announce, 60.0)] == ["verify"]
    assert queue.must_claim().run_id == run.id


@pytest.mark.parametrize("running", [False, True])
def test_a_repeat_is_the_same_run_while_it_is_under_way_and_another_one_afterwards(queue, evaluated, running) -> None:
    checkpoint, _ = evaluated
    first = ask(queue, checkpoint)
    if running:
        fence = queue.must_claim()
        queue.do(runs.request_cancel, [first.id])
    again = ask(queue, checkpoint)
    assert (again.id, again.cancel_requested_at) == (first.id, None)
    assert ask(queue, checkpoint, clean=False).id != first.id, "which asks for something else"
    queue.do(runs.succeed, fence if running else queue.must_claim(), {})
    assert ask(queue, checkpoint).id != first.id


def test_many_at_once_get_one_run(queue, evaluated) -> None:
    found: list[str] = []
    in_threads(lambda: found.append(ask(queue, evaluated[0]).id), [()] * 6)
    assert len(found) == 6
    assert len(set(found)) == 1


def test_the_last_verdict_is_the_checkpoints(queue, evaluated) -> None:
    checkpoint, _ = evaluated

    def last() -> Run | None:
        with queue.database.reading() as session:
            return verifications.last(session, session.get_one(Checkpoint, checkpoint))

    assert last() is None
    for agrees in (False, True):
        run = ask(queue, checkpoint)
        assert (last() is not None) == agrees, "one that is queued is no verdict"
        finish(queue, agrees)
        assert last().id == run.id
        assert last().metrics["agrees"] is agrees
    ask(queue, checkpoint)
    queue.do(runs.fail, queue.must_claim(), "the file is gone")
    assert last().metrics["agrees"] is True


def test_where_there_is_nothing_to_verify_it_is_a_conflict(queue) -> None:
    queue.submit()
    checkpoint = queue.checkpoint(queue.must_claim())
    with pytest.raises(Conflict, match="nothing to verify"):
        ask(queue, checkpoint, clean=False)
    assert ask(queue, checkpoint).spec["runs"] == []


def test_to_verify_nothing_of_what_there_is_is_refused(queue, evaluated) -> None:
    with pytest.raises(InvalidInput) as refused:
        ask(queue, evaluated[0], runs=[], clean=False)
    assert [problem.pointer for problem in refused.value.problems] == ["/runs"]


def test_only_evaluations_of_this_checkpoint_that_succeeded_can_be_named(queue, evaluated) -> None:
    checkpoint, evaluation = evaluated
    other = queue.runs(queue.submit(seeds=[1]))
    named = [evaluation, "run_none", other[1].id, other[0].id]
    with pytest.raises(InvalidInput) as caught:
        ask(queue, checkpoint, runs=named)
    assert [problem.pointer for problem in caught.value.problems] == ["/runs/1", "/runs/2", "/runs/3"]
    assert "there is no run 'run_none'" in caught.value.problems[0].detail
    assert "is no evaluation of checkpoint" in caught.value.problems[1].detail
    assert ask(queue, checkpoint, runs=[evaluation]).spec["runs"] == [evaluation]
    with pytest.raises(NotFound):
        ask(queue, "ckpt_none")


def test_an_evaluation_that_has_not_succeeded_is_not_verified(queue, evaluated) -> None:
    checkpoint, _ = evaluated
    queue.submit(evaluation={"images": 7})
    with queue.database.reading() as session:
        assert len(results.evaluations(session, session.get_one(Checkpoint, checkpoint))) == 1


def test_it_is_cancelled_by_itself_and_what_an_experiment_wants_is_not(queue, evaluated) -> None:
    checkpoint, _ = evaluated
    run = ask(queue, checkpoint)
    queue.do(runs.cancel, run.id)
    assert queue.run(run.id).state == "cancelled"
    with pytest.raises(Conflict, match="already cancelled"):
        queue.do(runs.cancel, run.id)
    experiment = queue.submit(seeds=[3])
    with pytest.raises(Conflict, match=experiment):
        queue.do(runs.cancel, queue.runs(experiment)[0].id)
    second = ask(queue, checkpoint)
    assert second.id != run.id
    queue.do(retries.retry, run.id)
    assert queue.run(run.id).state == "queued"
