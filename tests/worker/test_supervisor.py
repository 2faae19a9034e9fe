"""What the supervisor does with a real process that is silent, slow, or deaf to SIGTERM."""


import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.storage import retries, runs
from app.storage.engine import Database
from app.storage.tables import Run
from tests.app.work import Queue
from tests.service import make_settings
from worker import supervisor
from worker.progress import Progress

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


@pytest.fixture(scope="session")
def backend() -> str:
    """What is written is tested on both databases in tests/app/storage."""
    return "sqlite"


@pytest.fixture
def queue(database: Database, data_dir: Path) -> Queue:
    return Queue(database, data_dir)


@pytest.fixture
def work(queue, monkeypatch) -> Callable[..., Run]:
    """`work("python code", stall_seconds=1)`: the next run, by a job that executes this."""

    def work(code: str, while_it_works: Callable[..., Any] | None = None, **given: Any) -> Run:
        def start(_fence: Any, log: Any) -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output)

        monkeypatch.setattr(supervisor, "_start", start)
        monkeypatch.setattr(supervisor, "CANCEL_CHECK_SECONDS", 0.1)
        fence = queue.must_claim()
        settings = make_settings(
            data_dir=queue.data_dir, grace_seconds=0.3, heartbeat_seconds=0.2, lease_seconds=2.0, **given
        )
        if while_it_works is not None:
            threading.Thread(target=while_it_works, args=(fence,), daemon=True).start()
        supervisor.work_on(
            fence.run_id, fence, queue.database, settings, should_stop=lambda: False, device="cpu"
        )
        return queue.run(fence.run_id)

    return work


def test_a_job_that_does_not_move_is_killed_though_its_heartbeat_lives_and_is_tried_again(queue, work) -> None:
    queue.submit(max_attempts=2)
    began = time.monotonic()
    run = work(DEAF, stall_seconds=1.0)
    assert time.monotonic() - began < 50  # the job sleeps for 60
    assert (run.state, run.tries) == ("queued", 1)
    assert run.error.startswith("no progress for 1 s, the last at: starting;")
    run = work(DEAF, stall_seconds=1.0)
    assert run.state == "failed"
    assert "no progress for 1 s" in run.error
    assert "(tried 2 times)" in run.error


def test_a_job_that_moves_is_left_alone_however_little_it_tells(queue, work, monkeypatch) -> None:
    monkeypatch.setattr("worker.progress.PULSE_SECONDS", 0.1)
    queue.submit()

    def quiet_phase(fence: runs.Fence) -> None:
        with Progress(queue.database, fence).quiet():
            time.sleep(3)

    run = work("import time; time.sleep(2.5)", quiet_phase, stall_seconds=1.0)
    assert "exit code 0" in run.error, "it ended by itself"


def test_a_quiet_phase_counts_as_moving_for_its_time_and_no_longer(queue, work, monkeypatch) -> None:
    monkeypatch.setattr("worker.progress.PULSE_SECONDS", 0.1)
    queue.submit()

    def endless(fence: runs.Fence) -> None:
        with Progress(queue.database, fence).quiet(seconds=1.0):
            time.sleep(10)

    began = time.monotonic()
    run = work(DEAF, endless, stall_seconds=1.0)
    assert time.monotonic() - began > 1.9
    assert run.error.startswith("no progress")


def test_a_run_over_its_time_limit_fails_with_what_waits_for_it_and_says_what_to_change(queue, work) -> None:
    experiment = queue.submit(time_limit_seconds=1.0)
    run = work(DEAF)
    assert run.state == "failed"
    assert run.error.startswith("the run took longer than its time limit of 1 s over all attempts")
    assert "larger time_limit_seconds" in run.error
    assert queue.states(experiment) == ["failed", "failed"]
    assert run.worked_seconds >= 1
    queue.do(retries.retry, run.id)
    assert queue.states(experiment) == ["queued", "queued"]


def test_the_limit_holds_over_attempts(queue, work) -> None:
    queue.submit(time_limit_seconds=100.0)
    fence = queue.must_claim()
    queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False)
    queue.do(lambda session: setattr(session.get(Run, fence.run_id), "worked_seconds", 99.5))
    assert work(DEAF).state == "failed"


def test_pulses_cost_a_write_every_ten_seconds(queue, monkeypatch) -> None:
    queue.submit()
    progress = Progress(queue.database, queue.must_claim())
    written: list[int] = []
    monkeypatch.setattr(runs, "pulse", lambda _session, _fence: written.append(1))
    for _ in range(100):
        progress.pulse()
    assert len(written) == 1


def test_what_goes_through_a_network_is_a_pulse(queue, data_dir) -> None:
    import torch

    from models.registry import ModelSpec, build
    from worker.jobs.job import Job

    queue.submit()
    fence = queue.must_claim()
    progress = Progress(queue.database, fence)
    pulses: list[int] = []
    progress.pulse = lambda: pulses.append(1)  # type: ignore[method-assign]
    settings = make_settings(data_dir=data_dir)
    job = Job(queue.run(fence.run_id), fence, queue.database, settings, progress, torch.device("cpu"))
    model = build(ModelSpec("resnet20", "default", 10, (1, 8, 8), mean=(0.3,), std=(0.4,))).eval()
    job.watch(model)
    features = model.encoder(torch.zeros(2, 1, 8, 8))
    assert len(pulses) == 1
    model.decoder(features)  # alone, where features were kept
    assert len(pulses) == 2
