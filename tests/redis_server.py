"""A Redis server for the tests: one that is named, or one of our own that can be stopped and started."""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import Self

import redis

START_SECONDS = 20.0


class NoServer(Exception):
    """Redis is not to be had here; the text says why."""


@dataclass
class RedisServer:
    """`with RedisServer.own() as server: server.url`; keeps nothing on disk."""

    port: int
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def own(cls) -> Self:
        """A server on a free port of this machine. Raises NoServer."""
        if shutil.which("redis-server") is None:
            raise NoServer("redis-server is not installed, and SPIKEPROOF_TEST_BROKER_URL is not set")
        with socket.create_server(("127.0.0.1", 0)) as free:
            return cls(free.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Empty, as after a crash."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd="/")
        try:
            self._await(self.process)
        except BaseException:
            self.stop()
            raise

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis(port=self.port) as client:
            while not _answers(client):
                assert process.poll() is None, "redis-server did not start"
                assert time.monotonic() < deadline, "redis-server took too long to start"
                time.sleep(0.02)
        time.sleep(0.05)
        assert process.poll() is None, "another server has taken the port"

    def freeze(self) -> None:
        """It takes connections, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """kill -9: what it held is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def with_database(url: str) -> str:
    """The URL of a database of this test process alone: messages of one service must not reach another's workers."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    base = url.rsplit("/", 1)[0] if url.count("/") > 2 else url
    return f"{base}/{1 + int(worker)}"
