"""The pages of the boards as a browser without JavaScript has them: their text, their forms, their links."""

import html
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.storage import api_keys
from app.storage.engine import Database
from tests.app.api.test_leaderboard_api import fill
from tests.app.work import Queue
from tests.service import make_settings


@pytest.fixture(scope="module")
def board(module_database: Database, tmp_path_factory: pytest.TempPathFactory, serve_module) -> httpx.Client:
    folder = tmp_path_factory.mktemp("pages")
    fill(Queue(module_database, folder))
    return serve_module(make_settings(data_dir=folder, database_url=module_database.url))


def get(api: httpx.Client, path: str, **params: Any) -> str:
    response = api.get(path, params={"dataset": "digits", **params})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/html")
    return response.text


def variants(page: str) -> list[str]:
    found = re.findall(r'<span class="variant v-(\w+)">(\w+)</span>', page)
    assert {"lif": "LIF", "paralif": "ParaLIF", "default": "default"}.items() >= set(found)
    return [variant for variant, _ in found]


def hrefs(page: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'href="([^"]+)"', page)]


def row_ids(api: httpx.Client, **params: Any) -> dict[str, str]:
    rows = api.get("/leaderboard", params={"dataset": "digits", **params}).json()["rows"]
    return {row["variant"]: row["id"] for row in rows}


def test_the_leaderboard_shows_every_row_the_protocol_and_the_warning_below_the_ranked(board) -> None:
    page = get(board, "/ui/leaderboard")
    assert variants(page) == ["lif", "default", "paralif"]
    for text in ("<b>quick</b>", "<b>32/255</b>", "<b>359</b> images", "4 % of the images gave a zero gradient"):
        assert text in page
    assert page.index("not ranked") > page.rindex("v-default")
    assert page.index("not ranked") < page.index('variant v-paralif"')
    assert ">32.0<" in page
    assert page.count('class="interval"') == 2 * 3, "an interval for clean and robust accuracy of each row"


def test_where_few_images_are_attacked_every_page_says_of_how_many_the_clean_accuracy_is(queue: Queue, api) -> None:
    """Robust may exceed clean then: 60 % of the attacked images stand, 50 % of all are right, 65 % of the attacked."""
    experiment = queue.submit(variants=["default", "lif"], evaluation={"images": 20})
    details = {"test_images": 359, "clean_accuracy_subset": 0.65}
    queue.work_off(lambda run: {"clean_accuracy": 0.5, "robust_accuracy": 0.6, "details": details}, files=True)
    a, b = row_ids(api).values()
    said = "clean: all 359 test images"
    for page in ("/", "/ui/leaderboard?dataset=digits", "/ui/matrix?dataset=digits", f"/ui/compare?a={a}&b={b}",
                 f"/experiments/{experiment}/report", "/leaderboard/matrix?dataset=digits&format=md",
                 "/leaderboard?dataset=digits&format=latex"):  # fmt: skip
        assert said in api.get(page).text, page
    assert said not in get(api, "/ui/matrix", metric="robust_accuracy")
    assert "clean 50.0 (of the attacked 65.0), robust 50.0" in get(api, "/ui/leaderboard")
    curves = get(api, "/ui/curves")
    assert '"eps":0.0,"text":"0","mean":0.65' in curves.replace(" ", "")
    checkpoint = api.get("/checkpoints").json()["items"][0]["id"]
    assert "65.0 % on the 20 that were attacked" in api.get(f"/checkpoints/{checkpoint}/card").text


def test_whoever_asks_the_api_for_html_gets_the_same_page(board) -> None:
    page = get(board, "/ui/leaderboard")
    assert board.get("/leaderboard?dataset=digits", headers={"Accept": "text/html"}).text == page
    assert board.get("/leaderboard?dataset=digits&format=html").text == page


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ({"variant": "default"}, ["default"]), ({"eps": "8/255"}, ["lif", "default", "paralif"]),
        ({"architecture": "resnet50"}, []), ({"recipe": "study"}, []), ({"precision": "int8"}, []),
        ({"norm": "l2"}, []), ({"suite": "study"}, []), ({"eps": "1/255"}, []), ({"images": "100"}, []),
        ({"freeze_depth": "3"}, []),
        ({"sort": "clean_accuracy", "images": "359"}, ["lif", "default", "paralif"]),
    ],
)  # fmt: skip
def test_every_filter_of_the_api_is_one_of_the_page_and_stays_chosen_in_the_form(
    board, filters: dict[str, str], shown: list[str]
) -> None:
    page = get(board, "/ui/leaderboard", **filters)
    assert variants(page) == shown
    chosen = set(re.findall(r'<option value="([^"]*)" selected', page))
    assert chosen >= set(filters.values())
    if not shown:
        assert "/ui/leaderboard?dataset=digits" in hrefs(page), "the way back to the board without filters"


def test_only_what_exists_is_offered(board) -> None:
    page = get(board, "/ui/leaderboard")
    assert '<option value="resnet20">' in page
    assert "resnet50" not in page
    assert [r["eps_text"] for r in board.get("/leaderboard/choices?dataset=digits").json()["eps"]] == [
        "8/255", "32/255", "64/255"
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/ui/leaderboard", "/ui/curves", "/ui/matrix", "/ui/compare"])
def test_empty_fields_are_left_out_of_the_address_and_a_data_set_is_found(board, path: str) -> None:
    response = board.get(f"{path}?variant=&norm=linf&eps=")
    assert (response.status_code, response.headers["location"]) == (303, f"{path}?dataset=digits&norm=linf")
    assert board.get(path).headers["location"] == f"{path}?dataset=digits"


@pytest.mark.parametrize("path", ["/ui/leaderboard", "/ui/curves", "/ui/matrix", "/ui/compare"])
def test_a_data_set_without_figures_says_so_and_one_that_is_not_there_is_a_page_too(board, path: str) -> None:
    assert "cifar10" in get(board, path, dataset="cifar10")
    wrong = board.get(f"{path}?dataset=digitz")
    assert wrong.status_code == 404
    assert "did you mean &#39;digits&#39;" in wrong.text
    assert wrong.headers["content-type"].startswith("text/html")


def test_bad_input_is_told_on_a_page(board) -> None:
    for query, said in (("eps=8/0", "is not a radius"), ("images=0", "<b>images</b>"), ("sort=x", "<b>sort</b>")):
        wrong = board.get(f"/ui/leaderboard?dataset=digits&{query}")
        assert (wrong.status_code, said in wrong.text) == (422, True), wrong.text
        assert "default-src" in wrong.headers["content-security-policy"]
    wrong = board.get("/ui/experiments?state=zzz")
    assert (wrong.status_code, "queued" in wrong.text) == (422, True), "a state that there is not would show them all"
    assert board.get("/ui/experiments?state=&dataset=&archived=").status_code == 200


def test_downloads_have_the_filters_of_the_page(board) -> None:
    links = hrefs(get(board, "/ui/leaderboard", eps="8/255", variant="lif"))
    [csv] = [link for link in links if link.endswith("format=csv")]
    assert len(board.get(csv).text.splitlines()) == 2
    assert {link.rpartition("=")[2] for link in links if link.startswith("/leaderboard?")} == {
        "csv", "md", "latex", "json", "png", "svg"
    }  # fmt: skip


def test_ticked_rows_are_compared_and_others_are_asked_for(board) -> None:
    rows = row_ids(board)
    sent = board.get("/ui/compare", params={"rows": [rows["lif"], rows["default"]], "dataset": "digits"})
    assert sent.headers["location"] == f"/ui/compare?a={rows['lif']}&b={rows['default']}"
    page = board.get(sent.headers["location"]).text
    assert "A (resnet20 LIF) is 1" in page
    assert "<td>LIF</td>" in page.replace(' class="value"', ""), "a setting that differs"
    one = get(board, "/ui/compare", rows=rows["lif"])
    assert "1 row was ticked" in one
    assert f'value="{rows["lif"]}" selected' in one


def test_rows_of_two_protocols_are_not_compared_and_the_page_says_why(board) -> None:
    other = row_ids(board, eps="8/255")
    response = board.get("/ui/compare", params={"a": row_ids(board)["lif"], "b": other["default"]})
    assert response.status_code == 409
    assert "these differ in eps: 32/255 against 8/255" in response.text


def test_chosen_rows_are_drawn_and_listed_with_their_numbers(board) -> None:
    rows = row_ids(board)
    page = get(board, "/ui/curves", rows=[rows["paralif"]])
    assert "resnet20 default" not in page
    assert "90.0" in page
    assert page.count("upper bound only</abbr>") == 0
    assert page.count('title="upper bound only"') == 3, "each of its figures is marked"
    everything = get(board, "/ui/curves")
    assert all(f"resnet20 {name}" in everything for name in ("default", "LIF", "ParaLIF"))


def test_the_matrix_has_a_cell_a_variant_and_architecture(board) -> None:
    page = get(board, "/ui/matrix", metric="robust_accuracy")
    assert re.findall(r'<th scope="col">(resnet\d+)</th>', page) == ["resnet20", "resnet18", "resnet50"]
    assert ">32.0<" in page
    assert "&lt;20,10&gt;, 2 seeds" in page
    assert "upper bound only" in page


def test_the_home_page_shows_the_best_row_of_each_variant(board) -> None:
    page = board.get("/").text
    assert variants(page)[-3:] == ["lif", "default", "paralif"]
    assert "/ui/leaderboard?dataset=digits" in hrefs(page)


def test_a_reader_is_not_asked_to_submit(
    config: Settings, queue: Queue, serve: Callable[[Settings], httpx.Client]
) -> None:
    api = serve(config.model_copy(update={"keys": "always"}))
    for role, offered in (("reader", False), ("submitter", True)):
        _, key = queue.do(api_keys.create, f"a {role}", role)
        page = api.get("/", headers={"X-API-Key": key})
        assert ("/ui/experiments/new" in page.text) is offered
