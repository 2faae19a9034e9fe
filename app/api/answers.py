"""Answers that take long to make, kept while the figures they were made from are the same.

    return services.answers.get(key, version, make)

The version is read before the answer is made: one made from later figures is at worst made once more, never shown late.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from fastapi import Response

MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Kept:
    """An answer's parts, from which a response is made each time."""

    version: Hashable
    body: bytes
    media_type: str | None
    headers: dict[str, str]


@dataclass
class Answers:
    """The answers asked for lately, together at most `MOST_BYTES`; of equal questions at once, one is worked on."""

    _kept: OrderedDict[Hashable, Kept] = field(default_factory=OrderedDict)
    _making: dict[Hashable, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, version: Hashable, make: Callable[[], Response]) -> Response:
        """The answer of this version: as it was made before, or made now."""
        found = self._find(key, version)
        if found is None:
            with self._lock:
                making = self._making.setdefault(key, threading.Lock())
            try:
                with making:
                    found = self._find(key, version) or self._store(key, version, make())
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return Response(found.body, media_type=found.media_type, headers=found.headers)

    def _find(self, key: Hashable, version: Hashable) -> Kept | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None or found.version != version:
                return None
            self._kept.move_to_end(key)
            return found

    def _store(self, key: Hashable, version: Hashable, made: Response) -> Kept:
        headers = {k: v for k, v in made.headers.items() if k not in ("content-length", "content-type")}
        kept = Kept(version, bytes(made.body), made.headers.get("content-type"), headers)
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(len(one.body) for one in self._kept.values()) > MOST_BYTES:
                self._kept.popitem(last=False)
        return kept
