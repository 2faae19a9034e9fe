"""An `evaluate` run with diagnostics: its checks are stored one by one, and mark its figures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.domain.protocol import Protocol
from app.storage import runs
from app.storage.runs import Fence
from tests.app.work import Queue
from tests.service import make_settings
from worker.data.splits import evaluation_images
from worker.evaluation import diagnostics
from worker.evaluation.clean import pixels
from worker.evaluation.diagnostics import rows
from worker.evaluation.diagnostics.result import Threshold
from worker.jobs import diagnose, evaluate
from worker.jobs.job import Job, open_checkpoint
from worker.jobs.measure import Measure
from worker.progress import Progress

CALLS: list[str] = []


def made_up(name, verdict):
    def check(bench):
        CALLS.append(name)
        assert len(bench) == 10
        yield Threshold(name, 0.1, 0.2).grade(0.3 if verdict == "fail" else 0.0, f"{name} was seen", eps="8/255")

    return check


@pytest.fixture
def evaluation(database, data_dir, monkeypatch):
    """Makes the job of an evaluation of an untrained network; both checks are made up."""
    CALLS.clear()
    monkeypatch.setattr(diagnose, "diagnose", diagnostics.diagnose)
    checks = {"first": made_up("first", "ok"), "second": made_up("second", "fail")}
    monkeypatch.setattr(diagnostics, "CHECKS", checks)
    queue = Queue(database, data_dir)
    queue.trained("default")
    body = {"attacks": [{"name": "pgd", "parameters": {"steps": 5}}], "eps": ["8/255", "16/255"], "images": 10}
    experiment = queue.submit(evaluation=body)
    [run] = [r for r in queue.runs(experiment) if r.kind == "evaluate"]
    fence = queue.must_claim()
    while fence.run_id != run.id:
        fence = queue.must_claim()
    protocol = replace(Protocol.from_dict(run.spec["protocol"]), diagnostics="full")

    def job() -> Job:
        with database.reading() as session:
            claimed = runs.get(session, run.id)
        claimed.spec = {**claimed.spec, "protocol": protocol.to_dict()}
        (data_dir / "runs" / run.id / str(fence.attempt)).mkdir(parents=True, exist_ok=True)
        made = Job(claimed, Fence(run.id, fence.owner, fence.attempt), database, make_settings(data_dir=data_dir),
                   Progress(database, fence), torch.device("cpu"))
        made.folder.mkdir(parents=True, exist_ok=True)
        return made

    return job


def test_what_was_learnt_is_judged_by_the_whole_test_split(evaluation, database):
    """Nothing was, by this network; 10 images are attacked."""
    job = evaluation()
    evaluate.run_evaluate(job)
    with database.reading() as session:
        robust = runs.get(session, job.run.id).metrics["robust"]
    [chance] = [check for check in robust[0]["checks"] if check["check"] == "near_chance"]
    assert "of 359 unchanged images" in chance["text"] or not robust[0]["robust_accuracy"], chance
    assert (chance["verdict"] == "fail") == bool(robust[0]["robust_accuracy"])


def test_checks_are_stored_and_mark_the_figures_of_their_radius(evaluation, database, monkeypatch):
    monkeypatch.setattr(rows, "near_chance", lambda *_: rows.CHANCE.not_applicable("an untrained network is one"))
    job = evaluation()
    evaluate.run_evaluate(job)
    with database.reading() as session:
        robust = runs.get(session, job.run.id).metrics["robust"]
    assert [figure["verdict"] for figure in robust] == ["upper bound only", "ok"]
    assert robust[0]["reasons"] == ["second was seen"]
    named = [check["check"] for check in robust[0]["checks"]]
    assert {"first", "second", "default_sibling", "faulty_gradients"} <= set(named)


def test_a_stopped_evaluation_goes_on_with_the_next_check(evaluation, database, monkeypatch):
    job = evaluation()

    def stop(bench):
        raise RuntimeError("the power failed")
        yield

    with monkeypatch.context() as patch:
        patch.setitem(diagnostics.CHECKS, "second", stop)
        with pytest.raises(RuntimeError, match="power"):
            evaluate.run_evaluate(job)
    with database.reading() as session:
        stored = runs.get(session, job.run.id).metrics
    assert list(stored["diagnostics"]) == ["first"]
    assert "clean" in stored
    evaluate.run_evaluate(evaluation())
    assert CALLS == ["first", "second"]


def opened(database, data_dir, **asked) -> Measure:
    """The measurement of an evaluation that asks for this, of an untrained network for digits."""
    queue = Queue(database, data_dir)
    queue.trained("default")
    body = {"attacks": [{"name": "fgsm"}], "eps": ["8/255"], "images": 10, **asked}
    experiment = queue.submit(evaluation=body)
    [run] = [r for r in queue.runs(experiment) if r.kind == "evaluate"]
    fence = queue.must_claim()
    while fence.run_id != run.id:
        fence = queue.must_claim()
    job = Job(run, Fence(run.id, fence.owner, fence.attempt), database, make_settings(data_dir=data_dir),
              Progress(database, fence), torch.device("cpu"))  # fmt: skip
    _, model = open_checkpoint(job, run.depends_on)
    return Measure.open(job, run.id, run.spec, model, lambda size: None)


def test_a_part_of_the_test_split_is_enough_for_the_clean_accuracy_where_it_is_asked_for(database, data_dir):
    measure = opened(database, data_dir, clean_images=25)
    found = measure.clean(lambda share: None)
    assert found["images"] == 25
    labels = measure.arrays.test.labels
    first = labels[evaluation_images(labels, "digits", 25)]
    assert np.array(found["confusion"]).sum(1).tolist() == np.bincount(first, minlength=10).tolist()


def test_as_published_only_images_that_are_answered_right_are_attacked(database, data_dir):
    measure = opened(database, data_dir, as_published=["correct-images"])
    ids = np.concatenate(measure.parts())
    assert len(ids) == 10
    with torch.no_grad():
        answers = measure.model(pixels(measure.arrays.test.images[ids])).argmax(1).numpy()
    assert (answers == measure.arrays.test.labels[ids]).all()
