"""Figures and verdicts from blocks."""

import json
from dataclasses import replace

import numpy as np
import pytest

from worker.evaluation import evaluate_block, summarise


@pytest.fixture
def evaluated(rows, images, labels, ids, protocol):
    asked = protocol("fgsm", ("pgd", {"steps": 5}))
    return evaluate_block(rows, images, labels, ids, protocol=asked, seed=0), asked


def test_figures_are_json(evaluated):
    block, asked = evaluated
    figures = summarise([block], asked)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_all_images_count_and_the_correctly_classified_have_a_figure_of_their_own(evaluated):
    block, asked = evaluated
    figures = summarise([block], asked)[0]
    assert figures["images"] == 40
    assert figures["clean_accuracy"] == 35 / 40
    assert figures["correctly_classified"]["images"] == 35
    assert figures["correctly_classified"]["robust_accuracy"] == pytest.approx(
        figures["robust_accuracy"] * 40 / 35
    )
    assert set(figures["majority"].values()) == {figures["robust_accuracy"], figures["any_of_r"]}
    assert figures["selection_gap"] == 0


def test_counts_are_of_the_images_attacked(evaluated):
    block, asked = evaluated
    detail = summarise([block], asked)[0]["attack_details"]["fgsm"]
    assert detail["attacked"] == 35
    assert detail["queries"] == detail["gradients"] == 1
    assert detail["broken"] == int(block.success[0, 0].sum())
    assert detail["mean_norm"] == pytest.approx(0.02, abs=1e-3)


def test_the_mean_norm_of_an_attack_is_of_images_that_it_changed(rows, images, labels, ids, protocol):
    asked = replace(protocol("deepfool", eps=("0.1",)), survivors=False)
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    detail = summarise([block], asked)[0]["attack_details"]["deepfool"]
    norm = block.norm[0, 0]
    assert detail["broken"] > (norm[block.success[0, 0]] > 0).sum() > 0, "some are wrong before they are attacked"
    assert detail["mean_norm"] == pytest.approx(norm[block.success[0, 0] & (norm > 0)].mean())


def test_an_honest_network_is_ok(evaluated):
    block, asked = evaluated
    for figures in summarise([block], asked):
        assert (figures["verdict"], figures["reasons"]) == ("ok", [])


def test_a_network_without_gradients_is_an_upper_bound_only(rounded, images, ids, protocol):
    labels = rounded.decoder(rounded.encoder(images))[0].argmax(1)
    asked = protocol("fgsm", ("pgd", {"steps": 5}), ("square", {"queries": 60}), eps=("0.1", "0.6"))
    block = evaluate_block(rounded, images, labels, ids, protocol=asked, seed=0)
    for figures in summarise([block], asked):
        assert figures["verdict"] == "upper bound only"
        assert "zero or non-finite gradient" in figures["reasons"][0]
    assert figures["robust_accuracy"] < 0.5  # and the black box shows why


@pytest.mark.parametrize(
    ("hits", "verdict", "check"), [(0, "ok", "ok"), (1, "ok", "warn"), (2, "upper bound only", "fail")]
)
def test_one_image_in_a_hundred_is_the_limit(hits, verdict, check, evaluated):
    block, asked = evaluated
    hundred = [replace(block, faulty=np.zeros_like(block.faulty)) for _ in range(2)]
    again = np.arange(60) % 40
    for name in ("ids", "labels", "clean_share", "clean_correct", "clean_majority"):
        setattr(hundred[1], name, getattr(block, name)[again])
    for name in ("chosen", "chosen_at", "chosen_share", "chosen_norm", "correct", "adversarial_index", "majority"):
        setattr(hundred[1], name, getattr(block, name)[:, again])
    for name in ("share", "success", "norm", "queries", "gradients", "faulty", "rejected", "after", "standing"):
        setattr(hundred[1], name, getattr(hundred[0], name)[:, :, again])
    hundred[0].faulty[0, 0, 5 : 5 + hits] = 1
    figures = summarise(hundred, asked)[-1]
    named = {one["check"]: one["verdict"] for one in figures["checks"]}
    assert (figures["verdict"], named["faulty_gradients"]) == (verdict, check)


def test_blocks_of_different_evaluations_do_not_join(evaluated, protocol):
    block, asked = evaluated
    with pytest.raises(ValueError, match="cannot be joined"):
        summarise([block, replace(block, attacks=np.array(["fgsm", "noise"]))], asked)
    with pytest.raises(ValueError, match="other radii"):
        summarise([block], protocol("fgsm", eps=("0.1",)))
    with pytest.raises(ValueError, match="nothing was evaluated"):
        summarise([], asked)
