"""What the launcher decides, without starting anything."""

import os
import socket
import subprocess
import sys

import pytest

from app.launcher import Launcher
from app.processes import is_alive, visible_gpus
from app.settings import Settings


@pytest.mark.parametrize(
    ("visible", "workers", "given"),
    [("2,3", 0, ["2", "3"]), ("GPU-a1b2", 2, ["GPU-a1b2", "GPU-a1b2"]), ("", 0, [None]), ("-1", 3, [None] * 3)],
)
def test_each_worker_gets_one_of_the_gpus_that_this_process_may_use(monkeypatch, visible, workers, given) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    children = Launcher(Settings(workers=workers))._workers()
    assert [c.environment.get("CUDA_VISIBLE_DEVICES") for c in children] == given
    assert visible_gpus() == [g for g in visible.split(",") if g not in ("", "-1")]


def test_cores_are_divided_among_workers(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    threads = [c.environment["SPIKEPROOF_THREADS_PER_JOB"] for c in Launcher(Settings(workers=3))._workers()]
    assert threads == ["2", "2", "2"]


def test_the_api_gives_memory_back_as_set_here_where_the_environment_says_nothing_else(monkeypatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    launcher = Launcher(Settings())
    with socket.socket() as launcher._socket:
        assert launcher._api().environment == {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "65536"}


def test_a_lease_that_a_heartbeat_cannot_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="at least twice"):
        Settings(lease_seconds=5, heartbeat_seconds=5)


def test_a_process_that_ended_is_not_alive() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_alive(ended.pid)
    assert is_alive(os.getpid())
