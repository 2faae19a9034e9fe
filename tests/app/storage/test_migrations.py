from app.storage import migrate
from app.storage.engine import Database
from app.storage.tables import Table
from sqlalchemy import inspect

def test_quick(empty_database: Database) -> None:
    migrate.upgrade(empty_database)
    assert migrate.drift(empty_database) == []

def test_api(api) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    r = api.post("/experiments", json={"dataset": "digits"})
    print(r.text[:300])
    assert r.status_code == 202
