"""Disturbs a running service from a seed, and keeps account of what its runs went through."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import text

from app.broker import Doorbell
from app.client import Client, ServiceError
from app.storage.engine import Database
from tests.end_to_end.conftest import Service, parent_of, processes
from tests.redis_server import RedisServer
from tests.service import make_settings

FREEZE_SECONDS = 7.0  # beyond the lease of the services that are disturbed
PAUSE = (0.3, 2.0)  # seconds from one disturbance to the next
_SQLITE = (
    "CREATE TABLE transitions (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT, old TEXT, new TEXT, attempt INTEGER)",
    "CREATE TRIGGER note AFTER UPDATE OF state ON runs WHEN OLD.state <> NEW.state BEGIN INSERT INTO transitions "
    "(run_id, old, new, attempt) VALUES (NEW.id, OLD.state, NEW.state, NEW.attempt); END",
)
_POSTGRES = (
    "CREATE TABLE transitions (id SERIAL PRIMARY KEY, run_id TEXT, old TEXT, new TEXT, attempt INTEGER)",
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO transitions "
    "(run_id, old, new, attempt) VALUES (NEW.id, OLD.state, NEW.state, NEW.attempt); RETURN NULL; END $$",
    "CREATE TRIGGER note AFTER UPDATE OF state ON runs FOR EACH ROW WHEN (OLD.state <> NEW.state) "
    "EXECUTE FUNCTION note()",
)


def keep_account(database: Database) -> None:
    """From now on the database itself notes every change of a run's state."""
    with database.writing() as session:
        for statement in _SQLITE if database.is_sqlite else _POSTGRES:
            session.execute(text(statement))


def account(database: Database) -> dict[str, list[tuple[str, str, int]]]:
    """Run -> its changes in their order: (old state, new state, attempt)."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    with database.reading() as session:
        for run_id, *change in session.execute(text("SELECT run_id, old, new, attempt FROM transitions ORDER BY id")):
            found.setdefault(run_id, []).append((change[0], change[1], change[2]))
    return found


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """The processes stand still; SIGCONT at the end, to those that still live."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def service_workers(service: Service) -> list[int]:
    """The main process of each worker of the service."""
    assert service.process is not None
    return [pid for pid in processes(service.worker_module) if _is_child(pid, service.process.pid)]


def jobs(service: Service) -> list[int]:
    """The job processes of the service's workers; behind Celery, a pool process is in between."""
    mains = service_workers(service)
    return [pid for pid in processes("worker.run_job")
            if any(_is_child(pid, main) or _is_child(_parent(pid), main) for main in mains)]


def _is_child(pid: int, parent: int) -> bool:
    return _parent(pid) == parent


def _parent(pid: int) -> int:
    try:
        return parent_of(pid)
    except (OSError, IndexError):
        return 0


@dataclass
class Chaos:
    """`Chaos(service, seed, redis).disturb(40, submit)`; `done` counts what it did."""

    service: Service
    seed: int
    redis: RedisServer | None
    done: dict[str, int] = field(default_factory=dict)
    thaw: dict[int, float] = field(default_factory=dict)

    def disturb(self, seconds: float, bodies: list[dict]) -> list[str]:
        """Submits the bodies meanwhile; returns the ids of the experiments."""
        chance = random.Random(self.seed)
        actions = self._actions()
        names, weights = [*actions], [weight for weight, _ in actions.values()]
        began, ids = time.monotonic(), []
        try:
            while (now := time.monotonic() - began) < seconds or len(ids) < len(bodies):
                if len(ids) < len(bodies) and now >= len(ids) * seconds / 2 / len(bodies):
                    ids.append(submit(self.service, bodies[len(ids)], f"chaos-{len(ids)}"))
                name = chance.choices(names, weights)[0]
                if now < seconds and actions[name][1](chance):
                    self.done[name] = self.done.get(name, 0) + 1
                time.sleep(chance.uniform(*PAUSE))
                self._thaw(time.monotonic())
        finally:
            self._thaw(float("inf"))
        return ids

    def _actions(self) -> dict[str, tuple[int, Callable[[random.Random], bool]]]:
        """Name -> (how often, what); each says whether it found something to disturb."""
        common: dict[str, tuple[int, Callable[[random.Random], bool]]] = {
            "job killed": (8, lambda chance: self._kill(jobs(self.service), chance)),
            "worker killed": (3, lambda chance: self._kill(service_workers(self.service), chance)),
            "worker frozen": (2, self._freeze),
            "api killed": (2, lambda chance: self._kill(self._api(), chance)),
        }
        if self.redis is None:
            return common
        return common | {"redis killed": (2, self._restart_redis), "messages doubled": (2, self._double),
                         "messages lost": (1, self._lose)}

    def _kill(self, pids: list[int], chance: random.Random) -> bool:
        if not pids:
            return False
        with suppress(ProcessLookupError):
            os.kill(chance.choice(sorted(pids)), signal.SIGKILL)
        return True

    def _freeze(self, chance: random.Random) -> bool:
        """A worker and, half of the time, its job; they wake up after their lease."""
        pids = [pid for pid in service_workers(self.service) if pid not in self.thaw]
        if not pids:
            return False
        worker = chance.choice(sorted(pids))
        family = [worker, *(p for p in jobs(self.service) if worker in (_parent(p), _parent(_parent(p))))]
        for pid in family[: chance.choice((1, 2))]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self.thaw[pid] = time.monotonic() + FREEZE_SECONDS
        return True

    def _thaw(self, now: float) -> None:
        for pid in [pid for pid, at in self.thaw.items() if at <= now]:
            del self.thaw[pid]
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _api(self) -> list[int]:
        assert self.service.process is not None
        return [pid for pid in processes("app.api.server") if _is_child(pid, self.service.process.pid)]

    def _restart_redis(self, chance: random.Random) -> bool:
        assert self.redis is not None
        self.redis.stop()
        time.sleep(chance.uniform(0.2, 2.0))
        self.redis.start()
        return True

    def _double(self, _chance: random.Random) -> bool:
        """Rings once more for every run there is, whatever its state."""
        assert self.redis is not None
        with self.service.database() as database, database.reading() as session:
            known = [(run_id, kind) for run_id, kind in session.execute(text("SELECT id, kind FROM runs"))]
        Doorbell(make_settings(broker_url=self.redis.url)).ring(known, "cpu")
        return bool(known)

    def _lose(self, _chance: random.Random) -> bool:
        import redis

        assert self.redis is not None
        with redis.Redis.from_url(self.redis.url) as broker:
            return bool(broker.delete("cpu", "gpu"))


def submit(service: Service, body: dict, key: str) -> str:
    """As a client does that does not give up: with the same key until it is answered."""
    with Client(service.url) as client:
        while True:
            try:
                return str(client.submit(body, idempotency_key=key)["id"])
            except ServiceError as error:
                if error.status not in (0, 503):
                    raise
                time.sleep(0.2)
