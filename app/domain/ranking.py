"""Who stands where: competition ranking on raw values; ties share a rank; missing values come last."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")


def rank(
    rows: Sequence[Row], key: Callable[[Row], tuple[float | None, ...]], *, ranked: Callable[[Row], bool]
) -> list[tuple[int | None, Row]]:
    """Rows with their rank, best (largest key) first.

    Rows that are not `ranked` (upper bound only) come below the others, without a rank.
    """
    ordered = sorted(rows, key=lambda row: _descending(key(row)))
    board = [row for row in ordered if ranked(row)]
    out: list[tuple[int | None, Row]] = []
    for place, row in enumerate(board, start=1):
        tied = place > 1 and key(board[place - 2]) == key(row)
        out.append((out[-1][0] if tied else place, row))
    return out + [(None, row) for row in ordered if not ranked(row)]


def _descending(values: tuple[float | None, ...]) -> tuple[tuple[bool, float], ...]:
    return tuple((value is None, -(value or 0.0)) for value in values)
