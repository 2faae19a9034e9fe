"""One attack on one image: what is stored of it, and that it is the attack of an evaluation."""

import numpy as np
import pytest
from PIL import Image

from app.domain.single_attack import AttackRequest
from app.storage import attacks, results
from app.storage.tables import Run


def ask(workshop, checkpoint: str, pixels: np.ndarray | None = None, **wanted) -> Run:
    queue = workshop.queue
    content, placed = None, None
    if pixels is not None:
        path = queue.data_dir / "sent.npy"
        np.save(path, pixels)
        content = path.read_bytes()
        placed = attacks.place_input(queue.data_dir, content)
    request = AttackRequest(**wanted)
    with queue.database.reading() as session:
        row = results.checkpoint(session, checkpoint)
        planned = attacks.plan(session, queue.data_dir, row, request, content)
    run, new = queue.do(attacks.request, checkpoint, planned, fresh=False, placed=placed, limits={"max_attempts": 3})
    assert new
    done = workshop.work()
    assert done.id == run.id
    return done


def arrays(workshop, run: Run) -> dict[str, np.ndarray]:
    with np.load(workshop.queue.data_dir / run.metrics["adversarial"]) as loaded:
        return dict(loaded)


def test_an_image_that_was_sent_is_attacked_within_its_ball(workshop) -> None:
    sent = np.random.default_rng(0).random((1, 8, 8), np.float32)
    run = ask(workshop, workshop.trained(), sent, eps="16/255", parameters={"steps": 3}, label=4)
    assert run.state == "succeeded", run.error
    kept, found = arrays(workshop, run), run.metrics
    np.testing.assert_array_equal(kept["original"], sent)
    change = np.abs(kept["adversarial"] - sent)
    assert 0 < change.max() <= 16 / 255 + 1e-6
    assert found["distance"]["linf"] == pytest.approx(change.max(), abs=1e-6)
    assert 0 < found["distance"]["ssim"] < 1
    assert (found["label"], found["label_from"]) == ({"index": 4, "class": "4"}, "given")
    assert found["fooled"] == (found["before"]["answer"]["index"] == 4 != found["after"]["answer"]["index"])
    assert found["draws"] == 1
    for side in ("before", "after"):
        assert sum(one["probability"] for one in found[side]["classes"]) == pytest.approx(1)
        assert {one["sd"] for one in found[side]["classes"]} == {None}
    for name, shown in (("original", sent), ("adversarial", kept["adversarial"])):
        with Image.open(workshop.queue.data_dir / found["pictures"][name]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), (shown[0] * 255).round())
    with Image.open(workshop.queue.data_dir / found["pictures"]["perturbation"]) as picture:
        assert set(np.unique(np.asarray(picture))) & {0, 255}, "the largest change spans half the range"


def test_a_test_image_comes_out_as_an_evaluation_has_it(workshop) -> None:
    evaluation = workshop.evaluated(attacks=[{"name": "fgsm"}], eps=["32/255"], images=80)
    kept = arrays(workshop, evaluation)
    place = int(np.flatnonzero(kept["index"][0] >= 0)[0])
    checkpoint, number = evaluation.metrics["checkpoint"], int(kept["ids"][place])
    run = ask(workshop, checkpoint, test_image=number, attack="fgsm", eps="32/255")
    assert (run.state, run.metrics["label_from"]) == ("succeeded", "test split"), run.error
    alone = arrays(workshop, run)
    assert alone["label"] == kept["labels"][place]
    np.testing.assert_allclose(alone["adversarial"], kept["images"][kept["index"][0][place]], atol=1e-6)


def test_a_stochastic_network_answers_with_its_spread_and_the_same_again(workshop) -> None:
    checkpoint = workshop.queue.trained("paralif")
    workshop.change(Run, state="cancelled")(Run.kind == "evaluate", Run.state == "queued")
    runs = [ask(workshop, checkpoint, np.full((1, 8, 8), 0.5, np.float32), attack="fgsm", seed=seed) for seed in (0, 1)]
    first, other = (run.metrics for run in runs)
    assert first["draws"] == 100
    assert first["label_from"] == "answer"
    assert first["label"] == first["before"]["answer"]
    assert all(one["sd"] > 0 for one in first["before"]["classes"])
    assert first["before"]["classes"] != other["before"]["classes"], "another seed, other draws"


def test_a_gradient_that_the_network_does_not_have_is_said(workshop) -> None:
    run = ask(workshop, workshop.trained(), attack="apgd", test_image=0, parameters={"gradient": "bptr", "steps": 2})
    assert run.state == "failed"
    assert "does not apply to this network" in run.error


def test_a_file_that_is_gone_fails_the_run_with_what_to_do(workshop) -> None:
    checkpoint = workshop.trained()
    sent = np.zeros((1, 8, 8), np.float32)
    done = ask(workshop, checkpoint, sent, attack="fgsm")
    assert done.state == "succeeded"
    (workshop.queue.data_dir / done.metrics["input"]).unlink()
    workshop.change(Run, state="failed")(Run.id == done.id)
    workshop.change(Run, state="queued")(Run.id == done.id)
    assert "send it again" in workshop.work().error
