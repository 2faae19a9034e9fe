from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.epsilon import format_epsilon, parse_epsilon

COLUMN = 40  # characters of the eps columns

radii = st.one_of(
    st.fractions(min_value=Fraction(1, 10**6), max_value=100, max_denominator=10**6),
    st.floats(min_value=1e-12, max_value=100),
)


@pytest.mark.parametrize(
    "value", ["8/255", " 8 / 255 ", 8 / 255, 0.03137254901960784, "0.0313725490196", "16/510", "8.0/255", "0.8e1/255"]
)
def test_every_way_to_write_a_radius_names_the_same_one(value: float | str) -> None:
    assert parse_epsilon(value) == Fraction(8, 255)


@pytest.mark.parametrize(("value", "exact"), [(".5", "1/2"), ("0.5/255", "1/510"), (1, "1"), ("1e-3", "1/1000")])
def test_numbers_and_fractions_are_read_exactly(value: float | str, exact: str) -> None:
    assert parse_epsilon(value) == Fraction(exact)


@pytest.mark.parametrize(
    "value",
    ["8/0", "0", 0, 0.0, -0.1, "-8/255", "0/255", "", " ", "eight", "8/", "/255", "8/255/2", "1e999", "nan", "inf",
     float("nan"), float("inf"), float("-inf"), "0x10", "8//255", "1_000", "٨/٢٥٥", 1e-13, 5e-324, "1" * 400],
)  # fmt: skip
def test_what_is_no_positive_finite_number_is_refused_and_told_what_is_allowed(value: float | str) -> None:
    with pytest.raises(ValueError, match=r"give a number such as|greater than 0"):
        parse_epsilon(value)


@given(radii)
def test_a_stored_radius_is_read_back_as_the_same_one(value: float | Fraction) -> None:
    radius = parse_epsilon(str(value) if isinstance(value, Fraction) else value)
    assert parse_epsilon(str(radius)) == radius
    assert parse_epsilon(format_epsilon(radius)) == radius
    assert parse_epsilon(float(radius)) == radius
    assert len(str(radius)) <= COLUMN


@given(radii)
def test_reading_changes_a_radius_by_no_more_than_rounding(value: float | Fraction) -> None:
    radius = parse_epsilon(str(value) if isinstance(value, Fraction) else value)
    assert abs(radius - Fraction(value)) <= Fraction(1, 10**12)


@given(st.integers(1, 255), st.integers(1, 255))
def test_a_float_of_a_simple_fraction_is_that_fraction(numerator: int, denominator: int) -> None:
    assert parse_epsilon(numerator / denominator) == Fraction(numerator, denominator)


@pytest.mark.parametrize(
    ("value", "text"), [("8/255", "8/255"), ("0.5/255", "0.5/255"), ("1/10", "0.1"), ("1/2", "0.5"), ("1", "1"),
                        ("2/255", "2/255"), ("26/255", "26/255"), ("1/3", "85/255")],
)  # fmt: skip
def test_a_radius_is_written_over_255_where_people_write_it_so(value: str, text: str) -> None:
    assert format_epsilon(parse_epsilon(value)) == text
