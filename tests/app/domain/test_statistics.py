import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from app.domain.statistics import (
    clopper_pearson,
    estimate,
    hierarchical_bootstrap,
    mcnemar,
    paired_difference,
    seeds_and_images,
    seeds_needed,
)


def test_over_three_seeds_the_interval_is_students_t_widened_by_what_the_images_they_share_add() -> None:
    # by hand: mean .92, sd .01, t(.975, 2) = 4.302653, half width 4.302653 * .01 / sqrt(3) = .024841
    figure = estimate({"0": 0.91, "1": 0.92, "2": 0.93}, images=1000)
    assert figure.mean == pytest.approx(0.92)
    assert figure.sd == pytest.approx(0.01)
    assert figure.n == 3
    assert figure.interval == "seeds-and-images"
    exact = stats.binomtest(920, 1000).proportion_ci()
    below, above = math.hypot(0.024841, 0.92 - exact.low), math.hypot(0.024841, exact.high - 0.92)
    assert figure.ci95 == pytest.approx((0.92 - below, 0.92 + above), abs=1e-5)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 1000, 0.0, 0.003682), (1000, 1000, 0.996318, 1.0), (5, 10, 0.187086, 0.812914), (1, 20, 0.001265, 0.248732)],
)
def test_clopper_pearson_gives_the_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert clopper_pearson(successes, trials) == pytest.approx((low, high), abs=1e-6)


def test_one_seed_has_no_deviation_and_an_interval_over_its_images() -> None:
    figure = estimate({"7": 0.5}, images=10)
    assert figure.sd is None
    assert figure.ci95 == pytest.approx((0.187086, 0.812914), abs=1e-6)


def test_where_all_seeds_are_broken_the_interval_still_has_a_width() -> None:
    figure = estimate({"0": 0.0, "1": 0.0, "2": 0.0}, images=1000)
    assert figure.sd == 0
    assert figure.ci95[0] == 0.0
    assert figure.ci95[1] == pytest.approx(0.0037, abs=5e-5)


def test_where_all_seeds_are_right_the_interval_still_has_a_width() -> None:
    low, high = estimate({"0": 1.0, "1": 1.0}, images=359).ci95
    assert high == 1.0
    assert 0.98 < low < 1.0


def test_seeds_are_listed_in_numeric_order() -> None:
    assert list(estimate({"10": 0.1, "9": 0.2, "1": 0.3}, 10).by_seed) == ["1", "9", "10"]


def test_nothing_cannot_be_estimated() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate({}, images=10)


@given(st.lists(st.integers(0, 10**5).map(lambda k: k / 10**5), min_size=1, max_size=6), st.integers(1, 2000))
def test_every_estimate_lies_within_its_interval_and_the_interval_within_0_and_1(
    values: list[float], images: int
) -> None:
    figure = estimate({str(i): v for i, v in enumerate(values)}, images)
    low, high = figure.ci95
    assert 0 <= low <= figure.mean + 1e-12
    assert figure.mean - 1e-12 <= high <= 1
    assert all(math.isfinite(v) for v in (figure.mean, low, high))


def test_the_interval_is_cut_to_what_an_accuracy_can_be() -> None:
    low, high = seeds_and_images(0.99, 0.1, 2, 1000)
    assert 0.05 < low < 0.1
    assert high == 1.0


def test_seeds_that_agree_leave_the_images_interval_and_endless_images_leave_students_t() -> None:
    assert seeds_and_images(0.5, 0.0, 3, 200) == pytest.approx(clopper_pearson(100, 200))
    low, high = stats.t.interval(0.95, 2, 0.92, 0.01 / math.sqrt(3))
    assert seeds_and_images(0.92, 0.01, 3, 10**9) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(("seeds", "images"), [(2, 100), (3, 1000), (5, 200), (9, 100), (9, 1000)])
def test_the_interval_over_a_few_seeds_covers_other_seeds_and_other_images(seeds: int, images: int) -> None:
    truth = float(world(400, 20_000, key=99).mean())
    worlds = [world(seeds, images, key=key) for key in range(150)]
    covered = [low <= truth <= high for low, high in (estimate(means(w), images).ci95 for w in worlds)]
    assert sum(covered) >= 0.95 * len(worlds)


def over_seeds_alone(shares: np.ndarray) -> tuple[float, float]:
    """What was given for an interval before: Student's t."""
    low, high = stats.t.interval(0.95, len(shares) - 1, shares.mean(), stats.sem(shares.mean(1)))
    return float(low), float(high)


def test_students_t_over_seeds_alone_would_not() -> None:
    truth = float(world(400, 20_000, key=99).mean())
    worlds = [over_seeds_alone(world(9, 100, key=key)) for key in range(150)]
    assert sum(low <= truth <= high for low, high in worlds) < 0.8 * len(worlds)

def world(seeds: int, images: int, *, hard: float = 1.5, key: int = 0) -> np.ndarray:
    """Right or wrong (seeds, images): images differ in how hard they are, seeds in how good."""
    random = np.random.default_rng(key)
    level = random.normal(0.3, hard, images)[None] + random.normal(0, 0.15, seeds)[:, None]
    return (random.random((seeds, images)) < 1 / (1 + np.exp(-level))).astype(float)


def means(shares: np.ndarray) -> dict[str, float]:
    return {str(seed): float(row.mean()) for seed, row in enumerate(shares)}


def test_from_ten_seeds_on_the_interval_is_the_hierarchical_bootstraps() -> None:
    shares = world(10, 200)
    figure = estimate(means(shares), 200, lambda: shares)
    assert figure.interval == "hierarchical-bootstrap"
    assert figure.ci95 == hierarchical_bootstrap(shares)
    without = estimate(means(shares), 200, lambda: None)
    assert without.interval == "seeds-and-images", "older figures have no rows by image"


def test_with_fewer_seeds_the_rows_by_image_are_not_even_asked_for() -> None:
    def asked() -> np.ndarray:
        raise AssertionError

    assert estimate(means(world(9, 50)), 50, asked).interval == "seeds-and-images"
    assert estimate({"0": 0.5}, 50, asked).interval == "clopper-pearson"
    assert estimate(dict.fromkeys(map(str, range(12)), 0.0), 50, asked).interval == "clopper-pearson"


def test_the_bootstrap_of_the_same_values_is_the_same() -> None:
    shares = world(10, 300)
    assert hierarchical_bootstrap(shares) == hierarchical_bootstrap(shares.copy())


def test_the_bootstrap_has_the_standard_errors_width_of_seeds_and_of_images() -> None:
    # Only images differ: their binomial standard error, however many seeds there are. Only seeds: theirs.
    images = np.tile(np.arange(400) % 2.0, (12, 1))
    low, high = hierarchical_bootstrap(images)
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 / 20, rel=0.08)
    seeds = np.tile(np.linspace(0.4, 0.6, 20)[:, None], (1, 50))
    low, high = hierarchical_bootstrap(seeds)
    assert (high - low) / 2 == pytest.approx(1.96 * np.linspace(0.4, 0.6, 20).std() / math.sqrt(20), rel=0.08)


def test_the_bootstrap_covers_the_truth_where_students_t_over_seeds_does_not() -> None:
    truth = float(world(200, 20_000, key=99).mean())
    worlds = [world(10, 150, key=key) for key in range(60)]
    covered = [low <= truth <= high for low, high in (hierarchical_bootstrap(w, resamples=300) for w in worlds)]
    assert sum(covered) >= 54
    alone = [over_seeds_alone(w) for w in worlds]
    assert sum(low <= truth <= high for low, high in alone) < sum(covered)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p", "method"),
    [
        # Fagerland, Lydersen, Laake 2013, airway hyper-responsiveness of 21 children: exact p = .070
        (1, 7, 0.0703125, "exact"),
        (0, 0, 1.0, "exact"), (3, 3, 1.0, "exact"), (0, 5, 2 / 32, "exact"), (20, 20, 1.0, "mid-p"),
    ],
)  # fmt: skip
def test_mcnemar_gives_published_and_hand_computed_values(only_a: int, only_b: int, p: float, method: str) -> None:
    assert mcnemar(only_a, only_b) == (pytest.approx(p, abs=1e-9), method)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_scipys_binomial(only_a: int, only_b: int) -> None:
    total, few = only_a + only_b, min(only_a, only_b)
    p, method = mcnemar(only_a, only_b)
    exact = stats.binomtest(few, total, 0.5).pvalue if total else 1.0
    if method == "exact":
        assert p == pytest.approx(exact)
    else:  # mid-p: half of what was observed counts
        assert p == pytest.approx(min(1, 2 * stats.binom.cdf(few, total, 0.5) - stats.binom.pmf(few, total, 0.5)))
        assert p <= exact + 1e-12
    assert (method == "exact") is (total < 25)


def test_mid_p_lies_near_the_chi_squared_test_on_agrestis_approval_ratings() -> None:
    # Agresti, Categorical Data Analysis: 150 against 86 changed their minds, z^2 = 17.36, p = .00003
    assert mcnemar(150, 86)[0] == pytest.approx(stats.chi2.sf(64**2 / 236, 1), rel=0.1)


def test_the_paired_t_test_is_scipys() -> None:
    a, b = [0.31, 0.35, 0.28, 0.40], [0.29, 0.30, 0.27, 0.33]
    found = paired_difference(dict(enumerate_seeds(a)), dict(enumerate_seeds(b)))
    expected = stats.ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.ci95 == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.mean == pytest.approx(np.mean(np.subtract(a, b)))
    assert found.by_seed == {str(i): pytest.approx(x - y) for i, (x, y) in enumerate(zip(a, b, strict=True))}


def enumerate_seeds(values: list[float]) -> list[tuple[str, float]]:
    return [(str(i), v) for i, v in enumerate(values)]


def test_below_two_seeds_there_is_no_p_and_the_interval_is_over_images() -> None:
    differences = np.array([[0.4, 0.0, 0.0, -0.4, 0.3, 0.1]])
    found = paired_difference({"3": 0.75}, {"3": 0.5, "4": 0.1}, lambda: differences)
    assert (found.n, found.p, found.sd) == (1, None, None)
    with_four_halves = np.append(differences, [[1.0, -1.0, 0.0, 0.0]])
    weights = np.append(np.ones(6), np.full(4, 0.5))
    mean = np.average(with_four_halves, weights=weights)
    error = np.sqrt(np.average((with_four_halves - mean) ** 2, weights=weights) / 8)
    assert found.ci95 == pytest.approx((mean - 1.959964 * error, mean + 1.959964 * error))
    assert paired_difference({"3": 0.75}, {"3": 0.5}).ci95 is None


def test_networks_that_never_differ_may_still_differ_by_what_so_few_images_do_not_show() -> None:
    found = paired_difference({"0": 0.5}, {"0": 0.5}, lambda: np.zeros((1, 1000)))
    assert found.ci95 == pytest.approx((-0.001956, 0.001956), abs=1e-6)  # 1.96 / 1002


def test_a_few_images_that_hardly_differ_do_not_make_a_narrow_interval() -> None:
    """By their own spread, 20 images of which two differ a little would exclude half a point."""
    differences = np.zeros((1, 20))
    differences[0, :2] = 0.03, 0.01
    low, high = paired_difference({"0": 0.052}, {"0": 0.05}, lambda: differences).ci95
    assert low < -0.08
    assert high > 0.08


@pytest.mark.parametrize(("images", "both", "only_a", "only_b"), [(20, 0.9, 0.05, 0.05), (50, 0.7, 0.2, 0.1)])
def test_nineteen_of_twenty_intervals_over_images_hold_the_true_difference(
    images: int, both: float, only_a: float, only_b: float
) -> None:
    drawn = np.random.default_rng(0).choice([0.0, 1.0, -1.0], (2000, images), p=[both, only_a, only_b])
    held = 0
    for differences in drawn:
        low, high = paired_difference({"0": 0.5}, {"0": 0.5}, lambda d=differences: d[None]).ci95
        held += low <= only_a - only_b <= high
    assert held / 2000 > 0.93


def test_equal_differences_leave_nothing_to_test_against() -> None:
    equal = paired_difference({"0": 0.4, "1": 0.44}, {"0": 0.3, "1": 0.34})
    assert equal.p is None
    assert equal.mean == pytest.approx(0.1)
    none = paired_difference({"0": 0.0, "1": 0.0}, {"0": 0.0, "1": 0.0})
    assert (none.mean, none.p) == (0.0, 1.0)


def test_from_ten_seeds_on_the_difference_is_bootstrapped_too() -> None:
    a, b = world(10, 100, key=1), world(10, 100, key=2)
    found = paired_difference(means(a), means(b), lambda: a - b)
    assert found.ci95 == hierarchical_bootstrap(a - b)
    assert found.p == pytest.approx(stats.ttest_rel(a.mean(1), b.mean(1)).pvalue)


def test_without_a_common_seed_there_is_no_paired_difference() -> None:
    with pytest.raises(ValueError, match="no common seed"):
        paired_difference({"0": 0.5}, {"1": 0.5})


@pytest.mark.parametrize("effect", [0.3, 0.5, 1.0, 2.0])
def test_so_many_seeds_find_the_difference_in_four_of_five_experiments_and_one_fewer_do_not(effect: float) -> None:
    def power(n: int) -> float:
        random = np.random.default_rng(n)
        found = stats.ttest_1samp(random.normal(effect, 1.0, (40_000, n)), 0.0, axis=1).pvalue < 0.05
        return float(found.mean())

    needed = seeds_needed(0.02, 0.02 / effect)
    assert needed == seeds_needed(-0.02, 0.02 / effect)
    assert needed is not None
    assert power(needed - 1) < 0.805
    assert power(needed) > 0.795


def test_where_a_hundred_seeds_do_not_find_the_difference_none_are_named() -> None:
    assert seeds_needed(0.001, 0.1) is None
