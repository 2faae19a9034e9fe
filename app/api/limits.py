"""How much one client may ask of the service: requests a minute, and the size of a request's head."""

import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address
from math import ceil

from fastapi import Request

from app.domain.errors import HeadersTooLarge, TooManyRequests

MOST_HEADER_BYTES = 16 * 1024
MOST_HEADERS = 100
MOST_CLIENTS = 10_000  # that are remembered at once
_SITE_BITS = 64  # of an IPv6 address: whoever has one of these networks has all its addresses


class RateLimit:
    """A bucket of tokens a client: a minute's worth at once, refilled all the time. In this process alone."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = float(a_minute), clock
        self._buckets: dict[str, tuple[float, float]] = {}  # client -> tokens left, and when they were counted

    def take(self, client: str) -> None:
        """One request of the client. Raises TooManyRequests."""
        if not self._most:
            return
        now = self._clock()
        left = self._left(client, now)
        if left < 1:
            wait = ceil((1 - left) * 60 / self._most)
            detail = f"more than {self._most:.0f} requests a minute; try again in {wait} s"
            raise TooManyRequests(detail, retry_after=wait)
        if client not in self._buckets and len(self._buckets) >= MOST_CLIENTS:
            self._forget(now)
        self._buckets[client] = left - 1, now

    def _left(self, client: str, now: float) -> float:
        tokens, counted = self._buckets.get(client, (self._most, now))
        return min(self._most, tokens + (now - counted) * self._most / 60)

    def _forget(self, now: float) -> None:
        """Those whose bucket is full again; where none is, those that have most left."""
        by_left = sorted(self._buckets, key=lambda client: self._left(client, now))
        kept = [client for client in by_left if self._left(client, now) < self._most][: MOST_CLIENTS // 2]
        self._buckets = {client: self._buckets[client] for client in kept}


def address_of(request: Request) -> str:
    """Whom to count a request without a key for."""
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Network((int(address) >> _SITE_BITS << _SITE_BITS, _SITE_BITS)))
    return host


def check_head(request: Request) -> None:
    """Raises HeadersTooLarge; what is larger still, the server's parser refuses."""
    headers = request.headers.raw
    size = sum(len(name) + len(value) for name, value in headers) + len(request.scope.get("raw_path") or b"")
    size += len(request.scope.get("query_string", b""))
    if size > MOST_HEADER_BYTES or len(headers) > MOST_HEADERS:
        limits = f"{MOST_HEADER_BYTES} bytes and {MOST_HEADERS} headers"
        raise HeadersTooLarge(f"address and headers of a request may have at most {limits} together")
