import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.statistics import clopper_pearson, estimate, student_interval


def test_over_three_seeds_the_interval_is_students_t() -> None:
    # by hand: mean .92, sd .01, t(.975, 2) = 4.302653, half width 4.302653 * .01 / sqrt(3) = .024841
    figure = estimate({"0": 0.91, "1": 0.92, "2": 0.93}, images=1000)
    assert figure.mean == pytest.approx(0.92)
    assert figure.sd == pytest.approx(0.01)
    assert figure.n == 3
    assert figure.ci95 == pytest.approx((0.92 - 0.024841, 0.92 + 0.024841), abs=1e-6)


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
    assert student_interval(0.99, 0.1, 2) == (pytest.approx(0.091, abs=1e-2), 1.0)
