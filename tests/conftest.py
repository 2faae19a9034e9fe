"""What all tests share: a data folder, a migrated database of each kind, the real application over HTTP.

PostgreSQL comes from SPIKEPROOF_TEST_DATABASE_URL (a fresh database is made there), Redis from
SPIKEPROOF_TEST_BROKER_URL, else from servers of our own, started from the binaries of the machine.
SPIKEPROOF_TEST_NO_SKIP=1 turns a skip into a failure.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from app.settings import Settings
from app.storage import migrate
from app.storage.engine import Database
from app.storage.tables import Table
from tests.postgres_server import DatabaseServer, NoServer, find_or_start
from tests.redis_server import NoServer as NoRedis
from tests.redis_server import RedisServer, with_database
from tests.service import make_settings, serving

REPOSITORY = Path(__file__).resolve().parent.parent
BACK_ENDS = ("embedded", "lab", "sqlite", "postgresql")
MADE_ONCE = ("browser", "docs")  # a laboratory, a site
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes are started: none is to compile it all again


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `--dist loadfile` and `loadgroup`; the latter's marks do nothing with pytest 9.2 and pytest-xdist 3.8."""
    from xdist.scheduler import LoadScopeScheduling

    by_file = config.option.dist == "loadfile"

    class ByWhatIsShared(LoadScopeScheduling):
        """A process has all tests that share what is dear to make: of a room, or of a file on one back end."""

        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            for room in MADE_ONCE:
                if file.startswith(f"tests/{room}/"):
                    return room
            names = test.partition("[")[2].rstrip("]").split("-")
            return file + "".join(name for name in BACK_ENDS if name in names) if by_file else nodeid

    return ByWhatIsShared(config, log) if config.option.dist in ("loadfile", "loadgroup") else None


def skip_or_fail(reason: str) -> NoReturn:
    """A skip says clearly what is missing; where nothing may be skipped, it is a failure."""
    if os.environ.get("SPIKEPROOF_TEST_NO_SKIP") == "1":
        pytest.fail(f"SPIKEPROOF_TEST_NO_SKIP=1, but {reason}")
    pytest.skip(reason)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size ("1m") that can be filled up."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        skip_or_fail("there is no `mount`, so no disk can be filled up")
    if mounted.returncode != 0:
        skip_or_fail(f"no small disk can be mounted here, which only root may do: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the published data sets."""
    folder = Path(os.environ.get("SPIKEPROOF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        skip_or_fail(f"there is no real data at {folder}; set SPIKEPROOF_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[DatabaseServer]:
    try:
        server = find_or_start(os.environ.get("SPIKEPROOF_TEST_DATABASE_URL"))
    except NoServer as error:
        skip_or_fail(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: DatabaseServer) -> str:
    """A migrated database of this test process."""
    url = postgres_server.create_database()
    database = Database(url)
    migrate.upgrade(database)
    database.close()
    return url


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    """A Redis for the services of this test process."""
    if given := os.environ.get("SPIKEPROOF_TEST_BROKER_URL"):
        yield with_database(given)
        return
    try:
        server = RedisServer.own()
    except NoRedis as error:
        skip_or_fail(str(error))
    with server:
        yield server.url


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis of one's own, to stop and to start."""
    try:
        server = RedisServer.own()
    except NoRedis as error:
        skip_or_fail(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file, copied for each test."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(backend: str, request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Database]:
    """A migrated, empty database: once on SQLite, once on PostgreSQL."""
    if backend == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), data_dir / "spikeproof.db")
        opened = Database(f"sqlite:///{data_dir / 'spikeproof.db'}")
    else:
        opened = Database(request.getfixturevalue("postgres_url"))
        with opened.engine.begin() as connection:
            for table in reversed(Table.metadata.sorted_tables):  # for so few rows quicker than TRUNCATE
                connection.execute(table.delete())
    yield opened
    opened.close()


@pytest.fixture
def empty_database(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table, of each kind."""
    with new_database(backend, request, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def module_database(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A migrated database that the tests of one file share: for those that only look."""
    with new_database(backend, request, tmp_path_factory.mktemp("module")) as opened:
        migrate.upgrade(opened)
        yield opened


@contextmanager
def new_database(backend: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Database]:
    """A database of one's own, without any table."""
    if backend == "sqlite":
        url, drop = f"sqlite:///{folder / 'empty.db'}", None
    else:
        server: DatabaseServer = request.getfixturevalue("postgres_server")
        url, drop = server.create_database(), server.drop_database
    opened = Database(url)
    try:
        yield opened
    finally:
        opened.close()
        if drop is not None:
            drop(url)


@pytest.fixture
def config(database: Database, data_dir: Path) -> Settings:
    """Settings of a service on `database`, whatever the environment says."""
    return make_settings(data_dir=data_dir, database_url=database.url)


@pytest.fixture
def serve() -> Iterator[Callable[[Settings], httpx.Client]]:
    """`serve(settings)`: the real application behind a real server; it is stopped at the end."""
    with ExitStack() as services:
        yield lambda settings: services.enter_context(serving(settings))


@pytest.fixture
def api(config: Settings, serve: Callable[[Settings], httpx.Client]) -> httpx.Client:
    """A client of the real application on `database`, once on SQLite, once on PostgreSQL."""
    return serve(config)


@pytest.fixture(scope="module")
def sqlite_api(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[httpx.Client]:
    """One service a test file, on SQLite: for questions that store nothing."""
    folder = tmp_path_factory.mktemp("service")
    shutil.copyfile(sqlite_template, folder / "spikeproof.db")
    with serving(make_settings(data_dir=folder)) as client:
        yield client


@pytest.fixture(scope="module")
def serve_module() -> Iterator[Callable[[Settings], httpx.Client]]:
    """As `serve`, for the tests of one file together."""
    with ExitStack() as services:
        yield lambda settings: services.enter_context(serving(settings))
