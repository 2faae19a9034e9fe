"""Questions that were answered before are answered again without looking for a route, and solving its parameters.

What a list or a board answers depends on path, query, `Accept` and the database, on no other header and on nobody's
role; whether somebody may ask it at all, the gate before this has decided. So the same path, query and `Accept` are the
same question, and its answer is what `app.api.answers` keeps, or makes of the database as it is now.

Of those who ask the same at once one holds a thread: the others wait for its answer, or for their turn, on the event
loop. Answers that take long to make have a thread of their own, one after another, so that a list which takes a
millisecond never waits for a board which takes fifty.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial

from anyio import CapacityLimiter, Lock, to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.answers import REMEMBER, Answers, Given, Question
from app.domain.errors import SpikeproofError

# Answers made at a time: threads that work, as with SQLite, take the interpreter's lock from one another; those that
# wait for a database server do not.
SQLITE_THREADS, SERVER_THREADS = 2, 8
SLOW_SECONDS = 0.01  # of work
MOST_QUESTIONS = 2000
LONGEST_QUESTION = 1000  # bytes of path, query and `Accept`
_OF_A_BODY = (b"content-length", b"transfer-encoding")


@dataclass
class Known:
    """A question that may be asked again; `slow`: making the answer of that `etag` took long."""

    question: Question
    turn: Lock = field(default_factory=lambda: Lock(fast_acquire=True))
    etag: str = ""
    slow: bool = False


class Again:
    """ASGI middleware behind the gate. What goes wrong with a known question, its route will tell."""

    def __init__(self, app: ASGIApp, answers: Answers, threads: int) -> None:
        self._app, self._answers = app, answers
        self._few, self._one = CapacityLimiter(threads), CapacityLimiter(1)
        self._known: OrderedDict[Hashable, Known] = OrderedDict()  # the event loop's alone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if (asked := _asked(scope)) is None:
            await self._app(scope, receive, send)
            return
        if (known := self._known.get(asked)) is None:
            scope.setdefault("state", {})[REMEMBER] = partial(self._remember, asked)
            await self._app(scope, receive, send)
            return
        if_none_match = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"if-none-match"), "")
        try:
            answer = await self._answer(known, if_none_match)
        except (SpikeproofError, SQLAlchemyError):
            await self._app(scope, receive, send)
            return
        scope["route"] = known.question.route
        await answer(scope, receive, send)

    async def _answer(self, known: Known, if_none_match: str) -> Given:
        came = time.monotonic_ns()
        async with known.turn:
            if (made := self._answers.made_since(came, known.question, if_none_match)) is not None:
                return made
            limiter = self._one if known.slow else self._few
            answer, seconds = await to_thread.run_sync(
                self._give, known.question, if_none_match, came, limiter=limiter
            )
        if known.etag != answer.headers["etag"]:  # it was made, not given again
            known.etag, known.slow = answer.headers["etag"], seconds > SLOW_SECONDS
        return answer

    def _give(self, question: Question, if_none_match: str, came: int) -> tuple[Given, float]:
        """With the seconds that this thread worked for it."""
        began = time.thread_time()
        answer = self._answers.give(question, if_none_match, came)
        return answer, time.thread_time() - began

    def _remember(self, asked: Hashable, question: Question) -> None:
        self._known[asked] = Known(question)
        self._known.move_to_end(asked)
        if len(self._known) > MOST_QUESTIONS:
            self._known.popitem(last=False)


def _asked(scope: Scope) -> Hashable:
    """All that an answer depends on beside the database; None where it may be more than that."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    accepted = []
    for name, value in scope["headers"]:
        if name == b"accept":
            accepted.append(value)
        elif name in _OF_A_BODY:
            return None
    asked: tuple[str, bytes, tuple[bytes, ...]] = (scope["path"], scope["query_string"], tuple(accepted))
    return asked if len(asked[0]) + len(asked[1]) + sum(map(len, accepted)) <= LONGEST_QUESTION else None
