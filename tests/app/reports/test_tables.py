import csv
import io
from pathlib import Path
from typing import Any

import pytest

from app.reports.markup import latex_text, render
from app.reports.tables import clean_images, leaderboard_table, matrix_table, percent, row_label
from tests.latex import compile_latex

PROTOCOL = {"norm": "linf", "eps": 8 / 255, "suite": "quick", "suite_version": 3, "images": 1000}


def figure(mean: float, sd: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "sd": sd, "n": 1 if sd is None else 3, "ci95": [0.0, 1.0]}


def row(**given: Any) -> dict[str, Any]:
    return {
        "id": "r", "rank": 1, "architecture": "resnet20", "variant": "lif", "recipe": "default", "precision": "float32",
        "epochs": "<5,5>", "settings": "", "as_published": [], "clean_accuracy": figure(0.9213, 0.0021),
        "clean_accuracy_subset": figure(0.93, 0.001), "test_images": 10_000, "robust_accuracy": figure(0.0, 0.0),
        "attacks": {"fgsm": figure(0.11)}, "verdict": "ok", "draws": 100, "parameters": 5,
        "protocol": PROTOCOL, **given,
    }  # fmt: skip


def matrix(cells: dict[str, Any]) -> dict[str, Any]:
    return {"dataset": "digits", "metric": "clean_accuracy", "protocol": PROTOCOL, "architectures": list(cells),
            "rows": [{"variant": "lif", "cells": cells}]}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "text"),
    [(figure(0.9213, 0.0021), "92.1 ± 0.2"), (figure(0.5), "50.0"), (None, "–"), (figure(0.0, 0.0), "0.0 ± 0.0")],
)
def test_an_accuracy_is_per_cent_with_its_deviation_where_it_has_one(given: Any, text: str) -> None:
    assert percent(given) == text


def test_there_is_a_column_for_each_attack_any_row_has() -> None:
    table = leaderboard_table([row(), row(attacks={"pgd": figure(0.2)}, rank=None)], "digits")
    assert [h for h in table.header if h in ("fgsm %", "pgd %")] == ["fgsm %", "pgd %"]
    assert table.rows[0][-3] == "–"
    assert table.rows[1][0] == "–"


def test_csv_has_one_record_a_row_and_every_column_in_each() -> None:
    text = render(leaderboard_table([row(), row(attacks={"pgd": figure(0.2)})], "digits"), "csv")
    records = list(csv.DictReader(io.StringIO(text)))
    assert [r["pgd"] for r in records] == ["", "0.2"]
    assert records[0]["clean_accuracy"] == "0.9213"
    assert records[0]["epochs"] == "<5,5>"


def test_csv_names_what_was_measured_and_of_how_many_images() -> None:
    text = render(leaderboard_table([row(size=2.0)], "digits"), "csv")
    (record,) = csv.DictReader(io.StringIO(text))
    names = ("dataset", "norm", "suite", "suite_version", "images", "test_images", "clean_accuracy_subset", "size")
    assert [record[name] for name in names] == ["digits", "linf", "quick", "3", "1000", "10000", "0.93", "2"]


def test_clean_images_are_counted_where_fewer_were_attacked() -> None:
    assert clean_images([row(), row()], PROTOCOL) == "clean: all 10,000 test images"
    assert clean_images([row(test_images=1000)], PROTOCOL) == clean_images([], PROTOCOL) == ""


def test_csv_without_rows_still_has_its_columns() -> None:
    empty, full = (render(leaderboard_table(rows, "digits"), "csv").splitlines()[0] for rows in ([], [row(attacks={})]))
    assert empty == full


def test_markdown_cells_cannot_break_out_of_the_table() -> None:
    text = render(leaderboard_table([row(recipe="a|b")], "digits"), "md")
    assert "a\\|b" in text
    assert "&lt;5,5>" in text
    header, rule, *_ = text.splitlines()
    assert header.count("|") == rule.count("|")


def test_latex_escapes_what_has_a_meaning_there() -> None:
    text = render(leaderboard_table([row(recipe="50%_&#{}~^\\")], "digits"), "latex")
    assert r"50\%\_\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"92.1 $\pm$ 0.2" in text
    assert r"\textless{}5,5\textgreater{}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_an_empty_cell_of_the_matrix_is_a_dash() -> None:
    cell = {**figure(0.5, 0.1), "test_images": 10_000, "epochs": "<5>", "settings": "", "verdict": "ok", "others": 0}
    table = matrix_table(matrix({"resnet20": cell, "resnet50": None}))
    assert table.rows == [["LIF", "50.0 ± 10.0 <5>", "–"]]
    assert [(r["architecture"], r["dataset"], r["metric"], r["suite"], r["images"]) for r in table.records] == [
        ("resnet20", "digits", "clean_accuracy", "quick", 10_000)
    ]


def test_a_cell_of_the_matrix_says_how_many_rows_of_other_settings_it_does_not_show() -> None:
    cell = {**figure(0.5, 0.1), "test_images": 10_000, "epochs": "<5>", "settings": "frozen 3", "verdict": "ok",
            "others": 2}  # fmt: skip
    table = matrix_table(matrix({"resnet18": cell}))
    assert table.rows == [["LIF", "50.0 ± 10.0 <5> (+2 more)"]]
    assert [(r["settings"], r["others"]) for r in table.records] == [("frozen 3", 2)]


def test_latex_takes_any_text_a_user_may_have_chosen(tmp_path: Path) -> None:
    names = ["50%_&#{}~^\\$", "naïve Erdős Čapek ñandú", "模型 é\u0301 🙂", "[1] * | \"q\" <x> 'y' `z`", "a\nb\x07c",
             ""]  # fmt: skip
    rows = [row(recipe=name, architecture=name) for name in names]
    text = render(leaderboard_table(rows, "digits", "a note: 100 % of $x_1$ & more"), "latex")
    assert r"na\"{i}ve Erd\H{o}s \v{C}apek" in text
    assert "U+6A21U+578B" in text
    assert text.isascii()
    compile_latex(tmp_path, text)


@pytest.mark.parametrize("char", "µμ±−≤≥∞–—…×→·²")
def test_latex_knows_the_signs_that_tables_are_made_of(tmp_path: Path, char: str) -> None:
    text = latex_text(f"a {char} b")
    assert text.isascii()
    assert "U+" not in text
    assert "Missing character" not in compile_latex(tmp_path, f"\\rule{{1ex}}{{1ex}} {text}")


def test_a_board_with_all_its_columns_fits_a_page_of_latex(tmp_path: Path) -> None:
    costs = {"size": 1.2e6, "latency": {"p50_ms": 12.3}, "energy": {"microjoules": 4.5}}
    attacks = {name: figure(0.5, 0.1) for name in ("fgsm", "pgd", "apgd-ce", "apgd-dlr", "square")}
    text = render(leaderboard_table([row(**costs, attacks=attacks)], "digits", "digits: suite standard v2"), "latex")
    assert r"$\mu$J" in text
    assert "U+" not in text
    assert r"\usepackage{graphicx}" in text
    compile_latex(tmp_path, text)


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    text = render(leaderboard_table([row(), row(rank=None)], "digits"), "latex")
    assert r"\begin{tabular}{rlllllrrrrl}" in text
    assert render(leaderboard_table([row()], "digits"), "md").splitlines()[1].startswith("|---:|---|")


def test_two_rows_of_one_name_are_told_apart_by_what_differs() -> None:
    rows = [row(), row(settings="gain 1"), row(variant="default")]
    assert [row_label(r, rows) for r in rows] == ["resnet20 LIF", "resnet20 LIF gain 1", "resnet20 default"]
