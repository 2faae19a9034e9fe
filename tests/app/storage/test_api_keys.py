"""Keys in the database, and the commands that make them."""

import subprocess
import sys
from hashlib import sha256

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.domain.errors import Conflict, NotFound
from app.storage import api_keys, trail
from app.storage.engine import Database
from app.storage.tables import ApiKey


def create(database: Database, name: str = "ada", role: str = "reader") -> str:
    with database.writing() as session:
        return api_keys.create(session, name, role)[1]  # type: ignore[arg-type]


def found(database: Database, key: str) -> str | None:
    with database.reading() as session:
        row = api_keys.find(session, key)
        return row and row.name


def test_a_key_is_found_until_it_is_revoked_and_another_is_not(database: Database) -> None:
    key = create(database)
    assert found(database, key) == "ada"
    assert [found(database, wrong) for wrong in (key[:-1], key + "x", "", "\ud800", "x" * 10_000)] == [None] * 5
    with database.writing() as session:
        api_keys.revoke(session, "ada")
    assert found(database, key) is None
    with database.reading() as session:
        assert not api_keys.any_live(session)


def test_only_the_hash_of_a_long_random_key_is_kept(database: Database) -> None:
    keys = {create(database, f"key {n}") for n in range(20)}
    assert len(keys) == 20
    assert all(len(key) == len("spk_") + 43 for key in keys)  # 256 bits
    with database.reading() as session:
        rows = session.scalars(select(ApiKey)).all()
    assert {row.hash for row in rows} == {sha256(key.encode()).hexdigest() for key in keys}
    assert all(len(row.prefix) <= 10 for row in rows)


def test_a_name_is_taken_while_its_key_lives(database: Database) -> None:
    create(database)
    with pytest.raises(Conflict, match="already"):
        create(database)
    with database.writing() as session:
        api_keys.revoke(session, "ada")
    create(database)
    with database.reading() as session:
        assert [row.revoked_at is None for row in api_keys.listed(session)] == [False, True]


def test_the_database_itself_takes_no_second_live_key_of_a_name(database: Database) -> None:
    create(database)
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(ApiKey(id="key_2", name="ada", role="reader", hash="0" * 64, prefix="spk_"))


def test_a_key_that_is_not_there_cannot_be_revoked(database: Database) -> None:
    create(database)
    with pytest.raises(NotFound, match="ada"), database.writing() as session:
        api_keys.revoke(session, "adda")


def test_the_commands_make_list_and_revoke_keys_without_a_service(data_dir, monkeypatch) -> None:
    monkeypatch.setenv("SPIKEPROOF_DATA_DIR", str(data_dir))
    monkeypatch.setenv("SPIKEPROOF_DATABASE_URL", "")

    def keys(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", "keys", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=data_dir)

    made = keys("create", "ada [bold]", "--role", "submitter")
    key = made.stdout.strip()  # alone, so that a script can take it
    assert key.startswith("spk_"), made.stderr
    database = Database(f"sqlite:///{data_dir / 'spikeproof.db'}")
    assert found(database, key) == "ada [bold]"
    listed = keys("list").stdout
    assert "ada [bold]" in listed
    assert "submitter" in listed
    assert key not in listed
    assert "already" in keys("create", "ada [bold]", "--role", "reader").stderr
    assert keys("create", "b", "--role", "owner").returncode != 0
    assert keys("revoke", "ada [bold]").returncode == 0
    assert found(database, key) is None
    again = keys("revoke", "ada [bold]")
    assert again.returncode == 1
    assert again.stderr.startswith("spikeproof: ")
    with database.reading() as session:
        [row], (entries, _) = api_keys.listed(session), trail.page(session, after=None, limit=10)
    told = [(entry.actor, entry.action, entry.subject) for entry in entries]
    assert told == [("local", "key revoked", row.id), ("local", "key made", row.id)]
    database.close()
