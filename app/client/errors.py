"""What a call may raise, in one tree.

    ServiceError
    |-- Unreachable        no service answers there
    |-- Unauthorized  401  a key is needed, or this one is not known
    |-- Forbidden     403  the key may not do this
    |-- NotFound      404  what was named does not exist; the text names the nearest
    |-- Conflict      409  the state of things forbids it
    |-- InvalidInput  422  also 413, 415: what was sent does not fit; `problems` says where
    |-- TooManyRequests 429  `retry_after` seconds
    |-- Unavailable   503  try again later
    |-- Damaged            what arrived is not what the service has
    `-- MissingExtra       a library that only this call needs is not installed
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.errors import SpikeproofError


class ServiceError(SpikeproofError):
    """The service refused, or cannot be reached. `problem` is its problem document, `problems` the `errors` in it;
    the text is its `detail`."""

    def __init__(
        self, detail: str, status: int = 0, problems: Sequence[Mapping[str, str]] = (),
        problem: Mapping[str, Any] | None = None, retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.problems = status, list(problems)
        self.problem, self.retry_after = dict(problem or {}), retry_after


class Unreachable(ServiceError):
    """No service answers there."""


class Unauthorized(ServiceError):
    """A key is needed, or the one given is not known."""


class Forbidden(ServiceError):
    """The key may not do this."""


class NotFound(ServiceError):
    """What was named does not exist."""


class Conflict(ServiceError):
    """The request is fine, the state of things forbids it."""


class InvalidInput(ServiceError):
    """What was sent does not fit: a body, a query, a file too large or of another type."""


class TooManyRequests(ServiceError):
    """Come again after `retry_after` seconds."""


class Unavailable(ServiceError):
    """Something the request needs is down or busy."""


class Damaged(ServiceError):
    """A file arrived that is not the one the service has; nothing was kept of it."""


class MissingExtra(ServiceError, ImportError):
    """A library that only this call needs is not installed; the text says how to."""


BY_STATUS: dict[int, type[ServiceError]] = {
    401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 413: InvalidInput, 415: InvalidInput,
    422: InvalidInput, 429: TooManyRequests, 503: Unavailable,
}  # fmt: skip
