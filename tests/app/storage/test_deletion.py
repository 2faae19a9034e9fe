"""What goes with an experiment that is deleted, and what stays."""


import pytest
from sqlalchemy import func, select

from app.domain.errors import Conflict, LeaseLost, NotFound
from app.domain.plan import PlannedRun, expand
from app.domain.spec import ExperimentSpec, VerifySpec
from app.domain.weights import SourceCheckpoint, WeightsSource
from app.storage import datasets, deletion, experiments, results, runs, verifications
from app.storage.tables import Checkpoint, Experiment, ExperimentRun, Figure, ImageVerdict, Run, RunDependency
from tests.app.work import Queue, verdict

BRANCHED = {"variants": ["default", "lif"]}


def measured(queue: Queue) -> None:
    queue.work_off(lambda run: {}, lambda run, eps: [verdict(0, eps)])


def left(queue: Queue) -> dict[str, int]:
    """How many rows each table has."""
    tables = (Experiment, ExperimentRun, Run, RunDependency, Checkpoint, Figure, ImageVerdict)
    with queue.database.reading() as session:
        counts = {t.__tablename__: session.scalar(select(func.count()).select_from(t)) or 0 for t in tables}
    return {name: count for name, count in counts.items() if count}


def kinds(queue: Queue) -> list[str]:
    with queue.database.reading() as session:
        return sorted(session.scalars(select(Run.kind)))


def test_all_of_an_experiment_goes_where_nothing_else_needs_it(queue: Queue) -> None:
    experiment = queue.submit(**BRANCHED)
    measured(queue)
    assert left(queue)["image_verdicts"] > 0
    own = sorted(run.id for run in queue.runs(experiment))
    assert queue.do(deletion.delete, experiment) == (own, [])
    assert left(queue) == {}


def test_an_experiment_that_waits_or_runs_is_refused_and_nothing_is_lost(queue: Queue) -> None:
    experiment = queue.submit()
    before = left(queue)
    with pytest.raises(Conflict, match="is queued; cancel it first"):
        queue.do(deletion.delete, experiment)
    fence = queue.must_claim()
    with pytest.raises(Conflict, match="is running; cancel it first"):
        queue.do(deletion.delete, experiment)
    queue.cancel(experiment)
    with pytest.raises(Conflict, match="is being stopped; try again"):
        queue.do(deletion.delete, experiment)
    assert left(queue) == before
    queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False)
    queue.do(deletion.delete, experiment)
    assert left(queue) == {}
    with pytest.raises(NotFound):
        queue.do(deletion.delete, experiment)


@pytest.mark.parametrize("how", ["live", "archived", "cancelled"])
def test_runs_that_another_experiment_has_stay(queue: Queue, how: str) -> None:
    first = queue.submit(**BRANCHED)
    measured(queue)
    second = queue.submit()
    shared = [run.id for run in queue.runs(second)]
    if how == "archived":
        queue.do(experiments.archive, second, restore=False)
    if how == "cancelled":
        queue.do(lambda s: setattr(experiments.get(s, second), "cancelled_at", 1.0))
    gone, kept = queue.do(deletion.delete, first)
    assert (set(kept), len(gone)) == (set(shared), 2)
    assert queue.states(second) == ["succeeded", "succeeded"]
    queue.do(deletion.delete, second)
    assert left(queue) == {}


def test_a_checkpoint_that_others_depend_on_stays_and_goes_with_the_last_of_them(queue: Queue) -> None:
    first = queue.submit(evaluation={"eps": ["8/255"]})
    measured(queue)
    [trained, _] = queue.runs(first)
    checkpoint = queue.do(results.checkpoint_of_run, trained.id).id
    later = queue.submit(variants=["default", "lif"], evaluation={"eps": ["16/255"]})
    measured(queue)
    # As an evaluation of a named checkpoint has it: the training is no run of the second experiment.
    queue.do(lambda s: s.delete(s.get_one(ExperimentRun, (later, trained.id))))
    gone, kept = queue.do(deletion.delete, first)
    assert kept == [trained.id]
    assert queue.do(results.checkpoint, checkpoint).run_id == trained.id
    assert kinds(queue) == ["branch", "evaluate", "evaluate", "train"]
    gone, _ = queue.do(deletion.delete, later)
    assert trained.id in gone
    assert left(queue) == {}


def test_a_checkpoint_that_a_training_is_yet_to_start_from_stays(queue: Queue) -> None:
    first = queue.submit()
    fence = queue.must_claim()
    checkpoint = queue.checkpoint(fence, sha256="ab" * 32)
    queue.succeed(fence)
    measured(queue)

    spec = ExperimentSpec.model_validate({"dataset": "digits", "variants": ["default"], "seeds": [5],
                                          "training": {"weights": checkpoint}})
    source = WeightsSource(checkpoint=SourceCheckpoint(checkpoint, "ab" * 32, "resnet20", "cifar", None, 1, None))
    planned = expand(spec, datasets.find("digits", queue.data_dir), [], source)
    queue.do(experiments.create, spec, planned, idempotency_key=None, max_attempts=3)
    _, kept = queue.do(deletion.delete, first)
    assert kept == [fence.run_id]


def test_verifications_go_with_what_they_looked_at_but_not_while_they_run(queue: Queue) -> None:
    experiment = queue.submit()
    measured(queue)
    [trained, _] = queue.runs(experiment)
    checkpoint = queue.do(results.checkpoint_of_run, trained.id).id
    queue.do(verifications.request, checkpoint, VerifySpec(), max_attempts=3)
    with pytest.raises(Conflict, match=r"verify run run_.* is queued; cancel it first"):
        queue.do(deletion.delete, experiment)
    queue.succeed(queue.must_claim())
    queue.do(deletion.delete, experiment)
    assert left(queue) == {}


def test_a_late_worker_of_a_deleted_run_writes_nothing(queue: Queue) -> None:

    experiment = queue.submit()
    late = queue.must_claim()
    queue.expire(late)
    queue.cancel(experiment)
    queue.do(runs.sweep)
    queue.do(deletion.delete, experiment)
    with pytest.raises(LeaseLost):
        queue.succeed(late)
    assert left(queue) == {}


def test_an_experiment_on_a_checkpoint_that_was_just_deleted_is_refused(queue: Queue) -> None:

    first = queue.submit()
    measured(queue)
    [trained, _] = queue.runs(first)
    checkpoint = queue.do(results.checkpoint_of_run, trained.id).id
    spec = ExperimentSpec.model_validate({"dataset": "digits", "checkpoints": [checkpoint],
                                          "evaluation": {"eps": ["16/255"]}})
    named = [PlannedRun("train", trained.spec, stored_as=trained.share_key)]
    planned = expand(spec, datasets.find("digits", queue.data_dir), named)
    queue.do(deletion.delete, first)
    with pytest.raises(Conflict, match="was deleted just now"):
        queue.do(experiments.create, spec, planned, idempotency_key=None, max_attempts=3)
    assert left(queue) == {}
