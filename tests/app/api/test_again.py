"""Questions that are answered without looking for their route are answered as their route would."""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable

import httpx
import pytest
from fastapi import Response
from sqlalchemy.exc import OperationalError

from app.api.again import LONGEST_QUESTION, MOST_QUESTIONS, Again, _asked
from app.api.answers import Answers, Question
from app.domain.errors import NotFound
from app.settings import Settings
from app.storage import api_keys
from app.storage.engine import Database
from tests.app.work import Queue

BOARD = "/leaderboard?dataset=digits"
QUESTIONS = ["/experiments", "/experiments?limit=1", "/runs", "/runs?state=queued", BOARD, f"{BOARD}&eps=8/255",
             f"{BOARD}&format=csv"]  # fmt: skip


@pytest.fixture
def by_route(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the kept answers that a route gave, in order; the others came from `Again`."""
    found: list[str] = []
    real = Again._remember

    def noting(self: Again, asked: Hashable, question: Question) -> None:
        found.append(asked[0])  # type: ignore[index]
        real(self, asked, question)

    monkeypatch.setattr(Again, "_remember", noting)
    return found


@pytest.fixture
def filled(queue: Queue) -> Queue:
    queue.submit(variants=["default", "lif"])
    queue.work_off(lambda run: {"robust_accuracy": 0.5})
    queue.submit(seeds=[1])
    return queue


def test_the_second_answer_is_the_first_with_its_headers_without_a_route(
    api: httpx.Client, filled: Queue, by_route: list[str]
) -> None:
    for number, path in enumerate(QUESTIONS, start=1):
        first, second = api.get(path), api.get(path)
        assert len(by_route) == number
        assert second.content == first.content
        for response in (first, second):
            response.headers.pop("x-request-id")
            response.headers.pop("date")
        assert second.headers.multi_items() == first.headers.multi_items()
        tagged = api.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (tagged.status_code, tagged.content, len(by_route)) == (304, b"", number)


def test_after_a_commit_it_says_what_a_new_service_would(
    api: httpx.Client, filled: Queue, by_route: list[str], config: Settings, serve: Callable[[Settings], httpx.Client]
) -> None:
    before = {path: [api.get(path).content for _ in range(2)] for path in QUESTIONS}
    filled.work_off(lambda run: {"robust_accuracy": 0.25})
    after = {path: api.get(path).content for path in QUESTIONS}
    assert len(by_route) == len(QUESTIONS), "no route was asked again"
    assert [path for path in QUESTIONS if after[path] in before[path]] == []
    new = serve(config)
    assert after == {path: new.get(path).content for path in QUESTIONS}


def test_pictures_are_left_to_their_route(api: httpx.Client, filled: Queue, by_route: list[str]) -> None:
    pictures = [api.get(f"{BOARD}&format=png") for _ in range(2)]
    assert [(p.status_code, p.headers["content-type"]) for p in pictures] == [(200, "image/png")] * 2
    assert by_route == []


def test_what_was_asked_is_told_apart(api: httpx.Client, filled: Queue) -> None:
    """Each twice, so that a question which is taken for another gets that one's answer."""
    accepted = {kind: [api.get(BOARD, headers={"Accept": kind}).headers["content-type"].partition(";")[0]
                       for _ in range(2)]
                for kind in ("text/csv", "application/json", "text/html", "text/csv;q=0.1, text/markdown", "*/*")}
    assert accepted == {
        "text/csv": ["text/csv"] * 2, "application/json": ["application/json"] * 2, "text/html": ["text/html"] * 2,
        "text/csv;q=0.1, text/markdown": ["text/markdown"] * 2, "*/*": ["application/json"] * 2,
    }  # fmt: skip
    lengths = [[len(api.get(f"/runs?limit={limit}").json()["items"]) for _ in range(2)] for limit in (1, 2)]
    assert lengths == [[1, 1], [2, 2]]
    assert [api.get(path).json().keys() for path in ("/runs", "/leaderboard?dataset=digits") for _ in range(2)] == [
        {"items", "next"}, {"items", "next"}, *[{"dataset", "rows", "protocol"}] * 2
    ]
    for _ in range(2):
        assert api.head("/runs").status_code == 405
        assert api.get("/runs?limit=0").status_code == 422


def test_a_known_question_is_answered_to_nobody_who_may_not_ask(
    database: Database, config: Settings, serve: Callable[[Settings], httpx.Client], by_route: list[str]
) -> None:
    with database.writing() as session:
        keys = {role: api_keys.create(session, role, role)[1] for role in ("reader", "admin")}
    api = serve(config.model_copy(update={"host": "0.0.0.0"}))

    def ask(role: str) -> int:
        return api.get("/runs", headers={"X-API-Key": keys[role]}).status_code

    assert [ask("reader"), ask("admin"), ask("reader")] == [200] * 3
    assert len(by_route) == 1, "known by then"
    assert api.get("/runs").status_code == 401
    assert api.get("/runs", headers={"X-API-Key": "spk_no"}).status_code == 401
    with database.writing() as session:
        api_keys.revoke(session, "reader")
    assert (ask("reader"), ask("admin")) == (401, 200)


def test_few_questions_are_known_and_none_that_has_a_body_or_no_end() -> None:
    again = Again(lambda *_: None, Answers(), threads=2)  # type: ignore[arg-type, return-value]

    def scope(query: bytes, *headers: tuple[bytes, bytes], method: str = "GET") -> dict:
        return {"type": "http", "method": method, "path": "/runs", "query_string": query, "headers": list(headers)}

    question = Question("key", object, object, lambda _: None, None)  # type: ignore[arg-type, return-value]
    for number in range(MOST_QUESTIONS + 10):
        again._remember(_asked(scope(str(number).encode())), question)
    assert len(again._known) == MOST_QUESTIONS
    assert _asked(scope(b"")) is not None
    refused = [scope(b"x" * LONGEST_QUESTION), scope(b"", (b"accept", b"x" * LONGEST_QUESTION)),
               scope(b"", (b"content-length", b"1")), scope(b"", method="POST"), {"type": "lifespan"}]
    assert [_asked(one) for one in refused] == [None] * 5
    assert _asked(scope(b"", (b"accept", b"a"))) != _asked(scope(b"", (b"accept", b"b")))


class Asked:
    """Questions by name, put to an `Again`; bodies in the order in which they came."""

    def __init__(self, again: Again, questions: dict[str, Question]) -> None:
        self._again, self.bodies = again, list[bytes]()
        for name, question in questions.items():
            again._remember(_asked(self._scope(name)), question)

    def _scope(self, name: str) -> dict:
        return {"type": "http", "method": "GET", "path": "/runs", "query_string": name.encode(), "headers": []}

    def put(self, name: str) -> "asyncio.Task[None]":
        async def send(message: dict) -> None:
            if message["type"] == "http.response.body":
                self.bodies.append(message["body"])

        return asyncio.create_task(self._again(self._scope(name), None, send))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["asked many times", "slow before"])
def test_a_list_does_not_wait_for_a_board_that_is_being_made(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask for the board, one thread makes it: there are two, or one beside that of slow answers."""
    monkeypatch.setattr("app.api.again.SLOW_SECONDS", -1.0 if kind == "slow before" else 1e9)
    free, version = threading.Event(), [0]

    def make(_: object) -> Response:
        assert version[0] == 0 or free.wait(10)
        return Response(f"board {version[0]}".encode())

    again = Again(lambda *_: None, Answers(), threads=1 if kind == "slow before" else 2)  # type: ignore[arg-type, return-value]
    of_board = Question("board", lambda _: version[0], lambda: version[0], make, None)
    of_list = Question("list", lambda _: 0, object, lambda _: Response(b"list"), None)
    asked = Asked(again, {"board": of_board, "list": of_list})

    async def ask_all() -> None:
        await asked.put("board")  # which is known to be slow from now on, or is not
        version[0] = 1
        waiting = [asked.put("board") for _ in range(1 if kind == "slow before" else 5)]
        await asyncio.sleep(0.05)
        monkeypatch.setattr("app.api.again.SLOW_SECONDS", 1e9)
        await asyncio.wait_for(asked.put("list"), 5)
        free.set()
        await asyncio.gather(*waiting)

    asyncio.run(ask_all())
    assert asked.bodies[:2] == [b"board 0", b"list"]


def test_an_answer_that_was_begun_after_all_came_is_for_all() -> None:
    looks = [0]

    def look() -> int:
        looks[0] += 1
        time.sleep(0.05)
        return looks[0]

    again = Again(lambda *_: None, Answers(), threads=8)  # type: ignore[arg-type, return-value]
    question = Question("key", lambda moment: moment, look, lambda found: Response(str(found).encode()), None)
    asked = Asked(again, {"key": question})

    async def ask_all() -> None:
        first = asked.put("key")
        await asyncio.sleep(0.02)
        await asyncio.gather(first, *(asked.put("key") for _ in range(5)))

    asyncio.run(ask_all())
    assert asked.bodies == [b"1"] + [b"2"] * 5, "who came while it was looked may not know the newest; all others share"


def test_few_are_answered_at_a_time_and_those_that_wait_are_told_what_was_asked_meanwhile() -> None:
    """Each for the moment when it came: who came before a question was put need not put it again."""
    working, most, came = [0], [0], []

    def latest(moment: int) -> int:
        came.append(moment)
        working[0] += 1
        most[0] = max(most[0], working[0])
        time.sleep(0.05)
        working[0] -= 1
        return 1

    again = Again(lambda *_: None, Answers(), threads=2)  # type: ignore[arg-type, return-value]
    asked = Asked(again, {str(n): Question(n, latest, object, lambda _: Response(b"runs"), None) for n in range(6)})

    async def ask_all() -> int:
        waiting = [asked.put(str(n)) for n in range(6)]
        await asyncio.sleep(0.02)
        at = time.monotonic_ns()
        await asyncio.gather(*waiting)
        return at

    at = asyncio.run(ask_all())
    assert asked.bodies == [b"runs"] * 6
    assert most[0] == 2
    assert max(came) < at, "when they came, not when it was their turn"


@pytest.mark.parametrize("refused", [NotFound("gone"), OperationalError("", None, Exception())])
def test_what_goes_wrong_is_told_by_the_route(refused: Exception) -> None:
    answered = []

    async def route(scope, receive, send) -> None:
        answered.append(scope["path"])

    def fail(_: int) -> None:
        raise refused

    again = Again(route, Answers(), threads=1)
    scope = {"type": "http", "method": "GET", "path": "/runs", "query_string": b"", "headers": []}
    again._remember(_asked(scope), Question("key", fail, object, lambda _: Response(), None))  # type: ignore[arg-type]
    asyncio.run(again(scope, None, None))  # type: ignore[arg-type]
    assert answered == ["/runs"]
