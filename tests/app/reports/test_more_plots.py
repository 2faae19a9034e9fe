"""The pictures of leaderboard, matrix, comparison and training: whatever there is can be drawn, and says what it is."""

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import matplotlib.figure
import pytest
from PIL import Image

from app.reports.board_plot import MOST_ROWS, board_picture
from app.reports.comparison_plot import comparison_picture
from app.reports.matrix_plot import matrix_picture
from app.reports.training_plot import training_picture

PROTOCOL = {"suite": "quick", "suite_version": 1, "images": 100, "survivors": True, "norm": "linf", "eps": 8 / 255,
            "eps_text": "8/255"}  # fmt: skip
WEIRD = "$weird_{k} <&> 100% 模型 " + "x" * 60


def figure(mean: float, seeds: int = 3) -> dict[str, Any]:
    by_seed = {str(seed): mean + 0.01 * seed for seed in range(seeds)}
    interval = [max(0.0, mean - 0.05), min(1.0, mean + 0.05)]
    return {"mean": mean, "sd": 0.01 if seeds > 1 else None, "n": seeds, "ci95": interval, "by_seed": by_seed}


def row(**given: Any) -> dict[str, Any]:
    return {"id": "r", "rank": 1, "architecture": "resnet20", "variant": "lif", "recipe": "default", "epochs": "<5,5>",
            "settings": "", "clean_accuracy": figure(0.92), "clean_accuracy_subset": figure(0.94),
            "test_images": 2000, "robust_accuracy": figure(0.3), "verdict": "ok",
            **given}  # fmt: skip


def board(*rows: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {"dataset": "digits", "rows": list(rows), "protocol": PROTOCOL, **given}


def cell(mean: float, verdict: str = "ok", others: int = 0) -> dict[str, Any]:
    return {**figure(mean), "test_images": 2000, "epochs": "<5>", "settings": "", "verdict": verdict, "others": others}


def matrix(metric: str = "robust_accuracy", **cells: Any) -> dict[str, Any]:
    rows = [{"variant": "lif", "cells": {"resnet18": None, "resnet20": None, **cells}}]
    return {"dataset": "digits", "metric": metric, "architectures": ["resnet18", "resnet20"], "rows": rows,
            "protocol": PROTOCOL}  # fmt: skip


def difference(mean: float, seeds: int = 3, interval: bool = True) -> dict[str, Any]:
    return {**figure(mean, seeds), "ci95": [mean - 0.05, mean + 0.05] if interval else None, "p": None}


def comparison(**given: Any) -> dict[str, Any]:
    curve = [{"eps": e / 255, "eps_text": f"{e}/255", "robust_accuracy": difference(0.1)} for e in (2, 8)]
    return {"dataset": "digits", "a": row(), "b": row(variant="default"), "protocol": PROTOCOL,
            "seeds": {"common": [0, 1, 2]}, "robust_accuracy": difference(0.1), "clean_accuracy": difference(0.0),
            "clean_accuracy_subset": difference(-0.01),
            "attacks": {"pgd": difference(-0.1)}, "curve": curve, **given}  # fmt: skip


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """All that stands in the pictures drawn since."""
    drawn: list[str] = []
    save = matplotlib.figure.Figure.savefig

    def note(self: Any, *arguments: Any, **options: Any) -> Any:
        from matplotlib.text import Text

        drawn.extend(text.get_text() for text in self.findobj(Text))
        return save(self, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", note)
    return lambda: "\n".join(drawn)


NO_SEED = comparison(robust_accuracy=None, clean_accuracy=None, attacks={}, curve=[], seeds={"common": []})
ONE_SEED = comparison(robust_accuracy=difference(0.1, 1, interval=False), clean_accuracy=difference(0, 1, False),
                      attacks={}, curve=[], seeds={"common": [0]})  # fmt: skip
EVERYTHING: list[Callable[[Any], bytes]] = [
    lambda form: board_picture(board(row(), row(variant="default")), form),
    lambda form: board_picture(board(), form),
    lambda form: board_picture(board(protocol={"norm": "linf", "suite": None}), form),
    lambda form: board_picture(board(row(settings=WEIRD), row(verdict="upper bound only", rank=None)), form),
    lambda form: board_picture(board(row(robust_accuracy=figure(0.1, 1), clean_accuracy=figure(0.1, 1))), form),
    lambda form: matrix_picture(matrix(), form),
    lambda form: matrix_picture(matrix(resnet20=cell(0.5), resnet18=cell(0.99, "upper bound only", 2)), form),
    lambda form: comparison_picture(comparison(), form),
    lambda form: comparison_picture(comparison(a=row(settings=WEIRD), b=row(verdict="upper bound only")), form),
    lambda form: comparison_picture(NO_SEED, form),
    lambda form: comparison_picture(ONE_SEED, form),
    lambda form: training_picture([("lif", [{"epoch": 1, "train_loss": 1.0, "validation_accuracy": 0.5}])], form),
]


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
@pytest.mark.parametrize("number", range(len(EVERYTHING)))
def test_anything_that_can_be_asked_for_can_be_drawn(number: int) -> None:
    draw = EVERYTHING[number]
    assert ElementTree.fromstring(draw("svg")).tag.endswith("svg")
    assert draw("png") == draw("png"), "the same answer gives the same bytes"
    assert min(Image.open(io.BytesIO(draw("png"))).size) > 300


def test_the_board_has_each_figure_in_words_and_marks_upper_bounds(written: Callable[[], str]) -> None:
    board_picture(board(row(), row(variant="default", verdict="upper bound only", rank=None)), "png")
    lines = written().splitlines()
    assert lines.count("92.0 ± 1.0") == 2
    assert "30.0 ± 1.0" in lines
    assert "≤ 30.0 ± 1.0" in lines
    assert {"upper bound only", "one seed", "robust, LIF", "robust, default"} <= set(lines)
    assert "clean: all 2,000 test images" in lines, "attacked were 100"
    assert "suite quick v1, L∞ eps 8/255, 100 images" in lines


def test_a_long_board_says_how_many_rows_it_leaves_out(written: Callable[[], str]) -> None:
    board_picture(board(*(row(rank=k) for k in range(1, MOST_ROWS + 6))), "png")
    assert "5 more rows are not shown" in written()


def test_the_matrix_leaves_out_architectures_without_a_figure_and_marks_bounds(written: Callable[[], str]) -> None:
    matrix_picture(matrix(resnet20=cell(0.5, "upper bound only", 2)), "png")
    assert "≤ 50.0 ± 1.0" in written()
    assert "2 more" in written()
    assert "resnet18" not in written()


def test_a_clean_accuracy_is_never_called_an_upper_bound(written: Callable[[], str]) -> None:
    matrix_picture(matrix("clean_accuracy", resnet20=cell(0.5, "upper bound only")), "png")
    assert "50.0 ± 1.0" in written()
    assert "≤" not in written()
    assert "clean: all 2,000 test images" in written()


def test_the_comparison_names_both_rows_every_difference_and_who_is_a_bound(written: Callable[[], str]) -> None:
    comparison_picture(comparison(b=row(variant="default", verdict="upper bound only")), "png")
    lines = written().splitlines()
    assert "A: resnet20 LIF,  B: resnet20 default" in lines
    assert {"+10.0", "−10.0", "+0.0", "after pgd", "robust", "clean, all 2,000 test images"} <= set(lines)
    assert any(line.endswith("3 common seeds; upper bound only: B") for line in lines)


def test_without_a_common_seed_the_picture_says_so(written: Callable[[], str]) -> None:
    comparison_picture(NO_SEED, "png")
    assert "no common seed: nothing to compare" in written()
