"""How much may be asked: requests a minute, and the size of a request's head."""

import socket
from contextlib import suppress

import httpx
import pytest
from fastapi import Request

from app.api.limits import MOST_CLIENTS, MOST_HEADER_BYTES, RateLimit, address_of
from app.domain.errors import TooManyRequests
from app.storage import api_keys


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(limit: RateLimit, client: str, most: int = 1000) -> int:
    """How many requests get through before one does not."""
    for count in range(most):
        try:
            limit.take(client)
        except TooManyRequests:
            return count
    return most


def test_a_minutes_worth_is_let_in_at_once_and_the_rest_as_time_goes_by() -> None:
    clock = Clock()
    limit = RateLimit(60, clock)
    assert taken(limit, "a") == 60
    clock.now += 2.5
    assert taken(limit, "a") == 2
    clock.now += 10_000
    assert taken(limit, "a") == 60, "no more is saved up than a minute's worth"


def test_who_asks_too_much_is_told_when_to_come_again_and_then_gets_in() -> None:
    clock = Clock()
    limit = RateLimit(6, clock)
    taken(limit, "a")
    with pytest.raises(TooManyRequests) as refused:
        limit.take("a")
    assert refused.value.retry_after == 10
    clock.now += 10
    limit.take("a")


def test_one_client_does_not_use_up_what_another_may_ask() -> None:
    limit = RateLimit(5, Clock())
    assert taken(limit, "a") == taken(limit, "b") == 5


def test_zero_is_no_limit() -> None:
    assert taken(RateLimit(0), "a") == 1000


def test_only_so_many_clients_are_remembered_and_those_who_asked_most_longest() -> None:
    limit = RateLimit(5, Clock())
    taken(limit, "busy")
    for number in range(MOST_CLIENTS + 10):
        limit.take(str(number))
    assert len(limit._buckets) <= MOST_CLIENTS
    assert taken(limit, "busy") == 0


@pytest.mark.parametrize(
    ("host", "counted_as"),
    [("10.0.0.1", "10.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("::1", "::/64"),
     ("fe80::1%eth0", "fe80::/64"), ("::ffff:10.0.0.1", "::ffff:10.0.0.1"), ("testclient", "testclient")],
)  # fmt: skip
def test_whoever_has_a_network_of_addresses_is_one_client(host: str, counted_as: str) -> None:
    assert address_of(Request({"type": "http", "client": (host, 1)})) == counted_as
    assert address_of(Request({"type": "http", "client": None})) == ""


def test_too_many_requests_are_a_429_with_retry_after_and_each_key_has_its_own_limit(
    config, serve, database, problem_of
) -> None:
    with database.writing() as session:
        keys = [api_keys.create(session, name, "reader")[1] for name in ("ada", "bob")]
    api = serve(config.model_copy(update={"rate_limit": 4}))
    answers = [api.get("/runs", headers={"X-API-Key": keys[0]}) for _ in range(5)]
    assert [a.status_code for a in answers] == [200] * 4 + [429]
    problem_of(answers[-1], 429)
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 15
    assert api.get("/runs", headers={"X-API-Key": keys[1]}).status_code == 200
    wrong = [api.get("/runs", headers={"X-API-Key": "spk_guess"}).status_code for _ in range(5)]
    assert wrong == [401] * 4 + [429], "guesses are counted too, by address"
    assert api.get("/healthz").status_code == 200, "whoever watches is not in the way"


@pytest.mark.parametrize(
    ("headers", "path"),
    [({"X-Long": "x" * MOST_HEADER_BYTES}, "/runs"), ({f"X-{n}": "1" for n in range(200)}, "/runs"),
     ({}, "/runs?cursor=" + "x" * MOST_HEADER_BYTES), ({}, "/runs/" + "x" * MOST_HEADER_BYTES),
     ({"Cookie": "a=" + "b" * MOST_HEADER_BYTES}, "/healthz")],
    ids=["one long", "many", "query", "path", "cookie"],
)  # fmt: skip
def test_a_head_that_is_too_large_is_refused(sqlite_api: httpx.Client, problem_of, headers, path: str) -> None:
    assert str(MOST_HEADER_BYTES) in problem_of(sqlite_api.get(path, headers=headers), 431)["detail"]


@pytest.mark.parametrize("start", [b"GET /runs HTTP/1.1\r\nX-Long: ", b"GET /"])
def test_a_head_without_end_is_not_taken_in(sqlite_api: httpx.Client, start: bytes) -> None:
    url = sqlite_api.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=30) as client:
        client.sendall(start)
        with suppress(OSError):  # refused by hanging up
            for _ in range(1000):
                client.sendall(b"x" * 16 * 1024)
            raise AssertionError("the service took 16 MB of one head")
    assert sqlite_api.get("/runs").status_code == 200


def test_a_head_that_no_parser_takes_is_refused_and_the_service_lives(sqlite_api: httpx.Client) -> None:
    with suppress(httpx.TransportError):  # it may hang up before it has read all
        assert sqlite_api.get("/runs", headers={"X-Long": "x" * 200_000}).status_code in (400, 431)
    assert sqlite_api.get("/runs").status_code == 200
