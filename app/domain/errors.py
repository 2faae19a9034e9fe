"""Everything that can go wrong, in one tree.

    SpikeproofError
    |-- InvalidInput        422  a request that does not fit; one Problem per fault
    |-- Unauthorized        401  no key, or one that is not known
    |-- Forbidden           403  a key that may not do this, or a page of another site that asks
    |-- NotFound            404  a name in a path or query that does not exist
    |-- Conflict            409  the request is fine, the state of things forbids it
    |-- PayloadTooLarge     413
    |-- UnsupportedMedia    415
    |-- Misdirected         421  sent to a name that is not this service's
    |-- TooManyRequests     429  `retry_after` says when to come again
    |-- HeadersTooLarge     431
    |-- ServiceUnavailable  503  try again later
    |-- DiskFull            507
    |-- PluginError         --   an installed package brings something that cannot be used
    |-- JobError            --   a job that fails however often it is tried again
    `-- LeaseLost           --   a job that no longer owns its run and must write nothing more
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Self


@dataclass(frozen=True)
class Problem:
    """One fault in a request body: where (a JSON pointer) and what."""

    pointer: str
    detail: str


class SpikeproofError(Exception):
    """Root of the tree. `status` is the HTTP status it maps to."""

    status = 500
    title = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidInput(SpikeproofError):
    """The body does not fit; `problems` says where and what is allowed."""

    status = 422
    title = "Invalid input"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{p.pointer}: {p.detail}" if p.pointer else p.detail for p in problems))
        self.problems = list(problems)


class Unauthorized(SpikeproofError):
    """A key is needed, or the one given is not known."""

    status = 401
    title = "Unauthorized"


class Forbidden(SpikeproofError):
    """Whoever asks may not do this."""

    status = 403
    title = "Forbidden"


class NotFound(SpikeproofError):
    """What a path or query names does not exist."""

    status = 404
    title = "Not found"

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str] = ()) -> Self:
        """`NotFound.of("data set", "cifar", names)`: names the nearest."""
        return cls(f"there is no {kind} {name!r}" + suggestion(name, known))


class Conflict(SpikeproofError):
    """The state of things forbids it."""

    status = 409
    title = "Conflict"


class PayloadTooLarge(SpikeproofError):
    """The body or a file in it is over its limit."""

    status = 413
    title = "Too large"


class UnsupportedMedia(SpikeproofError):
    """The body is of a type that is not taken here."""

    status = 415
    title = "Unsupported media type"


class Misdirected(SpikeproofError):
    """The request names a host that this service is not."""

    status = 421
    title = "Misdirected request"


class TooManyRequests(SpikeproofError):
    """More than the limit allows; `retry_after` in seconds."""

    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class HeadersTooLarge(SpikeproofError):
    """The head of the request is over its limit."""

    status = 431
    title = "Headers too large"


class ServiceUnavailable(SpikeproofError):
    """Something the request needs is down or busy."""

    status = 503
    title = "Service unavailable"


class DiskFull(SpikeproofError):
    """There is no room for what the request would store."""

    status = 507
    title = "Insufficient storage"


class PluginError(SpikeproofError):
    """An entry point of an installed package does not hold what it should."""


class JobError(SpikeproofError):
    """A job cannot succeed, however often it is tried: its run fails with this text."""


class LeaseLost(SpikeproofError):
    """This process no longer owns the run: another attempt does, or it was cancelled."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'cifar10'? Known: cifar10, digits"`, or an empty string."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    listed = f"{hint or ';'} known: {', '.join(names[:20])}" if names else hint
    return listed + (", ..." if len(names) > 20 else "")
