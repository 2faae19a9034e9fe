"""Two rows compared over HTTP, from figures in both databases."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.storage.engine import Database
from app.storage.tables import Run
from tests.app.work import Queue, verdict
from tests.service import make_settings

ROBUST = {("default", 0): 0.30, ("default", 1): 0.32, ("lif", 0): 0.40, ("lif", 1): 0.44, ("lif", 2): 0.5}


def measure(run: Run) -> dict[str, Any]:
    subject = run.spec["subject"]
    return {"robust_accuracy": ROBUST[subject["variant"], subject["seed"]], "clean_accuracy": 0.9}


def judge(run: Run, eps: str) -> list[dict[str, Any]]:
    """Of 40 images LIF gets the first 20 right, the default variant the first 10 and one more."""
    variant = run.spec["subject"]["variant"]
    right = {"lif": range(20), "default": (*range(10), 30)}[variant]
    return [verdict(i, eps, right=1.0 if i in right else 0.0) for i in range(40)]


@pytest.fixture(scope="module")
def board(module_database: Database, tmp_path_factory: pytest.TempPathFactory, serve_module) -> httpx.Client:
    folder = tmp_path_factory.mktemp("compare")
    queue = Queue(module_database, folder)
    queue.submit(variants=["default", "lif"], seeds=[0, 1])
    queue.work_off(measure, judge)
    queue.submit(variants=["lif"], seeds=[2])
    queue.work_off(measure, judge)
    queue.submit(variants=["default"], seeds=[0], evaluation={"images": 50})
    queue.work_off(measure, judge)
    return serve_module(make_settings(data_dir=folder, database_url=module_database.url))


def rows_of(api: httpx.Client, **filters: Any) -> dict[str, dict[str, Any]]:
    shown = api.get("/leaderboard", params={"dataset": "digits", **filters}).json()
    return {row["variant"]: row for row in shown["rows"]}


def compare(api: httpx.Client, a: str, b: str) -> httpx.Response:
    return api.get("/compare", params={"a": a, "b": b})


def test_two_rows_are_compared_seed_by_seed_and_image_by_image(board) -> None:
    rows = rows_of(board)
    found = compare(board, rows["lif"]["id"], rows["default"]["id"]).json()
    assert (found["dataset"], found["a"], found["b"]) == ("digits", rows["lif"], rows["default"])
    assert found["seeds"] == {"common": [0, 1], "only_a": [2], "only_b": []}
    assert found["robust_accuracy"]["by_seed"] == {"0": pytest.approx(0.10), "1": pytest.approx(0.12)}
    assert found["robust_accuracy"]["mean"] == pytest.approx(0.11)
    low, high = found["robust_accuracy"]["ci95"]
    assert low < 0.11 < high
    assert found["clean_accuracy"]["mean"] == 0
    assert found["p"] == found["robust_accuracy"]["p"] == pytest.approx(0.0577, abs=1e-3)
    assert found["significant"] is False
    assert "is not significant over seeds" in found["conclusion"]
    assert [(p["seed"], p["images"], p["both"], p["only_a"], p["only_b"], p["neither"]) for p in found["mcnemar"]] == [
        (0, 40, 10, 10, 1, 19), (1, 40, 10, 10, 1, 19)
    ]  # fmt: skip
    assert found["mcnemar"][0]["p"] == pytest.approx(2 * (1 + 11) / 2**11)
    settings = {s["name"]: (s["a"], s["b"]) for s in found["differing_settings"]}
    assert settings["variant"] == ("lif", "default")
    assert settings["epochs"] == ("<20,10>", "<20>")
    assert settings["decoder.beta"] == (0.95, None)
    assert not {"seed", "parent", "training.learning_rate"} & set(settings)


def test_the_other_way_round_it_is_the_same_with_the_other_sign(board) -> None:
    rows = rows_of(board)
    one, other = (compare(board, rows[a]["id"], rows[b]["id"]).json()
                  for a, b in (("lif", "default"), ("default", "lif")))  # fmt: skip
    assert one["robust_accuracy"]["mean"] == pytest.approx(-other["robust_accuracy"]["mean"])
    assert one["p"] == pytest.approx(other["p"])
    assert other["mcnemar"][0]["only_b"] == 10


def test_rows_of_different_protocols_are_a_conflict_that_says_what_differs(board, problem_of) -> None:
    lif, fewer = rows_of(board)["lif"], rows_of(board, images=50)["default"]
    assert "images: 359 against 50" in problem_of(compare(board, lif["id"], fewer["id"]), 409)["detail"]
    smaller = rows_of(board, eps="8/255")["default"]
    detail = problem_of(compare(board, lif["id"], smaller["id"]), 409)["detail"]
    assert detail.endswith("these differ in eps: 32/255 against 8/255")


def test_a_row_that_there_is_not_is_not_found_and_the_nearest_is_named(
    board, problem_of: Callable[..., Any]
) -> None:
    row = rows_of(board)["lif"]["id"]
    wrong = row[:-1] + ("0" if row[-1] != "0" else "1")
    assert f"did you mean '{row}'" in problem_of(compare(board, wrong, row), 404)["detail"]
    problem_of(compare(board, row, "nothing"), 404)


def test_a_row_is_not_compared_with_itself(board, problem_of) -> None:
    row = rows_of(board)["lif"]["id"]
    assert problem_of(compare(board, row, row), 422)["errors"][0]["pointer"] == "/b"
    problem_of(board.get("/compare", params={"a": row}), 422)


def test_figures_from_before_verdicts_were_stored_are_compared_over_seeds_alone(api, queue) -> None:
    queue.submit(variants=["default", "lif"], seeds=[0, 1])
    queue.work_off(measure)
    rows = rows_of(api)
    found = compare(api, rows["lif"]["id"], rows["default"]["id"]).json()
    assert found["mcnemar"] == []
    assert found["p"] == pytest.approx(0.0577, abs=1e-3)


def test_ten_seeds_have_a_bootstrapped_interval_on_the_board(api, queue) -> None:
    queue.submit(seeds=list(range(10)))
    queue.work_off(lambda run: {"robust_accuracy": 0.2 + run.spec["subject"]["seed"] / 50},
                   lambda run, eps: [verdict(i, eps, right=float(i < 8 + run.spec["subject"]["seed"]))
                                     for i in range(40)])  # fmt: skip
    [row] = rows_of(api).values()
    assert row["robust_accuracy"]["interval"] == "hierarchical-bootstrap"
    assert row == rows_of(api)["default"], "asked again it is the same"


def test_the_strongest_suite_that_is_complete_is_shown(api, queue) -> None:
    body = {"eps": ["32/255"], "images": 100}
    queue.submit(variants=["default", "lif"], evaluation={"suite": "study", **body})
    queue.work_off(measure)
    queue.submit(variants=["default"], evaluation={"suite": "quick", **body})
    queue.work_off(measure)
    shown = api.get("/leaderboard?dataset=digits").json()
    assert (shown["protocol"]["suite"], len(shown["rows"]), shown["protocol"]["missing_rows"]) == ("study", 2, 0)
    shown = api.get("/leaderboard?dataset=digits&suite=quick").json()
    assert (shown["protocol"]["suite"], len(shown["rows"])) == ("quick", 1)
    queue.submit(variants=["lif"], evaluation={"suite": "quick", **body})
    queue.work_off(measure)
    assert api.get("/leaderboard?dataset=digits").json()["protocol"]["suite"] == "quick"
