"""The migrations on real databases, empty and with data in them."""

import threading

import pytest
from sqlalchemy import inspect, select, text

from app.domain.lifecycle import SHARED
from app.storage import migrate, runs
from app.storage.engine import Database
from app.storage.tables import Experiment, ImageRow, ImageVerdict, Run, Table


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_the_migrations_make_exactly_the_tables_that_the_code_has(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    assert migrate.drift(empty_database) == []
    assert tables(empty_database) == set(Table.metadata.tables)


def test_the_indexes_and_constraints_have_the_names_and_conditions_of_the_code(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    found = inspect(empty_database.engine)
    for table in Table.metadata.sorted_tables:
        assert {i["name"] for i in found.get_indexes(table.name)} >= {str(i.name) for i in table.indexes}
    share = next(i for i in found.get_indexes("runs") if i["name"] == "uq_runs_share_key")
    assert share["unique"]
    [condition] = (value for name, value in share["dialect_options"].items() if name.endswith("_where"))
    assert all(state in str(condition) for state in SHARED)


def test_up_down_to_base_and_up_again_with_data_in_them(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    with empty_database.writing() as session:
        session.add(Experiment(id="exp_1", dataset="digits", spec={"a": 1}, body_digest="0"))
    migrate.downgrade(empty_database, "base")
    assert tables(empty_database) == set()
    migrate.upgrade(empty_database)
    assert migrate.drift(empty_database) == []
    with empty_database.reading() as session:
        assert session.get(Experiment, "exp_1") is None


def test_an_upgrade_of_what_is_up_to_date_keeps_the_data(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    with empty_database.writing() as session:
        session.add(Experiment(id="exp_1", dataset="digits", spec={"a": 1}, body_digest="0"))
    migrate.upgrade(empty_database)
    with empty_database.reading() as session:
        assert session.get_one(Experiment, "exp_1").spec == {"a": 1}


def test_one_revision_down_and_up_again_keeps_runs_and_what_refers_to_them(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    row = {"eps": "8/255", "attack": "pgd", "correct_share": 0.0, "success": True, "norm": 0.03, "queries": 1}
    with empty_database.writing() as session:
        session.add(Run(id="run_1", kind="train", key="k", share_key="k", spec={"a": 1}, state="running", attempt=3))
        session.flush()
        session.add(ImageRow(run_id="run_1", image_id=7, gradients=20, **row))
    migrate.downgrade(empty_database, "0001")
    assert "announced_at" not in {column["name"] for column in inspect(empty_database.engine).get_columns("runs")}
    migrate.upgrade(empty_database)
    assert migrate.drift(empty_database) == []
    with empty_database.reading() as session:
        run = session.get_one(Run, "run_1")
        assert (run.state, run.attempt, run.spec, run.announced_at) == ("running", 3, {"a": 1}, None)
        assert session.scalar(select(ImageRow.gradients)) == 20


def test_verdicts_come_and_go_with_their_migration_and_nothing_else_does(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    verdict = {"norm": 0.03, "linf": 0.03, "l2": 0.2, "ssim": None, "correct_share": 0.5, "majority": True,
               "clean_correct_share": 1.0, "clean_majority": True}  # fmt: skip
    with empty_database.writing() as session:
        session.add(Run(id="run_1", kind="evaluate", key="k", share_key="k", spec={"a": 1}, state="running"))
        session.flush()
        session.add(ImageVerdict(run_id="run_1", eps="8/255", image_id=7, attack=None, **verdict))
    migrate.downgrade(empty_database, "0002")
    assert "image_verdicts" not in tables(empty_database)
    migrate.upgrade(empty_database)
    assert migrate.drift(empty_database) == []
    with empty_database.writing() as session:
        assert session.get_one(Run, "run_1").state == "running"
        assert session.scalars(select(ImageVerdict)).all() == []
        session.add(ImageVerdict(run_id="run_1", eps="8/255", image_id=7, attack="pgd", **verdict))
    with empty_database.writing() as session:
        session.delete(session.get_one(Run, "run_1"))
    with empty_database.reading() as session:
        assert session.scalars(select(ImageVerdict)).all() == [], "a run's verdicts go with it"


def test_what_waits_when_the_service_is_upgraded_still_waits_afterwards(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    rows = [Run(id=name, kind="train", key=name, share_key=name, spec={}) for name in ("run_1", "run_2")]
    rows[1].depends_on = "run_1"
    with empty_database.writing() as session:
        session.add_all(rows)
    migrate.downgrade(empty_database, "0002")
    assert "run_dependencies" not in tables(empty_database)
    migrate.upgrade(empty_database)
    with empty_database.writing() as session:
        assert [run.id for run in runs.needs(session, "run_2")] == ["run_1"]
        claimed = [runs.claim(session, f"worker:{n}", 60) for n in range(2)]
        assert [run and run.id for run in claimed] == ["run_1", None]


def test_several_processes_may_upgrade_at_once(empty_database: Database) -> None:
    others = [Database(empty_database.url) for _ in range(3)]
    faults: list[BaseException] = []

    def up(database: Database) -> None:
        try:
            migrate.upgrade(database)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=up, args=(database,)) for database in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in others:
        database.close()
    assert faults == []
    with empty_database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_the_schema_of_a_newer_version_is_refused_with_what_to_do(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    newest = migrate.current(empty_database)
    assert newest == migrate.newest()
    migrate.require_current(empty_database)
    with empty_database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for step in (migrate.upgrade, migrate.require_current):
        with pytest.raises(migrate.WrongSchema, match=f"at schema 9999.*none later than {newest}.*install that"):
            step(empty_database)
    assert tables(empty_database) == set(Table.metadata.tables)


def test_whoever_only_looks_is_told_of_an_older_schema_and_of_none(empty_database: Database) -> None:
    with pytest.raises(migrate.WrongSchema, match="no service has run on it"):
        migrate.require_current(empty_database)
    migrate.upgrade(empty_database, "0002")
    with pytest.raises(migrate.WrongSchema, match=r"at schema 0002, this version at .*spikeproof upgrade"):
        migrate.require_current(empty_database)
