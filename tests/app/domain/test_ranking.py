from hypothesis import given
from hypothesis import strategies as st

from app.domain.ranking import rank

Row = tuple[float | None, float | None, bool]


def ranks(rows: list[Row]) -> list[tuple[int | None, Row]]:
    return rank(rows, lambda r: (r[0], r[1]), ranked=lambda r: r[2])


def test_the_largest_comes_first_and_the_second_figure_decides_between_equals() -> None:
    best, better, good = (0.5, 0.9, True), (0.5, 0.8, True), (0.4, 1.0, True)
    assert ranks([good, better, best]) == [(1, best), (2, better), (3, good)]


def test_equals_share_a_rank_and_the_next_one_is_not_moved_up() -> None:
    rows: list[Row] = [(0.5, 0.5, True), (0.5, 0.5, True), (0.1, 0.9, True)]
    assert [place for place, _ in ranks(rows)] == [1, 1, 3]


def test_rows_that_differ_by_less_than_is_shown_do_not_tie() -> None:
    assert [place for place, _ in ranks([(0.5, 0.5, True), (0.5 + 1e-12, 0.5, True)])] == [1, 2]


def test_a_missing_value_comes_after_zero() -> None:
    assert [row for _, row in ranks([(None, 0.9, True), (0.0, 0.1, True)])] == [(0.0, 0.1, True), (None, 0.9, True)]


def test_what_is_an_upper_bound_only_stands_below_without_a_rank() -> None:
    bound, fair = (0.99, 0.99, False), (0.0, 0.5, True)
    assert ranks([bound, fair]) == [(1, fair), (None, bound)]


@given(st.lists(st.tuples(st.none() | st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 1.0]), st.booleans())))
def test_a_rank_is_one_more_than_how_many_are_better(rows: list[Row]) -> None:
    board = ranks(rows)
    assert sorted(map(str, (row for _, row in board))) == sorted(map(str, rows))
    for place, row in board:
        if not row[2]:
            assert place is None
            continue
        value = (-1.0 if row[0] is None else row[0], row[1])
        better = [r for r in rows if r[2] and (-1.0 if r[0] is None else r[0], r[1]) > value]  # type: ignore[operator]
        assert place == len(better) + 1
