"""Answers that are given again say what the database says, whoever wrote it."""

import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.app.work import Queue

LISTS = ["/runs", "/experiments", "/runs?state=succeeded&kind=evaluate&limit=100", "/leaderboard?dataset=digits"]
OTHER_WORKER = """
import sys
from pathlib import Path
from app.storage.engine import Database
from tests.app.work import Queue
queue = Queue(Database(sys.argv[1]), Path(sys.argv[2]))
queue.work_off(lambda run: {"robust_accuracy": 0.25})
queue.database.close()
"""


def test_what_a_worker_in_another_process_did_is_in_the_next_answer(api: httpx.Client, queue: Queue) -> None:
    queue.submit()
    queue.work_off(lambda run: {"robust_accuracy": 0.5})
    queue.submit(seeds=[1])
    before = [api.get(path).json() for path in LISTS]
    assert [api.get(path).json() for path in LISTS] == before
    command = [sys.executable, "-c", OTHER_WORKER, queue.database.url, str(queue.data_dir)]
    subprocess.run(command, check=True)
    runs, experiments, evaluations, board = (api.get(path).json() for path in LISTS)
    assert [run["state"] for run in runs["items"]] == ["succeeded"] * 4
    assert [one["state"] for one in experiments["items"]] == ["succeeded"] * 2
    assert len(evaluations["items"]) == 2
    assert board["rows"][0]["robust_accuracy"]["by_seed"] == pytest.approx({"0": 0.4, "1": 0.15})


def test_whoever_changes_something_reads_it_in_each_list(api: httpx.Client) -> None:
    def states() -> list[str]:
        return [one["state"] for path in LISTS[:2] for one in api.get(path).json()["items"]]

    made = api.post("/experiments", json={"dataset": "digits", "variants": ["default"], "seeds": [0]}).json()["id"]
    assert states() == ["queued"] * 3
    assert states() == ["queued"] * 3
    api.post(f"/experiments/{made}/cancel")
    assert states() == ["cancelled"] * 3
    api.delete(f"/experiments/{made}")
    assert states() == ["cancelled"] * 2, "archived"


def test_a_list_says_of_each_what_it_says_of_itself(api: httpx.Client, queue: Queue) -> None:
    queue.submit(variants=["default", "lif"])
    queue.work_off(lambda run: {})
    queue.submit(seeds=[1])
    queue.must_claim()
    for path in ("/runs", "/experiments"):
        items: list[dict[str, Any]] = api.get(path).json()["items"]
        assert len(items) >= 2
        for item in items:
            in_full = api.get(f"{path}/{item['id']}").json()
            assert {name: in_full[name] for name in item} == item


@pytest.mark.parametrize("path", LISTS)
def test_who_has_the_answer_already_is_told_so_until_there_is_another(
    api: httpx.Client, queue: Queue, path: str
) -> None:
    queue.submit()
    queue.work_off(lambda run: {})
    first = api.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (tag, f"W/{tag}", f'"another", {tag}'):
        again = api.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers.get("vary") == first.headers.get("vary")
    queue.submit(seeds=[1])
    queue.work_off(lambda run: {})
    after = api.get(path, headers={"If-None-Match": tag})
    assert after.status_code == 200
    assert after.headers["etag"] != tag
    assert after.json() != first.json()
