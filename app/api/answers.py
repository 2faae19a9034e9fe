"""Answers that are kept, and given again for as long as the database has nothing else to say.

    return services.answers.of(request, services.database, look, make)

`look` reads from the database what `make` makes the answer of; where that is what it was, the answer is, too. `make`
may read more only where `look` finds something else whenever that changed, as a board's figures have a version.

An answer is kept with the commit that was the latest before it was begun (`app.storage.commits`). Where that is still
the latest, every table is as it was, whoever may write them: the answer is the one that would be made now, if it is
made from the database alone. One that was made from later commits than it is kept with is at worst looked at once more,
never shown late.

Of those who ask the same at the same time one works, and the others may have what it made if it began after they came:
all that was committed before they asked is in it, though more may have been committed since.

Bodies have an `ETag`: who has it already is told so (304), and sent nothing.

Who asks the very same again is answered before any route is looked for (`app.api.again`).
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from app.storage.engine import Database

MOST_BYTES = 64 * 2**20
ENTRY_BYTES = 2048  # of an answer beside its body and its key
REMEMBER = "remember"  # in the state of a request: who wants to know its question
_ASK_FIRST = "private, no-cache"  # a browser may keep it, and asks each time whether it is still the one
Look = Callable[[], Any]
Make = Callable[[Any], Response]


class Question(NamedTuple):
    """All that an answer needs, so that it can be given without the request."""

    key: Hashable
    latest: Callable[[int], Hashable]  # the latest commit at any time after that moment
    look: Look
    make: Make
    route: Any  # for the figures of requests


@dataclass(frozen=True)
class Kept:
    """An answer's parts, from which a response is made each time."""

    begun: int  # time.monotonic_ns
    version: Hashable
    found: Any
    body: bytes
    headers: dict[str, str]
    size: int  # of all that is kept


class Given(Response):
    """A kept answer on its way; only where it is what the client gets, its question is one to be asked again. One for a
    picture is not: what draws it works for seconds, while others wait for their lists."""

    def __init__(self, question: Question, kept: Kept, if_none_match: str) -> None:
        self._question = question
        self._quick = not kept.headers.get("content-type", "").startswith("image/")
        if _names(if_none_match, kept.headers["etag"]):
            known = {k: v for k, v in kept.headers.items() if k != "content-type"}
            super().__init__(status_code=304, headers=known)
        else:
            super().__init__(kept.body, headers=kept.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        remember = scope.get("state", {}).get(REMEMBER)
        if remember is not None and self._quick:
            remember(self._question)
        await super().__call__(scope, receive, send)


@dataclass
class Answers:
    """The answers asked for lately, together at most `MOST_BYTES`; of equal questions at once, one is worked on."""

    _kept: OrderedDict[Hashable, Kept] = field(default_factory=OrderedDict)
    _size: int = 0
    _making: dict[Hashable, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(
        self, request: Request, database: Database, look: Look, make: Make, *, wanted: str = "json"
    ) -> Response:
        """The answer to this very request in the format that is wanted, or that the client has it already."""
        key = (request.scope["path"], request.scope["query_string"], wanted)
        question = Question(key, database.commits.latest, look, make, request.scope.get("route"))
        return self.give(question, request.headers.get("if-none-match", ""))

    def made_since(self, came: int, question: Question, if_none_match: str) -> Given | None:
        """What was begun after somebody came who asked the same: all that was committed before is in it."""
        kept = self._kept.get(question.key)
        return Given(question, kept, if_none_match) if kept is not None and kept.begun > came else None

    def give(self, question: Question, if_none_match: str, came: int | None = None) -> Given:
        """What was kept, or is made now, for somebody who asked at that moment (`time.monotonic_ns`; None: now)."""
        came = time.monotonic_ns() if came is None else came
        kept = self.get(question.key, partial(question.latest, came), question.look, question.make, came)
        return Given(question, kept, if_none_match)

    def get(
        self, key: Hashable, latest: Callable[[], Hashable], look: Look, make: Make, came: int | None = None
    ) -> Kept:
        """What was kept, or is made now."""
        came, version = time.monotonic_ns() if came is None else came, latest()
        if (found := self._find(key, version)) is not None:
            return found
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        try:
            with making:
                waited_for = self._kept.get(key)
                if waited_for is not None and waited_for.begun > came:
                    return waited_for
                begun, version = time.monotonic_ns(), latest()
                return self._find(key, version) or self._renewed(key, begun, version, look, make)
        finally:
            with self._lock:
                self._making.pop(key, None)

    def _find(self, key: Hashable, version: Hashable) -> Kept | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None or found.version != version:
                return None
            self._kept.move_to_end(key)
            return found

    def _renewed(self, key: Hashable, begun: int, version: Hashable, look: Look, make: Make) -> Kept:
        seen = look()
        known = self._kept.get(key)
        if known is not None and known.found == seen:
            return self._store(key, replace(known, begun=begun, version=version))
        made = make(seen)
        body = bytes(made.body)
        headers = {k: v for k, v in made.headers.items() if k != "content-length"}
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        size = 2 * len(body) + len(str(key)) + ENTRY_BYTES  # what it was made of is about as large
        headers = {"cache-control": _ASK_FIRST, **headers, "etag": tag}
        return self._store(key, Kept(begun, version, seen, body, headers, size))

    def _store(self, key: Hashable, kept: Kept) -> Kept:
        with self._lock:
            before = self._kept.pop(key, None)
            self._kept[key] = kept
            self._size += kept.size - (before.size if before else 0)
            while len(self._kept) > 1 and self._size > MOST_BYTES:
                self._size -= self._kept.popitem(last=False)[1].size
        return kept


def _names(if_none_match: str, tag: str) -> bool:
    """Whether the header has the tag; a proxy may have made it a weak one."""
    given = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return tag in given or "*" in given
