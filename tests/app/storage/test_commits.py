"""Nothing that is committed goes unnoticed, whoever does it."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app.storage import commits
from app.storage.engine import Database
from app.storage.identifiers import new_id
from app.storage.tables import TrailEntry
from tests.app.work import in_threads

OTHER_PROCESS = """
import sys
from app.storage.engine import Database
from app.storage.tables import TrailEntry
database = Database(sys.argv[1])
with database.writing() as session:
    session.add(TrailEntry(id="trl_other", actor="other", action="submitted", subject="none"))
database.close()
"""


def entry() -> TrailEntry:
    return TrailEntry(id=new_id("trl"), actor="me", action="submitted", subject="none")


@pytest.fixture
def other(database: Database) -> Iterator[Database]:
    """As another process has it open."""
    opened = Database(database.url)
    yield opened
    opened.close()


def test_looking_changes_nothing(database: Database, other: Database) -> None:
    before = database.commits.latest()
    for opened in (database, other):
        with opened.reading() as session:
            session.execute(text("SELECT count(*) FROM trail"))
    assert database.commits.latest() == database.commits.latest() == before


def test_each_commit_is_seen_at_once_by_whoever_asks(database: Database, other: Database) -> None:
    seen = [database.commits.latest()]
    for opened in (database, other, other, database):
        with opened.writing() as session:
            session.add(entry())
        seen.append(database.commits.latest())
        assert database.commits.latest() == seen[-1]
    assert len(set(seen)) == len(seen), "none is like an earlier one"


def test_a_commit_of_another_process_is_seen_at_once(database: Database) -> None:
    before = database.commits.latest()
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, database.url], check=True)
    assert database.commits.latest() != before


def test_a_transaction_counts_when_it_commits_not_when_it_writes(database: Database, other: Database) -> None:
    """Also one that began before others that have long committed."""
    with other.writing() as session:
        session.add(entry())
        session.flush()
        if not database.is_sqlite:  # which has one writer at a time
            with database.writing() as second:
                second.add(entry())
        before = database.commits.latest()
        assert database.commits.latest() == before
        with database.reading() as reader:
            visible = reader.scalar(text("SELECT count(*) FROM trail"))
    assert database.commits.latest() != before
    with database.reading() as reader:
        assert reader.scalar(text("SELECT count(*) FROM trail")) == visible + 1


def test_it_asks_again_on_a_new_connection_where_the_old_one_was_cut_and_trusts_no_number_of_the_old(
    database: Database,
) -> None:
    before = database.commits.latest()
    database.commits._connection.close()
    after = database.commits.latest()
    assert after != before
    assert database.commits.latest() == after
    database.commits.close()
    assert database.commits.latest() not in (before, after)


def test_who_came_before_the_last_question_is_told_its_answer_and_who_came_after_it_asks(
    database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = database.commits._ask
    monkeypatch.setattr(database.commits, "_ask", lambda: asked.append(1) or real())
    before = time.monotonic_ns()
    first = database.commits.latest()
    with other.writing() as session:
        session.add(entry())
    assert [database.commits.latest(before), len(asked)] == [first, 1], "the question was put after that moment"
    second = database.commits.latest(time.monotonic_ns())
    assert second != first
    assert [database.commits.latest(before), len(asked)] == [second, 2]


def test_of_many_at_once_two_ask(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, waiting, told = [], threading.Barrier(9), []
    real = database.commits._ask

    def ask() -> object:
        asked.append(1)
        time.sleep(0.3)  # the others come meanwhile
        return real()

    def wait() -> None:
        waiting.wait()
        told.append(database.commits.latest())

    monkeypatch.setattr(database.commits, "_ask", ask)
    in_threads(wait, [()] * 9)
    assert len(asked) <= 2
    assert len(told) == 9
    assert len(set(told)) == 1


def test_who_waits_too_long_for_others_knows_nothing_and_is_told_no_lie(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "WAIT_SECONDS", 0.0)
    before = database.commits.latest()
    with database.commits._lock:
        assert database.commits.latest() not in (before, database.commits.latest())
    assert database.commits.latest() == before
