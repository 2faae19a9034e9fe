"""Leaderboard, matrix, curves and comparison as CSV, Markdown, LaTeX and pictures: the numbers are the JSON's."""

import csv
import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from PIL import Image

from app.storage.engine import Database
from app.storage.tables import Run
from tests.app.work import Queue
from tests.latex import compile_latex
from tests.service import make_settings

BOARD, MATRIX, CURVES, COMPARE = "/leaderboard", "/leaderboard/matrix", "/curves", "/compare"
EVERY = (BOARD, MATRIX, CURVES, COMPARE)


def measure(run: Run) -> dict[str, Any]:
    subject = run.spec["subject"]
    robust = {"default": 0.3, "lif": 0.4, "paralif": 0.9}[subject["variant"]] + 0.017 * subject["seed"]
    bound = {"verdict": "upper bound only", "reasons": ["100 % of x_1 & <y> are $0"]}
    return {"robust_accuracy": robust, "clean_accuracy": 0.9 + subject["seed"] / 100,
            **(bound if subject["variant"] == "paralif" else {})}  # fmt: skip


@pytest.fixture(scope="module")
def board(module_database: Database, tmp_path_factory: pytest.TempPathFactory, serve_module) -> httpx.Client:
    """Three variants of three seeds, and one of a single seed, whose figures have no deviation."""
    folder = tmp_path_factory.mktemp("reports")
    queue = Queue(module_database, folder)
    queue.submit(variants=["default", "lif", "paralif"], seeds=[0, 1, 2])
    queue.work_off(measure)
    queue.submit(variants=["default"], seeds=[0], training={"learning_rate": 0.5})
    queue.work_off(measure)
    return serve_module(make_settings(data_dir=folder, database_url=module_database.url))


def ask(api: httpx.Client, path: str, form: str = "json") -> httpx.Response:
    params = {"dataset": "digits", "format": form}
    if path == COMPARE:
        rows = api.get("/leaderboard?dataset=digits").json()["rows"]
        rows = {row["variant"]: row["id"] for row in rows if not row["settings"]}
        params = {"a": rows["lif"], "b": rows["default"], "format": form}
    response = api.get(path, params=params)
    assert response.status_code == 200, response.text
    return response


def frame_of(api: httpx.Client, path: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(ask(api, path, "csv").text))


NUMBERS = {
    BOARD: ["rank", "clean_accuracy", "clean_accuracy_sd", "clean_accuracy_low", "clean_accuracy_high",
            "robust_accuracy", "robust_accuracy_sd", "robust_accuracy_low", "robust_accuracy_high", "seeds", "pgd",
            "pgd_sd", "draws", "parameters", "eps", "images"],
    MATRIX: ["mean", "sd", "low", "high", "n", "others"],
    CURVES: ["eps", "accuracy", "accuracy_sd", "accuracy_low", "accuracy_high", "seeds"],
    COMPARE: ["eps", "seed", "a", "b", "difference", "sd", "low", "high", "seeds", "p"],
}  # fmt: skip


@pytest.mark.parametrize("path", EVERY)
def test_csv_opens_with_numbers_where_there_are_numbers_and_nothing_else_in_a_cell(board, path: str) -> None:
    frame = frame_of(board, path)
    assert len(frame) > 2
    for column in NUMBERS[path]:
        assert pd.api.types.is_numeric_dtype(frame[column]), column
    text = ask(board, path, "csv").text
    assert "±" not in text
    assert "–" not in text
    records = list(csv.DictReader(io.StringIO(text)))
    assert all(None not in record and None not in record.values() for record in records), "as many cells as columns"
    for column in NUMBERS[path]:
        assert all(record[column] == "" or float(record[column]) is not None for record in records)


def test_a_missing_value_is_an_empty_cell(board) -> None:
    frame = frame_of(board, BOARD)
    assert frame.loc[frame["seeds"] == 1, "robust_accuracy_sd"].isna().all()
    assert frame.loc[frame["verdict"] == "upper bound only", "rank"].isna().all()
    assert frame["settings"].notna().sum() == 1


def test_leaderboard_csv_has_mean_and_deviation_of_each_attack(board) -> None:
    rows, frame = ask(board, BOARD).json()["rows"], frame_of(board, BOARD).set_index("id")
    for row in rows:
        for name, figure in row["attacks"].items():
            assert frame.loc[row["id"], name] == figure["mean"]
            sd = frame.loc[row["id"], f"{name}_sd"]
            assert pd.isna(sd) if figure["sd"] is None else sd == figure["sd"]


def test_matrix_csv_has_the_numbers_of_the_json(board) -> None:
    shown, frame = ask(board, MATRIX).json(), frame_of(board, MATRIX).set_index(["variant", "architecture"])
    for line in shown["rows"]:
        cell = line["cells"]["resnet20"]
        found = frame.loc[line["variant"], "resnet20"]
        assert [found["mean"], found["low"], found["high"]] == [cell["mean"], *cell["ci95"]]
        assert pd.isna(found["sd"]) if cell["sd"] is None else found["sd"] == cell["sd"]
        assert (found["n"], found["others"], found["verdict"]) == (cell["n"], cell["others"], cell["verdict"])


def test_comparison_csv_has_the_numbers_of_the_json(board) -> None:
    shown, frame = ask(board, COMPARE).json(), frame_of(board, COMPARE)
    over_all = frame[frame["seed"].isna()]
    robust = over_all[over_all["figure"] == "robust_accuracy"]
    assert [p["eps_text"] for p in shown["curve"]] == list(robust["eps_text"]) == ["8/255", "32/255", "64/255"]
    for point, (_, record) in zip(shown["curve"], robust.iterrows(), strict=True):
        difference = point["robust_accuracy"]
        assert [record["difference"], record["low"], record["high"]] == [difference["mean"], *difference["ci95"]]
        assert (record["sd"], record["seeds"]) == (difference["sd"], 3)
        assert record["a"] - record["b"] == pytest.approx(difference["mean"])
    [at_row] = [p["robust_accuracy"] for p in shown["curve"] if p["eps"] == shown["protocol"]["eps"]]
    assert at_row == shown["robust_accuracy"]
    attacks = over_all[over_all["figure"] == "attack"].set_index("attack")
    assert set(attacks.index) == set(shown["attacks"]) == {"fgsm", "pgd", "square"}
    assert attacks.loc["pgd", "difference"] == shown["attacks"]["pgd"]["mean"]
    by_seed = frame[(frame["figure"] == "clean_accuracy") & frame["seed"].notna()]
    assert dict(zip(by_seed["seed"], by_seed["difference"], strict=True)) == {
        int(seed): value for seed, value in shown["clean_accuracy"]["by_seed"].items()
    }


@pytest.mark.parametrize("path", EVERY)
def test_markdown_is_a_table_of_per_cent_that_says_what_was_measured(board, path: str) -> None:
    lines = ask(board, path, "md").text.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "suite quick" in lines[-1]
    assert "359 images" in lines[-1]


@pytest.mark.parametrize("path", EVERY)
def test_a_picture_is_had_as_png_and_as_svg_by_name_and_by_accept(board, path: str) -> None:
    response = ask(board, path, "png")
    assert response.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(response.content)).convert("L")
    assert min(picture.size) > 300
    low, high = picture.getextrema()
    assert (low, high) <= (60, 255)
    assert ElementTree.fromstring(ask(board, path, "svg").text).tag.endswith("svg")
    accepted = board.get(response.request.url.copy_remove_param("format"), headers={"Accept": "image/svg+xml"})
    assert accepted.headers["content-type"].startswith("image/svg+xml")
    assert accepted.headers["vary"] == "Accept"


@pytest.mark.parametrize("path", EVERY)
def test_a_form_that_there_is_not_is_refused(board, path: str, problem_of) -> None:
    request = ask(board, path).request
    refused = problem_of(board.get(request.url.copy_set_param("format", "gif")), 422)
    assert "png" in refused["errors"][0]["detail"]


def test_latex_sets_every_table(board, tmp_path: Path) -> None:
    tables = [ask(board, path, "latex").text for path in EVERY]
    assert all("\\toprule" in table and "needs \\usepackage{booktabs}" in table for table in tables)
    assert "Missing character" not in compile_latex(tmp_path, "\n\n".join(tables))
    compile_latex(tmp_path, "\\twocolumn\n" + "".join(tables))  # each within its column, below the one before
