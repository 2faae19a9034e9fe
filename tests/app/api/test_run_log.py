"""`GET /runs/{id}/log`: what a run printed, by the byte, also while it works."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest


@pytest.fixture
def printed(queue, data_dir: Path) -> Callable[[bytes], str]:
    """`printed(text)`: the id of a run that has printed this so far."""
    run = queue.runs(queue.submit())[0].id
    path = data_dir / "runs" / run / "log.txt"

    def write(text: bytes) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            log.write(text)
        return run

    return write


def places(answer: httpx.Response) -> tuple[int, int, int]:
    offset, following, size = (int(answer.headers[f"x-log-{name}"]) for name in ("offset", "next", "size"))
    return offset, following, size


def test_a_growing_log_is_read_on_where_one_left_off(api, printed) -> None:
    run = printed("epoch 1: größer\n".encode())
    first = api.get(f"/runs/{run}/log")
    assert first.headers["content-type"] == "text/plain; charset=utf-8"
    assert first.text == "epoch 1: größer\n"
    assert places(first) == (0, 18, 18)
    printed(b"epoch 2\n")
    more = api.get(f"/runs/{run}/log", params={"offset": first.headers["x-log-next"]})
    assert more.text == "epoch 2\n"
    assert places(more) == (18, 26, 26)
    assert api.get(f"/runs/{run}/log", params={"offset": 26}).text == ""
    assert api.get(f"/runs/{run}/log", params={"offset": 10**9}).text == ""


def test_the_last_lines(api, printed) -> None:
    run = printed(b"".join(b"line %d\n" % n for n in range(1000)))
    tail = api.get(f"/runs/{run}/log", params={"tail": 2})
    assert tail.text == "line 998\nline 999\n"
    assert places(tail) == (8890 - 18, 8890, 8890)
    assert api.get(f"/runs/{run}/log", params={"tail": 0}).text == ""


def test_a_large_log_comes_in_parts_that_end_with_a_line(api, printed) -> None:
    whole = b"".join(b"%06d and so on\n" % n for n in range(150_000))
    run = printed(whole)
    found, offset = b"", 0
    for _ in range(5):
        part = api.get(f"/runs/{run}/log", params={"offset": offset})
        assert len(part.content) <= 2**20
        assert part.content.endswith(b"\n") or not part.content
        found, offset = found + part.content, places(part)[1]
    assert found == whole


def test_a_run_that_printed_nothing_has_an_empty_log_and_an_unknown_run_none(api, queue, problem_of) -> None:
    run = queue.runs(queue.submit())[0].id
    assert api.get(f"/runs/{run}/log").text == ""
    problem_of(api.get("/runs/none/log"), 404)
    problem_of(api.get(f"/runs/{run}/log?tail=-1"), 422)
    problem_of(api.get(f"/runs/{run}/log?tail=1&offset=1"), 422)
