"""A row that was computed as the study did says so, wherever it is shown."""

from typing import Any

import httpx
import pytest

from tests.app.work import Queue

DECODER = {"gain": 1.0, "normalisation": "clamp"}
EVALUATION = {"suite": "study", "images": 100, "as_published": ["one-forward-verdicts", "correct-images"]}


@pytest.fixture
def board(api: httpx.Client, queue: Queue) -> dict[str, Any]:
    queue.submit(seeds=[0], variants=["default", "paralif"], decoder=DECODER, evaluation=EVALUATION)
    queue.work_off(lambda run: {"robust_accuracy": 0.5})
    return api.get("/leaderboard", params={"dataset": "digits"}).json()


def test_rows_name_the_options_of_their_decoder_and_of_their_protocol(board: dict[str, Any]) -> None:
    marked = {row["variant"]: row["as_published"] for row in board["rows"]}
    of_the_protocol = ["one-forward-verdicts", "correct-images"]
    assert marked == {"default": of_the_protocol, "paralif": ["gain-1", "clamped-features", *of_the_protocol]}


@pytest.mark.parametrize("form", ["md", "csv"])
def test_tables_are_marked(board: dict[str, Any], api: httpx.Client, form: str) -> None:
    text = api.get("/leaderboard", params={"dataset": "digits", "format": form}).text
    assert "gain-1" in text
    assert "correct-images" in text


def test_the_page_has_a_badge(board: dict[str, Any], api: httpx.Client) -> None:
    page = api.get("/ui/leaderboard", params={"dataset": "digits"}, headers={"accept": "text/html"}).text
    assert ">as published</span>" in page


def test_a_row_of_usual_settings_has_no_mark(api: httpx.Client, queue: Queue) -> None:
    queue.submit(seeds=[0], variants=["default", "paralif"])
    queue.work_off(lambda run: {"robust_accuracy": 0.5})
    rows = api.get("/leaderboard", params={"dataset": "digits"}).json()["rows"]
    assert [row["as_published"] for row in rows] == [[], []]
