"""Figures computed again: what agrees, what is named when it does not, what cannot be verified at all."""

from pathlib import Path

import numpy as np
import pytest

from app.domain.spec import VerifySpec
from app.storage import results, verifications
from app.storage.tables import Checkpoint, Figure, ImageRow, Run


def figures(run: Run, *, wrong: bool) -> list[tuple[str, str]]:
    return [(f["figure"], f.get("eps_text", "")) for f in run.metrics["figures"] if f["agrees"] is not wrong]


def checkpoint_of(run: Run) -> str:
    return str(run.metrics["checkpoint"])


def block_file(workshop, run: Run, number: int = 0) -> Path:
    with workshop.queue.database.reading() as session:
        return workshop.queue.data_dir / results.blocks(session, run.id)[number]


def test_figures_that_were_not_touched_agree_bit_for_bit(workshop) -> None:
    run = workshop.evaluated()
    found = workshop.verify(checkpoint_of(run))
    assert found.state == "succeeded", found.error
    assert found.metrics["agrees"] is True
    assert found.metrics["text"] == "Agrees: all 3 figures, bit for bit."
    assert figures(found, wrong=False) == [("clean accuracy", ""), ("robust accuracy", "2/255"),
                                           ("robust accuracy", "8/255")]
    for figure in found.metrics["figures"]:
        assert (figure["run"], figure["images_differing"]) == (run.id, 0)
        assert figure["stored"] == figure["recomputed"]
        assert figure["tolerance"]["bit_for_bit"] is True
    assert found.metrics["weights"]["agrees"] is True
    assert run.metrics["conditions"] == found.metrics["conditions"]
    assert {"device", "torch", "threads", "code_version"} < set(run.metrics["conditions"][0])


def test_a_stored_figure_that_was_changed_is_named_and_no_other(workshop) -> None:
    run = workshop.evaluated()
    workshop.change(Figure, robust_accuracy=0.999)(Figure.eps == "8/255")
    found = workshop.verify(checkpoint_of(run))
    assert (found.state, found.metrics["agrees"]) == ("succeeded", False)
    assert figures(found, wrong=True) == [("robust accuracy", "8/255")]
    assert f"robust accuracy at 8/255 of run {run.id}: robust accuracy is 0.999 as stored" in found.metrics["text"]


@pytest.mark.parametrize(
    ("table", "values", "wrong"),
    [(Figure, {"attacks": {"fgsm": 0.5, "pgd": 2.0}}, "robust accuracy"), (Figure, {"clean_accuracy": 0.999},
      "clean accuracy"), (ImageRow, {"success": True, "norm": 0.5}, "robust accuracy")], ids=["attack", "clean", "row"],
)  # fmt: skip
def test_whatever_is_shown_of_an_evaluation_is_compared(workshop, table, values, wrong: str) -> None:
    run = workshop.evaluated()
    workshop.change(table, **values)(table.eps == "2/255")
    found = figures(workshop.verify(checkpoint_of(run)), wrong=True)
    assert found == [(wrong, "2/255" if wrong == "robust accuracy" else "")]


def test_a_verdict_changed_in_a_stored_block_is_counted_where_it_is(workshop) -> None:
    run = workshop.evaluated()
    file = block_file(workshop, run)
    with np.load(file) as loaded:
        arrays = dict(loaded)
    arrays["majority"][1, 3] ^= True
    np.savez_compressed(file, **arrays)
    found = workshop.verify(checkpoint_of(run))
    assert figures(found, wrong=True) == [("robust accuracy", "8/255")]
    [figure] = [f for f in found.metrics["figures"] if not f["agrees"]]
    assert figure["images_differing"] == 1
    assert "1 of 12 images have another verdict; stored rows differ in majority" in "; ".join(figure["reasons"])


def test_a_damaged_block_spoils_the_figures_that_stand_on_it(workshop) -> None:
    run = workshop.evaluated()
    file = block_file(workshop, run)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    found = workshop.verify(checkpoint_of(run))
    assert (found.state, found.metrics["agrees"]) == ("succeeded", False)
    assert figures(found, wrong=True) == [("robust accuracy", "2/255"), ("robust accuracy", "8/255")]
    assert "a stored block is gone or damaged" in found.metrics["text"]
    file.unlink()
    assert figures(workshop.verify(checkpoint_of(run)), wrong=True) == figures(found, wrong=True)


@pytest.mark.parametrize(("damage", "said"), [("byte", "its sha256 differs"), ("gone", "is gone")])
def test_weights_that_are_gone_or_damaged_fail_the_run_and_say_so(workshop, damage: str, said: str) -> None:
    run = workshop.evaluated()
    with workshop.queue.database.reading() as session:
        file = workshop.queue.data_dir / session.get_one(Checkpoint, checkpoint_of(run)).path
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content)) if damage == "byte" else file.unlink()
    found = workshop.verify(checkpoint_of(run))
    assert found.state == "failed"
    assert said in (found.error or "")
    assert checkpoint_of(run) in (found.error or "")


def test_under_other_conditions_the_bits_may_differ_and_it_says_why(workshop) -> None:
    run = workshop.evaluated()
    then = [{**run.metrics["conditions"][0], "threads": 64, "torch": "1.0"}]
    workshop.change(Run, metrics={**run.metrics, "conditions": then})(Run.id == run.id)
    file = block_file(workshop, run)
    with np.load(file) as loaded:
        arrays = dict(loaded)
    arrays["norm"] = arrays["norm"] * np.float32(1.000001)
    np.savez_compressed(file, **arrays)
    for row in range(2):  # the rows in the database are the block's
        eps = str(arrays["eps"][row])
        for number, name in enumerate(arrays["attacks"]):
            for image, norm in zip(arrays["ids"], arrays["norm"][row, number], strict=True):
                if not np.isnan(norm):
                    where = (ImageRow.eps == eps, ImageRow.attack == str(name), ImageRow.image_id == int(image))
                    workshop.change(ImageRow, norm=float(norm))(*where)
    found = workshop.verify(checkpoint_of(run))
    assert found.metrics["agrees"] is True, found.metrics["text"]
    assert "threads: 64 then, 1 now" in found.metrics["text"]
    assert "torch: 1.0 then" in found.metrics["text"]
    tolerance = found.metrics["figures"][1]["tolerance"]
    assert (tolerance["bit_for_bit"], tolerance["verdicts"]) == (False, 1)


def test_a_verification_resumes_at_the_block_where_it_was_stopped(workshop, capsys) -> None:
    run = workshop.evaluated(images=201, attacks=[{"name": "fgsm"}])
    queue = workshop.queue
    verification = queue.do(verifications.request, checkpoint_of(run), VerifySpec(clean=False), max_attempts=3)
    stopped = workshop.work(stop_after_blocks=1)
    assert (stopped.id, stopped.state) == (verification.id, "queued")
    with queue.database.reading() as session:
        assert list(results.blocks(session, verification.id)) == [0]
    capsys.readouterr()
    done = workshop.work()
    assert (done.state, done.attempt, done.metrics["agrees"]) == ("succeeded", 2, True)
    printed = capsys.readouterr().out
    assert "block 1/3" not in printed
    assert "block 3/3 stored" in printed


def test_a_checkpoint_without_evaluations_has_its_file_verified(workshop) -> None:
    found = workshop.verify(workshop.trained())
    assert (found.metrics["agrees"], found.metrics["figures"]) == (True, [])
    assert "no evaluation" in found.metrics["text"]


def test_a_transfer_pool_is_measured_shown_and_verified(workshop) -> None:
    queue = workshop.queue
    for seed in (0, 1):
        workshop.trained(seed)
    attacks = [{"name": "fgsm"}, {"name": "transfer", "parameters": {"steps": 3}}]
    queue.submit(seeds=[0, 1], evaluation={"attacks": attacks, "eps": ["8/255"], "images": 12})
    queue.submit(seeds=[0], evaluation={"attacks": attacks, "eps": ["8/255"], "images": 12})
    found = [run for run in workshop.finish_evaluations() if "pool" in run.spec]
    assert [[s["seed"] for s in run.metrics["pool"]] for run in found] == [[1], [0], []]
    assert found[0].metrics["pool"][0]["role"] == "other seed"
    with queue.database.reading() as session:
        shown = [results.figures(session, run.id)[0] for run in found]
    assert len({figure.protocol_id for figure in shown[:1] + shown[2:]}) == 1, "the pool is no part of the protocol"
    assert [list(figure.attacks) for figure in shown] == [["fgsm", "transfer"], ["fgsm", "transfer"], ["fgsm"]]
    assert [bool(f.details["transfer_pool"]["siblings"]) for f in shown] == [True, True, False]
    assert "no siblings" in shown[2].details["transfer_pool"]["note"]
    verified = workshop.verify(checkpoint_of(found[0]), runs=[found[0].id, found[2].id], clean=False)
    assert verified.metrics["text"] == "Agrees: all 2 figures, bit for bit."
