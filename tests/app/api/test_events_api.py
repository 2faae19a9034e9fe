"""Server-sent events of an experiment, as a client gets them over a real connection."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from app.api import hub as hubs
from app.storage import events, experiments, run_logs, runs
from tests.app.work import in_threads

PATIENCE = 60.0  # seconds, of a machine that has other work


@dataclass
class Stream:
    """Reads in a thread; `wait(kind, ...)` is the first event that fits."""

    response: httpx.Response
    found: list[dict[str, Any]] = field(default_factory=list)
    comments: int = 0
    closed: bool = False

    def read(self) -> None:
        event: dict[str, str] = {}
        try:
            for line in self.response.iter_lines():
                name, _, value = line.partition(": ")
                if not line and "data" in event:
                    self.found.append({**event, "data": json.loads(event["data"])})
                if not line:
                    event = {}
                elif not name:
                    self.comments += 1
                else:
                    event[name] = value
        except (httpx.ReadError, httpx.RemoteProtocolError, httpx.StreamClosed):
            return
        self.closed = True

    def wait(self, kind: str, **wanted: Any) -> dict[str, Any]:
        def fits(event: dict[str, Any]) -> bool:
            return event["event"] == kind and wanted.items() <= event["data"].items()

        until(lambda: any(fits(e) for e in self.found), f"{kind} {wanted} in {self.found}")
        return next(e for e in self.found if fits(e))

    def numbered(self) -> list[tuple[int, str, str]]:
        return [(int(e["id"]), e["event"], json.dumps(e["data"], sort_keys=True)) for e in self.found if "id" in e]


def until(condition: Callable[[], Any], text: str = "") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, text
        time.sleep(0.02)


@contextmanager
def watch(api: httpx.Client, experiment: str, last_id: int | None = None) -> Iterator[Stream]:
    headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
    with api.stream("GET", f"/experiments/{experiment}/events", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        thread = threading.Thread(target=stream.read, daemon=True)
        thread.start()
        yield stream
        # A close alone does not wake the thread that reads.
        response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
        response.close()
    assert not thread.is_alive()


def test_a_stream_begins_with_how_things_stand_and_tells_all_that_happens_until_the_end(api, queue, data_dir) -> None:
    experiment = queue.submit()
    train, evaluate = (run.id for run in queue.runs(experiment))
    with watch(api, experiment) as stream:
        stream.wait("state", run=evaluate, state="queued")
        stream.wait("experiment", state="queued", progress=0.0)
        fence = queue.must_claim()
        stream.wait("state", run=train, state="running", attempt=1)
        stream.wait("experiment", state="running")
        log = data_dir / "runs" / train / "log.txt"
        log.parent.mkdir(parents=True)
        log.write_text("epoch 1\nepoch")
        queue.do(runs.report, fence, progress=0.5, phase="epoch 1/2")
        stream.wait("progress", run=train, progress=0.5, phase="epoch 1/2")
        stream.wait("log", run=train, offset=0, lines=["epoch 1"])
        with log.open("a") as file:
            file.write(" 2\n")
        stream.wait("log", run=train, offset=8, lines=["epoch 2"])
        queue.do(runs.report, fence, metrics={"epochs": [{"epoch": 1}]})
        stream.wait("metrics", run=train, new={"epochs": [{"epoch": 1}]})
        queue.do(runs.report, fence, metrics={"epochs": [{"epoch": 1}, {"epoch": 2}]})
        stream.wait("metrics", run=train, new={"epochs": [{"epoch": 2}]})
        queue.succeed(fence)
        stream.wait("state", run=train, state="succeeded")
        queue.do(runs.fail, queue.must_claim(), "broken")
        stream.wait("state", run=evaluate, state="failed", error="broken")
        assert stream.wait("end")["data"]["state"] == "partial"
        until(lambda: stream.closed)


def test_a_stream_resumes_without_losing_or_repeating_a_change_wherever_it_broke_off(api, queue) -> None:
    experiment = queue.submit(seeds=[0, 1])
    queue.submit(dataset="digits", seeds=[7])  # of which nobody wants to hear
    with watch(api, experiment) as whole:
        whole.wait("experiment")
        first = int(whole.found[0]["id"])
        for _ in range(3):
            fence = queue.must_claim()
            queue.do(runs.report, fence, metrics={"a": fence.run_id})
            queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False)
        while (fence := queue.claim()) is not None:
            queue.succeed(fence)
        whole.wait("end")
    told = [one for one in whole.numbered() if one[0] > first]
    assert len({number for number, _, _ in told}) == len(told) >= 14
    for cut in (first, told[0][0], told[5][0], told[-2][0], told[-1][0]):
        rest = [one for one in told if one[0] > cut]
        if not rest:
            headers = {"Last-Event-ID": str(cut)}
            assert api.get(f"/experiments/{experiment}/events", headers=headers).status_code == 204
            continue
        with watch(api, experiment, cut) as stream:
            stream.wait("end")
        assert stream.numbered() == rest


def test_what_is_too_long_ago_to_be_replayed_begins_anew(api, queue) -> None:
    experiment = queue.submit()
    for _ in range(3):
        queue.do(runs.stop_or_requeue, queue.must_claim(), "stopped", count_try=False)
    queue.do(events.sweep, 0.0, 1)
    for number in (1, 10**6):  # swept, and of another database
        with watch(api, experiment, number) as stream:
            assert stream.wait("state")["data"]["state"] == "queued"
            stream.wait("experiment", state="queued")


def test_a_cancelled_experiment_ends_its_stream_once_its_runs_have_stopped(api, queue) -> None:
    experiment = queue.submit()
    fence = queue.must_claim()
    with watch(api, experiment) as stream:
        stream.wait("experiment", state="running")
        assert api.post(f"/experiments/{experiment}/cancel").status_code == 200
        stream.wait("state", run=fence.run_id, state="running", cancel_requested=True)
        stream.wait("cancelled", experiment=experiment)
        assert not stream.closed
        queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False)
        stream.wait("state", run=fence.run_id, state="cancelled")
        stream.wait("end", state="cancelled")


def test_a_cancelled_experiment_lives_again_when_one_of_its_runs_is_tried_again(api, queue) -> None:
    experiment = queue.submit()
    train, evaluate = (run.id for run in queue.runs(experiment))
    with watch(api, experiment) as stream:
        fence = queue.must_claim()
        queue.do(experiments.cancel, experiment)
        stream.wait("experiment", state="cancelled")
        queue.do(runs.stop_or_requeue, fence, "asked to", count_try=False)
        assert stream.wait("end")["data"]["state"] == "cancelled"
    assert api.post(f"/runs/{evaluate}/retry").status_code == 202
    assert api.get(f"/experiments/{experiment}").json()["state"] == "queued"
    assert [e["id"] for e in api.get("/experiments?state=queued").json()["items"]] == [experiment]
    with watch(api, experiment) as stream:
        stream.wait("experiment", state="queued")
        queue.succeed(queue.must_claim())
        stream.wait("state", run=train, state="succeeded")
        queue.succeed(queue.must_claim())
        assert stream.wait("end")["data"]["state"] == "succeeded"


def test_it_stays_cancelled_where_the_run_is_tried_again_for_another(api, queue) -> None:
    """Of one specification: both want the same runs."""
    first, second = queue.submit(), queue.submit()
    queue.do(experiments.cancel, first)
    queue.do(runs.fail, queue.must_claim(), "broken")
    assert api.post(f"/runs/{queue.runs(second)[0].id}/retry").status_code == 202
    assert api.get(f"/experiments/{second}").json()["state"] == "queued"
    assert api.get(f"/experiments/{first}").json()["state"] == "cancelled"


def test_silence_is_filled_with_comments(api, queue, monkeypatch) -> None:
    monkeypatch.setattr(hubs, "KEEP_ALIVE_SECONDS", 0.1)
    with watch(api, queue.submit()) as stream:
        until(lambda: stream.comments >= 3)


def test_a_client_that_leaves_is_forgotten(api, queue, monkeypatch) -> None:
    # The thread that reads keeps its socket open until something comes.
    monkeypatch.setattr(hubs, "KEEP_ALIVE_SECONDS", 0.1)
    experiment = queue.submit()
    for _ in range(3):
        with watch(api, experiment) as stream:
            stream.wait("experiment")
    until(lambda: "spikeproof_event_streams 0.0" in api.get("/metrics").text)


def test_an_unknown_experiment_and_a_number_that_is_none_are_said(api, queue, problem_of) -> None:
    problem_of(api.get("/experiments/none/events"), 404)
    for wrong in ("x", "-1", "1" * 30):
        answer = api.get(f"/experiments/{queue.submit()}/events", headers={"Last-Event-ID": wrong})
        assert problem_of(answer, 422)["errors"][0]["pointer"] == "/Last-Event-ID"


def test_many_streams_cost_no_more_queries_than_one_and_hold_no_session(api, queue, counted_queries, config) -> None:
    from app.api.hub import Hub

    experiment = queue.submit()
    hub = Hub(queue.database, config.data_dir)
    hub._start = lambda: None  # type: ignore[method-assign]  # it looks when it is told to, below
    loop = asyncio.new_event_loop()
    watching = [hub.watch(experiment, None, loop) for _ in range(200)]
    assert queue.database._reader.pool.checkedout() == 0  # type: ignore[attr-defined]
    fence = queue.must_claim()
    with counted_queries() as statements:
        hub._look()
    assert len([s for s in statements if s.startswith("SELECT")]) <= 2
    loop.run_until_complete(asyncio.sleep(0))
    assert all(b"running" in one._queue.get_nowait() for one in watching)
    assert fence.run_id
    for one in watching:
        one.gone = True
    hub._look()
    with counted_queries() as statements:
        hub._look()
    assert statements == [], "nobody watches, nobody asks"
    hub._closed = True
    loop.close()


def test_a_client_that_does_not_read_is_let_go_and_others_are_not_kept_waiting(api, queue, config) -> None:
    from app.api.hub import MOST_WAITING, Watching, message

    loop = asyncio.new_event_loop()
    slow = Watching(0, loop, [])
    for number in range(MOST_WAITING + 5):
        slow.put([message("state", {}, number + 1)])
    loop.run_until_complete(asyncio.sleep(0))
    assert slow.gone
    assert loop.run_until_complete(_rest(slow)) == 1, "it ends at once: what it resumes with is whole"
    loop.close()


async def _rest(watching: Any) -> int:
    return len([chunk async for chunk in watching.chunks()])


def test_numbers_rise_in_the_order_of_the_commits_however_many_write(queue) -> None:
    experiments = [queue.submit(seeds=[seed]) for seed in range(8)]
    seen: list[int] = []
    ended = threading.Event()

    def follow() -> None:
        while not ended.is_set():
            with queue.database.reading() as session:
                seen.extend(e.id for e in events.after(session, seen[-1] if seen else 0, 1000))

    reader = threading.Thread(target=follow)
    reader.start()

    def work(owner: str) -> None:
        for _ in range(6):
            if (fence := queue.claim(owner)) is not None:
                queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False)

    in_threads(work, [(f"worker:{n}",) for n in range(6)])
    time.sleep(0.2)
    ended.set()
    reader.join()
    with queue.database.reading() as session:
        assert seen == [e.id for e in events.after(session, 0, 10_000)]
    assert len(seen) >= 20
    assert experiments


def test_an_event_is_stored_with_its_change_or_not_at_all(queue) -> None:
    queue.submit()

    def claim_and_fail(session: Any) -> None:
        runs.claim(session, "worker:1", 60)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        queue.do(claim_and_fail)
    with queue.database.reading() as session:
        assert events.newest(session) == 0


def test_metrics_too_large_for_an_event_are_named(queue) -> None:
    queue.submit()
    queue.do(runs.report, queue.must_claim(), metrics={"rows": ["x" * 1000] * 100})
    with queue.database.reading() as session:
        assert events.after(session, 0, 10)[-1].data == {"names": ["rows"]}


def test_old_events_and_too_many_go_and_the_last_one_stays(queue) -> None:
    queue.submit()
    for _ in range(5):
        queue.do(runs.stop_or_requeue, queue.must_claim(), "stopped", count_try=False)
    with queue.database.reading() as session:
        last = events.newest(session)
        assert events.any_old(session, 3600, 5)
        assert not events.any_old(session, 3600, 1000)
        assert events.any_old(session, -1, 1000)
    queue.do(events.sweep, 3600, 5)
    with queue.database.reading() as session:
        assert [e.id for e in events.after(session, 0, 100)] == [*range(last - 4, last + 1), last + 1]
    queue.do(events.sweep, -1, 5)
    with queue.database.reading() as session:
        assert [(e.id, e.kind) for e in events.after(session, 0, 100)] == [(last + 1, "swept"), (last + 2, "swept")]
        assert not events.is_kept(session, 0)


def test_the_last_lines_of_a_log_and_the_place_of_the_first(data_dir) -> None:
    path = data_dir / "runs" / "run_1" / "log.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a\nbb\nccc\n")
    assert run_logs.last_lines(data_dir, "run_1", 2, 100) == (b"bb\nccc\n", 2)
    assert run_logs.last_lines(data_dir, "run_1", 9, 100) == (b"a\nbb\nccc\n", 0)
    assert run_logs.last_lines(data_dir, "run_1", 9, 6) == (b"b\nccc\n", 3)
    path.write_bytes(b"a\nbb")
    assert run_logs.last_lines(data_dir, "run_1", 1, 100) == (b"bb", 2)
    assert run_logs.last_lines(data_dir, "run_2", 1, 100) == (b"", 0)
