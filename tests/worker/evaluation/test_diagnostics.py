"""Checks from rows, tests of significance, resuming, and the anchor."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from app.domain.attacks import ATTACKS
from app.domain.suites import Stage
from worker.evaluation import evaluate_block, summarise
from worker.evaluation.diagnostics import CHECKS, Sibling, check_rows, default_sibling, diagnose
from worker.evaluation.diagnostics.result import Threshold
from worker.evaluation.diagnostics.significance import binomial_tail, mcnemar, surely_above


class Stop(Exception):
    pass


def by_name(results, name):
    return [r for r in results if r["check"] == name]


@pytest.fixture
def asked(protocol):
    return protocol(("pgd", {"steps": 3, "draws": 2}), ("square", {"queries": 20, "draws": 2}), eps=("0.02", "0.1"))


@pytest.mark.parametrize("kind", ["rows", "noisy_rows"])
def test_every_check_answers_and_a_resumed_diagnosis_ends_the_same(kind, asked, images, labels, ids, request):
    model = request.getfixturevalue(kind)
    images, labels, ids = images[:6], labels[:6], ids[:6]
    stored = {}
    whole = diagnose(model, images, labels, ids, protocol=asked, seed=0, store=stored.__setitem__)
    assert list(stored) == list(CHECKS)
    assert {r["check"] for r in whole} == set(CHECKS)
    assert all(r["verdict"] in ("ok", "warn", "fail", "not applicable") and r["text"] for r in whole)

    kept = {}

    def keep(name, results):
        kept[name] = results
        if len(kept) == 5:
            raise Stop

    with pytest.raises(Stop):
        diagnose(model, images, labels, ids, protocol=asked, seed=0, store=keep)
    again = {}
    resumed = diagnose(
        model, images, labels, ids, protocol=asked, seed=0, done=kept, store=again.__setitem__
    )
    assert resumed == whole
    assert list(again) == list(CHECKS)[5:]


def test_a_diagnosis_can_be_stopped(rows, asked, images, labels, ids):
    def stop(share):
        assert 0 <= share <= 1
        if share > 0.3:
            raise Stop

    with pytest.raises(Stop):
        diagnose(rows, images[:8], labels[:8], ids[:8], protocol=asked, seed=0, progress=stop)


def test_accuracy_that_rises_with_eps_is_seen(wave, protocol):
    """A step of .3 comes out right again where one of .1 goes wrong."""
    images = torch.full((12, 1, 6, 6), 0.5)
    asked = protocol(("pgd", {"steps": 1, "step_size": 1.0, "random_start": False}), eps=("0.1", "0.3"))
    found = diagnose(wave, images, torch.zeros(12, dtype=torch.int64), torch.arange(12), protocol=asked, seed=0)
    rises = by_name(found, "accuracy_rises_with_eps")
    assert [r["eps"] for r in rises] == ["1/10", "3/10"]
    # the gradient is zero on the crest, so nothing moves at either radius: this is what other checks are for
    assert by_name(found, "gradient_against_differences")[0]["verdict"] == "fail"
    shifted = diagnose(
        wave, images + 0.001, torch.zeros(12, dtype=torch.int64), torch.arange(12), protocol=asked, seed=0
    )
    assert by_name(shifted, "accuracy_rises_with_eps")[1]["verdict"] == "fail"


def test_results_mark_the_figures_of_their_radius(rows, images, labels, ids, protocol):
    asked = protocol(("pgd", {"steps": 5}), eps=("0.02", "0.1"))
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    result = {"check": "made up", "value": 1.0, "warn": 0.1, "fail": 0.2, "verdict": "fail", "text": "because"}
    only = summarise([block], asked, [{**result, "eps": "1/10"}])
    assert [f["verdict"] for f in only] == ["ok", "upper bound only"]
    assert only[1]["reasons"] == ["because"]
    assert "eps" not in only[1]["checks"][-1]
    both = summarise([block], asked, [{**result, "eps": None}])
    assert [f["verdict"] for f in both] == ["upper bound only"] * 2


def test_a_check_of_the_sample_takes_the_place_of_its_like(rows, images, labels, ids, protocol):
    asked = protocol("fgsm", eps=("0.1",))
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    like = {"check": "black_box_beats_white_box", "value": 0.5, "warn": 0.1, "fail": 0.2, "verdict": "fail",
            "text": "because", "eps": "1/10"}
    [figure] = summarise([block], asked, [like])
    assert [c["verdict"] for c in by_name(figure["checks"], like["check"])] == ["fail"]
    [figure] = summarise([block], asked, [{**like, "verdict": "not applicable"}])
    assert [c["verdict"] for c in by_name(figure["checks"], like["check"])] == ["not applicable"]


@pytest.mark.parametrize("given", [
    ("fgsm",), (("noise", {"tries": 1}),), (("square", {"queries": 2}),), (("pgd", {"steps": 4}),),
    (("pgd", {"steps": 20, "step_size": 0.01, "random_start": False}),), (("apgd", {"gradient": "atan:2"}),),
])  # fmt: skip
def test_images_that_stand_only_for_want_of_an_attack_are_no_figure(given, rows, images, labels, ids, protocol):
    """Steps too few, or too short to cross the ball, are none; a surrogate's attack passes over this network."""
    asked = protocol(*given, eps=("0.0001", "0.5"))
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    standing, broken = summarise([block], asked)
    [check] = by_name(standing["checks"], "no_iterative_attack")
    assert (check["verdict"], standing["verdict"]) == ("fail", "upper bound only")
    assert check["value"] == pytest.approx(standing["robust_accuracy"])
    told = "no attack of the list applies" if given[0][0] == "apgd" else f"only {block.attacks[0]} ran"
    assert told in check["text"]
    also = protocol(*given, ("pgd", {"steps": 5}), eps=("0.0001", "0.5"))
    for figure in summarise([evaluate_block(rows, images, labels, ids, protocol=also, seed=0)], also):
        assert by_name(figure["checks"], "no_iterative_attack")[0]["verdict"] == "ok"
    # Whom any attack breaks is broken.
    assert by_name(broken["checks"], "no_iterative_attack")[0]["value"] == pytest.approx(broken["robust_accuracy"])


def test_a_network_that_learnt_nothing_is_no_robust_one(rows, images, labels, ids, protocol):
    """Right by chance, on images that a tiny ball leaves as they are."""
    asked = protocol(("pgd", {"steps": 5}), eps=("0.0001",))

    def check(labels):
        [figure] = summarise([evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)], asked)
        return by_name(figure["checks"], "near_chance")[0], figure

    learnt, figure = check(labels)
    assert (learnt["verdict"], figure["verdict"]) == ("ok", "ok")
    assert learnt["value"] < 0.8
    chance, figure = check(labels.roll(1))
    assert figure["robust_accuracy"] > 0
    assert (chance["verdict"], figure["verdict"]) == ("fail", "upper bound only")
    assert "train it longer" in chance["text"]
    assert figure["reasons"] == [chance["text"]]
    answers = rows.decoder(rows.encoder(images))[0].argmax(1)
    hopeless, figure = check((answers + 1) % 4)
    assert (hopeless["verdict"], figure["verdict"]) == ("not applicable", "ok")
    assert check(torch.zeros_like(labels))[0]["verdict"] == "not applicable"


def test_noisy_answers_that_are_right_less_than_half_of_the_time_count_as_untried_too(
    rows, images, labels, ids, protocol
):
    """As of a spiking head: nothing "stands", and the figure is above zero all the same."""
    asked = protocol("fgsm", eps=("0.5",))
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    share = np.full_like(block.chosen_share, 0.25)
    noisy = replace(block, draws=np.array([32, 100]), correct=np.full_like(block.correct, 20), chosen_share=share)
    [figure] = summarise([noisy], asked)
    [check] = by_name(figure["checks"], "no_iterative_attack")
    assert (check["value"], check["verdict"], figure["verdict"]) == (pytest.approx(0.2), "fail", "upper bound only")
    assert "only fgsm ran" in check["text"]
    # None of the draws that choose is right: broken, and attacked no further; what fresh draws get right is noise.
    [figure] = summarise([replace(noisy, chosen_share=np.zeros_like(share))], asked)
    [check] = by_name(figure["checks"], "no_iterative_attack")
    assert (check["value"], check["verdict"], check["text"]) == (0.0, "ok", "no image stands")


def test_whether_it_learnt_is_told_by_the_whole_test_split_where_it_was_answered(
    rows, images, labels, ids, protocol
):
    """Some tens of attacked images cannot tell a constant answer from one that knows a little."""
    asked = protocol(("pgd", {"steps": 5}), eps=("0.0001",))
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)

    def check(right: int) -> dict:
        """Of 360 test images in 10 classes, where the network says "1" to all it has wrong."""
        confusion = np.zeros((10, 10), int)
        confusion[:, 1] = 36
        for c in range(right - 36):
            confusion[c % 9 + (c % 9 > 0), 1] -= 1
            confusion[c % 9 + (c % 9 > 0), c % 9 + (c % 9 > 0)] += 1
        clean = {"images": 360, "accuracy": right / 360, "confusion": confusion.tolist()}
        [figure] = summarise([block], asked, (), clean)
        return by_name(figure["checks"], "near_chance")[0]

    assert (check(36)["verdict"], check(36)["value"]) == ("fail", pytest.approx(1))
    assert "10.0% of 360 unchanged images" in check(36)["text"]
    assert [check(right)["verdict"] for right in (50, 70, 90, 140, 340)] == ["fail", "warn", "warn", "ok", "ok"]


def test_what_fails_at_a_larger_radius_was_tried(rows, images, labels, ids, protocol):
    """As in `study`, whose attacks have grids of their own."""
    stages = (Stage("fgsm", ATTACKS["fgsm"].resolve({}), (Fraction("0.0001"),)),
              Stage("pgd", ATTACKS["pgd"].resolve({"steps": 5}), (Fraction("0.0002"),)))  # fmt: skip
    asked = replace(protocol("fgsm", eps=("0.0001", "0.0002", "0.0003")), stages=stages, survivors=False)
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    found = [by_name(f["checks"], "no_iterative_attack")[0]["verdict"] for f in summarise([block], asked)]
    assert found == ["ok", "ok", "fail"]


@pytest.mark.parametrize(("strong", "weak", "check"), [
    (1, 0, "black_box_beats_white_box"), (2, 0, "transfer_beats_white_box"), (3, 0, "single_step_beats_iterative"),
])
def test_rows_show_what_a_weaker_attack_broke_alone(strong, weak, check, rows, images, labels, ids, protocol):
    asked = protocol(
        ("pgd", {"steps": 1}), ("square", {"queries": 2}), ("noise", {"tries": 1}), "fgsm", eps=("0.02", "0.1"),
        survivors=False,
    )
    transfer = replace(asked.stages[2], attack="transfer")
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    asked = replace(asked, stages=(*asked.stages[:2], transfer, asked.stages[3]))
    for broken, verdict in ((0, "ok"), (1, "warn"), (10, "fail")):
        share = np.ones_like(block.share)
        share[0, strong, :broken] = 0
        figures = summarise([replace(block, share=share)], asked)
        for figure in figures:  # at this radius and the larger one, which inherits
            [found] = by_name(figure["checks"], check)
            assert found["verdict"] == verdict
            assert found["value"] == pytest.approx(broken / len(ids))
        share[0, weak, :broken] = 0  # no fault where the stronger attack broke them too
        [found] = by_name(summarise([replace(block, share=share)], asked)[0]["checks"], check)
        assert found["value"] == 0


def test_of_a_bisected_curve_what_failed_at_a_radius_failed_at_the_smaller_ones(rows, images, labels, ids, protocol):
    """PGD fails at the largest radius and is not tried below, where the black box breaks the image as well."""
    asked = protocol("pgd", ("square", {"queries": 2}), eps=("0.02", "0.05"))
    block = evaluate_block(rows, images[5:6], labels[5:6], ids[5:6], protocol=asked, seed=0)
    share = np.array([[[np.nan], [0.0]], [[1.0], [0.0]]], np.float32)
    (here,) = (r for r in check_rows(replace(block, share=share), 0, asked) if r.check == "black_box_beats_white_box")
    assert here.value == 1


def test_a_threshold_is_passed_beyond_luck_or_it_is_a_warning():
    limit = Threshold("any", 0.005, 0.01)
    few, many = np.zeros(200), np.zeros(200)
    few[:4], many[:6] = 1, 1
    assert [limit.grade_images(v, "").verdict for v in (np.zeros(200), few, many)] == ["ok", "warn", "fail"]
    assert binomial_tail(6, 200, 0.01) == pytest.approx(0.0160, abs=1e-4)
    assert binomial_tail(0, 200, 0.01) == 1.0


def test_significance_of_shares_and_of_pairs():
    shares = np.tile([0.0, 0.06], 100)  # mean .03, standard error .0021
    assert surely_above(shares, 0.02)
    assert not surely_above(shares, 0.028)
    assert surely_above(np.full(5, 0.03), 0.02)
    assert mcnemar(0, 7) == pytest.approx(2**-7)
    assert mcnemar(7, 7) > 0.5


@pytest.mark.parametrize(("changes", "sibling", "verdict"), [
    ({}, Sibling(0.0, 1000), "ok"),
    ({}, Sibling(0.025, 1000), "warn"),
    ({}, Sibling(0.05, 1000), "fail"),
    ({}, Sibling(0.05, 1000, standard=False), "not applicable"),
    ({}, None, "not applicable"),
    ({"dataset": "digits"}, Sibling(0.5, 1000), "not applicable"),
    ({"norm": "l2"}, Sibling(0.5, 1000), "not applicable"),
    ({"eps": (Fraction(2, 255),)}, Sibling(0.5, 1000), "not applicable"),
])
def test_the_anchor_holds_for_cifar_at_its_radius_only(changes, sibling, verdict, protocol):
    asked = replace(protocol("pgd", eps=("8/255",)), **{"dataset": "cifar10", **changes})
    [result] = default_sibling(asked, {e: sibling for e in asked.eps if sibling is not None})
    assert result.verdict == verdict
