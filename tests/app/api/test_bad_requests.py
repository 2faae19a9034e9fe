"""Whatever is sent, the answer is a problem document that says where the fault is and what is allowed."""

import json
from typing import Any

import httpx
import pytest

from app.storage.listed_runs import KnownRuns

JSON = {"content-type": "application/json"}


def post(api: httpx.Client, body: Any) -> httpx.Response:
    return api.post("/experiments", content=body if isinstance(body, bytes) else json.dumps(body), headers=JSON)


def digits(**body: Any) -> dict[str, Any]:
    return {"dataset": "digits", **body}


BAD_BODIES: list[tuple[str, Any, str, str]] = [
    ("unknown data set", {"dataset": "cifar"}, "/dataset", "did you mean 'cifar10'"),
    ("path as a data set", {"dataset": "../../etc"}, "/dataset", "there is no data set"),
    ("no data set", {}, "/dataset", "GET /datasets"),
    ("null data set", {"dataset": None}, "/dataset", "string"),
    ("negative epochs", digits(training={"epochs": -1}), "/training/epochs", "greater than or equal to 1"),
    ("zero epochs", digits(training={"epochs": 0}), "/training/epochs", "greater than or equal to 1"),
    ("epochs as text", digits(training={"epochs": "5"}), "/training/epochs", "integer"),
    ("epochs as a fraction", digits(training={"epochs": 1.5}), "/training/epochs", "integer"),
    ("epochs true", digits(training={"epochs": True}), "/training/epochs", "integer"),
    ("eps 8/0", digits(evaluation={"eps": ["8/0"]}), "/evaluation/eps/0", "'8/255'"),
    ("eps negative", digits(evaluation={"eps": [0.1, -0.1]}), "/evaluation/eps/1", "greater than 0"),
    ("eps of another type", digits(evaluation={"eps": [None]}), "/evaluation/eps/0", "a number or a string"),
    ("eps too large", digits(evaluation={"eps": [300]}), "/evaluation/eps/0", "at most 1"),
    ("no eps at all", digits(evaluation={"eps": []}), "/evaluation/eps", "at least 1"),
    ("ten thousand seeds", digits(seeds=list(range(10_000))), "/seeds", "at most 100"),
    ("seed too large", digits(seeds=[2**31]), "/seeds/0", "less than 2147483648"),
    ("seed twice", digits(seeds=[1, 1]), "/seeds", "twice"),
    ("no seeds", digits(seeds=[]), "/seeds", "at least 1"),
    ("extra field", digits(epoch=5), "/epoch", "unknown field"),
    ("extra field that is misspelt", digits(training={"epoch": 5}), "/training/epoch", "did you mean 'epochs'"),
    ("extra field in a list", digits(training={"overrides": [{"epoch": 5}]}),
     "/training/overrides/0/epoch", "'epochs'"),
    ("extra field named as a type", digits(float=1), "/float", "unknown field; known:"),
    ("extra field with a bracket", digits(**{"a[b]": 1}), "/a[b]", "unknown field"),
    ("extra field with a slash and a tilde", digits(**{"a/b~c": 1}), "/a~1b~0c", "unknown field"),
    ("extra field of half a character", b'{"dataset": "digits", "\\ud800": 1}', "", "half a character"),
    ("name of half a character", b'{"dataset": "digits", "name": "\\ud800"}', "/name", "string"),
    ("name with a NUL", digits(name="a\x00b"), "/name", "NUL"),
    ("name too long", digits(name="x" * 201), "/name", "at most 200"),
    ("architecture", digits(architectures=["resnet34"]), "/architectures/0", "'resnet20', 'resnet18' or 'resnet50'"),
    ("variants as text", digits(variants="lif"), "/variants", "list"),
    ("training as a list", digits(training=[]), "/training", "dictionary"),
    ("NaN", b'{"dataset": "digits", "training": {"learning_rate": NaN}}', "/training/learning_rate", "finite"),
    ("Infinity", b'{"dataset": "digits", "decoder": {"tau_mem": Infinity}}', "/decoder/tau_mem", "finite"),
    ("NaN as a radius", b'{"dataset": "digits", "evaluation": {"eps": [NaN]}}', "/evaluation/eps/0", "finite"),
    ("1e999", b'{"dataset": "digits", "training": {"learning_rate": 1e999}}', "/training/learning_rate", "finite"),
    ("gain as another text", digits(decoder={"gain": "fixed"}), "/decoder/gain", "'learned' or a number"),
    ("gain negative", digits(decoder={"gain": -1}), "/decoder/gain", "'learned' or greater than 0"),
    ("attack parameter as a list", digits(evaluation={"attacks": [{"name": "pgd", "parameters": {"steps": [1]}}]}),
     "/evaluation/attacks/0/parameters/steps", "an integer, a number, a string or a boolean"),
    ("attack parameter that is unknown", digits(evaluation={"attacks": [{"name": "pgd", "parameters": {"stps": 1}}]}),
     "/evaluation/attacks/0/parameters", "did you mean 'steps'"),
    ("attack as a string", digits(evaluation={"attacks": ["pgd"]}), "/evaluation/attacks/0", '{"name": "pgd"'),
    ("attack without a name", digits(evaluation={"attacks": [{}]}), "/evaluation/attacks/0/name", "required"),
    ("suite and attacks", digits(evaluation={"suite": "quick", "attacks": [{"name": "pgd"}]}),
     "/evaluation/suite", "not both"),
    ("images as a fraction", digits(evaluation={"images": 10.5}), "/evaluation/images", "integer"),
    ("other weights", digits(training={"weights": "imagnet"}), "/training/weights", "'imagenet', 'none', or the id"),
    ("weights as a number", digits(training={"weights": 5}), "/training/weights", "string"),
    ("unknown weights", digits(training={"weights": "ckpt_0"}), "/training/weights", "no checkpoint 'ckpt_0'; use"),
    ("weights with a NUL", digits(training={"weights": "ckpt_\x00"}), "/training/weights", "NUL"),
    ("unknown checkpoint", digits(checkpoints=["ckpt_0"]), "/checkpoints/0", "there is no checkpoint 'ckpt_0'"),
    ("fresh as a number", digits(fresh=1), "/fresh", "boolean"),
    ("not JSON", b"{dataset: digits}", "", "not JSON"),
    ("half of JSON", b'{"dataset": "digits"', "", "not JSON"),
    ("not UTF-8", b'{"dataset": "\xff"}', "", "not JSON"),
    ("a number too long to read", b'{"seeds": [' + b"9" * 5000 + b"]}", "", "not JSON"),
    ("nested too deeply", b'{"dataset":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", "not JSON"),
    ("nested deeply in a field", digits(name=json.loads("[" * 500 + "]" * 500)), "/name", "string"),
    ("null", b"null", "", "JSON"),
    ("a list", b"[]", "", "JSON object"),
    ("a number", b"5", "", "JSON object"),
    ("nothing", b"", "", "JSON body is required"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "pointer", "told"), [c[1:] for c in BAD_BODIES], ids=[c[0].replace(" ", "-") for c in BAD_BODIES]
)
def test_a_bad_body_is_refused_with_one_pointer_and_what_is_allowed(
    sqlite_api: httpx.Client, problem_of, body: Any, pointer: str, told: str
) -> None:
    problem = problem_of(post(sqlite_api, body), 422)
    assert problem["title"] == "Invalid input"
    assert [e["pointer"] for e in problem["errors"]] == [pointer]
    assert told in problem["errors"][0]["detail"]


def test_nothing_is_stored_of_what_was_refused(sqlite_api: httpx.Client) -> None:
    for _, body, _, _ in BAD_BODIES:
        post(sqlite_api, body)
    assert sqlite_api.get("/experiments").json()["items"] == []
    assert sqlite_api.get("/runs").json()["items"] == []


def test_every_fault_of_a_body_is_told_at_once(sqlite_api: httpx.Client, problem_of) -> None:
    body = {"dataset": "digits", "seeds": ["a"], "training": {"epochs": 0, "rate": 1}, "decoder": {"gain": None}}
    problem = problem_of(post(sqlite_api, body), 422)
    assert {e["pointer"] for e in problem["errors"]} == {
        "/seeds/0", "/training/epochs", "/training/rate", "/decoder/gain"
    }  # fmt: skip


def test_a_body_of_ten_thousand_faults_gets_a_short_answer(sqlite_api: httpx.Client, problem_of) -> None:
    response = post(sqlite_api, digits(**{f"field{n}": n for n in range(10_000)}))
    problem = problem_of(response, 422)
    assert len(problem["errors"]) <= 51
    assert len(response.content) < 50_000


def test_an_endless_name_is_not_sent_back_whole(sqlite_api: httpx.Client, problem_of) -> None:
    response = post(sqlite_api, digits(**{"x" * 500_000: 1}))
    problem_of(response, 422)
    assert len(response.content) < 20_000


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", ""],
)
def test_a_body_that_is_not_json_by_its_own_word_is_an_unsupported_type(
    sqlite_api: httpx.Client, problem_of, kind: str
) -> None:
    headers = {"content-type": kind} if kind else {}
    response = sqlite_api.post("/experiments", content=b'{"dataset": "digits"}', headers=headers)
    assert "application/json" in problem_of(response, 415)["detail"]


@pytest.mark.parametrize("streamed", [False, True], ids=["with-a-length", "in-chunks"])
def test_a_body_that_is_too_large_is_refused(sqlite_api: httpx.Client, problem_of, streamed: bool) -> None:
    large = b'{"dataset": "' + b"x" * 2**21 + b'"}'
    content: Any = iter([large[:1000], large[1000:]]) if streamed else large
    problem = problem_of(sqlite_api.post("/experiments", content=content, headers=JSON), 413)
    assert (problem["type"], problem["title"]) == ("urn:spikeproof:problem:too-large", "Too large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404), ("GET", "/experiments/exp_0", 404), ("GET", "/runs/run_0", 404),
        ("GET", "/checkpoints/ckpt_0", 404), ("GET", "/checkpoints/ckpt_0/file", 404),
        ("GET", "/runs/run_0/images", 404), ("GET", "/runs/run_0/adversarial.npz", 404),
        ("POST", "/runs/run_0/retry", 404), ("POST", "/experiments/exp_0/cancel", 404),
        ("DELETE", "/experiments/exp_0", 404), ("GET", "/datasets/..%2f..%2fetc", 404), ("GET", "/datasets/none", 404),
        ("GET", "/leaderboard?dataset=none", 404), ("GET", "/leaderboard/matrix?dataset=none", 404),
        ("GET", "/architectures/vgg", 404), ("GET", "/experiments/%00", 404), ("GET", "/runs?experiment=a%00", 404),
        ("GET", "/leaderboard?dataset=%00", 404), ("PUT", "/experiments", 405), ("DELETE", "/runs", 405),
        ("POST", "/leaderboard", 405), ("GET", "/leaderboard", 422),
        ("GET", "/leaderboard?dataset=digits&eps=8/0", 422),
        ("GET", "/leaderboard?dataset=digits&norm=l7", 422), ("GET", "/leaderboard?dataset=digits&sort=x", 422),
        ("GET", f"/leaderboard?dataset=digits&images={10**30}", 422),
        ("GET", "/leaderboard?dataset=digits&images=0", 422), ("GET", "/leaderboard?dataset=digits&format=xml", 422),
        ("GET", "/leaderboard/matrix?dataset=digits&metric=x", 422), ("GET", "/experiments?limit=0", 422),
        ("GET", "/experiments?limit=501", 422), ("GET", "/experiments?limit=x", 422),
        ("GET", "/experiments?state=done", 422), ("GET", "/runs?kind=x", 422), ("GET", "/runs?state=x", 422),
        ("GET", f"/runs?cursor={'x' * 101}", 422),
    ],
)  # fmt: skip
def test_a_path_or_query_that_leads_nowhere_is_a_problem_of_the_right_status(
    sqlite_api: httpx.Client, problem_of, method: str, path: str, status: int
) -> None:
    problem = problem_of(sqlite_api.request(method, path), status)
    if status == 422:
        assert all("in the query" in e["detail"] for e in problem["errors"])


@pytest.mark.parametrize(
    ("path", "nearest"),
    [("/datasets/digit", "'digits'"), ("/architectures/resnet-20", "'resnet20'"),
     ("/leaderboard?dataset=cifar_10", "'cifar10'"), ("/leaderbord", "/leaderboard"), ("/preset", "/presets")],
)  # fmt: skip
def test_a_misspelt_name_is_told_the_nearest(sqlite_api: httpx.Client, problem_of, path: str, nearest: str) -> None:
    assert f"did you mean {nearest}" in problem_of(sqlite_api.get(path), 404)["detail"]


@pytest.mark.parametrize(
    ("path", "pointer", "said"),
    [("/leaderboard", "/dataset", "GET /datasets lists them"), ("/curves", "/dataset", "GET /datasets"),
     ("/compare?a=x", "/b", "GET /leaderboard?dataset"), ("/runs?cursor=!", "/cursor", "leave it out")],
)  # fmt: skip
def test_what_is_missing_or_wrong_in_a_query_is_told_where_it_is_found(
    sqlite_api: httpx.Client, problem_of, path: str, pointer: str, said: str
) -> None:
    [error] = problem_of(sqlite_api.get(path), 422)["errors"]
    assert (error["pointer"], said in error["detail"]) == (pointer, True)


def test_a_wrong_method_says_which_are_right(sqlite_api: httpx.Client) -> None:
    assert set(sqlite_api.put("/experiments/x").headers["allow"].split(", ")) <= {"GET", "HEAD", "DELETE"}


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_bad_idempotency_key_is_refused(sqlite_api: httpx.Client, problem_of, key: str) -> None:
    response = sqlite_api.post("/experiments", json=digits(), headers={"Idempotency-Key": key})
    assert "in the header" in problem_of(response, 422)["errors"][0]["detail"]


def test_a_bug_shows_no_stack_trace(config, serve, problem_of, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret of /srv/data")

    monkeypatch.setattr(KnownRuns, "page", broken)
    response = serve(config).get("/runs")
    assert problem_of(response, 500)["type"] == "urn:spikeproof:problem:internal-error"
    assert "secret" not in response.text


def test_a_database_that_does_not_answer_is_said_to_be_down_for_now(
    config, serve, problem_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def busy(*_: object, **__: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("database is locked"))

    monkeypatch.setattr(KnownRuns, "page", busy)
    response = serve(config).get("/runs")
    problem_of(response, 503)
    assert int(response.headers["retry-after"]) > 0
    assert "SELECT" not in response.text


@pytest.mark.parametrize(("path", "pointer", "told"), [
    ("/leaderboard?dataset=digits&architcture=resnet18", "/architcture", "did you mean 'architecture'"),
    ("/leaderboard?datset=digits&dataset=digits", "/datset", "did you mean 'dataset'"),
    ("/curves?dataset=digits&a~b/c=1", "/a~0b~1c", "known: "),
    ("/runs?kind=evaluate&sate=failed", "/sate", "did you mean 'state'"),
    ("/suites?a=1", "/a", "takes none"),
])
def test_a_query_parameter_that_is_not_there_is_refused(
    api: httpx.Client, path: str, pointer: str, told: str
) -> None:
    answer = api.get(path)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert error["detail"].startswith("in the query: no such parameter")
    assert told in error["detail"]


def test_pages_and_answers_that_are_kept_go_on_taking_what_they_take(api: httpx.Client) -> None:
    assert api.get("/ui/leaderboard?dataset=digits&utm_source=mail").status_code == 200
    for _ in range(2):
        assert api.get("/leaderboard?dataset=digits").status_code == 200
        assert api.get("/leaderboard?dataset=digits&architcture=resnet18").status_code == 422
