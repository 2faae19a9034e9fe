"""Accuracy against eps over HTTP, and what an evaluation leaves behind for each image."""

import csv
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.storage import results, runs
from app.storage.engine import Database
from tests.app.work import Queue, verdict
from tests.service import make_settings

ROBUST = {"default": 0.5, "lif": 0.6, "paralif": 0.8}


@pytest.fixture(scope="module")
def board(module_database: Database, tmp_path_factory: pytest.TempPathFactory, serve_module) -> httpx.Client:
    folder = tmp_path_factory.mktemp("curves")
    queue = Queue(module_database, folder)

    def measure(run: Any) -> dict[str, Any]:
        variant = run.spec["subject"]["variant"]
        bound = {"verdict": "upper bound only", "reasons": ["why"]} if variant == "paralif" else {}
        return {"robust_accuracy": ROBUST[variant] + run.spec["subject"]["seed"] / 100, **bound}

    queue.submit(variants=["default", "lif", "paralif"], seeds=[0, 1])
    queue.work_off(measure)
    queue.submit(variants=["default"], seeds=[0], evaluation={"suite": "study"})
    queue.work_off(measure)
    return serve_module(make_settings(data_dir=folder, database_url=module_database.url))


def get(api: httpx.Client, **params: Any) -> dict[str, Any]:
    response = api.get("/curves", params={"dataset": "digits", **params})
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


def test_there_is_a_line_a_row_with_intervals_at_every_radius(board) -> None:
    shown = get(board)
    assert (shown["attack"], shown["kind"], shown["chance"], shown["others"]) == (None, "robust accuracy", 0.1, 1)
    assert shown["protocol"]["suite"] == "quick"
    assert [line["variant"] for line in shown["lines"]] == ["default", "lif", "paralif"]
    points = shown["lines"][1]["points"]
    assert [p["eps_text"] for p in points] == ["8/255", "32/255", "64/255"]
    assert [p["accuracy"]["mean"] for p in points] == pytest.approx([0.605, 0.505, 0.405])
    assert all(p["accuracy"]["ci95"][0] < p["accuracy"]["mean"] < p["accuracy"]["ci95"][1] for p in points)
    board_row = next(r for r in board.get("/leaderboard?dataset=digits").json()["rows"] if r["variant"] == "lif")
    assert points[1]["row"] == board_row["id"]
    assert points[1]["accuracy"] == board_row["robust_accuracy"]
    assert shown["lines"][2]["verdict"] == "upper bound only"


def test_an_attack_has_its_own_curve(board) -> None:
    shown = get(board, attack="pgd", norm="linf")
    assert (shown["attack"], shown["kind"]) == ("pgd", "running union")
    assert len(shown["lines"]) == 3
    alone = get(board, attack="fgsm", suite="study")
    assert alone["kind"] == "alone"
    assert len(alone["lines"][0]["points"]) == 9, "the study's radii of this attack, and no others"


@pytest.mark.parametrize(
    ("filters", "variants"),
    [
        ({"variant": "lif"}, ["lif"]), ({"architecture": "resnet50"}, []), ({"recipe": "study"}, []),
        ({"suite": "study"}, ["default"]), ({"images": 359}, ["default", "lif", "paralif"]), ({"images": 1}, []),
        ({"norm": "l2"}, []), ({"freeze_depth": 3}, []), ({"precision": "float32"}, ["default", "lif", "paralif"]),
    ],
)  # fmt: skip
def test_filters_leave_only_what_they_name(board, filters: dict[str, Any], variants: list[str]) -> None:
    assert [line["variant"] for line in get(board, **filters)["lines"]] == variants


def test_rows_of_the_leaderboard_are_drawn_alone_at_all_their_radii(board, problem_of) -> None:
    rows = {r["variant"]: r["id"] for r in board.get("/leaderboard?dataset=digits&eps=8/255").json()["rows"]}
    shown = get(board, rows=[rows["lif"], rows["paralif"]])
    assert [(line["variant"], len(line["points"])) for line in shown["lines"]] == [("lif", 3), ("paralif", 3)]
    study = board.get("/leaderboard?dataset=digits&suite=study").json()["rows"][0]["id"]
    assert get(board, rows=[study])["protocol"]["suite"] == "study", "the protocol is that of the rows"
    both = get(board, rows=[study, rows["lif"]])
    assert (len(both["lines"]), both["others"]) == (1, 1)
    problem = problem_of(board.get("/curves", params={"dataset": "digits", "rows": [rows["lif"], "none"]}), 404)
    assert "'none'" in problem["detail"]


def test_csv_has_a_record_a_point_with_the_numbers_of_the_json(board) -> None:
    response = board.get("/curves?dataset=digits", headers={"Accept": "text/csv"})
    assert response.headers["content-type"].startswith("text/csv")
    records = list(csv.DictReader(io.StringIO(response.text)))
    lines = get(board)["lines"]
    points = [point for line in lines for point in line["points"]]
    measured = [r for r in records if r["eps_text"] != "0"]
    assert [float(r["accuracy"]) for r in measured] == [p["accuracy"]["mean"] for p in points]
    assert [r["row"] for r in measured] == [p["row"] for p in points]
    unchanged = [float(r["accuracy"]) for r in records if r["eps_text"] == "0"]
    assert unchanged == [line["clean_accuracy_subset"]["mean"] for line in lines]


@pytest.mark.parametrize(("form", "text"), [("md", "| resnet20 LIF |"), ("latex", "resnet20 LIF &")])
def test_tables_for_people_have_a_row_a_line(board, form: str, text: str) -> None:
    assert text in board.get(f"/curves?dataset=digits&format={form}").text


def test_a_picture_can_be_had_by_name_and_by_what_the_client_likes(board) -> None:
    response = board.get("/curves?dataset=digits&format=png")
    assert response.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(response.content))
    assert min(picture.size) > 600
    drawn = board.get("/curves?dataset=digits", headers={"Accept": "image/avif,image/svg+xml,*/*;q=0.8"})
    assert drawn.headers["content-type"].startswith("image/svg+xml")
    assert drawn.text.startswith("<?xml")
    assert drawn.headers["vary"] == "Accept"


def test_an_unknown_attack_or_data_set_is_not_found_and_one_that_was_not_run_is_empty(board, problem_of) -> None:
    assert "did you mean 'pgd'" in problem_of(board.get("/curves?dataset=digits&attack=pdg"), 404)["detail"]
    problem_of(board.get("/curves?dataset=digitz"), 404)
    problem_of(board.get("/curves?dataset=digits&format=gif"), 422)
    assert get(board, attack="noise")["lines"] == []
    empty = board.get("/curves?dataset=fashion-mnist&format=png")
    assert empty.headers["content-type"] == "image/png"


@pytest.fixture
def evaluated(queue: Queue, data_dir: Path) -> str:
    """The id of an evaluation with verdicts at two radii and a gallery at each."""
    queue.submit()
    training = queue.must_claim()
    queue.checkpoint(training)
    queue.succeed(training)
    fence = queue.must_claim()
    stored = {}
    for number, eps in enumerate(("1/51", "8/255")):
        path = data_dir / "runs" / fence.run_id / f"gallery-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + number, 4)).save(path)
        stored[eps] = f"runs/{fence.run_id}/gallery-{number}.png"
    queue.do(results.add_verdicts, fence, [verdict(i, eps) for i in range(5) for eps in stored])
    queue.do(runs.succeed, fence, {"gallery": stored})
    return fence.run_id


def test_verdicts_come_in_pages_of_all_radii_or_one(api, evaluated) -> None:
    url, found, cursor = f"/runs/{evaluated}/verdicts", [], None
    while True:
        page = api.get(url, params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        found += page["items"]
        if (cursor := page["next"]) is None:
            break
    assert [(v["image_id"], v["eps"]) for v in found] == [(i, eps) for i in range(5) for eps in ("1/51", "8/255")]
    assert found[0] == verdict(0, "1/51")
    one = api.get(url, params={"eps": str(8 / 255)}).json()["items"]
    assert [(v["image_id"], v["eps"]) for v in one] == [(i, "8/255") for i in range(5)]
    assert api.get(url, params={"eps": "1/7"}).json() == {"items": [], "next": None}


def test_a_page_that_there_is_not_is_refused(api, evaluated, problem_of) -> None:
    problem_of(api.get(f"/runs/{evaluated}/verdicts?cursor=x"), 422)
    problem_of(api.get(f"/runs/{evaluated}/verdicts?eps=x"), 422)
    problem_of(api.get("/runs/run_none/verdicts"), 404)


def test_the_gallery_of_a_radius_is_a_picture_by_default_of_the_largest(api, evaluated) -> None:
    for params, width in (({"eps": "5/255"}, 4), ({"eps": "8/255"}, 5), ({}, 5)):
        response = api.get(f"/runs/{evaluated}/gallery.png", params=params)
        assert response.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(response.content)).size == (width, 4)


def test_where_there_is_no_gallery_the_radii_of_one_are_named(api, queue, evaluated, data_dir, problem_of) -> None:
    url = f"/runs/{evaluated}/gallery.png"
    assert problem_of(api.get(url, params={"eps": "1/7"}), 404)["detail"].endswith("it has 5/255, 8/255")
    problem_of(api.get(url, params={"eps": "x"}), 422)
    (data_dir / "runs" / evaluated / "gallery-0.png").unlink()
    problem_of(api.get(url, params={"eps": "5/255"}), 404)
    training = next(run.id for run in queue.runs(queue.submit()) if run.kind == "train")
    assert "has no gallery" in problem_of(api.get(f"/runs/{training}/gallery.png"), 404)["detail"]
