"""Stochastic models: chosen on some draws, reported on others."""

import json

import numpy as np
import pytest
import torch

from worker.evaluation import evaluate_block, summarise
from worker.evaluation.votes import Votes, majority

SIX = tuple(("noise", {"tries": tries}) for tries in range(1, 7))


def coins(coin, p, protocol, count=300):
    x = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    labels, ids = torch.zeros(count, dtype=torch.long), torch.arange(count)
    asked = protocol(*SIX, eps=("0.1",))
    block = evaluate_block(coin(p).eval(), x, labels, ids, protocol=asked, seed=0)
    return block, summarise([block], asked)[0]


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_choosing_the_worst_does_not_bias_the_headline(p, coin, protocol):
    block, figures = coins(coin, p, protocol)
    error = 4 * (p * (1 - p) / (300 * 100)) ** 0.5
    assert abs(figures["robust_accuracy"] - p) < error
    biased = float(block.chosen_share.mean())
    assert biased < p - 0.03  # what the minimum over the reporting draws would have said
    assert figures["selection_gap"] == pytest.approx(figures["robust_accuracy"] - biased, abs=1e-6)
    assert abs(figures["clean_accuracy"] - p) < error
    for accuracy in figures["attacks"].values():  # the running unions are reported on fresh draws too
        assert abs(accuracy - p) < error


def test_one_noisy_miss_is_not_broken(coin, protocol):
    block, figures = coins(coin, 0.9, protocol)
    assert not block.success.any()
    assert block.standing.all()
    assert figures["any_of_r"] < 0.01
    assert figures["majority"]["1"] == pytest.approx(0.9, abs=0.06)
    assert figures["majority"]["10"] > 0.97
    assert figures["majority"]["100"] == 1


def test_figures_are_json(coin, protocol):
    _, figures = coins(coin, 0.5, protocol, count=3)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_broken_means_no_selection_draw_correct(noisy_rows, images, labels, ids, protocol):
    asked = protocol("fgsm", "pgd", eps=("0.02", "0.3"))
    block = evaluate_block(noisy_rows, images, labels, ids, protocol=asked, seed=0)
    assert block.draws.tolist() == [32, 100]
    np.testing.assert_array_equal(block.success, block.share == 0)
    assert block.success.any()
    out = block.chosen_share[0] == 0
    assert out.any()
    assert np.isnan(block.share[1, :, out]).all()
    assert (block.correct[1, out] <= 10).all()


def test_the_worst_candidate_never_gets_better_with_the_radius(noisy_rows, images, labels, ids, protocol):
    asked = protocol("fgsm", "deepfool", survivors=False)
    block = evaluate_block(noisy_rows, images, labels, ids, protocol=asked, seed=0)
    assert (np.diff(block.chosen_share, axis=0) <= 0).all()
    assert (block.chosen_share <= block.clean_share).all()
    candidates = np.concatenate([block.clean_share[None], block.share.reshape(-1, 40)])
    np.testing.assert_array_equal(block.chosen_share[-1], candidates.min(0))


def test_selection_and_fresh_draws_differ(coin, protocol):
    block, _ = coins(coin, 0.5, protocol)
    rest = np.corrcoef(block.clean_share, block.clean_correct)[0, 1]
    assert abs(rest) < 0.2


def test_the_vote_is_of_the_first_draws_and_the_first_class_wins_ties():
    answers = torch.tensor([[1], [0], [0], [1]])
    assert majority(answers[:1], 2) == 1
    assert majority(answers[:3], 2) == 0
    assert majority(answers, 2) == 0
    logits = torch.zeros(100, 1, 2)
    logits[:6, 0, 1] = 1  # six of ten, six of a hundred
    votes = Votes.of(logits, torch.tensor([1]))
    assert votes.majority.tolist() == [[True, True, False]]
    assert votes.correct.tolist() == [6]
