"""A backup brings everything back, into either database, and nothing else gets in."""

import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.commands.backup import BadBackup, backup, restore
from app.domain.errors import Conflict
from app.launcher import CannotStart, lock_folder
from app.storage import datasets, dump, garbage, migrate, results, runs
from app.storage.engine import Database
from app.storage.tables import Table
from tests.app.work import Queue, verdict
from tests.conftest import new_database

WEIGHTS = b"weights" * 1000


@pytest.fixture
def filled(queue: Queue, data_dir: Path) -> Queue:
    """A service that has worked: results, a failed run that may go on, one in hand, a data set of its own."""
    experiment = queue.submit(variants=["default", "lif"], name="näive ☃")
    for split in ("train", "test"):
        put(data_dir, f"datasets/flowers/{split}/rose/1.png", b"image")
    put(data_dir, "weights/resnet18.pth", b"pretrained")
    while (fence := queue.claim()) is not None:
        run = queue.run(fence.run_id)
        put(data_dir, f"runs/{run.id}/log.txt", b"epoch 1\n")
        if run.kind == "evaluate":
            queue.do(evaluated, queue, run, fence)
        else:
            path = put(data_dir, f"runs/{run.id}/attempt-1/model.safetensors", WEIGHTS)
            queue.checkpoint(fence, path=path, sha256=hashlib.sha256(WEIGHTS).hexdigest(), size=len(WEIGHTS))
            queue.succeed(fence)
    failed = queue.runs(queue.submit(seeds=[7]))[0]
    fence = queue.must_claim()
    queue.do(runs.report, fence, metrics={"epochs": [{"loss": 0.1 + 0.2}]})
    put(data_dir, f"runs/{failed.id}/resume.pt", b"state")
    queue.do(runs.fail, fence, "broken ✗")
    queue.submit(seeds=[8, 9])
    queue.must_claim()
    assert queue.state(experiment) == "succeeded"
    return queue


def evaluated(session: Any, queue: Queue, run: Any, fence: Any) -> None:
    adversarial = put(queue.data_dir, f"runs/{run.id}/attempt-1/adversarial.npz", b"images")
    block = put(queue.data_dir, f"runs/{run.id}/blocks/0000-1.npz", b"block")
    row = {"eps": "8/255", "attack": "pgd", "image_id": 3, "correct_share": 1 / 3, "success": True, "norm": 0.1,
           "queries": 1, "gradients": 20}  # fmt: skip
    results.add_block(session, fence, 0, block, [row])
    results.add_verdicts(session, fence, [{**verdict(3), "ssim": None}])
    results.add_figures(session, fence, queue.figures(run))
    runs.succeed(session, fence, {"adversarial": adversarial, "clean": {"accuracy": 2 / 3}})


def put(data_dir: Path, name: str, content: bytes) -> str:
    path = data_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Database, Path]]:
    """An empty database of either kind and an empty folder."""
    folder = tmp_path / "new"
    folder.mkdir()
    with new_database(request.param, request, folder) as opened:
        yield opened, folder


def content(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables but the workers'."""
    with database.reading() as session:
        return {
            table.name: [tuple(row) for row in session.execute(table.select().order_by(*table.primary_key.columns))]
            for table in Table.metadata.sorted_tables if table.name != "workers"
        }  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for root in ("runs", "datasets", "weights")
            for p in (folder / root).rglob("*") if p.is_file()}  # fmt: skip


def test_every_row_and_file_comes_back_in_either_database(
    filled: Queue, data_dir: Path, tmp_path: Path, new: tuple[Database, Path]
) -> None:
    fingerprint = _own_fingerprint(data_dir)
    assert backup(filled.database, data_dir, tmp_path / "b.tar").problems == []
    assert (tmp_path / "b.tar").stat().st_mode & 0o077 == 0
    restored, folder = new
    restore(tmp_path / "b.tar", restored, folder)
    assert content(restored) == content(filled.database)
    assert all(content(restored)[name] for name in ("image_rows", "image_verdicts", "figures", "evaluation_blocks"))
    assert files(folder) == files(data_dir)
    assert len(files(folder)) > 10
    assert garbage.survey(restored, folder, grace_seconds=0).missing == []
    assert migrate.drift(restored) == []
    assert _own_fingerprint(folder) == fingerprint, "the data set must be known for the same one"
    moved = Queue(restored, folder)
    assert moved.must_claim().run_id, "what waited still waits, and can be worked on"
    assert not list(tmp_path.glob(".b*")), "nothing lies beside"


def _own_fingerprint(data_dir: Path) -> Any:
    return datasets._stamps("flowers", data_dir / "datasets" / "flowers")


def test_a_backup_beside_writers_is_of_one_moment(queue: Queue, data_dir: Path, tmp_path: Path, backend: str) -> None:
    """Each experiment comes with its runs in one transaction: a backup has all of them, or none."""
    stop = threading.Event()

    def write() -> None:
        seed = 0
        while not stop.is_set():
            seed += 1
            queue.submit(seeds=[seed])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            rows = _rows(queue, data_dir, tmp_path / f"{number}.tar")
            assert rows["runs"] == rows["experiment_runs"] == 2 * rows["experiments"]
            assert rows["run_dependencies"] == rows["experiments"]
    finally:
        stop.set()
        writer.join()


def _rows(queue: Queue, data_dir: Path, target: Path) -> dict[str, int]:
    return backup(queue.database, data_dir, target).rows


def test_a_backup_of_an_older_schema_is_restored_and_migrated(
    queue: Queue, data_dir: Path, tmp_path: Path, new: tuple[Database, Path]
) -> None:
    queue.submit()
    migrate.downgrade(queue.database, "0002")
    try:
        backup(queue.database, data_dir, tmp_path / "b.tar")
    finally:
        migrate.upgrade(queue.database)
    restored, folder = new
    migrate.upgrade(restored)  # as by a service that was started too early
    assert restore(tmp_path / "b.tar", restored, folder).revision == "0002"
    assert migrate.drift(restored) == []
    assert content(restored)["runs"] == content(queue.database)["runs"]
    assert len(content(restored)["run_dependencies"]) == 1


def test_only_into_what_is_empty_and_not_under_a_running_service(
    filled: Queue, data_dir: Path, tmp_path: Path, new: tuple[Database, Path]
) -> None:
    backup(filled.database, data_dir, tmp_path / "b.tar")
    before = content(filled.database)
    with pytest.raises(Conflict, match="the database is not empty"):
        restore(tmp_path / "b.tar", filled.database, data_dir)
    restored, folder = new
    with pytest.raises(Conflict, match="runs is not empty"):
        restore(tmp_path / "b.tar", restored, data_dir)
    with lock_folder(folder), pytest.raises(CannotStart, match="another service uses"):
        restore(tmp_path / "b.tar", restored, folder)
    with pytest.raises(Conflict, match="exists already"):
        backup(filled.database, data_dir, tmp_path / "b.tar")
    assert content(filled.database) == before
    assert migrate.current(restored) is None


Change = Callable[[str, bytes], Iterator[tuple[tarfile.TarInfo, bytes]]]


def rewritten(source: Path, target: Path, change: Change) -> Path:
    with tarfile.open(source) as old, tarfile.open(target, "w") as tar:
        for member in old.getmembers():
            file = old.extractfile(member)
            assert file is not None
            for info, data in change(member.name, file.read()):
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return target


def _with_manifest(name: str, data: bytes, extra: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The backup with one more member, which its manifest knows of."""
    if name == "manifest.json":
        manifest = json.loads(data)
        manifest["members"][extra] = {"sha256": hashlib.sha256(b"evil").hexdigest(), "size": 4}
        yield tarfile.TarInfo(extra), b"evil"
        data = json.dumps(manifest).encode()
    yield tarfile.TarInfo(name), data


@pytest.mark.parametrize(
    "evil", ["files/runs/../../evil", "/tmp/evil", "files/../evil", "../evil", "files/evil", "files//runs/evil", "evil",
             "files/spikeproof.db", "files/runs", "tables/../evil", "files/runs/a\\..\\b"],
)  # fmt: skip
def test_nothing_is_written_outside_of_its_place(tmp_path: Path, good: Path, evil: str) -> None:
    bad = rewritten(good, tmp_path / "bad.tar", lambda name, data: _with_manifest(name, data, evil))
    _refused(bad, tmp_path, "which no backup of ours does|does not hold what")


def test_links_and_devices_are_refused(tmp_path: Path, good: Path) -> None:
    def link(name: str, data: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        info = tarfile.TarInfo(name)
        if name.endswith("model.safetensors"):
            info.type, info.linkname, data = tarfile.SYMTYPE, "/etc/passwd", b""
        yield info, data

    _refused(rewritten(good, tmp_path / "bad.tar", link), tmp_path, "which no backup of ours does")


@pytest.mark.parametrize("part", ["model.safetensors", "runs.jsonl.gz", "log.txt"])
def test_a_changed_bit_is_noticed_before_anything_is_written(tmp_path: Path, good: Path, part: str) -> None:
    def flip(name: str, data: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        yield tarfile.TarInfo(name), bytes([data[0] ^ 1]) + data[1:] if name.endswith(part) else data

    _refused(rewritten(good, tmp_path / "bad.tar", flip), tmp_path, "is damaged: the sha256 of")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.9999])
def test_a_backup_that_was_cut_short_is_noticed(tmp_path: Path, good: Path, share: float) -> None:
    with tarfile.open(good) as tar:
        last = tar.getmember("manifest.json")
    bad = tmp_path / "bad.tar"
    bad.write_bytes(good.read_bytes()[: int(share * (last.offset_data + last.size))])
    _refused(bad, tmp_path, "cut short|is no backup|cannot be read|has no manifest")


def test_a_member_too_many_or_too_few_is_noticed(tmp_path: Path, good: Path) -> None:
    def drop(name: str, data: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        if not name.endswith("model.safetensors"):
            yield tarfile.TarInfo(name), data

    def double(name: str, data: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        yield from [(tarfile.TarInfo(name), data)] * (2 if name.endswith("model.safetensors") else 1)

    for number, change in enumerate((drop, double)):
        _refused(rewritten(good, tmp_path / f"{number}.tar", change), tmp_path, "does not hold what")


def test_a_backup_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path, good: Path) -> None:
    def newer(name: str, data: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        if name == "manifest.json":
            data = json.dumps(json.loads(data) | {"revision": "9999", "version": "7.0"}).encode()
        yield tarfile.TarInfo(name), data

    bad = rewritten(good, tmp_path / "bad.tar", newer)
    _refused(bad, tmp_path, "of schema 9999, written by version 7.0.*install that version", migrate.WrongSchema)


def _refused(bad: Path, tmp_path: Path, said: str, how: type[Exception] = BadBackup) -> None:
    folder = tmp_path / "refusing"
    with opened(folder) as database:
        with pytest.raises(how, match=said):
            restore(bad, database, folder)
        assert migrate.current(database) is None
    assert {p.name for p in folder.iterdir()} <= {"service.lock", "spikeproof.db", "spikeproof.db-wal",
                                                  "spikeproof.db-shm"}  # fmt: skip
    assert not (tmp_path / "evil").exists()
    assert not Path("/tmp/evil").exists()


@contextmanager
def opened(folder: Path) -> Iterator[Database]:
    folder.mkdir(exist_ok=True)
    database = Database(f"sqlite:///{folder / 'spikeproof.db'}")
    try:
        yield database
    finally:
        database.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A whole backup."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "spikeproof.db").write_bytes(sqlite_template.read_bytes())
    with opened(folder) as database:
        queue = Queue(database, folder)
        queue.submit()
        fence = queue.must_claim()
        path = put(folder, f"runs/{fence.run_id}/attempt-1/model.safetensors", WEIGHTS)
        put(folder, f"runs/{fence.run_id}/log.txt", b"epoch 1\n")
        queue.checkpoint(fence, path=path, sha256=hashlib.sha256(WEIGHTS).hexdigest())
        queue.succeed(fence)
        backup(database, folder, folder / "good.tar")
    return folder / "good.tar"


def test_what_is_gone_or_damaged_already_is_said_and_the_rest_is_backed_up(
    filled: Queue, data_dir: Path, tmp_path: Path
) -> None:
    gone, damaged = sorted((data_dir / "runs").glob("*/attempt-1/model.safetensors"))[:2]
    gone.unlink()
    damaged.write_bytes(b"rotten")
    problems = backup(filled.database, data_dir, tmp_path / "b.tar").problems
    assert [p.partition(" is ")[2] for p in problems] == [
        "gone", "not the file that was published: its sha256 differs"
    ]


def test_a_restore_that_fails_half_way_leaves_nothing(tmp_path: Path, good: Path, monkeypatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(dump, "read", full)
    folder = tmp_path / "half"
    with opened(folder) as database:
        with pytest.raises(OSError, match="No space left"):
            restore(good, database, folder)
        assert not (folder / "runs").exists()
        with database.reading() as session:
            assert session.scalar(text("SELECT count(*) FROM runs")) == 0
        monkeypatch.undo()
        restore(good, database, folder)
        assert [p.name for p in (folder / "runs").glob("*/attempt-1/*")] == ["model.safetensors"]


def test_a_log_that_grows_is_backed_up_as_it_was(filled: Queue, data_dir: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    log = next((data_dir / "runs").glob("*/log.txt"))

    def grow() -> None:
        while not stop.is_set():
            with log.open("ab") as file:
                file.write(b"x" * 100_000)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        backup(filled.database, data_dir, tmp_path / "b.tar")
    finally:
        stop.set()
        writer.join()
    with opened(tmp_path / "new") as database:
        restore(tmp_path / "b.tar", database, tmp_path / "new")
    assert log.read_bytes().startswith((tmp_path / "new" / log.relative_to(data_dir)).read_bytes())


def test_an_empty_database_is_not_backed_up(empty_database: Database, tmp_path: Path) -> None:
    with pytest.raises(migrate.WrongSchema, match="nothing to back up"):
        backup(empty_database, tmp_path, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()
