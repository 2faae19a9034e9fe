"""A busy lab: 100,000 image rows, 2,000 runs, 200 experiments; 200 requests a second over 50 connections for boards and
lists, and 200 open event streams, while a worker writes.

    python -m benchmarks.load [--postgres | --database-url postgresql://...] [--seconds 20] [--repeat 3]
    python -m benchmarks.load --seconds 600 --markdown FILE

Starts `spikeproof serve --api-only` on a data folder of its own, with SQLite, a PostgreSQL server of its own from the
binaries of the machine, or an empty database that is named. Who asks and who writes are processes of their own. Says
for each call the CPU time of the service when it is asked alone; then, under load, p50, p95 and p99 from the moment
when a request was due, CPU time a request with all else that the service does, what the streams received beside what
they should have, and the resident memory of the first and the last minute. On a machine that has other work, only the
CPU times mean something.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from sqlalchemy import select, text

from app.settings import Settings
from app.storage import events, experiments, migrate
from app.storage.engine import Database
from app.storage.tables import Event
from benchmarks.load_clients import calls
from benchmarks.load_lab import REPORTS_A_SECOND, begin, fill

LIVE, AHEAD_SECONDS = 20, 5.0
CPU_TICK = os.sysconf("SC_CLK_TCK")
PACKAGES = ("fastapi", "starlette", "uvicorn", "httptools", "uvloop", "sqlalchemy", "psycopg")


@contextmanager
def service(data_dir: Path, url: str) -> Iterator[tuple[str, int]]:
    """Where it answers, and the process id of the API. One address asks more than a client usually may."""
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(data_dir), "SPIKEPROOF_DATABASE_URL": url,
                   "SPIKEPROOF_RATE_LIMIT": "0"}  # fmt: skip
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--api-only"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        httpx.get(f"{address}/healthz", timeout=120)
        yield address, int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CPU_TICK


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def alone(address: str, pid: int, database: Database, count: int = 100) -> list[str]:
    """CPU time a call: given again, and made anew because somebody wrote something."""
    lines = ["| call | given again, ms CPU | after a commit, ms CPU | KiB |", "|---|---|---|---|"]
    with httpx.Client(base_url=address, timeout=60) as client:
        for name, paths in calls(address).items():
            length = len(client.get(paths[0]).content)
            spent = {}
            for write in (False, True):
                before = cpu_seconds(pid)
                for number in range(count):
                    if write:
                        commit(database)
                    assert client.get(paths[number % len(paths)] if write else paths[0]).status_code == 200
                spent[write] = 1000 * (cpu_seconds(pid) - before) / count
            lines.append(f"| {name} | {spent[False]:.2f} | {spent[True]:.2f} | {length / 1024:.0f} |")
    return lines


def commit(database: Database) -> None:
    """Something that no list shows."""
    with database.writing() as session:
        session.execute(text("UPDATE workers SET seen_at = 0 WHERE id = 'nobody'"))
        events.note(session, "nothing")


@dataclass
class Found:
    """What came of one load."""

    clients: dict[str, Any]
    cpu: float  # seconds of the service
    took: float
    resident: list[float]  # MiB, once a second
    average: float  # load average at its end
    reports: str  # how many the worker made

    @property
    def all_times(self) -> list[float]:
        return [t for times in self.clients["times"].values() for t in times]

    def p95(self) -> float:
        return 1000 * quantiles(self.all_times, n=100)[94]


def load(address: str, pid: int, database: Database, data_dir: Path, given: argparse.Namespace) -> Found:
    """Clients, and a worker that goes on until the last of them has its answer; then all experiments end."""
    live = begin(database, data_dir, LIVE)
    wanted = {"experiments": live, "ahead": AHEAD_SECONDS,
              **{name: getattr(given, name) for name in ("streams", "seconds", "rate", "connections")}}  # fmt: skip
    module = [sys.executable, "-m"]
    asking = subprocess.Popen(
        [*module, "benchmarks.load_clients", address, json.dumps(wanted)], stdout=subprocess.PIPE, text=True
    )
    time.sleep(AHEAD_SECONDS / 2)
    worker = [*module, "benchmarks.load_lab", database.url, str(data_dir), str(given.seconds), *live]
    writing = subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    time.sleep(AHEAD_SECONDS / 2)
    resident: list[float] = []
    watched = threading.Event()
    watching = threading.Thread(target=watch, args=(pid, resident, watched))
    spent, began = cpu_seconds(pid), time.monotonic()
    watching.start()
    assert asking.stdout is not None
    asking.stdout.readline()  # all is asked
    cpu, took = cpu_seconds(pid) - spent, time.monotonic() - began
    watched.set()
    watching.join()
    reports, _ = writing.communicate()
    said, _ = asking.communicate()
    if asking.returncode or writing.returncode:
        raise SystemExit("a client or the worker failed; see above")
    return Found(json.loads(said), cpu, took, resident, os.getloadavg()[0], reports.strip())


def watch(pid: int, resident: list[float], stop: threading.Event) -> None:
    while not stop.wait(1.0):
        resident.append(resident_mib(pid))


def report(found: Found, database: Database) -> list[str]:
    """Markdown, a table and some lines."""
    lines = ["| call | p50 ms | p95 ms | p99 ms |", "|---|---|---|---|"]
    for name, times in {**found.clients["times"], "all": found.all_times}.items():
        cuts = quantiles(times, n=100)
        lines.append(f"| {name} | {1000 * cuts[49]:.1f} | {1000 * cuts[94]:.1f} | {1000 * cuts[98]:.1f} |")
    count, errors = len(found.all_times), found.clients["errors"]
    minute = min(60, max(1, len(found.resident) // 2))
    first, last = median(found.resident[:minute]), median(found.resident[-minute:])
    kinds = [sum(one["kinds"].get(kind, 0) for one in found.clients["streams"]) for kind in ("progress", "end")]
    return [
        *lines, "",
        f"{count} requests in {found.took:.0f} s, errors: {errors or 'none'}; {1000 * found.cpu / count:.2f} ms CPU a "
        f"request with streams and all, {found.cpu / found.took:.2f} cores; load average {found.average:.1f}. "
        f"The worker made {found.reports}. "
        f"{streams(found.clients['streams'], database)}, {kinds[0]} reports of progress, {kinds[1]} ends. Resident: "
        f"{first:.1f} MiB in the first {minute} s, {last:.1f} MiB in the last ({last - first:+.1f}), "
        f"{max(found.resident):.1f} at most.",
    ]  # fmt: skip


def streams(followed: Sequence[dict[str, Any]], database: Database) -> str:
    """How many streams received each event of their experiment after their first, once, in order, and the end."""
    whole, received = 0, 0
    for one in followed:
        with database.reading() as session:
            ours = [w.run.id for w in experiments.runs_of(session, one["experiment"])]
            after = select(Event.id).where(Event.run_id.in_(ours), Event.id > one["since"]).order_by(Event.id)
            wanted = list(session.scalars(after))
        whole += one["numbers"] == wanted and one["kinds"].get("end") == 1
        received += len(one["numbers"])
    return f"{whole} of {len(followed)} event streams received all that was theirs: {received} numbered events"


def machine(database: Database) -> str:
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    with database.reading() as session:
        of_database = session.scalar(text("SELECT sqlite_version()" if database.is_sqlite else "SHOW server_version"))
    of_packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (f"{os.cpu_count()} cores, {cpu}; Python {platform.python_version()}, "
            f"{'SQLite' if database.is_sqlite else 'PostgreSQL'} {of_database}; {of_packages}.")


@contextmanager
def a_database(given: argparse.Namespace, data_dir: Path) -> Iterator[str]:
    """The setting; empty: SQLite."""
    if not given.postgres:
        yield given.database_url
        return
    from tests import postgres_server

    postgres_server.OPTIONS = ("listen_addresses=",)  # else as it comes, with fsync
    with postgres_server.find_or_start(None) as server:
        yield server.create_database()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server of its own")
    parser.add_argument("--database-url", default="", help="of an empty database")
    parser.add_argument("--data-dir", type=Path, help="to keep it; one that was filled before is used again")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeat", type=int, default=1, help="loads one after the other, on the same service")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--markdown", type=Path, help="also add what is printed to this file")
    given = parser.parse_args()
    with ExitStack() as stack:
        data_dir = given.data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data_dir.mkdir(parents=True, exist_ok=True)
        url = stack.enter_context(a_database(given, data_dir))
        database = Database(Settings(data_dir=data_dir, database_url=url).resolved_database_url)
        stack.callback(database.close)
        migrate.upgrade(database)
        fill(database, data_dir)
        if not database.is_sqlite:
            with database.engine.begin() as connection:
                connection.execute(text("ANALYZE"))  # as its own service would, in time
        tell = Teller(given.markdown)
        tell(f"## {'SQLite' if database.is_sqlite else 'PostgreSQL'}", "", machine(database), "")
        address, pid = stack.enter_context(service(data_dir, url))
        tell(*alone(address, pid, database), "")
        tell(f"{given.rate:.0f} requests a second over {given.connections} connections, {given.streams} event streams,"
             f" a worker with {LIVE} runs in hand and {REPORTS_A_SECOND} reports a second:", "")  # fmt: skip
        p95s = []
        for _ in range(given.repeat):
            found = load(address, pid, database, data_dir, given)
            p95s.append(found.p95())
            tell(*report(found, database), "")
        tell(f"p95 of all calls over {len(p95s)} loads: best {min(p95s):.1f} ms, median {median(p95s):.1f} ms.", "")


class Teller:
    """Prints, and writes the same to a file where one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __call__(self, *lines: str) -> None:
        print(*lines, sep="\n", flush=True)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
