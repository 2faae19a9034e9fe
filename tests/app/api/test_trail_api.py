"""Who did what is written down with it, and shown to admins."""

from typing import Any

import httpx
import pytest

from app.storage import api_keys, trail
from app.storage.engine import Database
from tests.app.work import Queue

EXPERIMENT = {"dataset": "digits", "variants": ["default"], "seeds": [0]}


def trail_of(api: httpx.Client, **query: Any) -> list[tuple[str, str, str]]:
    items = api.get("/trail", params=query).json()["items"]
    return [(item["actor"], item["action"], item["subject"]) for item in items]


def test_what_is_done_without_a_key_is_done_by_local(api: httpx.Client) -> None:
    asked = api.post("/experiments", json=EXPERIMENT, headers={"X-Request-ID": "job-7"}).json()
    assert asked["submitted_by"] == "local"
    assert api.get("/experiments").json()["items"][0]["submitted_by"] == "local"
    name = asked["id"]
    api.post(f"/experiments/{name}/cancel")
    api.post(f"/runs/{asked['runs'][0]['id']}/retry")
    api.delete(f"/experiments/{name}")
    api.delete(f"/experiments/{name}?restore=true")
    done = [("submitted", name), ("cancelled", name), ("retried", asked["runs"][0]["id"]), ("archived", name),
            ("restored", name)]  # fmt: skip
    assert trail_of(api) == [("local", *one) for one in reversed(done)]
    first = api.get("/trail").json()["items"][-1]
    assert (first["key_id"], first["request_id"]) == (None, "job-7")
    assert first["at"].endswith("Z")


def test_what_is_done_with_a_key_bears_its_name_and_only_an_admin_sees_it(config, serve, database, problem_of) -> None:
    with database.writing() as session:
        keys = {role: api_keys.create(session, f"{role} key", role)[1] for role in ("reader", "submitter", "admin")}
    api = serve(config.model_copy(update={"keys": "always"}))

    def ask(role: str, method: str, path: str, **options: Any) -> httpx.Response:
        return api.request(method, path, headers={"X-API-Key": keys[role]}, **options)

    made = ask("submitter", "POST", "/experiments", json=EXPERIMENT).json()
    assert made["submitted_by"] == "submitter key"
    problem_of(api.get("/trail"), 401)
    for role in ("reader", "submitter"):
        assert "needs the role admin" in problem_of(ask(role, "GET", "/trail"), 403)["detail"]
    [entry] = ask("admin", "GET", "/trail").json()["items"]
    assert (entry["actor"], entry["action"], entry["subject"]) == ("submitter key", "submitted", made["id"])
    assert entry["key_id"].startswith("key_")


def test_what_is_refused_or_repeated_leaves_no_entry(api: httpx.Client) -> None:
    for _ in range(2):
        api.post("/experiments", json=EXPERIMENT, headers={"Idempotency-Key": "once"})
    api.post("/experiments", json={**EXPERIMENT, "seeds": [1]}, headers={"Idempotency-Key": "once"})
    api.post("/experiments", json={"dataset": "none"})
    api.post("/experiments/exp_0/cancel")
    api.post("/runs/run_0/retry")
    api.delete("/experiments/exp_0")
    assert [action for _, action, _ in trail_of(api)] == ["submitted"]


def test_an_entry_and_what_it_tells_of_are_stored_together_or_not_at_all(
    queue: Queue, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no trail")

    monkeypatch.setattr(trail, "note", broken)
    with pytest.raises(RuntimeError):
        queue.submit(key="once")
    monkeypatch.undo()
    queue.submit(key="once")
    with database.reading() as session:
        assert len(trail.page(session, after=None, limit=10)[0]) == 1


def test_the_trail_comes_in_pages_and_by_actor_and_subject(api: httpx.Client, queue: Queue) -> None:
    names = [queue.submit(seeds=[seed]) for seed in range(5)]
    seen, cursor = [], None
    while True:
        page = api.get("/trail", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["subject"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == names[::-1]
    assert [subject for *_, subject in trail_of(api, subject=names[2])] == [names[2]]
    assert len(trail_of(api, actor="local")) == 5
    assert trail_of(api, actor="ada") == []
