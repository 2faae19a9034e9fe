"""A float32 checkpoint becomes one in eight bits, which is evaluated, verified and compared like any other."""

import pytest

from app.domain.energy import MULTIPLY_ADD_PJ
from app.storage import results
from app.storage.tables import Run
from models import checkpoint as checkpoint_file
from tests.worker.jobs.conftest import SHORT
from worker.evaluation.corruptions import CORRUPTIONS


def quantised(workshop, **body):
    """The quantise run, done, and the evaluations after it; its source is untrained."""
    workshop.trained()
    experiment = workshop.queue.submit(precision=["float32", "int8"], evaluation={**SHORT, "images": 12}, **body)
    done = workshop.finish_evaluations()
    assert workshop.queue.state(experiment) == "succeeded"
    return next(run for run in done if run.kind == "quantise"), [run for run in done if run.kind == "evaluate"]


def rows_of(workshop):
    with workshop.queue.database.reading() as session:
        return {m.precision: m for m in results.measured(session, "digits") if m.eps == "8/255"}


def open_file(workshop, run: Run):
    with workshop.queue.database.reading() as session:
        row = results.checkpoint_of_run(session, run.id)
    return row, *checkpoint_file.load(workshop.queue.data_dir / row.path)


def test_it_becomes_a_checkpoint_of_its_own_and_says_so(workshop) -> None:
    run, _ = quantised(workshop)
    row, model, metadata = open_file(workshop, run)
    assert model.spec.precision == row.spec["model"]["precision"] == "int8"
    assert row.parent_id is not None
    with workshop.queue.database.reading() as session:
        parent = results.checkpoint(session, row.parent_id)
    assert row.size < 0.35 * parent.size
    assert metadata["parent_sha256"] == parent.sha256
    assert metadata["run"]["quantisation"] == {"method": "ptq", "images": 512}
    assert row.metrics["latency"]["p50_ms"] > 0
    assert row.metrics["latency"]["kernels"] in ("int8", "simulated")
    assert row.metrics["latency"]["machine"]
    assert {"latency", "energy"}.isdisjoint(metadata["metrics"]), "equal runs would differ in their sha256"
    assert row.metrics["float32_validation_accuracy"] >= 0


def test_both_precisions_share_a_protocol_and_rounding_is_named(workshop) -> None:
    _, evaluations = quantised(workshop)
    assert len(evaluations) == 2
    found = rows_of(workshop)
    assert found["float32"].protocol_id == found["int8"].protocol_id
    assert found["int8"].protocol["gradient"] == "straight_through"
    assert "gradient" not in found["float32"].protocol
    assert found["float32"].group != found["int8"].group
    assert found["int8"].settings == "ptq"
    assert found["int8"].size < 0.35 * found["float32"].size
    energies = [found[name].energy for name in ("int8", "float32")]
    assert energies[0]["multiply_adds"] == energies[1]["multiply_adds"] > 1e6
    ratio = MULTIPLY_ADD_PJ["int8"] / MULTIPLY_ADD_PJ["float32"]
    assert energies[0]["microjoules"] / energies[1]["microjoules"] == pytest.approx(ratio)


def test_its_figures_agree_when_they_are_verified(workshop) -> None:
    run, _ = quantised(workshop)
    row, *_ = open_file(workshop, run)
    assert workshop.verify(row.id).metrics["text"] == "Agrees: all 3 figures, bit for bit."


def test_training_through_the_rounding_changes_the_weights_and_keeps_its_epochs(workshop) -> None:
    how = {"method": "qat", "images": 64, "epochs": 1, "learning_rate": 0.01}
    plain, _ = quantised(workshop)
    run, _ = quantised(workshop, quantisation=how)
    before, after = (open_file(workshop, r)[1].state_dict() for r in (plain, run))
    metadata = open_file(workshop, run)[2]
    assert metadata["run"]["quantisation"] == {**how, "batch_size": 64}
    assert [epoch["epoch"] for epoch in run.metrics["epochs"]] == [1]
    name = "encoder.layer3.2.convs.1.stored.integers"
    assert (before[name] != after[name]).float().mean() > 0.05
    assert not list((workshop.queue.data_dir / "runs" / run.id).glob("resume.pt"))


def test_corruptions_stand_beside_the_figures_that_asked_for_them(workshop, monkeypatch) -> None:
    few = {name: CORRUPTIONS[name] for name in ("contrast", "brightness")}
    for module in ("worker.jobs.diagnose", "worker.evaluation.corruptions"):
        monkeypatch.setattr(f"{module}.CORRUPTIONS", few)
    workshop.evaluated(corruptions=True)
    measured = rows_of(workshop)["float32"]
    assert set(measured.corruptions["by_type"]) == {"contrast", "brightness"}
    assert measured.corruptions["mean"] == pytest.approx(sum(measured.corruptions["by_type"].values()) / 2)
    workshop.evaluated(images=10)
    assert any(m.corruptions is None for m in _all(workshop))


def _all(workshop):
    with workshop.queue.database.reading() as session:
        return results.measured(session, "digits")
