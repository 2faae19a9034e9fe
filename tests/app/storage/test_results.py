"""What runs found: checkpoints, blocks with per-image rows, figures."""

import pytest

from app.domain.errors import InvalidInput, LeaseLost, NotFound
from app.storage import results, runs
from app.storage.tables import ImageRow
from tests.app.work import verdict


def image_row(image: int, eps: str = "8/255", attack: str = "pgd") -> dict[str, object]:
    return {"eps": eps, "attack": attack, "image_id": image, "correct_share": 0.5, "success": False, "norm": 0.1,
            "queries": 3, "gradients": 2}  # fmt: skip


@pytest.fixture
def evaluation(queue):
    """The fence of an evaluation in hand."""
    queue.submit()
    training = queue.must_claim()
    queue.checkpoint(training)
    queue.succeed(training)
    return queue.must_claim()


def test_a_block_is_stored_once_with_its_rows(queue, evaluation) -> None:
    queue.do(results.add_block, evaluation, 0, "a.npz", [image_row(1), image_row(2)])
    queue.do(results.add_block, evaluation, 1, "b.npz", [])
    assert queue.do(results.blocks, evaluation.run_id) == {0: "a.npz", 1: "b.npz"}


def test_a_later_attempt_finds_the_blocks_of_the_earlier_one(queue, evaluation) -> None:
    queue.do(results.add_block, evaluation, 0, "a.npz", [image_row(1)])
    queue.expire(evaluation)
    queue.do(runs.sweep)
    again = queue.must_claim("worker:2")
    assert queue.do(results.blocks, again.run_id) == {0: "a.npz"}


def test_rows_come_in_pages_by_image_radius_and_attack_complete_and_without_repeats(queue, evaluation) -> None:
    rows = [image_row(i, e, a) for i in (10, 2, 1) for e in ("8/255", "2/255") for a in ("pgd", "fgsm", "pgd-2")]
    queue.do(results.add_block, evaluation, 0, "a.npz", rows)
    found: list[ImageRow] = []
    cursor = None
    while True:
        with queue.database.reading() as session:
            page, cursor = results.image_rows(session, evaluation.run_id, after=cursor, limit=4)
        found += page
        if cursor is None:
            break
    places = [(r.image_id, r.eps, r.attack) for r in found]
    assert places == sorted((r["image_id"], r["eps"], r["attack"]) for r in rows)  # type: ignore[type-var]


@pytest.mark.parametrize("cursor", ["", "x", "-1:8/255:pgd", "1", "1:8/255", f"{10**30}:8/255:pgd", "٣:8/255:pgd"])
def test_a_cursor_that_is_none_is_refused(queue, evaluation, cursor: str) -> None:
    with pytest.raises(InvalidInput):
        queue.do(results.image_rows, evaluation.run_id, after=cursor, limit=4)


def test_an_earlier_attempts_checkpoint_of_the_same_epoch_gives_way(queue) -> None:
    queue.submit()
    first = queue.must_claim()
    queue.checkpoint(first, epoch=3, final=False)
    queue.checkpoint(first, epoch=5)
    queue.expire(first)
    queue.do(runs.sweep)
    again = queue.must_claim()
    new = queue.checkpoint(again, epoch=5)
    assert queue.do(results.checkpoint_of_run, again.run_id).id == new
    assert queue.do(results.checkpoint_of_run, again.run_id, 3).epoch == 3
    page, _ = queue.do(results.checkpoints, after=None, limit=9)
    assert [c.epoch for c in page] == [5, 3]


def test_a_checkpoint_that_is_not_there_is_not_found(queue) -> None:
    with pytest.raises(NotFound):
        queue.do(results.checkpoint, "ckpt_none")
    with pytest.raises(NotFound):
        queue.do(results.checkpoint_of_run, "run_none")


def test_figures_written_again_replace_the_earlier_ones(queue, evaluation) -> None:
    run = queue.run(evaluation.run_id)
    queue.do(results.add_figures, evaluation, queue.figures(run, robust_accuracy=0.9))
    queue.do(results.add_figures, evaluation, queue.figures(run, robust_accuracy=0.4))
    measured = queue.do(results.measured, "digits")
    assert sorted(m.robust_accuracy for m in measured) == pytest.approx([0.2, 0.3, 0.4])
    assert {m.test_images for m in measured} == {359}


def test_figures_are_read_back_as_they_were_written(queue, evaluation) -> None:
    exact = 0.1 + 0.2
    queue.do(results.add_figures, evaluation, queue.figures(queue.run(evaluation.run_id), clean_accuracy=exact))
    [m, *_] = queue.do(results.measured, "digits", norm="linf", suite=None)
    assert m.clean_accuracy == exact
    assert m.protocol["eps"] in (8 / 255, 32 / 255, 64 / 255)
    assert queue.do(results.measured, "digits", norm="l2") == []
    assert queue.do(results.measured, "cifar10") == []


def test_verdicts_come_in_pages_by_image_and_radius_and_replace_earlier_ones(queue, evaluation) -> None:
    queue.do(results.add_verdicts, evaluation, [verdict(99)])
    rows = [verdict(i, e, attack=a) for i, a in ((10, "pgd"), (2, None), (1, "fgsm")) for e in ("8/255", "2/255")]
    queue.do(results.add_verdicts, evaluation, rows)
    found, cursor = [], None
    while True:
        with queue.database.reading() as session:
            page, cursor = results.verdicts(session, evaluation.run_id, after=cursor, limit=4)
        found += page
        if cursor is None:
            break
    assert [(r.image_id, r.eps, r.attack) for r in found] == [
        (1, "2/255", "fgsm"), (1, "8/255", "fgsm"), (2, "2/255", None), (2, "8/255", None), (10, "2/255", "pgd"),
        (10, "8/255", "pgd"),
    ]  # fmt: skip
    assert (found[0].ssim, found[0].l2, found[0].clean_majority) == (0.9, 0.2, True)


@pytest.mark.parametrize("cursor", ["", "x", "-1:8/255", "1", f"{10**30}:8/255"])
def test_a_cursor_of_verdicts_that_is_none_is_refused(queue, evaluation, cursor: str) -> None:
    with pytest.raises(InvalidInput):
        queue.do(results.verdicts, evaluation.run_id, after=cursor, limit=4)


def test_a_job_that_lost_its_run_stores_no_verdicts(queue, evaluation) -> None:
    queue.expire(evaluation)
    queue.do(runs.sweep)
    queue.must_claim("worker:2")
    with pytest.raises(LeaseLost):
        queue.do(results.add_verdicts, evaluation, [verdict(1)])


def test_shares_and_votes_are_in_the_order_of_the_images_of_one_radius(queue, evaluation) -> None:
    rows = [verdict(i, right=r) for i, r in ((7, 0.25), (3, 1.0), (5, 0.75))] + [verdict(1, "2/255")]
    queue.do(results.add_verdicts, evaluation, rows)
    run = evaluation.run_id
    assert queue.do(results.correct_shares, [run, "run_old"], "8/255")[run].tolist() == [1.0, 0.75, 0.25]
    assert queue.do(results.majorities, [run], "8/255")[run].tolist() == [1, 1, 0]
    assert queue.do(results.correct_shares, ["run_old"], "8/255") == {}
