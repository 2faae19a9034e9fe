"""One parent with children: the API, the workers, or both, as in the embedded service.

It restarts a child that dies, runs the migrations first, and leaves no orphan: each child ends when it finds
its parent gone. With the API it holds a lock on the data folder.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from sqlalchemy.exc import SQLAlchemyError

from app.domain.access import keys_needed
from app.domain.errors import SpikeproofError
from app.logs import get_logger
from app.processes import is_alive, visible_gpus
from app.settings import Settings, this_host
from app.storage import api_keys, migrate, runs, workers
from app.storage.engine import Database

API = "api"
STOP_MARGIN_SECONDS = 4.0  # beyond the grace that a worker gives its job
MALLOC = {  # how glibc keeps the API's memory from growing; what the environment says goes first
    "MALLOC_ARENA_MAX": "2",  # heaps for 40 threads, which have one lock anyway: each keeps its own leftovers
    "MALLOC_MMAP_THRESHOLD_": "131072",  # larger answers are given back when they end; left alone, glibc raises this
}
_LOOK_SECONDS = 0.2
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0  # a child that lived this long is restarted at once
logger = get_logger(__name__)


class CannotStart(SpikeproofError):
    """The service cannot start here; the text says what to do."""


@dataclass
class Child:
    """A process that is to live as long as the service."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    crashes: int = 0
    restart_at: float = 0.0


@dataclass
class Launcher:
    """`with Launcher(settings) as launcher: launcher.run()`; `url` says where the API answers.

    Raises CannotStart when the port or the data folder is taken.
    """

    settings: Settings
    output: IO[bytes] | None = None  # where the children print; None: as this process
    api: bool = True
    workers: bool = True
    children: list[Child] = field(default_factory=list)
    stopping: bool = False

    def __enter__(self) -> "Launcher":
        """Opens what must be there once, then starts the children."""
        if self.settings.broker_url and self.settings.resolved_database_url.startswith("sqlite"):
            raise CannotStart("a broker needs PostgreSQL: set SPIKEPROOF_DATABASE_URL, or unset SPIKEPROOF_BROKER_URL")
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:  # what is open by then is closed where a later step fails
            if self.api:
                opened.enter_context(lock_folder(self.settings.data_dir))
                self._socket = opened.enter_context(_listen(self.settings.host, self.settings.port))
            self._database = opened.enter_context(closing(Database(self.settings.resolved_database_url)))
            migrate.upgrade(self._database)
            self._take_back_from_the_dead()
            self.children = [*([self._api()] if self.api else []), *(self._workers() if self.workers else [])]
            for child in self.children:
                self._start(child)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the children: workers let their jobs store what they have."""
        self.stopping = True
        self._stop_children()
        self._opened.close()

    @property
    def url(self) -> str:
        """Where the API answers."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{host if ':' not in host else f'[{host}]'}:{port}"

    def advice(self) -> str:
        """What there is to say of keys when the service has started."""
        if not keys_needed(self.settings.keys, self.settings.reached_at):
            return ""
        with self._database.reading() as session:
            if api_keys.any_live(session):
                return ""
        return "\nrequests need a key, and there is none yet: spikeproof keys create NAME --role admin"

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Keeps the children alive until stopped by a signal or `until()`."""
        while not self.stopping and not until():
            self.look_after()
            time.sleep(_LOOK_SECONDS)

    def stop(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Signal handler: `run` returns."""
        self.stopping = True

    def look_after(self) -> None:
        """Restarts children that have died, after a pause that doubles while they keep dying."""
        for child in self.children:
            if self.stopping:
                return
            if child.process is None:
                if time.monotonic() >= child.restart_at:
                    self._start(child)
            elif child.process.poll() is not None:
                self._bury(child)

    def _bury(self, child: Child) -> None:
        assert child.process is not None
        lived = time.monotonic() - child.started
        child.crashes = 0 if lived > _STEADY_SECONDS else child.crashes + 1
        pause = 0.0 if child.crashes == 0 else min(0.5 * 2 ** (child.crashes - 1), _LONGEST_PAUSE)
        logger.warning("child died", child=child.name, code=child.process.returncode, restart_in=pause)
        if child.name.startswith("worker"):
            self._take_back_from_the_dead()
        child.process, child.restart_at = None, time.monotonic() + pause

    def _take_back_from_the_dead(self) -> None:
        """What dead workers of this machine held goes back to the queue now, not when the lease ends."""
        try:
            with self._database.writing() as session:
                for owner in runs.owners(session):
                    host, pid, _ = owner.split(":", 2)
                    if host == this_host() and not is_alive(int(pid)):
                        runs.take_back_from(session, owner)
                        workers.leave(session, owner)
        except SQLAlchemyError as error:  # the sweeper takes them back later
            logger.warning("database cannot be reached", error=str(error))

    def _api(self) -> Child:
        descriptor = self._socket.fileno()
        environment = {name: os.environ.get(name, value) for name, value in MALLOC.items()}
        return Child(API, [sys.executable, "-m", "app.api.server", str(descriptor), str(os.getpid())], environment)

    def _workers(self) -> list[Child]:
        gpus = visible_gpus()
        count = self.settings.workers or max(len(gpus), 1)
        threads = self.settings.threads_per_job or max(1, (os.cpu_count() or 1) // count)
        common = {"SPIKEPROOF_THREADS_PER_JOB": str(threads)}
        module = "worker.tasks" if self.settings.broker_url else "worker.poll"
        command = [sys.executable, "-m", module, str(os.getpid())]
        return [
            Child(f"worker {i}", command, common | ({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}))
            for i in range(count)
        ]

    def _start(self, child: Child) -> None:
        child.process = subprocess.Popen(
            child.command, env={**os.environ, **_environment(self.settings), **child.environment},
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
            pass_fds=[self._socket.fileno()] if child.name == API else [],
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the others in order
        )
        child.started = time.monotonic()

    def _stop_children(self) -> None:
        alive = [c.process for c in reversed(self.children) if c.process is not None and c.process.poll() is None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + self.settings.grace_seconds + STOP_MARGIN_SECONDS
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def install_signals(launcher: Launcher) -> None:
    """SIGINT and SIGTERM stop the service."""
    signal.signal(signal.SIGINT, launcher.stop)
    signal.signal(signal.SIGTERM, launcher.stop)


def _environment(settings: Settings) -> dict[str, str]:
    """The children see the settings that this process has, wherever it has them from."""
    return {
        f"SPIKEPROOF_{name.upper()}": str(value)
        for name, value in settings.model_dump().items()
        if name not in ("workers", "threads_per_job")
    } | {"SPIKEPROOF_DATA_DIR": str(settings.data_dir.resolve())}


def lock_folder(folder: Path) -> IO[str]:
    """Held while the file is open: one service a folder. Raises CannotStart."""
    lock = (folder / "service.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        detail = f"another service uses the data folder {folder}: stop it, or set SPIKEPROOF_DATA_DIR to another"
        raise CannotStart(detail) from error
    return lock


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        detail = f"cannot listen on {host}:{port} ({error.strerror}); choose another with SPIKEPROOF_PORT or --port"
        raise CannotStart(detail) from error
    listening.listen(128)
    listening.set_inheritable(True)
    return listening
