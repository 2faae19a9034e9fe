"""What stands of each image: distances, similarity, and the verdict itself."""

import json
import math

import numpy as np
import pytest

from worker.evaluation import evaluate_block, image_verdicts, mean_distances, summarise
from worker.evaluation.verdicts import distances, structural_similarity

STUDY = ("fgsm", ("deepfool", {"steps": 5}))


@pytest.fixture
def evaluated(noisy_rows, images, labels, ids, protocol):
    asked = protocol(*STUDY)
    return evaluate_block(noisy_rows, images, labels, ids, protocol=asked, seed=0), asked


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM of two 7x7 grey images: one window, sample (n - 1) variances."""
    c1, c2 = 0.01**2, 0.03**2
    mx, my, vx, vy = x.mean(), y.mean(), x.var(ddof=1), y.var(ddof=1)
    cov = ((x - mx) * (y - my)).sum() / 48
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def test_similarity_is_wangs_formula_and_the_mean_over_channels() -> None:
    x, y = np.random.default_rng(0).random((2, 3, 7, 7)).astype(np.float32)
    assert structural_similarity(x[:1], y[:1]) == pytest.approx(by_hand(x[0].astype(float), y[0].astype(float)))
    assert structural_similarity(x, y) == pytest.approx(np.mean([structural_similarity(x[c:c + 1], y[c:c + 1])
                                                                 for c in range(3)]))  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 6, 6), (1, 3, 9)])
def test_equal_images_are_similar_by_1_and_others_by_less_at_every_size(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    assert structural_similarity(x, x) == pytest.approx(1)
    assert structural_similarity(x, 1 - x) < 0.2


def test_an_image_too_small_for_a_window_has_no_similarity() -> None:
    assert math.isnan(structural_similarity(np.zeros((1, 2, 9)), np.zeros((1, 2, 9))))


def test_norms_are_those_of_the_perturbation() -> None:
    x = np.zeros((2, 1, 8, 8), np.float32)
    y = x.copy()
    y[0, 0, 0, :2] = 0.3, 0.4
    found = distances(y, x)
    assert found.linf == pytest.approx([0.4, 0])
    assert found.l2 == pytest.approx([0.5, 0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_there_is_one_row_for_each_image_and_radius_and_it_says_what_the_block_says(
    norm, noisy_rows, images, labels, ids, protocol
) -> None:
    asked = protocol(*STUDY, norm=norm)
    block = evaluate_block(noisy_rows, images, labels, ids, protocol=asked, seed=0)
    rows = list(image_verdicts(block, images.numpy(), norm))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert len({(r["eps"], r["image_id"]) for r in rows}) == len(rows) == 3 * 40
    for e, eps in enumerate(block.eps):
        of_it = [r for r in rows if r["eps"] == eps]
        assert [r["image_id"] for r in of_it] == ids.tolist()
        chosen = block.images(images.numpy(), radius=e)
        np.testing.assert_allclose([r["norm"] for r in of_it], block.chosen_norm[e], atol=1e-6)
        np.testing.assert_allclose([r["linf"] for r in of_it], np.abs(chosen - images.numpy()).max((1, 2, 3)))
        assert [r["majority"] for r in of_it] == block.majority[e, :, 2].tolist()
        for row, x, x0, candidate in zip(of_it, chosen, images.numpy(), block.chosen[e], strict=True):
            assert row["attack"] == (None, "fgsm", "deepfool")[candidate]
            assert row["ssim"] == pytest.approx(structural_similarity(x, x0))
    assert {r["attack"] for r in rows} == {None, "fgsm", "deepfool"}


def test_the_mean_of_the_shares_is_the_headline(evaluated, images) -> None:
    block, asked = evaluated
    rows = list(image_verdicts(block, images.numpy(), "linf"))
    for figures in summarise([block], asked):
        of_it = [r for r in rows if r["eps"] == figures["eps_exact"]]
        assert np.mean([r["correct_share"] for r in of_it]) == pytest.approx(figures["robust_accuracy"])
        assert np.mean([r["clean_correct_share"] for r in of_it]) == pytest.approx(figures["clean_accuracy"])
        means = mean_distances(rows)[figures["eps_exact"]]
        assert means["mean_linf"] == pytest.approx(figures["mean_norm"], rel=1e-5)
        assert means["mean_ssim"] == pytest.approx(np.mean([r["ssim"] for r in of_it if r["attack"]]))


def test_where_nothing_changed_there_is_no_mean() -> None:
    row = {"eps": "1/10", "attack": None, "linf": 0.0, "l2": 0.0, "ssim": 1.0}
    assert mean_distances([row]) == {"1/10": {"mean_linf": None, "mean_l2": None, "mean_ssim": None}}
