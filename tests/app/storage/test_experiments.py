"""Experiments share runs, are cancelled without harm to each other, and are created once a key."""

import itertools
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.domain.errors import Conflict, NotFound
from app.domain.lifecycle import EXPERIMENT_STATES, RUN_STATES, experiment_state
from app.domain.plan import PlannedRun
from app.storage import experiments, runs
from app.storage.identifiers import new_id
from app.storage.tables import Experiment, ExperimentRun, Run
from tests.app.work import in_threads

# Sharing


def test_what_another_experiment_asked_for_is_shared_and_says_so(queue) -> None:
    first = queue.submit(seeds=[0])
    second = queue.submit(seeds=[0, 1])
    assert queue.reused(first) == [False, False]
    assert queue.reused(second) == [True, True, False, False]
    assert [r.id for r in queue.runs(second)[:2]] == [r.id for r in queue.runs(first)]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_a_run_is_shared_while_it_may_still_succeed_or_has(queue, state: str) -> None:
    first = queue.submit()
    fence = queue.must_claim() if state != "queued" else None
    if state == "succeeded":
        queue.succeed(fence)
    assert queue.runs(queue.submit())[0].id == queue.runs(first)[0].id


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_run_that_did_not_succeed_is_not_shared(queue, state: str) -> None:
    first = queue.submit()
    queue.do(runs.fail, queue.must_claim(), "no") if state == "failed" else queue.cancel(first)
    second = queue.submit()
    assert queue.reused(second) == [False, False]
    assert queue.states(second) == ["queued", "queued"]
    train, evaluation = queue.runs(second)
    assert evaluation.depends_on == train.id


def test_a_fresh_experiment_shares_nothing_and_nothing_shares_with_it(queue) -> None:
    queue.submit()
    fresh = queue.submit(fresh=True)
    assert queue.reused(fresh) == [False, False]
    third = queue.submit()
    assert {r.id for r in queue.runs(third)}.isdisjoint({r.id for r in queue.runs(fresh)})
    assert queue.runs(fresh)[1].depends_on == queue.runs(fresh)[0].id


def test_a_key_read_back_from_the_database_is_the_key_of_what_was_stored(queue) -> None:
    experiment = queue.submit(variants=["lif", "paralif"], training={"learning_rate": 1e-5, "epochs": 3})
    for run in queue.runs(experiment):
        assert PlannedRun(run.kind, run.spec).key == run.key


def test_experiments_created_at_once_share_each_run(queue) -> None:
    """Different orders of the same runs: without a lock PostgreSQL would see deadlocks and doubled keys."""
    made: list[str] = []
    faults: list[BaseException] = []

    def submit(seeds: list[int]) -> None:
        try:
            made.append(queue.submit(seeds=seeds, variants=["default", "lif"]))
        except BaseException as error:
            faults.append(error)

    orders = list(itertools.permutations(range(4)))[:: 24 // 8]
    in_threads(submit, [(list(order),) for order in orders])
    assert faults == []
    assert len(made) == 8
    with queue.database.reading() as session:
        assert len(session.scalars(select(Run.id)).all()) == 4 * (1 + 1 + 2)
        assert len(session.scalars(select(ExperimentRun.run_id)).all()) == 8 * 16
    assert sum(reused.count(False) for reused in map(queue.reused, made)) == 16


def test_the_database_itself_refuses_a_second_live_run_of_one_specification(queue) -> None:
    run = queue.runs(queue.submit())[0]
    twin = Run(id=new_id("run"), kind="train", key=run.key, share_key=run.share_key, spec={})
    with pytest.raises(IntegrityError):
        queue.do(lambda session: (session.add(twin), session.flush()))


def test_existing_checkpoints_are_evaluated_without_training(queue) -> None:
    first = queue.submit(variants=["lif"])
    queue.work_off()
    branch = queue.runs(first)[1]
    from app.domain.plan import PlannedRun, expand
    from app.domain.spec import ExperimentSpec
    from app.storage import datasets

    spec = ExperimentSpec.model_validate({"dataset": "digits", "checkpoints": ["c"], "evaluation": {"images": 20}})
    planned = expand(spec, datasets.find("digits", queue.data_dir), [PlannedRun("branch", branch.spec)])
    with queue.database.writing() as session:
        second = experiments.create(session, spec, planned, idempotency_key=None, max_attempts=3).id
    [evaluation] = queue.runs(second)
    assert (evaluation.kind, evaluation.depends_on, evaluation.state) == ("evaluate", branch.id, "queued")


# Idempotency


def test_a_repeat_with_the_same_key_is_the_same_experiment(queue) -> None:
    first = queue.submit(key="k")
    assert queue.submit(key="k") == first
    assert queue.submit(key="other") != first


def test_a_repeat_that_spells_out_a_default_is_the_same_body(queue) -> None:
    assert queue.submit(key="k") == queue.submit(key="k", architectures=["resnet20"], branch_seeds=[0])


@pytest.mark.parametrize("since", ["a field came", "another default"])
def test_a_repeat_after_an_upgrade_is_the_same_experiment(queue, since: str) -> None:
    """What was stored before the upgrade: without a field of today, with what was another default then."""
    first = queue.submit(key="k", seeds=[0])
    with queue.database.writing() as session:
        row = session.get(Experiment, first)
        if since == "a field came":
            row.body_digest = "as the version before made it"
            row.spec = {name: value for name, value in row.spec.items() if name != "time_limit_seconds"}
        else:
            row.spec = {**row.spec, "branch_seeds": [0, 1]}
    assert queue.submit(key="k", seeds=[0]) == first
    with pytest.raises(Conflict, match=first):
        queue.submit(key="k", seeds=[0], time_limit_seconds=60)


def test_an_experiment_that_could_not_be_asked_for_any_more_is_another(queue) -> None:
    first = queue.submit(key="k", seeds=[0])
    with queue.database.writing() as session:
        row = session.get(Experiment, first)
        row.body_digest, row.spec = "as the version before made it", {**row.spec, "gone": 1}
    with pytest.raises(Conflict, match=first):
        queue.submit(key="k", seeds=[0])


def test_a_repeat_with_another_body_is_a_conflict_and_stores_nothing(queue) -> None:
    first = queue.submit(key="k")
    with pytest.raises(Conflict, match=first):
        queue.submit(key="k", seeds=[7])
    with queue.database.reading() as session:
        assert session.scalars(select(Experiment.id)).all() == [first]


def test_repeats_at_once_are_one_experiment(queue) -> None:
    made: list[str] = []
    in_threads(lambda: made.append(queue.submit(key="k", seeds=[0, 1])), [()] * 8)
    assert len(made) == 8
    assert len(set(made)) == 1


# Cancelling


def test_cancelling_ends_queued_runs_at_once(queue) -> None:
    experiment = queue.submit(variants=["default", "lif"])
    queue.cancel(experiment)
    assert set(queue.states(experiment)) == {"cancelled"}
    assert all(run.finished_at is not None for run in queue.runs(experiment))
    assert queue.claim() is None


def test_cancelling_asks_a_running_run_to_stop_and_ends_what_waits_for_it(queue) -> None:
    experiment = queue.submit()
    fence = queue.must_claim()
    queue.cancel(experiment)
    assert queue.states(experiment) == ["running", "cancelled"]
    assert queue.state(experiment) == "cancelled"
    assert queue.do(runs.renew, fence, 60) is True
    assert queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False) == "cancelled"
    assert queue.states(experiment) == ["cancelled", "cancelled"]


def test_a_cancelled_run_whose_worker_died_is_not_queued_again(queue) -> None:
    experiment = queue.submit()
    fence = queue.must_claim()
    queue.cancel(experiment)
    queue.expire(fence)
    assert queue.do(runs.sweep) == {"cancelled": 1}
    assert queue.states(experiment) == ["cancelled", "cancelled"]


def test_a_run_that_finished_before_it_could_be_stopped_has_succeeded(queue) -> None:
    experiment = queue.submit()
    fence = queue.must_claim()
    queue.cancel(experiment)
    queue.succeed(fence)
    assert queue.run(fence.run_id).state == "succeeded"
    assert queue.run(fence.run_id).cancel_requested_at is None
    assert queue.state(experiment) == "cancelled"


def test_cancelling_leaves_what_another_experiment_wants(queue) -> None:
    one, other = queue.submit(seeds=[0, 1]), queue.submit(seeds=[1])
    queue.cancel(one)
    assert queue.states(one) == ["cancelled", "cancelled", "queued", "queued"]
    assert queue.states(other) == ["queued", "queued"]
    queue.cancel(other)
    assert set(queue.states(one)) == {"cancelled"}


def test_a_running_run_that_is_wanted_again_is_not_stopped(queue) -> None:
    queue.cancel(first := queue.submit()) if queue.submit(seeds=[9]) else None
    assert queue.state(first) == "cancelled"
    one = queue.submit(seeds=[5])
    fence = queue.must_claim()
    while fence.run_id != queue.runs(one)[0].id:
        fence = queue.must_claim()
    queue.cancel(one)
    assert queue.do(runs.cancel_requested, fence.run_id)
    again = queue.submit(seeds=[5])
    assert not queue.do(runs.cancel_requested, fence.run_id)
    assert queue.reused(again) == [True, False]  # the training goes on; its evaluation was cancelled at once
    queue.succeed(fence)
    assert queue.states(again) == ["succeeded", "queued"]


def test_cancelling_twice_changes_nothing(queue) -> None:
    experiment = queue.submit()
    queue.cancel(experiment)
    before = [(r.state, r.finished_at) for r in queue.runs(experiment)]
    queue.cancel(experiment)
    assert [(r.state, r.finished_at) for r in queue.runs(experiment)] == before


def test_what_has_ended_cannot_be_cancelled(queue) -> None:
    experiment = queue.submit()
    queue.work_off()
    with pytest.raises(Conflict, match="already succeeded"):
        queue.cancel(experiment)
    with pytest.raises(NotFound):
        queue.cancel("exp_none")


def test_cancel_and_submit_at_once_never_leave_a_wanted_run_cancelled(queue) -> None:
    for seed in range(10):
        first = queue.submit(seeds=[seed])
        second: list[str] = []
        in_threads(
            lambda action: action(),
            [(lambda e=first: queue.cancel(e),), (lambda s=seed, ids=second: ids.append(queue.submit(seeds=[s])),)],
        )
        assert queue.states(second[0]) == ["queued", "queued"]
        queue.cancel(second[0])


# States and pages


def test_the_state_in_the_database_is_the_state_in_python_for_every_mix_of_runs(queue) -> None:
    """Every set of up to three run states, cancelled or not: one experiment each."""
    expected: dict[str, str] = {}
    mixes = [m for n in range(4) for m in itertools.combinations_with_replacement(RUN_STATES, n)]
    rows: list[Any] = []
    links: list[Any] = []
    for mix, cancelled in itertools.product(mixes, (False, True)):
        experiment = new_id("exp")
        expected[experiment] = experiment_state(mix, cancelled=cancelled)
        rows.append(Experiment(id=experiment, dataset="digits", spec={}, body_digest="",
                               cancelled_at=1.0 if cancelled else None))  # fmt: skip
        for position, state in enumerate(mix):
            run = new_id("run")
            rows.append(Run(id=run, kind="train", key=run, share_key=run, spec={}, state=state))
            links.append(ExperimentRun(experiment_id=experiment, run_id=run, position=position))
    queue.do(lambda s: (s.add_all(rows), s.flush(), s.add_all(links)))
    found: dict[str, str] = {}
    for state in EXPERIMENT_STATES:
        with queue.database.reading() as session:
            page, following = experiments.page(session, after=None, limit=500, state=state)
            assert following is None
            wanted = {e.id: experiments.runs_of(session, e.id) for e in page}
            assert {experiments.state_of(experiments.get(session, e.id), wanted[e.id]) for e in page} <= {state}
        found |= dict.fromkeys((e.id for e in page), state)
    assert found == expected


def test_pages_are_complete_without_repeats_and_newest_first(queue) -> None:
    made = [queue.submit(seeds=[n], dataset="digits") for n in range(7)]
    found: list[str] = []
    cursor = None
    while True:
        with queue.database.reading() as session:
            page, cursor = experiments.page(session, after=cursor, limit=3)
        found += [e.id for e in page]
        if cursor is None:
            break
    assert found == made[::-1]


def test_a_page_that_holds_exactly_the_rest_is_the_last(queue) -> None:
    for seed in range(3):
        queue.submit(seeds=[seed])
    with queue.database.reading() as session:
        page, cursor = experiments.page(session, after=None, limit=3)
    assert (len(page), cursor) == (3, None)


def test_archived_experiments_are_hidden_from_lists_and_can_be_shown_again(queue) -> None:
    hidden, shown = queue.submit(seeds=[0]), queue.submit(seeds=[1])

    def listed(*, archived: bool) -> list[str]:
        with queue.database.reading() as session:
            return [e.id for e in experiments.page(session, after=None, limit=9, archived=archived)[0]]

    queue.do(experiments.archive, hidden, restore=False)
    assert (listed(archived=False), listed(archived=True)) == ([shown], [hidden])
    queue.do(experiments.archive, hidden, restore=True)
    assert listed(archived=False) == [shown, hidden]


def test_names_sort_by_creation() -> None:
    made = [new_id("run") for _ in range(1000)]
    assert made == sorted(made)
    assert len(set(made)) == 1000
