"""`spikeproof backup` and `restore`: one tar with every table and every file that a row speaks of.

    tables/NAME.jsonl.gz     as `app.storage.dump` writes them, in one consistent view
    files/runs/RUN/...       checkpoints, blocks, images, logs, states to go on from
    files/datasets/..., files/weights/...
    manifest.json            last, with the sha256 of all: a backup that was cut short has none

It restores into either database. A file that is published never changes, so files are read after the tables.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any

from app.domain.errors import Conflict, SpikeproofError
from app.launcher import lock_folder
from app.storage import dump, migrate
from app.storage.engine import Database
from app.storage.references import references, run_states

FORMAT = 1
MANIFEST = "manifest.json"
OWN = ("datasets", "weights")  # what people lay into the data folder
ROOTS = ("runs", *OWN)
CHUNK = 2**20
_OWNER_ONLY = 0o600  # it may hold keys
Tell = Callable[[str], None]


class BadBackup(SpikeproofError):
    """The file is no backup, or is damaged; nothing was changed."""


@dataclass
class Contents:
    """What a backup holds, as its manifest says it. Times are nanoseconds: a data set is known by its folders'."""

    revision: str
    files_included: bool
    format: int = FORMAT
    version: str = field(default_factory=lambda: version("spikeproof"))
    created_at: float = field(default_factory=time.time)
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all members together."""
        return sum(int(member["size"]) for member in self.members.values())


def backup(
    database: Database, data_dir: Path, target: Path, *, files: bool = True, own_data: bool = True,
    tell: Tell = lambda _: None,
) -> Contents:
    """Writes `target` beside and renames it, while the service runs; `own_data`: with data sets and weights that
    people laid into the data folder.

    Raises Conflict where the file exists or its folder does not, WrongSchema for an empty database.
    """
    if target.exists():
        raise Conflict(f"{target} exists already; name another file")
    if not target.parent.is_dir():
        raise Conflict(f"{target.parent} is no folder; make it, or name another place")
    revision = migrate.current(database)
    if revision is None:
        raise migrate.WrongSchema("the database is empty: there is nothing to back up")
    contents = Contents(revision, files)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as folder, _new(beside) as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                names = _write_tables(database, tar, contents, Path(folder), tell)
                for name in [*names, *(_own(data_dir) if own_data else [])] if files else []:
                    _add_file(tar, contents, data_dir, name)
                _add(tar, None, MANIFEST, json.dumps(vars(contents)).encode())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return contents


def _new(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY), "wb")


def _write_tables(
    database: Database, tar: tarfile.TarFile, contents: Contents, folder: Path, tell: Tell
) -> list[tuple[str, str | None]]:
    """All tables in one view; returns the files that it speaks of, with their sha256 where a row has it."""
    with dump.snapshot(database) as session:
        connection = session.connection()
        for table in dump.tables(connection):
            contents.rows[table.name] = dump.write(connection, table, folder / table.name)
            tell(f"{table.name}: {contents.rows[table.name]} rows")
        wanted = [(one.path, one.sha256) for one in references(session)]
        for run_id, run in run_states(session).items():
            kept = ("log.txt",) if run.state == "succeeded" else ("log.txt", "resume.pt")
            wanted += [(f"runs/{run_id}/{name}", None) for name in kept]
    for name in contents.rows:
        _add(tar, contents, f"tables/{name}.jsonl.gz", folder / name)
    return wanted


def _own(data_dir: Path) -> Iterator[tuple[str, None]]:
    """Files below `datasets` and `weights`, and the folders, for their times."""
    for root in OWN:
        for place, _, names in sorted(os.walk(data_dir / root)):
            yield Path(place).relative_to(data_dir).as_posix(), None
            yield from ((Path(place, name).relative_to(data_dir).as_posix(), None) for name in sorted(names))


def _add_file(tar: tarfile.TarFile, contents: Contents, data_dir: Path, named: tuple[str, str | None]) -> None:
    """One file of the data folder; of one that is gone or damaged only a problem is noted."""
    name, sha256 = named
    path = data_dir / name
    if path.is_dir():
        contents.times[name] = path.stat().st_mtime_ns
    elif not path.is_file():
        if PurePosixPath(name).name not in ("log.txt", "resume.pt"):  # these a run may not have, or no more
            contents.problems.append(f"{name} is gone")
    else:
        found = _add(tar, contents, f"files/{name}", path)
        if name.startswith(tuple(f"{root}/" for root in OWN)):
            contents.times[name] = path.stat().st_mtime_ns
        if sha256 not in (None, found):
            contents.problems.append(f"{name} is not the file that was published: its sha256 differs")


def _add(tar: tarfile.TarFile, contents: Contents | None, name: str, source: Path | bytes) -> str:
    """Adds a member as long as the file is now: a log may grow. Returns its sha256."""
    opened = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with closing(opened):
        hashing = _Hashing(opened)
        info = tarfile.TarInfo(name)
        info.size = len(source) if isinstance(source, bytes) else os.fstat(opened.fileno()).st_size
        info.mtime, info.mode = int(time.time()), 0o644
        tar.addfile(info, hashing)
    sha256 = hashing.digest.hexdigest()
    if contents is not None:
        contents.members[name] = {"sha256": sha256, "size": info.size}
    return sha256


class _Hashing:
    """A file whose sha256 is known once it was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def restore(source: Path, database: Database, data_dir: Path, tell: Tell = lambda _: None) -> Contents:
    """Into an empty database and data folder. All is checked before anything is written.

    Raises BadBackup, WrongSchema (of a newer version), Conflict (something is there), CannotStart (a service runs).
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with closing(lock_folder(data_dir)), _opened(source) as tar:
        contents, members = _checked(tar, tell)
        if not migrate.knows(contents.revision):
            newest = migrate.newest()
            raise migrate.WrongSchema(
                f"the backup is of schema {contents.revision}, written by version {contents.version}; this version "
                f"knows none later than {newest}: install that version or a newer one"
            )
        _refuse_what_is_there(database, data_dir, contents)
        try:
            _extract(tar, contents, members, data_dir)
            _fill(tar, contents, members, database, data_dir, tell)
        except BaseException:
            for root in ROOTS if contents.files_included else ():
                shutil.rmtree(data_dir / root, ignore_errors=True)
            raise
    return contents


def _opened(source: Path) -> tarfile.TarFile:
    if not source.is_file():
        raise BadBackup(f"there is no file {source}")
    try:
        return tarfile.open(source, "r:")
    except tarfile.TarError as error:
        raise BadBackup(f"{source} is no backup: {error}") from error


def _checked(tar: tarfile.TarFile, tell: Tell) -> tuple[Contents, Mapping[str, tarfile.TarInfo]]:
    """The manifest, and the members, each with the sha256 that it says. Raises BadBackup."""
    try:
        listed = tar.getmembers()
    except tarfile.TarError as error:
        raise BadBackup(f"the backup cannot be read: {error}") from error
    members = {member.name: member for member in listed}
    if MANIFEST not in members:
        raise BadBackup("the backup has no manifest: it is of something else, or was cut short")
    contents = _manifest(tar, members.pop(MANIFEST))
    if len(listed) != len(members) + 1 or members.keys() != contents.members.keys():
        raise BadBackup("the backup does not hold what its manifest says")
    for name, member in members.items():
        if not member.isreg() or not _allowed(name):
            raise BadBackup(f"the backup holds {name!r}, which no backup of ours does")
        if _sha256(tar, member) != contents.members[name]["sha256"]:
            raise BadBackup(f"the backup is damaged: the sha256 of {name} differs")
    if not all(_allowed(f"files/{name}", folder=True) for name in contents.times):
        raise BadBackup("the backup's manifest names a place outside of the data folder")
    tell(f"{len(members)} files checked")
    return contents, members


def _manifest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Contents:
    try:
        with closing(_content(tar, member)) as file:
            contents = Contents(**json.load(file))
    except (ValueError, TypeError) as error:
        raise BadBackup("the backup's manifest cannot be read") from error
    if contents.format != FORMAT:
        raise BadBackup(f"the backup has format {contents.format}; this version reads format {FORMAT}")
    return contents


def _allowed(name: str, *, folder: bool = False) -> bool:
    """Whether a member of this name stays where it belongs."""
    path = PurePosixPath(name)
    if path.as_posix() != name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        return False
    root, *rest = path.parts
    if root == "tables":
        return len(rest) == 1 and not folder
    return root == "files" and len(rest) > (0 if folder else 1) and rest[0] in ROOTS


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    opened = tar.extractfile(member) if member.isreg() else None
    if opened is None:
        raise BadBackup(f"the backup holds {member.name!r}, which is no plain file")
    return opened


def _sha256(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    try:
        with closing(_content(tar, member)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except (tarfile.TarError, OSError) as error:
        raise BadBackup(f"the backup was cut short in {member.name}") from error


def _refuse_what_is_there(database: Database, data_dir: Path, contents: Contents) -> None:
    with database.engine.connect() as connection:
        if dump.any_rows(connection):
            raise Conflict("the database is not empty; restore into a new one, see SPIKEPROOF_DATABASE_URL")
    for root in ROOTS if contents.files_included else ():
        if (data_dir / root).exists() and any((data_dir / root).iterdir()):
            raise Conflict(f"{data_dir / root} is not empty; restore into a new folder, see SPIKEPROOF_DATA_DIR")


def _extract(
    tar: tarfile.TarFile, contents: Contents, members: Mapping[str, tarfile.TarInfo], data_dir: Path
) -> None:
    """Files, then the times of people's own files and of their folders, the deepest first."""
    for name, member in members.items():
        if name.startswith("files/"):
            _copy(tar, member, data_dir / name.removeprefix("files/"))
    for name in sorted(contents.times, reverse=True):
        if f"files/{name}" not in members:
            (data_dir / name).mkdir(parents=True, exist_ok=True)
    for name in sorted(contents.times, reverse=True):
        os.utime(data_dir / name, ns=(contents.times[name], contents.times[name]))
    os.sync()


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(_content(tar, member)) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, CHUNK)


def _fill(
    tar: tarfile.TarFile, contents: Contents, members: Mapping[str, tarfile.TarInfo], database: Database,
    data_dir: Path, tell: Tell,
) -> None:
    """The tables at the backup's own revision, all in one transaction; then they are migrated."""
    if migrate.current(database) not in (None, contents.revision):
        migrate.downgrade(database, "base")  # it is empty
    migrate.upgrade(database, contents.revision)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=data_dir) as folder, database.engine.begin() as connection:
        known = {table.name: table for table in dump.tables(connection)}
        if known.keys() != contents.rows.keys():
            raise BadBackup("the backup's tables are not those of its schema")
        for name, table in known.items():
            path = Path(folder) / name
            _copy(tar, members[f"tables/{name}.jsonl.gz"], path)
            tell(f"{name}: {dump.read(connection, table, path)} rows")
    migrate.upgrade(database)
