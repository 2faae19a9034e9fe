"""Shards between experiments: who has them, who stops them, what goes with them."""

from typing import Any

import pytest

from app.domain.plan import expand
from app.domain.spec import ExperimentSpec
from app.storage import datasets, deletion, durations, experiments, results, retries, runs
from app.storage.runs import Fence
from app.storage.tables import Run
from tests.app.work import Queue

BLOCKS = {"images": 300}


def submit(queue: Queue, shards: int, **body: Any) -> str:
    return queue.submit(evaluation={**BLOCKS, "shards": shards}, **body)


def of_kind(queue: Queue, experiment: str, kind: str) -> list[Run]:
    return [run for run in queue.runs(experiment) if run.kind == kind]


def trained(queue: Queue) -> None:
    fence = queue.must_claim()
    assert queue.run(fence.run_id).kind == "train"
    queue.checkpoint(fence)
    queue.succeed(fence)


def test_an_evaluation_starts_when_all_of_its_shards_have_ended(queue: Queue) -> None:
    experiment = submit(queue, 2)
    assert [run.kind for run in queue.runs(experiment)] == ["train", "shard", "shard", "evaluate"]
    trained(queue)
    first, second = queue.must_claim(), queue.must_claim()
    assert [queue.run(f.run_id).kind for f in (first, second)] == ["shard", "shard"]
    queue.succeed(first)
    assert queue.claim() is None
    queue.succeed(second)
    assert queue.run(queue.must_claim().run_id).kind == "evaluate"


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2), (3, 2)])
def test_a_sharded_and_an_unsharded_request_have_one_evaluation_with_the_shards_it_has(
    queue: Queue, first: int, second: int
) -> None:
    one, other = submit(queue, first), submit(queue, second)
    assert [run.id for run in queue.runs(one)] == [run.id for run in queue.runs(other)]
    assert len(of_kind(queue, other, "shard")) == (first if first > 1 else 0)
    assert all(queue.reused(other))


def test_the_plan_that_is_shown_is_the_one_that_is_stored(queue: Queue) -> None:
    submit(queue, 3)
    body = {"dataset": "digits", "variants": ["default"], "seeds": [0], "evaluation": {**BLOCKS, "shards": 2}}
    planned = expand(ExperimentSpec.model_validate(body), datasets.find("digits", queue.data_dir))
    with queue.database.reading() as session:
        shown = [plan.key for plan in experiments.as_stored(session, planned)]
    assert shown == [run.key for run in queue.runs(submit(queue, 2))]


def test_a_fresh_one_shares_neither_evaluation_nor_shards(queue: Queue) -> None:
    one, other = submit(queue, 2), submit(queue, 3, fresh=True)
    assert not {run.id for run in queue.runs(one)} & {run.id for run in queue.runs(other)}
    assert len(of_kind(queue, other, "shard")) == 3


def test_cancelling_one_experiment_leaves_the_shards_that_another_waits_for(queue: Queue) -> None:
    one, other = submit(queue, 2), submit(queue, 1)
    queue.cancel(one)
    assert set(queue.states(other)) == {"queued"}
    queue.cancel(other)
    assert set(queue.states(other)) == {"cancelled"}


def test_shards_are_as_urgent_as_the_most_urgent_that_wants_their_evaluation(queue: Queue) -> None:
    one = submit(queue, 2)
    submit(queue, 1, priority=5)
    assert {run.priority for run in queue.runs(one)} == {5}


def test_a_shard_that_fails_fails_its_evaluation_with_the_reason_and_both_are_tried_again(queue: Queue) -> None:
    experiment = submit(queue, 2)
    trained(queue)
    failing, going_on = queue.must_claim(), queue.must_claim()
    queue.do(runs.fail, failing, "the disk is full")
    [evaluation] = of_kind(queue, experiment, "evaluate")
    assert (evaluation.state, evaluation.error) == ("failed", "the run it depends on failed: the disk is full")
    queue.succeed(going_on)
    assert queue.state(experiment) == "partial"
    queue.do(retries.retry, failing.run_id)
    assert [run.state for run in queue.runs(experiment)] == ["succeeded", "queued", "succeeded", "queued"]
    queue.work_off()
    assert queue.state(experiment) == "succeeded"


def test_an_evaluation_that_is_tried_again_tries_its_shards_again(queue: Queue) -> None:
    experiment = submit(queue, 2)
    queue.cancel(experiment)
    [evaluation] = of_kind(queue, experiment, "evaluate")
    queue.do(retries.retry, evaluation.id)
    assert set(queue.states(experiment)) == {"queued"}


def test_a_lost_worker_gives_its_shard_back(queue: Queue) -> None:
    experiment = submit(queue, 2)
    trained(queue)
    fence = queue.must_claim()
    queue.expire(fence)
    assert queue.do(runs.sweep) == {"queued": 1}
    assert of_kind(queue, experiment, "evaluate")[0].state == "queued"


def test_shards_stay_as_long_as_an_evaluation_needs_them_and_go_with_the_last(queue: Queue) -> None:
    one, other = submit(queue, 2), submit(queue, 1)
    queue.work_off()
    own = sorted(run.id for run in queue.runs(one))
    gone, kept = queue.do(deletion.delete, one)
    assert (gone, sorted(kept)) == ([], own)
    assert queue.do(deletion.delete, other) == (own, [])


def test_shards_of_two_evaluations_that_differ_in_what_no_attack_reads_are_one(queue: Queue) -> None:
    one = submit(queue, 2)
    other = queue.submit(evaluation={**BLOCKS, "shards": 2, "corruptions": True})
    assert [r.id for r in of_kind(queue, one, "shard")] == [r.id for r in of_kind(queue, other, "shard")]
    queue.work_off()
    gone, _ = queue.do(deletion.delete, one)
    assert len(gone) == 1, "its evaluation alone"
    assert len(queue.runs(other)) == 4


def test_a_sharded_evaluation_took_as_long_as_it_and_its_shards_attacks(queue: Queue) -> None:
    submit(queue, 2)
    trained(queue)
    for number in range(2):
        fence = queue.must_claim()
        queue.do(results.add_block, fence, number, "block.npz", [], images=100, seconds=60.0)
        queue.succeed(fence)
    fence: Fence = queue.must_claim()
    queue.do(results.add_block, fence, 0, "block.npz", [], images=100, seconds=5.0)
    queue.succeed(fence)
    queue.do(lambda session: setattr(runs.get(session, fence.run_id), "worked_seconds", 15.0))
    with queue.database.reading() as session:
        [found] = durations.latest(session, [("evaluate", "resnet20", "default")])
    assert (found.seconds, found.growing_seconds) == (135.0, 125.0)
