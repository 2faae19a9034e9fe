"""The leaderboard and the matrix over HTTP, from figures in both databases."""

import csv
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.storage.engine import Database
from app.storage.tables import Run
from tests.app.work import Queue
from tests.service import make_settings

ROBUST = {("default", 0): 0.30, ("default", 1): 0.32, ("lif", 0): 0.40, ("lif", 1): 0.44, ("paralif", 0): 0.9,
          ("paralif", 1): 0.9}  # fmt: skip


MATRIX = "/leaderboard/matrix"
DEPTH_ACCURACY = {f"{frozen}weights imagenet, size 224": accuracy
                  for frozen, accuracy in (("", 0.5), ("frozen 3, ", 0.6), ("frozen 4, ", 0.7))}  # fmt: skip


def measure(run: Run) -> dict[str, Any]:
    subject = run.spec["subject"]
    robust = ROBUST[subject["variant"], subject["seed"]]
    figures = {"robust_accuracy": robust, "clean_accuracy": 0.9 + subject["seed"] / 100}
    bound = {"verdict": "upper bound only", "reasons": ["4 % of the images gave a zero gradient"]}
    return figures | (bound if subject["variant"] == "paralif" else {})


def fill(queue: Queue) -> None:
    """Three variants x two seeds on digits under suite quick; ParaLIF's figures are an upper bound only."""
    queue.submit(variants=["default", "lif", "paralif"], seeds=[0, 1])
    queue.work_off(measure)


@pytest.fixture(scope="module")
def board(module_database: Database, tmp_path_factory: pytest.TempPathFactory, serve_module) -> httpx.Client:
    """A service with figures that no test changes."""
    folder = tmp_path_factory.mktemp("board")
    fill(Queue(module_database, folder))
    return serve_module(make_settings(data_dir=folder, database_url=module_database.url))


def get(api: httpx.Client, path: str = "/leaderboard", **params: Any) -> dict[str, Any]:
    response = api.get(path, params={"dataset": "digits", **params})
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


def test_without_filters_the_headline_radius_is_ranked_and_upper_bounds_stand_below(board) -> None:
    shown = get(board)
    assert (shown["protocol"]["eps_text"], shown["protocol"]["suite"], shown["protocol"]["images"]) == (
        "32/255", "quick", 359
    )  # fmt: skip
    assert [(r["rank"], r["variant"]) for r in shown["rows"]] == [(1, "lif"), (2, "default"), (None, "paralif")]
    assert shown["rows"][2]["reasons"] == ["4 % of the images gave a zero gradient"]


def test_a_row_has_all_that_the_contract_names(board) -> None:
    row = get(board)["rows"][0]
    assert set(row) >= {"id", "rank", "architecture", "variant", "recipe", "precision", "epochs", "clean_accuracy",
                        "robust_accuracy", "attacks", "verdict", "reasons", "protocol", "draws", "parameters",
                        "checkpoints"}  # fmt: skip
    assert set(row["protocol"]) >= {"norm", "eps", "suite", "suite_version", "images"}
    assert row["protocol"]["eps"] == 32 / 255
    assert row["robust_accuracy"]["mean"] == pytest.approx(0.32)
    assert row["robust_accuracy"]["by_seed"] == {"0": pytest.approx(0.30), "1": pytest.approx(0.34)}
    assert row["robust_accuracy"]["n"] == len(row["checkpoints"]) == 2
    low, high = row["robust_accuracy"]["ci95"]
    assert low < 0.32 < high
    assert row["epochs"] == "<20,10>"
    assert [p["eps_text"] for p in row["curve"]] == ["8/255", "32/255", "64/255"]


@pytest.mark.parametrize("eps", ["8/255", str(8 / 255), "0.0313725490196", "16/510"])
def test_a_radius_is_compared_as_a_fraction(board, eps: str) -> None:
    shown = get(board, eps=eps)
    assert shown["protocol"]["eps_text"] == "8/255"
    assert shown["rows"][0]["robust_accuracy"]["mean"] == pytest.approx(0.42)


@pytest.mark.parametrize(
    ("filters", "variants"),
    [
        ({"variant": "default"}, ["default"]), ({"architecture": "resnet50"}, []), ({"recipe": "study"}, []),
        ({"precision": "int8"}, []), ({"norm": "l2"}, []), ({"suite": "study"}, []), ({"eps": "1/255"}, []),
        ({"images": 100}, []), ({"images": 359}, ["lif", "default", "paralif"]),
        ({"recipe": "default", "precision": "float32", "suite": "quick"}, ["lif", "default", "paralif"]),
    ],
)  # fmt: skip
def test_filters_leave_only_what_they_name(board, filters: dict[str, Any], variants: list[str]) -> None:
    assert [r["variant"] for r in get(board, **filters)["rows"]] == variants


@pytest.mark.parametrize("path", ["/leaderboard", "/curves"])
@pytest.mark.parametrize(("name", "allowed"), [
    ("suite", "'quick'"), ("recipe", "'imported'"), ("precision", "'int8'"), ("variant", "'lif'"),
])  # fmt: skip
def test_a_filter_that_names_nothing_is_refused_not_answered_with_an_empty_board(
    board, problem_of, path: str, name: str, allowed: str
) -> None:
    [fault] = problem_of(board.get(path, params={"dataset": "digits", name: "quik"}), 422)["errors"]
    assert fault["pointer"] == f"/{name}"
    assert allowed in fault["detail"]


def test_it_may_be_sorted_by_clean_accuracy(board) -> None:
    rows = get(board, sort="clean_accuracy")["rows"]
    assert rows[0]["clean_accuracy"]["mean"] >= rows[1]["clean_accuracy"]["mean"]


def test_csv_has_the_numbers_of_the_json_exactly(board) -> None:
    rows = get(board)["rows"]
    response = board.get("/leaderboard", params={"dataset": "digits", "format": "csv"})
    assert response.headers["content-type"].startswith("text/csv")
    records = list(csv.DictReader(io.StringIO(response.text)))
    assert len(records) == len(rows)
    for record, row in zip(records, rows, strict=True):
        assert record["rank"] == ("" if row["rank"] is None else str(row["rank"]))
        assert record["epochs"] == row["epochs"]
        for name in ("clean_accuracy", "robust_accuracy"):
            assert float(record[name]) == row[name]["mean"]
            assert float(record[f"{name}_sd"]) == row[name]["sd"]
            assert [float(record[f"{name}_low"]), float(record[f"{name}_high"])] == row[name]["ci95"]
        assert float(record["pgd"]) == row["attacks"]["pgd"]["mean"]
        assert float(record["eps"]) == row["protocol"]["eps"]


@pytest.mark.parametrize(("form", "separator"), [("md", "|"), ("latex", "&")])
def test_tables_for_people_have_the_same_figures_in_per_cent(board, form: str, separator: str) -> None:
    rows = get(board)["rows"]
    text = board.get("/leaderboard", params={"dataset": "digits", "format": form}).text
    lines = [line for line in text.splitlines() if "resnet20" in line]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        cells = [c.strip() for c in line.strip("| \\").split(separator)]
        plain = [c.replace("$\\pm$", "±") for c in cells]
        for name in ("clean_accuracy", "robust_accuracy"):
            figure = row[name]
            assert f"{100 * figure['mean']:.1f} ± {100 * figure['sd']:.1f}" in plain
        assert row["verdict"] in plain


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"), ("text/markdown", "text/markdown"),
        ("application/x-latex", "application/x-latex"),
        ("application/json", "application/json"), ("*/*", "application/json"), ("image/gif", "application/json"),
        ("image/png", "image/png"), ("image/avif,image/svg+xml,*/*;q=0.8", "image/svg+xml"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("application/json;q=0.1, text/csv", "text/csv"), ("text/csv;q=0, application/json", "application/json"),
        ("text/csv;q=x", "application/json"), (",;", "application/json"),
    ],
)  # fmt: skip
def test_the_form_is_the_one_the_client_likes_best(board, accept: str, kind: str) -> None:
    response = board.get("/leaderboard?dataset=digits", headers={"Accept": accept})
    assert response.headers["content-type"].partition(";")[0] == kind
    assert response.headers["vary"] == "Accept"


def test_an_asked_for_form_goes_before_the_header(board) -> None:
    response = board.get("/leaderboard?dataset=digits&format=csv", headers={"Accept": "text/html"})
    assert response.headers["content-type"].startswith("text/csv")


def test_the_matrix_has_variants_down_and_architectures_across(board) -> None:
    shown = get(board, "/leaderboard/matrix", metric="robust_accuracy")
    cells = {line["variant"]: line["cells"] for line in shown["rows"]}
    assert list(cells) == ["default", "lif", "paralif"]
    assert cells["lif"]["resnet20"]["mean"] == pytest.approx(0.32)
    assert (cells["lif"]["resnet20"]["n"], cells["lif"]["resnet20"]["epochs"]) == (2, "<20,10>")
    assert cells["lif"]["resnet50"] is None


def test_the_matrix_as_a_table_has_the_same_figures(board) -> None:
    cell = get(board, "/leaderboard/matrix")["rows"][1]["cells"]["resnet20"]
    text = board.get("/leaderboard/matrix?dataset=digits&format=md").text
    assert f"{100 * cell['mean']:.1f} ± {100 * cell['sd']:.1f} &lt;20,10>" in text
    records = list(csv.DictReader(io.StringIO(board.get("/leaderboard/matrix?dataset=digits&format=csv").text)))
    assert {(r["variant"], float(r["mean"])) for r in records} >= {("lif", cell["mean"])}


def test_figures_of_another_protocol_are_counted_but_not_ranked_with_it(api, queue) -> None:
    fill(queue)
    queue.submit(variants=["default"], seeds=[0], evaluation={"images": 50})
    queue.work_off(lambda run: {"robust_accuracy": 0.99})
    shown = get(api)
    assert shown["protocol"]["images"] == 359
    assert shown["protocol"]["others"] == 1
    assert [r["variant"] for r in shown["rows"]] == ["lif", "default", "paralif"]
    assert get(api, images=50)["rows"][0]["robust_accuracy"]["mean"] == pytest.approx(0.89)


def test_rows_and_cells_of_one_freeze_depth_can_be_told_from_those_of_another(api, queue) -> None:
    for depth in (0, 3, 4, None):  # none given: the usual one, which is 3 with weights and 0 without
        body = {"training": {"weights": "imagenet", "freeze_depth": depth}, "architectures": ["resnet18"]}
        queue.submit(variants=["default", "lif"], seeds=[0], **body)
        queue.work_off(lambda run: {"clean_accuracy": DEPTH_ACCURACY[run.spec["subject"]["settings"]]})
    queue.submit()
    queue.work_off(lambda run: {"clean_accuracy": 0.9})
    for depth, settings in ((0, ""), (3, "frozen 3, "), (4, "frozen 4, ")):
        rows = get(api, freeze_depth=depth, architecture="resnet18")["rows"]
        assert {(r["variant"], r["settings"]) for r in rows} == {
            (variant, f"{settings}weights imagenet, size 224") for variant in ("default", "lif")
        }
        cells = {line["variant"]: line["cells"] for line in get(api, MATRIX, freeze_depth=depth)["rows"]}
        for variant in ("default", "lif"):
            cell = cells[variant]["resnet18"]
            assert (cell["mean"], cell["others"]) == (DEPTH_ACCURACY[rows[0]["settings"]], 0)
        assert (cells["default"]["resnet20"] is None) is (depth != 0)
    assert get(api, MATRIX)["rows"][0]["cells"]["resnet18"]["others"] == 2
    assert len(get(api)["rows"]) == 7


def test_the_newest_of_two_equal_measurements_counts(api, queue) -> None:
    fill(queue)
    queue.submit(variants=["default"], seeds=[0], fresh=True)
    queue.work_off(lambda run: {"robust_accuracy": 0.2, "clean_accuracy": 0.1})
    [row] = get(api, variant="default")["rows"]
    assert row["clean_accuracy"]["by_seed"] == {"0": 0.1, "1": 0.91}
    assert row["clean_accuracy"]["n"] == 2


@pytest.mark.parametrize("form", ["json", "csv", "md", "latex", "html"])
@pytest.mark.parametrize("path", ["/leaderboard", "/leaderboard/matrix"])
def test_an_empty_board_is_no_error(sqlite_api, path: str, form: str) -> None:
    response = sqlite_api.get(path, params={"dataset": "fashion-mnist", "format": form})
    assert response.status_code == 200
    if form == "json" and path == "/leaderboard":
        assert response.json()["rows"] == []
        assert response.json()["protocol"]["eps_text"] == "26/255"


def test_the_board_of_a_data_set_whose_images_are_gone_or_broken_can_still_be_seen(
    api, queue, data_dir: Path, problem_of: Callable[..., Any]
) -> None:
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = data_dir / "datasets" / "mine" / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "0.png")
    queue.submit(dataset="mine")
    queue.work_off(lambda run: {"robust_accuracy": 0.5})
    shown = get(api, dataset="mine")
    (data_dir / "datasets" / "mine" / "test" / "b" / "0.png").unlink()
    assert get(api, dataset="mine") == shown
    shutil.rmtree(data_dir / "datasets" / "mine")
    assert get(api, dataset="mine") == shown
    assert get(api, "/leaderboard/matrix", dataset="mine")["rows"][0]["cells"]["resnet20"]["mean"] == 0.9
    problem_of(api.get("/leaderboard?dataset=mine2"), 404)


def test_a_name_that_looks_like_markup_is_shown_as_text(api, queue) -> None:
    queue.submit(name="<script>alert(1)</script>")
    page = api.get("/").text
    assert "<script>" not in page
    assert re.search(r"&lt;script&gt;alert", page)
