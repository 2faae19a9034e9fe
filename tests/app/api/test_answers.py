"""Answers that are kept are the ones that would be made."""

import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from itertools import count
from typing import Any

import httpx
import pytest
from fastapi import Response

from app.api import leaderboard as module
from app.api import views
from app.api.answers import ENTRY_BYTES, MOST_BYTES, Answers, Kept
from app.domain.leaderboard import Measured
from app.storage import deletion, experiments, results
from app.storage.listed_runs import KnownRuns
from app.storage.results import KnownFigures
from app.storage.tallies import KnownTallies
from tests.app.work import Queue, in_threads


def test_an_answer_is_made_once_a_version_also_when_many_ask_at_once() -> None:
    answers, made = Answers(), []

    def make(_: object) -> Response:
        made.append(1)
        time.sleep(0.05)
        return Response(b"board", media_type="text/csv", headers={"Vary": "Accept"})

    got: list[Kept] = []
    in_threads(lambda version: got.append(answers.get("key", lambda: version, object, make)), [(1,)] * 8)
    assert len(made) == 1
    assert {(kept.body, kept.headers["vary"], kept.headers["content-type"]) for kept in got} == {
        (b"board", "Accept", "text/csv; charset=utf-8")
    }
    answers.get("key", lambda: 2, object, make)
    answers.get("other", lambda: 2, object, make)
    assert len(made) == 3


def test_after_other_commits_an_answer_stays_while_the_figures_it_was_made_of_do() -> None:
    answers, made, figures = Answers(), [], [1]

    def ask(version: int) -> bytes:
        return answers.get("key", lambda: version, lambda: figures[0], make).body

    def make(_: int) -> Response:
        made.append(1)
        return Response(str(len(made)))

    assert [ask(1), ask(1), ask(2), ask(2), ask(3)] == [b"1"] * 5
    figures[0] = 2
    assert ask(3) == b"1", "nothing was committed: nobody looks at the figures"
    assert [ask(4), ask(5)] == [b"2", b"2"]


def test_a_commit_while_an_answer_is_made_has_it_made_again() -> None:
    answers, commits = Answers(), [1]

    def make(_: object) -> Response:
        commits[0] += 1  # somebody writes, and this may not have seen it
        return Response(str(commits[0]))

    bodies = [answers.get("key", lambda: commits[0], object, make).body for _ in range(3)]
    assert bodies == [b"2", b"3", b"4"]


def test_who_waits_has_what_was_begun_after_it_came_and_nothing_that_was_begun_before() -> None:
    """Each question is followed by a commit, as while somebody writes all the time."""
    answers, commits, made = Answers(), count(), []
    first_began, others_wait = threading.Event(), threading.Event()

    def make(_: object) -> Response:
        made.append(1)
        if len(made) == 1:
            first_began.set()
            assert others_wait.wait(30)
        return Response(str(len(made)))

    def ask() -> None:
        got.append(answers.get("key", lambda: next(commits), object, make).body)

    got: list[bytes] = []
    first = threading.Thread(target=ask)
    first.start()
    assert first_began.wait(30)
    others = [threading.Thread(target=ask) for _ in range(5)]
    for other in others:
        other.start()
    while next(copy(commits)) < 7:  # asked before they wait: twice by the first, once by each of the others
        time.sleep(0.001)
    others_wait.set()
    for thread in (first, *others):
        thread.join()
    assert sorted(got) == [b"1", *[b"2"] * 5]


def test_what_raises_is_not_kept_and_blocks_nobody() -> None:
    answers = Answers()

    def fail(_: object) -> Response:
        raise KeyError("no such data set")

    for _ in range(2):
        with pytest.raises(KeyError):
            answers.get("key", lambda: 1, object, fail)
    assert answers.get("key", lambda: 1, object, lambda _: Response(b"now")).body == b"now"
    assert answers._making == {}


def test_it_keeps_no_more_than_it_may() -> None:
    answers = Answers()
    for number in range(5):
        answers.get(number, lambda: 1, object, lambda _: Response(bytes(MOST_BYTES // 3)))
    assert sum(len(one.body) for one in answers._kept.values()) <= MOST_BYTES
    assert 4 in answers._kept
    for number in range(2 * MOST_BYTES // ENTRY_BYTES):
        answers.get(number, lambda: 1, object, lambda _: Response(b""))
    assert len(answers._kept) <= MOST_BYTES // ENTRY_BYTES, "the smallest answer takes room too"


def test_what_is_asked_for_again_outlasts_what_nobody_asks_for() -> None:
    answers = Answers()
    for number in (0, 1, 0, 2):
        answers.get(number, lambda: 1, object, lambda _: Response(bytes(MOST_BYTES // 6)))
    assert list(answers._kept) == [0, 2]


def test_the_leaderboard_shows_each_change_at_once_and_is_otherwise_made_once(
    api: httpx.Client, queue: Queue, monkeypatch
) -> None:
    made = []
    real = module.leaderboard
    monkeypatch.setattr(module, "leaderboard", lambda *given: made.append(1) or real(*given))

    def ask(**query: str) -> list[dict[str, Any]]:
        return api.get("/leaderboard", params={"dataset": "digits", "format": "json", **query}).json()["rows"]

    first = queue.submit()
    queue.work_off(lambda run: {"robust_accuracy": 0.5})
    assert [row["robust_accuracy"]["mean"] for row in ask()] == [0.4]
    assert ask() == ask()
    assert len(made) == 1
    assert [row["robust_accuracy"]["mean"] for row in ask(eps="8/255")] == [0.5]
    queue.submit(training={"epochs": 7})
    queue.work_off(lambda run: {"robust_accuracy": 0.7})
    assert [row["robust_accuracy"]["mean"] for row in ask()] == pytest.approx([0.6, 0.4])
    queue.do(deletion.delete, first)
    assert [row["robust_accuracy"]["mean"] for row in ask()] == pytest.approx([0.6])
    assert api.get("/leaderboard", params={"dataset": "digits", "format": "csv"}).text.startswith("dataset,rank,")
    page = api.get("/leaderboard", params={"dataset": "digits"}, headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")


def test_figures_that_are_gone_are_forgotten_whatever_is_asked_for(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "MOST_GONE", 2)
    known, remembered = KnownFigures(), []
    for seed in range(6):
        experiment = queue.submit(seeds=[seed], evaluation={"suite": "quick" if seed % 2 else "spiking"})
        queue.work_off(lambda run: {})
        with queue.database.reading() as session:
            asked = known.measured(session, "digits", suite="quick" if seed % 2 else "spiking")
            there = len(results.measured(session, "digits"))
        assert len(asked) == there == 3, "one experiment at a time"
        remembered.append(len(known._known["digits"]))
        queue.do(deletion.delete, experiment)
    assert remembered == [3] * 6


def test_known_figures_are_read_once_and_those_that_are_gone_are_not_shown(
    queue: Queue, counted_queries: Callable[[], Any]
) -> None:
    def told(found: Sequence[Measured]) -> list[dict[str, Any]]:
        return [vars(m) for m in found]

    known = KnownFigures()
    first = queue.submit()
    queue.work_off(lambda run: {})
    with queue.database.reading() as session, counted_queries() as asked:
        read = known.measured(session, "digits", norm="linf")
        assert told(read) == told(results.measured(session, "digits", norm="linf")) != []
        count = len(asked)
        assert known.measured(session, "digits", norm="linf") is read
        assert len(asked) == count + 1, "whether there is anything new"
        assert known.measured(session, "digits", suite="quick") == read, "the very same figures"
        assert len(asked) == count + 3, "that, and their keys"
        assert known.measured(session, "digits", norm="l2") == ()
    queue.submit(seeds=[1])
    queue.work_off(lambda run: {})
    with queue.database.reading() as session:
        both = known.measured(session, "digits", norm="linf")
        assert told(both) == told(results.measured(session, "digits", norm="linf"))
        assert len(both) == 2 * len(read)
    queue.do(deletion.delete, first)
    with queue.database.reading() as session:
        rest = known.measured(session, "digits", norm="linf")
        assert told(rest) == told(results.measured(session, "digits", norm="linf"))
        assert len(rest) == len(read)


@pytest.mark.parametrize("path", ["/runs", "/experiments"])
def test_a_list_takes_as_many_queries_whatever_its_length(
    api: httpx.Client, queue: Queue, counted_queries: Callable[[], Any], path: str
) -> None:
    counts = []
    for seeds in ([0], [1, 2, 3, 4, 5]):
        for seed in seeds:
            queue.submit(seeds=[seed])
        statements = _statements(queue, path, counted_queries)
        counts.append(len(statements))
    assert api.get(path).status_code == 200
    assert counts[0] == counts[1] <= 3


def _statements(queue: Queue, path: str, counted_queries: Callable[[], Any]) -> list[str]:
    with counted_queries() as statements, queue.database.reading() as session:
        if path == "/runs":
            rows, _ = KnownRuns().page(session, after=None, limit=50)
            assert [views.run(row)["checkpoint"] for row in rows] == [None] * len(rows)
        else:
            found, _ = experiments.page(session, after=None, limit=50)
            counted = KnownTallies().of_experiments(session, [row.id for row in found])
            assert all(views.summary(row, counted[row.id], row.submitted_by)["run_count"] == 2 for row in found)
    return [s for s in statements if not s.startswith(("BEGIN", "PRAGMA"))]
