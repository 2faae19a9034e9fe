"""Keys: who is let in, who is not, and what each role may do. On both databases where a key is looked up."""

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from sqlalchemy import select

from app.domain.access import OPEN
from app.settings import Settings
from app.storage import api_keys
from app.storage.engine import Database
from app.storage.tables import ApiKey
from tests.service import make_settings

EXPERIMENT = {"dataset": "digits", "variants": ["default"], "seeds": [0]}


def make_key(database: Database, role: str, name: str | None = None) -> str:
    with database.writing() as session:
        return api_keys.create(session, name or role, role)[1]  # type: ignore[arg-type]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def closed(config: Settings, serve: Callable[[Settings], httpx.Client]) -> httpx.Client:
    """A service as it is when it listens beyond this machine."""
    return serve(config.model_copy(update={"host": "0.0.0.0"}))


@pytest.fixture(scope="module")
def shared(tmp_path_factory, sqlite_template, serve_module) -> tuple[httpx.Client, dict[str, str]]:
    """A closed service that the tests of this file share, and a key of each role."""
    import shutil

    folder = tmp_path_factory.mktemp("closed")
    shutil.copyfile(sqlite_template, folder / "spikeproof.db")
    settings = make_settings(data_dir=folder, host="0.0.0.0")
    database = Database(settings.resolved_database_url)
    keys = {role: make_key(database, role) for role in ("reader", "submitter", "admin")}
    database.close()
    return serve_module(settings), keys


# anonymous


def operations(api: httpx.Client, key: str) -> list[tuple[str, str]]:
    document = api.get("/openapi.json", headers=bearer(key)).json()
    return [(method.upper(), path) for path, item in document["paths"].items() for method in item]


def test_no_path_but_the_open_ones_answers_without_a_key(shared, problem_of) -> None:
    api, keys = shared
    asked = [*operations(api, keys["reader"]), ("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"),
             ("GET", "/nothing"), ("PUT", "/runs"), ("GET", "/runs/"), ("GET", "/%00"),
             ("PROPFIND", "/runs")]  # fmt: skip
    assert len(asked) > 25
    for method, path in asked:
        if path in OPEN:
            assert api.request(method, path).status_code in (200, 503)
            continue
        refused = api.request(method, path)
        problem_of(refused, 401)
        assert refused.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("wrong", ["x", "spk_" + "a" * 43, "é", "a" * 10_000, "' OR 1=1 --"])
@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_wrong_key_is_refused(shared, problem_of, wrong: str, header: str) -> None:
    value = (f"Bearer {wrong}" if header == "Authorization" else wrong).encode("latin-1")
    problem_of(shared[0].get("/runs", headers=[(header.encode(), value)]), 401)


def test_a_wrong_key_is_refused_even_where_none_is_needed(sqlite_api: httpx.Client, problem_of) -> None:
    assert sqlite_api.get("/runs").status_code == 200
    problem_of(sqlite_api.get("/runs", headers=bearer("spk_wrong")), 401)
    problem_of(sqlite_api.get("/runs", headers={"X-API-Key": "wrong"}), 401)


def test_a_body_is_not_looked_at_before_the_key(shared, problem_of) -> None:
    problem_of(shared[0].post("/experiments", content=b"{" * 3_000_000), 401)


@pytest.mark.parametrize(
    "host", ["127.0.0.1/healthz?", "x/healthz#", "127.0.0.1/ui/sign-in?a=", "/healthz?", "x@/metrics?"]
)
def test_no_path_in_the_host_header_opens_another(shared, host: str) -> None:
    answer = shared[0].get("/runs", headers={"Host": host})
    assert answer.status_code in (400, 401)


# forbidden


@pytest.mark.parametrize(
    ("role", "method", "path", "needed"),
    [
        ("reader", "POST", "/experiments", "submitter"), ("reader", "POST", "/experiments/x/cancel", "submitter"),
        ("reader", "POST", "/runs/x/retry", "submitter"), ("reader", "POST", "/runs/x/cancel", "submitter"),
        ("reader", "POST", "/checkpoints", "submitter"), ("reader", "POST", "/checkpoints/x/verify", "submitter"),
        ("reader", "DELETE", "/experiments/x", "admin"), ("submitter", "DELETE", "/experiments/x", "admin"),
        ("submitter", "DELETE", "/nothing", "admin"), ("submitter", "PUT", "/nothing", "admin"),
    ],
)  # fmt: skip
def test_a_role_that_may_not_is_told_which_one_may(shared, problem_of, role, method, path, needed) -> None:
    api, keys = shared
    problem = problem_of(api.request(method, path, headers=bearer(keys[role])), 403)
    assert f"needs the role {needed}" in problem["detail"]
    assert role in problem["detail"]


# valid


def test_each_role_may_do_what_it_is_for(shared) -> None:
    api, keys = shared
    assert api.get("/runs", headers=bearer(keys["reader"])).status_code == 200
    asked = api.post("/checkpoints/x/predict", json={"images": [[[0.0]]]}, headers=bearer(keys["reader"]))
    assert asked.status_code == 404
    submitted = api.post("/experiments", json=EXPERIMENT, headers=bearer(keys["submitter"]))
    assert submitted.status_code == 202
    path = submitted.headers["location"]
    assert api.get(path, headers=bearer(keys["submitter"])).status_code == 200
    assert api.post(f"{path}/cancel", headers=bearer(keys["admin"])).status_code == 200
    assert api.delete(path, headers=bearer(keys["admin"])).status_code == 200


def test_a_key_opens_under_either_header_until_it_is_revoked(closed: httpx.Client, database: Database) -> None:
    key = make_key(database, "reader", "ada")
    for headers in (bearer(key), {"Authorization": f"bearer  {key}"}, {"X-API-Key": key}):
        assert closed.get("/runs", headers=headers).status_code == 200
    with database.writing() as session:
        assert session.scalars(select(ApiKey.last_used_at)).one() is not None
        api_keys.revoke(session, "ada")
    assert closed.get("/runs", headers=bearer(key)).status_code == 401
    other = make_key(database, "reader", "ada")  # a revoked name is free
    assert closed.get("/runs", headers={"X-API-Key": other}).status_code == 200


def test_neither_the_database_nor_the_log_has_the_key(closed, database, data_dir, capfd) -> None:
    key = make_key(database, "reader")
    closed.get("/runs", headers=bearer(key))
    closed.get("/nothing", headers=bearer(key + "x"))
    with database.reading() as session:
        row = session.scalars(select(ApiKey)).one()
    assert not any(key in str(value) for value in vars(row).values())
    assert key[:api_keys.SHOWN] == row.prefix
    assert key not in "".join(capfd.readouterr())
    if database.is_sqlite:
        assert not any(key.encode() in file.read_bytes() for file in data_dir.glob("spikeproof.db*"))


def test_the_document_names_the_keys_and_the_role_of_each_operation(shared, sqlite_api: httpx.Client) -> None:
    api, keys = shared
    document = api.get("/openapi.json", headers=bearer(keys["reader"])).json()
    assert {s["type"] for s in document["components"]["securitySchemes"].values()} == {"http", "apiKey"}
    assert document["paths"]["/runs"]["get"]["security"] == [{"bearer": []}, {"key": []}]
    assert document["paths"]["/experiments"]["post"]["x-role"] == "submitter"
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert {} in sqlite_api.get("/openapi.json").json()["paths"]["/runs"]["get"]["security"], "none is needed there"


def test_a_service_on_loopback_can_be_told_to_ask_for_keys(config, serve, problem_of) -> None:
    problem_of(serve(config.model_copy(update={"keys": "always"})).get("/runs"), 401)


def test_a_container_that_is_published_on_loopback_needs_none(config, serve) -> None:
    assert serve(config.model_copy(update={"host": "0.0.0.0", "published_host": "127.0.0.1"})).get("/runs").is_success


def test_a_service_that_is_published_elsewhere_needs_keys(config, serve, problem_of) -> None:
    problem_of(serve(config.model_copy(update={"published_host": "10.0.0.1"})).get("/runs"), 401)


# pages of other sites


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "[::", "a b"]
)
def test_without_keys_a_name_that_is_not_this_machines_is_refused(sqlite_api, problem_of, host: str) -> None:
    problem = problem_of(sqlite_api.get("/runs", headers={"Host": host}), 421)
    assert "localhost" in problem["detail"]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1", "127.1.2.3:80", "[::1]:8000", "LOCALHOST."]
)
def test_every_name_of_this_machine_is_fine(sqlite_api, host: str) -> None:
    assert sqlite_api.get("/runs", headers={"Host": host}).status_code == 200


def test_a_name_that_was_allowed_is_fine(config, serve) -> None:
    api = serve(config.model_copy(update={"allowed_hosts": "lab.example, other.example"}))
    assert api.get("/runs", headers={"Host": "lab.example:8000"}).status_code == 200
    assert api.get("/runs", headers={"Host": "lab.example.evil"}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1"])
def test_a_page_of_another_site_changes_nothing(sqlite_api, shared, problem_of, origin: str) -> None:
    problem_of(sqlite_api.post("/experiments/x/cancel", headers={"Origin": origin}), 403)
    api, keys = shared
    cookies = {"Cookie": f"spikeproof_key={keys['admin']}", "Origin": origin}
    problem_of(api.post("/experiments/x/cancel", headers=cookies), 403)
    page = api.post("/ui/sign-in", data={"key": keys["admin"]}, headers={"Origin": origin})
    assert (page.status_code, page.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "set-cookie" not in page.headers


def test_a_page_of_ones_own_changes_what_it_likes(sqlite_api: httpx.Client) -> None:
    own = str(sqlite_api.base_url).rstrip("/")
    assert sqlite_api.post("/experiments/x/cancel", headers={"Origin": own}).status_code == 404


# a browser


@pytest.fixture
def browser(shared) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    api, keys = shared
    with httpx.Client(base_url=api.base_url, headers={"Accept": "text/html"}, trust_env=False) as client:
        yield client, keys


def test_a_browser_is_asked_for_a_key_and_then_comes_where_it_wanted(browser) -> None:
    client, keys = browser
    asked = client.get("/leaderboard?dataset=digits")
    assert asked.status_code == 401
    assert 'name="key"' in asked.text
    signed = client.post("/ui/sign-in", data={"key": keys["reader"], "then": "/"})
    assert (signed.status_code, signed.headers["location"]) == (303, "/")
    cookie = signed.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").status_code == 200
    assert client.delete("/experiments/x").status_code == 403, "still a reader"
    client.post("/ui/sign-out")
    assert client.get("/").status_code == 401


def test_a_wrong_key_is_asked_for_again(browser) -> None:
    client, _ = browser
    answer = client.post("/ui/sign-in", data={"key": "spk_wrong"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "not known" in answer.text


def test_a_cookie_that_is_not_known_is_no_key_at_all(sqlite_api: httpx.Client, shared, problem_of) -> None:
    """Cookies do not tell ports apart: it may be of another service on this machine."""
    cookie = {"Cookie": "spikeproof_key=spk_of_another"}
    assert sqlite_api.get("/runs", headers=cookie).status_code == 200
    problem_of(shared[0].get("/runs", headers=cookie), 401)


@pytest.mark.parametrize(
    "then", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/a\r\nSet-Cookie: a=b"]
)
def test_signing_in_leads_to_no_other_site(browser, then: str) -> None:
    client, keys = browser
    assert client.post("/ui/sign-in", data={"key": keys["reader"], "then": then}).headers["location"] == "/"


def test_what_it_is_sent_is_escaped_on_the_page(browser) -> None:
    client, _ = browser
    page = client.get("/ui/sign-in", params={"then": '/"><script>alert(1)</script>'}).text
    assert "<script>" not in page
    assert "<script>" not in client.get('/"><script>alert(1)</script>').text


# names of requests


def test_every_answer_names_its_request_and_takes_a_fit_name_from_the_client(shared) -> None:
    api, _ = shared
    assert api.get("/healthz", headers={"X-Request-ID": "job-7.1"}).headers["x-request-id"] == "job-7.1"
    made = {api.get("/runs", headers={"X-Request-ID": odd}).headers["x-request-id"] for odd in ("a b", "x" * 65, "")}
    assert len(made) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in made)


def test_a_browser_goes_on_to_the_whole_address_it_asked_for_and_is_told_that_its_key_is_gone(shared) -> None:
    api, keys = shared
    with httpx.Client(base_url=api.base_url, headers={"Accept": "text/html"}, trust_env=False) as client:
        asked = client.get("/ui/leaderboard", params={"dataset": "digits", "eps": "8/255"})
        assert asked.status_code == 401
        assert 'value="/ui/leaderboard?dataset=digits&amp;eps=8%2F255"' in asked.text
        assert "revoked" not in asked.text
        client.cookies.set("spikeproof_key", "spk_gone")
        assert "not known here any more, or was revoked" in client.get("/").text
        client.cookies.set("spikeproof_key", keys["reader"])
        assert "signed in as <b>reader, with the role reader</b>" in client.get("/ui/sign-in").text
