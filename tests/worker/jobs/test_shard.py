"""Shards of an evaluation, and the evaluation that joins them."""

import hashlib
from typing import Any

import numpy as np
import pytest

from app.storage import garbage, results
from app.storage.engine import to_json
from app.storage.tables import EvaluationBlock, Run

THREE_BLOCKS = {"images": 210}  # of 70 images


def stored(workshop: Any, run: Run) -> dict[str, Any]:
    """All that an evaluation leaves, without ids and times."""
    queue, run = workshop.queue, workshop.queue.run(run.id)
    with queue.database.reading() as session:
        paths = results.blocks(session, run.id)
        verdicts, _ = results.verdicts(session, run.id, after=None, limit=10_000)
        figures = results.figures(session, run.id)
    folder = queue.data_dir / f"runs/{run.id}"
    gallery = {name: digest(queue.data_dir / path) for name, path in run.metrics["gallery"].items()}
    left_out = ("run_id", "created_at")
    return {
        "blocks": {number: digest(queue.data_dir / path) for number, path in sorted(paths.items())},
        "adversarial": digest(queue.data_dir / run.metrics["adversarial"]), "gallery": gallery,
        "rows": list(results.all_image_rows(queue.database, run.id)),
        "verdicts": [columns(one, left_out) for one in verdicts],
        "figures": [columns(one, left_out) for one in figures],
        "metrics": {k: v for k, v in run.metrics.items() if k not in ("adversarial", "gallery")},
        "other files": sorted(p.name for p in folder.rglob("*") if p.is_file() and "blocks" not in p.parts),
    }


def digest(path: Any) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def columns(row: Any, left_out: tuple[str, ...]) -> dict[str, Any]:
    return {c.key: getattr(row, c.key) for c in row.__mapper__.column_attrs if c.key not in left_out}


def finish(workshop: Any, **evaluation: Any) -> Run:
    """The evaluation of a fresh experiment on the checkpoint that is there."""
    checkpoint = getattr(workshop, "checkpoint", None) or workshop.trained()
    workshop.checkpoint = checkpoint
    workshop.queue.submit(evaluation={"attacks": [{"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": 2}}],
                                      "eps": ["2/255", "8/255"], **THREE_BLOCKS, **evaluation})  # fmt: skip
    return workshop.finish_evaluations()[-1]


def test_a_sharded_evaluation_leaves_what_an_unsharded_one_does_bit_for_bit(workshop: Any) -> None:
    usual = stored(workshop, finish(workshop))
    workshop.change(Run, share_key="another one")(Run.kind == "evaluate")  # so that it is not shared
    sharded = finish(workshop, shards=2)
    assert stored(workshop, sharded) == usual
    with workshop.queue.database.reading() as session:
        own = session.query(EvaluationBlock).filter_by(run_id=sharded.id).all()
    assert sorted((block.block, block.images) for block in own) == [(0, 0), (1, 0), (2, 0)], "attacked by its shards"
    assert garbage.survey(workshop.queue.database, workshop.queue.data_dir, grace_seconds=0).missing == []


def test_shards_attack_disjoint_blocks_and_say_how_far_they_are(workshop: Any) -> None:
    finish(workshop, shards=2)
    with workshop.queue.database.reading() as session:
        shards = session.query(Run).filter_by(kind="shard").order_by(Run.id).all()
        found = [sorted(results.blocks(session, run.id)) for run in shards]
    assert found == [[0, 2], [1]]
    assert [(run.metrics["blocks"], run.metrics["images"], run.progress) for run in shards] == [(2, 140, 1), (1, 70, 1)]


def test_a_shard_that_was_stopped_goes_on_with_the_next_block(workshop: Any) -> None:
    usual = stored(workshop, finish(workshop))
    workshop.change(Run, share_key="another one")(Run.kind == "evaluate")
    workshop.queue.submit(evaluation={"attacks": [{"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": 2}}],
                                      "eps": ["2/255", "8/255"], **THREE_BLOCKS, "shards": 2})  # fmt: skip
    stopped = workshop.work(stop_after_blocks=1)
    assert (stopped.kind, stopped.state) == ("shard", "queued")
    again = workshop.finish_evaluations()
    assert [(run.kind, run.attempt) for run in again] == [("shard", 2), ("shard", 1), ("evaluate", 1)]
    with workshop.queue.database.reading() as session:
        blocks = session.query(EvaluationBlock).filter_by(run_id=stopped.id).order_by(EvaluationBlock.block).all()
    assert [(block.block, block.attempt) for block in blocks] == [(0, 1), (2, 2)]
    assert stored(workshop, again[-1]) == usual


@pytest.mark.parametrize("harm", ["gone", "damaged", "of other images"])
def test_a_block_of_a_shard_that_cannot_be_used_is_attacked_again(workshop: Any, harm: str) -> None:
    usual = stored(workshop, finish(workshop))
    workshop.change(Run, share_key="another one")(Run.kind == "evaluate")
    workshop.queue.submit(evaluation={"attacks": [{"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": 2}}],
                                      "eps": ["2/255", "8/255"], **THREE_BLOCKS, "shards": 2})  # fmt: skip
    shards = [workshop.work(), workshop.work()]
    with workshop.queue.database.reading() as session:
        path = workshop.queue.data_dir / results.blocks(session, shards[1].id)[1]
    if harm == "gone":
        path.unlink()
    elif harm == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        with np.load(path) as loaded:
            arrays = dict(loaded)
        np.savez(path, **{**arrays, "ids": arrays["ids"] + 1})
    assert stored(workshop, workshop.work()) == usual


def test_conditions_of_shards_are_the_evaluations(workshop: Any) -> None:
    checkpoint = workshop.trained()
    workshop.queue.submit(evaluation={"attacks": [{"name": "fgsm"}], "eps": ["8/255"], **THREE_BLOCKS, "shards": 2})
    shards = [workshop.work(), workshop.work()]
    elsewhere = {**shards[0].metrics["conditions"][0], "hardware": "another"}
    workshop.change(Run, metrics={**shards[0].metrics, "conditions": [elsewhere]})(Run.id == shards[0].id)
    evaluation = workshop.work()
    assert evaluation.metrics["conditions"] == [*shards[1].metrics["conditions"], elsewhere]
    found = workshop.verify(checkpoint)
    assert found.metrics["agrees"] is True
    assert {figure["tolerance"]["bit_for_bit"] for figure in found.metrics["figures"]} == {False}


def test_a_sharded_evaluation_is_verified_as_any_other(workshop: Any) -> None:
    run = finish(workshop, shards=3)
    found = workshop.verify(workshop.checkpoint)
    assert found.metrics["text"] == "Agrees: all 3 figures, bit for bit.", to_json(found.metrics["figures"])
    assert found.spec["runs"] == [run.id]


def test_as_published_fewer_images_than_asked_leave_a_shard_without_work(workshop: Any) -> None:
    run = finish(workshop, shards=3, images=300, as_published=["correct-images"])
    assert run.state == "succeeded", run.error
    with workshop.queue.database.reading() as session:
        counts = [shard.metrics["images"] for shard in session.query(Run).filter_by(kind="shard")]
        attacked = {row["image_id"] for row in results.all_image_rows(workshop.queue.database, run.id)}
    assert sum(counts) == len(attacked)
    assert 0 in counts, "an untrained network gets few right"
