"""`spikeproof upgrade`, and the commands around it as they are typed."""

from pathlib import Path

import pytest
from sqlalchemy import text

from app.commands.backup import restore
from app.commands.upgrade import upgrade
from app.domain.errors import Conflict
from app.launcher import CannotStart, Launcher, lock_folder
from app.settings import Settings
from app.storage import migrate, workers
from app.storage.engine import Database
from tests.app.work import Queue
from tests.end_to_end.test_command_line import spikeproof


def test_an_upgrade_tells_what_it_finds_backs_up_and_migrates(
    queue: Queue, data_dir: Path, config: Settings, tmp_path: Path
) -> None:
    experiment = queue.submit()
    migrate.downgrade(queue.database, "0002")
    said: list[str] = []
    upgrade(queue.database, config, with_backup=True, tell=said.append)
    assert said[0] == f"the database is at schema 0002; this version works with {migrate.newest()}"
    assert said[-1] == f"the database is at schema {migrate.newest()}"
    assert queue.states(experiment) == ["queued", "queued"]
    [saved] = (data_dir / "backups").glob("schema-0002-*.tar")
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    restore(saved, other, data_dir / "beside")
    assert Queue(other, data_dir).states(experiment) == ["queued", "queued"]
    other.close()
    upgrade(queue.database, config, with_backup=True, tell=said.append)
    assert len(list((data_dir / "backups").iterdir())) == 1, "there was nothing to do"


def test_it_is_refused_while_a_service_or_a_worker_lives(queue: Queue, data_dir: Path, config: Settings) -> None:
    queue.do(workers.beat, "elsewhere:1:1", device="cpu")
    migrate.downgrade(queue.database, "0002")
    try:
        with lock_folder(data_dir), pytest.raises(CannotStart, match="another service uses the data folder"):
            upgrade(queue.database, config, with_backup=True, tell=print)
        with pytest.raises(Conflict, match="1 workers gave a sign of life"):
            upgrade(queue.database, config, with_backup=True, tell=print)
        assert migrate.current(queue.database) == "0002"
        queue.do(workers.leave, "elsewhere")
    finally:
        migrate.upgrade(queue.database)


def test_a_service_does_not_start_on_the_schema_of_a_newer_version(queue: Queue, config: Settings) -> None:
    queue.do(lambda session: session.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    try:
        with pytest.raises(migrate.WrongSchema, match="belongs to a newer version"):
            Launcher(config.model_copy(update={"port": 0})).__enter__()
        with pytest.raises(migrate.WrongSchema, match="belongs to a newer version"):
            upgrade(queue.database, config, with_backup=True, tell=print)
    finally:
        text_back = text(f"UPDATE alembic_version SET version_num = '{migrate.newest()}'")
        queue.do(lambda session: session.execute(text_back))


def test_the_commands_from_backup_to_gc_as_they_are_typed(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    refused = spikeproof("gc", data_dir=str(old))
    assert "no service has run on it" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "at schema none" in spikeproof("upgrade", data_dir=str(old)).stdout
    (old / "runs" / "run_gone").mkdir(parents=True)
    (old / "runs" / "run_gone" / "resume.pt").write_bytes(b"x" * 2048)
    assert "knows none of the 1 runs" in spikeproof("gc", "--older-than", "0", data_dir=str(old)).stderr
    would = spikeproof("gc", "--older-than", "0", "--force", "--dry-run", data_dir=str(old))
    assert "1 files, 2.0 KiB would be freed; 0 files missing" in would.stdout, would.stderr
    freed = spikeproof("gc", "--older-than", "0", "--force", data_dir=str(old))
    assert "runs/run_gone/resume.pt: 2.0 KiB, of a run that is gone" in freed.stdout
    assert not (old / "runs" / "run_gone").exists()
    saved = spikeproof("backup", str(tmp_path / "b.tar"), data_dir=str(old))
    assert saved.returncode == 0, saved.stderr
    assert "restored: 0 rows" in spikeproof("restore", str(tmp_path / "b.tar"), data_dir=str(new)).stdout
    nothing = spikeproof("restore", str(tmp_path / "none.tar"), data_dir=str(new))
    assert nothing.stderr.startswith("spikeproof: there is no file")
    assert "disk use" in spikeproof("doctor", data_dir=str(new)).stdout
