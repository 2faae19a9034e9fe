"""Names of requests in answers and logs; what Prometheus is told; what `/readyz` says is down."""

import io
import json
import logging
import re
import sys

import httpx
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from app import logs
from app.storage import results, runs, workers
from app.storage.engine import Database
from app.storage.listed_runs import KnownRuns
from tests.service import make_settings


def figures(api: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found, name: str, **labels: str) -> float:
    return found["spikeproof_" + name, frozenset(labels.items())]


def test_runs_workers_blocks_and_durations_are_counted_in_the_database(api, queue) -> None:
    queue.submit(seeds=[0, 1])
    fence = queue.must_claim()
    queue.do(runs.pulse, fence)
    queue.succeed(fence)
    evaluation = queue.must_claim("worker:2")
    assert queue.run(evaluation.run_id).kind == "evaluate"
    queue.must_claim("worker:3")
    queue.do(results.add_block, evaluation, 0, "p", [], images=100, seconds=20.0)
    queue.do(workers.beat, "host:1:1", device="cpu")
    queue.do(workers.beat, "host:2:1", device="cuda", gpu_memory=(3 * 2**30, 140 * 2**30))
    queue.do(workers.works_on, "host:2:1", evaluation.run_id)
    found = figures(api)
    assert value(found, "runs", kind="train", state="succeeded") == 1
    assert value(found, "runs", kind="train", state="running") == 1
    assert value(found, "runs", kind="evaluate", state="running") == 1
    assert value(found, "runs", kind="evaluate", state="queued") == 1
    assert value(found, "runs", kind="branch", state="queued") == 0
    assert value(found, "run_seconds_count", kind="train", state="succeeded") == 1
    assert value(found, "run_seconds_bucket", kind="train", state="succeeded", le="10.0") == 1
    assert value(found, "workers", device="cuda", busy="true") == 1
    assert value(found, "workers", device="cpu", busy="false") == 1
    assert value(found, "gpu_memory_used_bytes", worker="host:2") == 3 * 2**30
    assert value(found, "gpu_memory_total_bytes", worker="host:2") == 140 * 2**30
    assert value(found, "attacked_images_total") == 100
    assert value(found, "attack_seconds_total") == 20
    assert value(found, "attack_images_per_second") == 5
    assert value(found, "database_up") == 1


def test_totals_do_not_fall_when_what_they_count_is_deleted_or_tried_again(api, queue) -> None:
    experiment = queue.submit(seeds=[0])
    queue.succeed(queue.must_claim())
    evaluation = queue.must_claim()
    queue.do(results.add_block, evaluation, 0, "p", [], images=100, seconds=20.0)
    queue.do(results.add_block, evaluation, 1, "p", [], images=50, seconds=5.0)
    queue.do(runs.fail, evaluation, "on purpose")
    names = ("run_seconds_count", "run_seconds_sum", "attacked_images_total", "attack_seconds_total")

    def totals() -> list[float]:
        found = figures(api)
        return [sum(v for (name, _), v in found.items() if name == f"spikeproof_{one}") for one in names]

    before = totals()
    assert before[0] == 2
    assert before[2:] == [150, 25]
    assert api.post(f"/runs/{evaluation.run_id}/retry").status_code == 202
    assert totals() == before
    again = queue.must_claim()
    queue.do(runs.fail, again, "once more")
    ended = totals()
    assert ended[0] == 3
    assert ended[1] >= before[1]
    assert ended[2:] == before[2:]
    assert api.delete(f"/experiments/{experiment}").status_code == 200
    assert totals() == pytest.approx(ended)


def test_latencies_are_by_route_not_by_path(api, queue) -> None:
    api.get("/runs/one")
    api.get("/runs/two")
    api.get("/no/such/path")
    found = figures(api)
    assert value(found, "request_seconds_count", method="GET", route="/runs/{run_id}", status="404") == 2
    assert value(found, "request_seconds_count", method="GET", route="none", status="404") == 1


def test_the_scrape_is_few_queries_and_answers_without_a_database_too(
    queue, config, counted_queries, api, tmp_path
) -> None:
    with counted_queries() as statements:
        api.get("/metrics")
    assert len([s for s in statements if s.startswith("SELECT")]) <= 5 * 2
    from prometheus_client.exposition import generate_latest

    from app.api.metrics import Metrics

    away = Database(f"sqlite:///{tmp_path}/none/there.db")
    text = generate_latest(Metrics(away, 60, lambda: 0).registry).decode()
    assert "spikeproof_database_up 0.0" in text
    assert "spikeproof_runs{" not in text
    away.close()


def test_a_sane_name_of_a_request_is_kept_and_any_other_replaced(sqlite_api: httpx.Client) -> None:
    assert sqlite_api.get("/healthz", headers={"X-Request-ID": "lab-7:a.B_c"}).headers["x-request-id"] == "lab-7:a.B_c"
    made = {sqlite_api.get("/healthz").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for wrong in ("a b", "x" * 65, "a\tb", "<script>", "é".encode()):
        answered = sqlite_api.get("/healthz", headers={"X-Request-ID": wrong}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", answered)
    assert sqlite_api.get("/none", headers={"X-Request-ID": "n1"}).headers["x-request-id"] == "n1"


@pytest.fixture
def log_lines(monkeypatch):
    """`log_lines()`: what was logged since, as objects."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    logs.configure(json=True)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    logging.basicConfig(handlers=handlers, level=level, force=True)
    monkeypatch.undo()
    logs.configure()


def test_what_a_request_logs_carries_its_name_and_a_path_cannot_forge_a_line(log_lines, sqlite_api) -> None:
    sqlite_api.get("/none%0aforged", headers={"X-Request-ID": "n2"})
    sqlite_api.get("/healthz")
    [line] = log_lines()
    assert (line["event"], line["request_id"], line["path"], line["status"]) == ("request", "n2", "/none%0aforged", 404)


def test_libraries_log_objects_too_and_errors_come_with_their_traceback(log_lines) -> None:
    logging.getLogger("some.library").warning("from a library")
    try:
        raise ValueError("no")
    except ValueError:
        logs.get_logger("here").exception("failed")
    first, second = log_lines()
    assert (first["event"], first["level"]) == ("from a library", "warning")
    assert 'raise ValueError("no")' in second["exception"]


def test_an_error_of_ours_names_the_request_under_which_the_log_has_it(config, serve, monkeypatch, problem_of) -> None:
    def bug(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    api = serve(config)
    monkeypatch.setattr(KnownRuns, "page", bug)
    answer = api.get("/runs", headers={"X-Request-ID": "n3"})
    assert "under request n3" in problem_of(answer, 500)["detail"]
    assert answer.headers["x-request-id"] == "n3"


def test_readyz_says_of_each_thing_that_is_down_what_to_do(api, serve, data_dir, problem_of) -> None:
    assert "spikeproof worker" in problem_of(api.get("/readyz"), 503)["detail"]
    other = data_dir / "other"
    other.mkdir()
    down = serve(make_settings(data_dir=other, broker_url="redis://127.0.0.1:1/0"))
    problem = problem_of(down.get("/readyz"), 503)
    assert problem["checks"] == {"database": True, "broker": False, "worker": False}
    assert "SPIKEPROOF_BROKER_URL" in problem["detail"]


def test_a_worker_that_is_named_in_the_log_lines_of_its_job(log_lines) -> None:
    with structlog.contextvars.bound_contextvars(run="run_1", attempt=2):
        logs.get_logger("worker").info("job started", pid=1)
    [line] = log_lines()
    assert (line["run"], line["attempt"], line["event"]) == ("run_1", 2, "job started")
