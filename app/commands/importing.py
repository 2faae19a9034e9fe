"""`spikeproof import`: weights in a file become a checkpoint, without a running service."""

from collections.abc import Mapping
from pathlib import Path

from app.domain.errors import InvalidInput, SpikeproofError
from app.domain.imports import read_declared
from app.inference.imports import FILE, CheckedWeights, examine, register
from app.settings import settings
from app.storage import artifacts, migrate
from app.storage.engine import Database


def import_file(file: Path, said: Mapping[str, str], output: Path | None) -> str:
    """The new checkpoint's id; where `output` is given, only that file is written, and its path returned.

    Raises SpikeproofError for a file that does not fit, naming the option at fault.
    """
    if not file.is_file():
        raise SpikeproofError(f"there is no file {file}")
    try:
        weights = examine(file, read_declared(said), settings().data_dir, pickled=True)
    except InvalidInput as error:
        raise SpikeproofError("; ".join(_told(file, p.pointer, p.detail) for p in error.problems)) from error
    if output is None:
        return _register(weights)
    artifacts.publish(output, weights.write)
    return str(output)


def _told(file: Path, pointer: str, detail: str) -> str:
    if pointer == FILE:
        return f"{file}: {detail}"
    return f"--{pointer.strip('/').replace('_', '-')}: {detail}"


def _register(weights: CheckedWeights) -> str:
    config = settings()
    config.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(config.resolved_database_url)
    try:
        migrate.upgrade(database)
        return register(database, config.data_dir, weights)[0].id
    finally:
        database.close()
