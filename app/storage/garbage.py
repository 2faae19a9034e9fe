"""Files that nobody will ask for again, and rows whose file is gone.

    found = survey(database, data_dir)      # raises Conflict where the database seems to be another one's
    freed = remove(found)

Files are listed before the database is asked, and young ones passed over: a file is there before its row. What the
attempt in hand of a running run writes is never touched, whatever its age and its lease: it may only be slow. A frozen
worker that wakes up after its attempt was superseded finds its files gone, as it finds its fence void.
"""

import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from app.domain.errors import Conflict
from app.domain.file_locks import in_use, remove_unused
from app.domain.lifecycle import TERMINAL
from app.storage import artifacts
from app.storage.engine import Database
from app.storage.references import Reference, RunState, references, run_states

GRACE_SECONDS = 3600.0
_BLOCK = re.compile(r"\.?\d+-(\d+)\.npz")  # `0003-2.npz`, and `.0003-2.npz.4711` while it is written
# What a crash can leave outside of `runs`: half an upload, half a decoded data set, half a download.
_HALVES = ((".upload-*/**/*", "an upload that was cut short"),
           ("cache/datasets/.*/**/*", "a data set that was decoded in part"),
           ("downloads/**/.*.part", "a download that was cut short"))  # fmt: skip


@dataclass(frozen=True)
class Garbage:
    """A file that can go, and why."""

    path: Path
    size: int
    reason: str
    shared: bool = False  # only while no job uses it


@dataclass(frozen=True)
class Survey:
    """What was found. `idle` are folders that nobody works in: they may go where they are empty."""

    garbage: Sequence[Garbage]
    missing: Sequence[Reference]
    idle: Sequence[Path]


def survey(
    database: Database, data_dir: Path, *, grace_seconds: float = GRACE_SECONDS, force: bool = False
) -> Survey:
    """Looks, and changes nothing. Raises Conflict where the database knows none of the runs that have files here,
    unless `force`: most likely the settings name another database."""
    before = _clock(data_dir) - grace_seconds
    listed, halves = [*_old_files(data_dir, before)], [*_halves(data_dir, before)]
    folders = [p for p in (data_dir / "runs").glob("run_*") if p.is_dir() and not p.is_symlink()]
    with database.reading() as session:
        states = run_states(session)  # first: what has ended by then has its rows, which are read after it
        wanted = list(references(session))
    if folders and not force and not any(folder.name in states for folder in folders):
        detail = f"the database knows none of the {len(folders)} runs that have files in {data_dir}; look at"
        raise Conflict(f"{detail} SPIKEPROOF_DATABASE_URL and SPIKEPROOF_DATA_DIR; --force frees them all the same")
    missing = [one for one in wanted if not (data_dir / one.path).is_file()]
    dead = _judge(listed, data_dir, {one.path for one in wanted}, states)
    idle = [f for f in folders if f.name not in states or states[f.name].state in TERMINAL]
    garbage = [*dead, *halves, *_unused_features(data_dir, before)]
    return Survey(garbage, missing, [*idle, *_old_folders(data_dir, before)])


def remove(found: Survey) -> list[Garbage]:
    """Removes it; what someone else removed meanwhile does not count."""
    freed = [one for one in found.garbage if (remove_unused if one.shared else _unlink)(one.path)]
    for folder in found.idle:
        _remove_empty(folder)
    return freed


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _remove_empty(folder: Path) -> None:
    """The folder and those in it, as far as they are empty."""
    for place, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(place)
        except OSError:
            continue


def _clock(data_dir: Path) -> float:
    """The time by the clock that the files' times come from: the data folder may lie on another machine."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".clock-", dir=data_dir) as file:
            return os.stat(file.name).st_mtime
    except OSError:  # a full disk is when this is needed most
        return time.time()


def _old_files(data_dir: Path, before: float) -> Iterator[tuple[Path, int]]:
    for folder in (data_dir / "runs").glob("run_*"):
        if not folder.is_symlink():
            yield from _files(folder, before)


def _files(folder: Path, before: float) -> Iterator[tuple[Path, int]]:
    """Files below the folder that were last written before then, with their sizes; links are not followed."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                found = path.lstat()
            except FileNotFoundError:  # renamed meanwhile
                continue
            if found.st_mtime <= before:
                yield path, found.st_size


def _old_folders(data_dir: Path, before: float) -> Iterator[Path]:
    for pattern in (".upload-*", "cache/datasets/.*"):
        yield from (p for p in data_dir.glob(pattern) if p.is_dir() and p.lstat().st_mtime <= before)


def _halves(data_dir: Path, before: float) -> Iterator[Garbage]:
    for pattern, reason in _HALVES:
        for path in data_dir.glob(pattern):
            if not path.is_dir() and (found := path.lstat()).st_mtime <= before:
                yield Garbage(path, found.st_size, reason)


def _unused_features(data_dir: Path, before: float) -> Iterator[Garbage]:
    """Last opened before then, and used by nobody; a job that wants them computes them again."""
    for path in artifacts.features_folder(data_dir).glob("*.npy"):
        found = path.lstat()
        if found.st_mtime <= before and not in_use(path):
            half = path.name.startswith(".")
            reason = "features that were computed in part" if half else "frozen features that no training reads"
            yield Garbage(path, found.st_size, reason, shared=True)


def _judge(
    listed: Iterable[tuple[Path, int]], data_dir: Path, wanted: set[str], states: Mapping[str, RunState]
) -> Iterator[Garbage]:
    for path, size in listed:
        name = PurePosixPath(path.relative_to(data_dir).as_posix())
        _, run_id, *rest = name.parts
        if str(name) not in wanted and (reason := _why(rest, states.get(run_id))):
            yield Garbage(path, size, reason)


def _why(rest: Sequence[str], run: RunState | None) -> str | None:
    """Why a file of a run, to which no row refers, can go; None: it cannot."""
    if run is None:
        return "of a run that is gone"
    attempt = _attempt(rest)
    if rest == ["log.txt"] or (run.state == "running" and attempt == run.attempt):
        return None
    if rest == ["resume.pt"]:  # a failed or cancelled run may be tried again
        return "of a training that has ended" if run.state == "succeeded" else None
    return "without a row" if attempt is None else f"of attempt {attempt}, which did not publish it"


def _attempt(rest: Sequence[str]) -> int | None:
    """The attempt that wrote a file, where its name tells."""
    folder, *inside = rest
    if folder.startswith("attempt-") and folder.removeprefix("attempt-").isdigit():
        return int(folder.removeprefix("attempt-"))
    block = _BLOCK.match(inside[0]) if folder == "blocks" and inside else None
    return int(block[1]) if block else None
