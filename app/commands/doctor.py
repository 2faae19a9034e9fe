"""`spikeproof doctor`: what the service needs, and whether it is here."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sqlalchemy import make_url, select
from sqlalchemy.exc import SQLAlchemyError

from app.commands.maintenance import size_text
from app.processes import visible_gpus
from app.settings import settings
from app.storage import artifacts, datasets
from app.storage.engine import Database

Check = tuple[str, bool, str]
_NEED_BYTES = 2 * 2**30


def checks() -> Iterator[Check]:
    """(what, whether it is well, detail), in the order of what depends on what."""
    yield "python", sys.version_info >= (3, 11), sys.version.split()[0]
    yield from _packages()
    yield "processors", True, f"{os.cpu_count()} cores, {len(visible_gpus())} NVIDIA GPUs"
    yield _data_folder()
    yield "disk use", True, _disk_use()
    yield _database()
    if settings().broker_url:
        yield _broker()
    present = [n for n in datasets.names(settings().data_dir) if _present(n)]
    yield "data sets", bool(present), f"{', '.join(present)} here"


def _packages() -> Iterator[Check]:
    for name in ("torch", "torchvision", "fastapi", "sqlalchemy", "celery"):
        try:
            yield name, True, version(name)
        except PackageNotFoundError:
            yield name, False, "not installed; run `make install`"


def _data_folder() -> Check:
    folder = settings().data_dir
    there = next(f for f in (folder, *folder.absolute().parents) if f.exists())  # the others are made when needed
    if not there.is_dir() or not os.access(there, os.W_OK):
        return "data folder", False, f"{folder}: {there} is no folder to write to; set SPIKEPROOF_DATA_DIR"
    free = shutil.disk_usage(there).free
    later = "" if there == folder else "is made when it is needed, "
    return "data folder", free > _NEED_BYTES, f"{folder}, {later}{free / 2**30:.1f} GiB free"


def _disk_use() -> str:
    """Of the runs, and of everything."""
    folder = settings().data_dir
    runs, total = artifacts.folder_bytes(folder / "runs"), artifacts.folder_bytes(folder)
    features = artifacts.folder_bytes(artifacts.features_folder(folder))
    return (f"{size_text(total)} in the data folder, {size_text(runs)} of it by runs, {size_text(features)} features "
            "of frozen layers; `spikeproof gc` frees what is dead")


def _database() -> Check:
    url = make_url(settings().resolved_database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return "database", True, "SQLite, is made when it is needed"
    try:
        database = Database(settings().resolved_database_url)
        with database.reading() as session:
            session.execute(select(1))
        database.close()
    except (SQLAlchemyError, ImportError) as error:
        return "database", False, f"{type(error).__name__}: check SPIKEPROOF_DATABASE_URL"
    return "database", True, "SQLite" if database.is_sqlite else "PostgreSQL"


def _broker() -> Check:
    from app.broker import Doorbell

    reachable = Doorbell(settings()).reachable()
    return "broker", reachable, "Redis" if reachable else "cannot be reached: check SPIKEPROOF_BROKER_URL"


def _present(name: str) -> bool:
    from app.domain.errors import Conflict

    try:
        return datasets.find(name, settings().data_dir).present
    except Conflict:
        return False
