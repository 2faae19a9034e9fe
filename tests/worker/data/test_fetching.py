"""A file from a server of the test's own, that behaves as bad networks do."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from worker.data import fetching
from worker.data.fetching import NotFetched, fetch

CONTENT = bytes(range(256)) * 2_000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        behave: Callable[[Handler], None] = getattr(self, self.path.strip("/").partition(".")[0])
        behave()

    def answer(self, content: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def good(self) -> None:
        self.answer(CONTENT)

    def other(self) -> None:
        self.answer(b"<html>please log in</html>")

    def broken(self) -> None:
        self.answer(CONTENT[:1000], len(CONTENT))

    def missing(self) -> None:
        self.send_error(404)

    def silent(self) -> None:
        self.server.over.wait(20)  # type: ignore[attr-defined]

    def stalled(self) -> None:
        self.answer(CONTENT[:1000], len(CONTENT))
        self.wfile.flush()
        self.silent()

    def dripping(self) -> None:
        self.answer(b"", len(CONTENT))
        for _ in range(200):
            if self.server.over.wait(0.05):  # type: ignore[attr-defined]
                return
            self.wfile.write(b"x")
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client has had enough
            super().handle()


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.over = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.over.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def get(*addresses, target, tell=lambda _: None):
    fetch(addresses, target, md5=MD5, tell=tell)


def test_a_file_comes_whole_and_says_how_far_it_is(address, tmp_path):
    told = []
    get(f"{address}/good.gz", target=tmp_path / "deep" / "good.gz", tell=told.append)
    assert (tmp_path / "deep" / "good.gz").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["good.gz"]
    assert (told[0], told[-1]) == ("downloading good.gz", "downloading good.gz, 100%")


@pytest.mark.parametrize(
    ("how", "said"),
    [("other", "is not the published file, its md5 differs"), ("missing", "HTTP 404 Not Found"),
     ("broken", "broke off after 1000 of 512000 bytes"), ("silent", "timed out"), ("stalled", "timed out"),
     ("dripping", "too slow")],
)  # fmt: skip
def test_whatever_the_network_does_ends_soon_with_a_reason_and_leaves_no_file(address, tmp_path, how, said):
    started = time.monotonic()
    with pytest.raises(NotFetched, match=said) as caught:
        get(f"{address}/{how}.gz", target=tmp_path / "x.gz")
    assert time.monotonic() - started < 60
    assert str(caught.value).startswith(address.removeprefix("http://"))
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_is_tried_after_any_failure(address, tmp_path):
    bad = [f"{address}/{how}.gz" for how in ("stalled", "other", "missing", "broken")]
    get("http://127.0.0.1:1/refused", "http://nowhere.invalid/x", *bad, f"{address}/good", target=tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_every_address_is_named_with_its_reason(address, tmp_path):
    with pytest.raises(NotFetched, match=r"127.0.0.1:1: Connection refused; .*: HTTP 404") as caught:
        get("http://127.0.0.1:1/refused", f"{address}/missing", target=tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_one_who_is_told_to_stop_stops_between_two_pieces(address, tmp_path):
    class Stopped(Exception):
        pass

    def tell(phase):
        if phase.endswith("%"):
            raise Stopped

    with pytest.raises(Stopped):
        get(f"{address}/good", target=tmp_path / "x", tell=tell)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_replaced_only_by_a_whole_one(address, tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"damaged")
    with pytest.raises(NotFetched):
        get(f"{address}/broken", target=target)
    assert target.read_bytes() == b"damaged"
    get(f"{address}/good", target=target)
    assert target.read_bytes() == CONTENT
