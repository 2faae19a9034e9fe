"""A PostgreSQL server for the tests: one that is named, or one of our own that leaves nothing behind."""

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sqlalchemy import create_engine, make_url, text

START_SECONDS = 30.0
# Durability is not what is tested here, and a machine may have many cores' worth of defaults.
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=200",
           "shared_buffers=32MB", "autovacuum=off")  # fmt: skip


class NoServer(Exception):
    """PostgreSQL is not to be had here; the text says why."""


@dataclass
class DatabaseServer:
    """`with server: url = server.create_database()`; databases made here are dropped at the end."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    folder: Path | None = None
    made: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is None:
            for url in list(self.made):
                self.drop_database(url)
            return
        self.process.send_signal(signal.SIGINT)  # fast: connected clients are cut off
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.folder is not None
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"spikeproof_test_{uuid.uuid4().hex[:12]}"
        self._command(f'CREATE DATABASE "{name}"')
        url = make_url(self.url).set(database=name).render_as_string(hide_password=False)
        self.made.append(url)
        return url

    def drop_database(self, url: str) -> None:
        """Removes it, whoever is still connected."""
        self._command(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')
        self.made.remove(url)

    def _command(self, statement: str) -> None:
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


def find_or_start(url: str | None) -> DatabaseServer:
    """The server at `url`, else a new one. Raises NoServer where there is neither."""
    if url:
        scheme, _, rest = url.partition("://")
        return DatabaseServer(f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else url)
    initdb, postgres = binary("initdb"), binary("postgres")
    folder = Path(tempfile.mkdtemp(prefix="spikeproof-pg-"))
    try:
        return _start(initdb, postgres, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def binary(name: str) -> str:
    """Where the program is, on PATH or where Debian puts it. Raises NoServer."""
    places = [str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise NoServer(f"PostgreSQL's {name} is not installed, and SPIKEPROOF_TEST_DATABASE_URL is not set")
    return found


def _start(initdb: str, postgres: str, folder: Path) -> DatabaseServer:
    user = _unprivileged_user()
    if user is not None:
        shutil.chown(folder, user)
    owner = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user is not None else {}
    data = folder / "data"
    made = subprocess.run(
        [initdb, "--pgdata", data, "--username=spikeproof", "--auth=trust", "--encoding=UTF8", "--locale=C",
         "--no-sync", "--no-instructions"],
        cwd=folder, capture_output=True, text=True, check=False, **owner,
    )  # fmt: skip
    if made.returncode != 0:
        raise NoServer(f"initdb failed: {made.stderr.strip()[-300:]}")
    settings = [part for option in OPTIONS for part in ("-c", option)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [postgres, "-D", data, "-k", folder, *settings], cwd=folder, stdout=log, stderr=log, **owner
        )
    server = DatabaseServer(f"postgresql+psycopg://spikeproof@/postgres?host={folder}", process, folder)
    try:
        _await(server)
    except BaseException:
        server.__exit__()
        raise
    return server


def _await(server: DatabaseServer) -> None:
    assert server.process is not None
    assert server.folder is not None
    deadline = time.monotonic() + START_SECONDS
    while not (server.folder / ".s.PGSQL.5432").exists() or not _answers(server):
        if server.process.poll() is not None or time.monotonic() > deadline:
            log = (server.folder / "log").read_text(errors="replace")
            raise NoServer(f"PostgreSQL did not start: {log.strip()[-300:]}")
        time.sleep(0.05)


def _answers(server: DatabaseServer) -> bool:
    from sqlalchemy.exc import OperationalError

    try:
        server._command("SELECT 1")
    except OperationalError:
        return False
    return True


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: then as whom. None: as ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise NoServer(f"PostgreSQL does not run as {getpass.getuser()}, and there is no user postgres or nobody")
