"""The service as a user starts it: `spikeproof serve` in a process of its own, with real workers and jobs.

A test that asks for a service runs on both back ends, the longest ones on the lab's in the slow tier, as test_lab.py
has all that is particular to it. What happens within one job or one command, and would be the same work on either, is
marked `EMBEDDED`: that whole experiments run on the lab's is shown by test_main_job.py."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.client import Client
from app.storage.engine import Database
from tests.postgres_server import DatabaseServer
from tests.service import make_settings

START_SECONDS = 60
PATIENCE = 60  # seconds, of a client on a machine that has other work
QUICK_TRAINING = {"epochs": 3, "branch_epochs": 2}
# Where it does not matter with what is attacked: the default suite takes a service many times as long.
QUICK_EVALUATION = {"images": 10, "eps": ["32/255"], "attacks": [{"name": "fgsm"}]}
LONG = {"test_main_job", "test_faults"}
LONGEST = ("test_submit_wait_leaderboard", "test_a_killed_job_goes_on")  # minutes: in the slow tier on either
EMBEDDED = pytest.mark.parametrize("back_end", ["embedded"], indirect=True)
# Minutes each: begun last, one would end alone.
BEGIN_WITH = ("test_own_folder", "test_demo", "test_study_networks", "test_chaos", "test_faults", "test_fuzz")


def pytest_itemcollected(item: pytest.Item) -> None:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    on_the_labs = item.path.stem in LONG and parameters.get("back_end") == "lab"
    if on_the_labs or item.name.startswith(LONGEST):
        item.add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {stem: place for place, stem in enumerate(BEGIN_WITH)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@dataclass
class Service:
    """A running service; `start` again after `kill` to see what it makes of what it left."""

    data_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    url: str = ""
    clients: list[Client] = field(default_factory=list)

    def start(self) -> "Service":
        environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(self.data_dir), "SPIKEPROOF_THREADS_PER_JOB": "1",
                       "SPIKEPROOF_HEARTBEAT_SECONDS": "1", "SPIKEPROOF_LEASE_SECONDS": "10", **self.settings}
        with (self.data_dir / "service.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", "0", *self.options], env=environment, text=True,
                stdout=subprocess.PIPE, stderr=log, cwd=self.data_dir,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "http://" in line, f"the service did not start: {(self.data_dir / 'service.log').read_text()}"
        self.url = next(word for word in line.split() if word.startswith("http://"))
        wait_for(lambda: self.client().healthy(), START_SECONDS)
        return self

    @property
    def worker_module(self) -> str:
        return "worker.tasks" if "SPIKEPROOF_BROKER_URL" in self.settings else "worker.poll"

    @contextmanager
    def database(self) -> Iterator[Database]:
        """What the service keeps its rows in, behind its back."""
        url = self.settings.get("SPIKEPROOF_DATABASE_URL", "")
        opened = Database(make_settings(data_dir=self.data_dir, database_url=url).resolved_database_url)
        try:
            yield opened
        finally:
            opened.close()

    def client(self) -> Client:
        self.clients.append(Client(self.url))
        return self.clients[-1]

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 of the parent alone."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        for client in self.clients:
            client.__exit__()
        self.clients.clear()
        self.process.send_signal(how)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()  # in vain, if it has ended
            assert self.process.stdout is not None
            self.process.stdout.close()


def wait_for(condition: Callable[[], Any], seconds: float = 240.0) -> Any:
    """The first true value of `condition()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {condition}")


def processes(*words: str) -> list[int]:
    """Ids of the processes whose command line has all the words."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if not zombie and all(word in command for word in words):
            found.append(int(entry.name))
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(params=["embedded", "lab"])
def back_end(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Settings of both back ends: SQLite with workers that poll, PostgreSQL with Celery workers on Redis."""
    if request.param == "embedded":
        yield {}
        return
    server: DatabaseServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield {"database_url": url.replace("postgresql+psycopg", "postgresql"),
           "broker_url": request.getfixturevalue("broker_url")}
    server.drop_database(url)


@pytest.fixture
def make_service(tmp_path: Path, back_end: dict[str, str]) -> Iterator[Callable[..., Service]]:
    """Starts services on either back end; whatever they leave is ended after the test."""
    started: list[Service] = []

    def make(serve_options: Sequence[str] = (), **settings: str) -> Service:
        given = {**back_end, **settings}
        service = Service(tmp_path, {f"SPIKEPROOF_{k.upper()}": v for k, v in given.items()}, [*serve_options])
        started.append(service.start())
        return service

    yield make
    with ExitStack() as stack:  # each is stopped, whatever the others do
        for service in started:
            if service.process is not None and service.process.poll() is None:
                stack.callback(service.stop)


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


def run_of(experiment: dict[str, Any], kind: str, variant: str = "default") -> dict[str, Any]:
    return next(r for r in experiment["runs"] if r["kind"] == kind and r["variant"] == variant)


def finished(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    """Submits and waits; every run must have succeeded."""
    experiment = client.wait(client.submit(spec)["id"])
    errors = {r["id"]: r["error"] or client.run(r["id"])["log"][-500:] for r in experiment["runs"] if r["error"]}
    assert experiment["state"] == "succeeded", errors
    return experiment
