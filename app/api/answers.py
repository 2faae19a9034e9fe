"""Answers that are kept, and given again for as long as the database has nothing else to say.

    return services.answers.of(request, services.database, make)                   # what was asked is the key
    return services.answers.of(request, services.database, make, figures=...)      # made from published figures alone

An answer is kept with the commit that was the latest before it was begun (`app.storage.commits`). Where that is still
the latest, every table is as it was, whoever may write them: the answer is the one that would be made now, if it is
made from the database alone. One that was made from later commits than it is kept with is at worst made once more,
never shown late. An answer made from little of the database says a narrower version of that, `figures`: where other
commits came, that is asked, and while it is the same the answer stays.

Of those who ask the same at the same time one works, and the others may have what it made if it began after they came:
all that was committed before they asked is in it, though more may have been committed since.

Bodies have an `ETag`: who has it already is told so (304), and sent nothing.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from fastapi import Request, Response

from app.storage.engine import Database

MOST_BYTES = 64 * 2**20
ENTRY_BYTES = 2048  # of an answer beside its body and its key
_ASK_FIRST = "private, no-cache"  # a browser may keep it, and asks each time whether it is still the one


@dataclass(frozen=True)
class Kept:
    """An answer's parts, from which a response is made each time."""

    begun: int  # numbers grow in the order of time
    version: Hashable
    figures: Hashable
    body: bytes
    headers: dict[str, str]
    size: int  # of all that is kept


@dataclass
class Answers:
    """The answers asked for lately, together at most `MOST_BYTES`; of equal questions at once, one is worked on."""

    _kept: OrderedDict[Hashable, Kept] = field(default_factory=OrderedDict)
    _size: int = 0
    _making: dict[Hashable, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _turns: Iterator[int] = field(default_factory=count)

    def of(
        self, request: Request, database: Database, make: Callable[[], Response], *, wanted: str = "json",
        figures: Callable[[], Hashable] | None = None,
    ) -> Response:
        """The answer to this very request in the format that is wanted, or that the client has it already."""
        key = (request.scope["path"], request.scope["query_string"], wanted)
        kept = self.get(key, database.commits.latest, make, figures)
        if _names(request.headers.get("if-none-match", ""), kept.headers["etag"]):
            return Response(status_code=304, headers={k: v for k, v in kept.headers.items() if k != "content-type"})
        return Response(kept.body, headers=kept.headers)

    def get(
        self, key: Hashable, latest: Callable[[], Hashable], make: Callable[[], Response],
        figures: Callable[[], Hashable] | None = None,
    ) -> Kept:
        """What was kept, or is made now."""
        came, version = next(self._turns), latest()
        if (found := self._find(key, version)) is not None:
            return found
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        try:
            with making:
                waited_for = self._kept.get(key)
                if waited_for is not None and waited_for.begun > came:
                    return waited_for
                begun, version = next(self._turns), latest()
                return self._find(key, version) or self._renewed(key, begun, version, make, figures)
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

    def _renewed(
        self, key: Hashable, begun: int, version: Hashable, make: Callable[[], Response],
        figures: Callable[[], Hashable] | None,
    ) -> Kept:
        narrow = None if figures is None else figures()
        known = self._kept.get(key)
        if figures is not None and known is not None and known.figures == narrow:
            return self._store(key, replace(known, begun=begun, version=version))
        made = make()
        body = bytes(made.body)
        headers = {k: v for k, v in made.headers.items() if k != "content-length"}
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        size = len(body) + len(str(key)) + ENTRY_BYTES
        headers = {"cache-control": _ASK_FIRST, **headers, "etag": tag}
        return self._store(key, Kept(begun, version, narrow, body, headers, size))

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
