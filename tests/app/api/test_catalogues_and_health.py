"""What there is to choose from, whether the service is well, and the description of the API itself."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.domain.attacks import ATTACKS
from app.domain.presets import PRESETS
from app.domain.suites import SUITES
from app.storage import workers
from app.storage.engine import now_epoch
from app.storage.tables import Worker

PATHS = {
    "/experiments": {"get", "post"}, "/experiments/{experiment_id}": {"get", "delete"},
    "/experiments/{experiment_id}/cancel": {"post"}, "/runs": {"get"}, "/runs/{run_id}": {"get"},
    "/runs/{run_id}/retry": {"post"}, "/runs/{run_id}/images": {"get"}, "/runs/{run_id}/adversarial.npz": {"get"},
    "/leaderboard": {"get"}, "/leaderboard/matrix": {"get"},
    "/leaderboard/choices": {"get"}, "/datasets": {"get"}, "/datasets/{name}": {"get"},
    "/architectures": {"get"}, "/architectures/{name}": {"get"}, "/attacks": {"get"}, "/suites": {"get"},
    "/attacks/{name}": {"get"}, "/suites/{name}": {"get"},
    "/experiments/plan": {"post"},
    "/v2": {"get"}, "/v2/health/live": {"get"}, "/v2/health/ready": {"get"}, "/v2/models/{model}": {"get"},
    "/v2/models/{model}/ready": {"get"}, "/v2/models/{model}/infer": {"post"},
    "/presets": {"get"}, "/presets/{name}": {"get"},
    "/checkpoints": {"get", "post"}, "/checkpoints/{checkpoint_id}": {"get"},
    "/checkpoints/{checkpoint_id}/file": {"get"}, "/checkpoints/{checkpoint_id}/predict": {"post"},
    "/checkpoints/{checkpoint_id}/verify": {"post"}, "/runs/{run_id}/cancel": {"post"},
    "/runs/{run_id}/verdicts": {"get"}, "/runs/{run_id}/gallery.png": {"get"}, "/compare": {"get"}, "/curves": {"get"},
    "/experiments/{experiment_id}/report": {"get"}, "/checkpoints/{checkpoint_id}/card": {"get"},
    "/experiments/{experiment_id}/events": {"get"}, "/runs/{run_id}/log": {"get"},
    "/checkpoints/{checkpoint_id}/attack": {"post"}, "/checkpoints/{checkpoint_id}/neurons": {"post"},
    "/checkpoints/{checkpoint_id}/evaluations": {"get"}, "/runs/{run_id}/original.png": {"get"},
    "/runs/{run_id}/adversarial.png": {"get"}, "/runs/{run_id}/perturbation.png": {"get"},
    "/datasets/{name}/images/{index}": {"get"}, "/datasets/{name}/images/{index}/image.png": {"get"},
    "/healthz": {"get"}, "/readyz": {"get"}, "/metrics": {"get"}, "/trail": {"get"},
}  # fmt: skip


def test_data_sets_are_listed_with_what_is_here(sqlite_api: httpx.Client) -> None:
    items = {d["name"]: d for d in sqlite_api.get("/datasets").json()["items"]}
    assert set(items) == {"cifar10", "cifar100", "digits", "fashion-mnist", "kmnist", "mnist", "svhn"}
    assert items["digits"]["present"]
    assert items["digits"]["problem"] is None
    assert not items["cifar10"]["present"]
    assert "downloaded when first used, or now by `spikeproof datasets fetch cifar10`" in items["cifar10"]["problem"]


def test_a_data_set_is_shown_with_classes_shape_sizes_licence_and_radii(sqlite_api: httpx.Client) -> None:
    shown = sqlite_api.get("/datasets/digits").json()
    assert shown["classes"] == list("0123456789")
    assert (shown["image_shape"], shown["train_size"], shown["test_size"]) == ([1, 8, 8], 1438, 359)
    assert shown["licence"] == "CC BY 4.0"
    assert shown["eps"]["linf"] == ["8/255", "32/255", "64/255"]
    assert sqlite_api.get("/datasets/cifar10").json()["classes"][0] == "airplane"


def test_a_folder_that_cannot_be_used_says_why_and_hides_no_other(
    api: httpx.Client, data_dir: Path, problem_of
) -> None:
    for split in ("train", "test"):
        for label in "ab":
            (data_dir / "datasets" / "broken" / split / label).mkdir(parents=True)
            (data_dir / "datasets" / "broken" / split / label / "x.png").write_bytes(b"")
    items = {d["name"]: d for d in api.get("/datasets").json()["items"]}
    assert "train/a/x.png is not an image" in items["broken"]["problem"]
    assert items["digits"]["present"]
    assert api.get("/").status_code == 200
    problem_of(api.get("/datasets/broken"), 409)
    problem = problem_of(api.post("/experiments", json={"dataset": "broken"}), 422)
    assert problem["errors"][0]["pointer"] == "/dataset"


def test_architectures_are_listed_with_the_weights_on_offer(sqlite_api: httpx.Client) -> None:
    items = {a["name"]: a for a in sqlite_api.get("/architectures").json()["items"]}
    assert set(items) == {"resnet18", "resnet20", "resnet50"}
    assert items["resnet50"]["weights"][0]["imagenet_accuracy"] == pytest.approx(0.80858)
    assert [w["name"] for w in items["resnet20"]["weights"]] == ["none"]


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet20", 272_474), ("resnet18", 11_181_642), ("resnet50", 23_528_522)]
)
def test_an_architecture_is_shown_layer_by_layer(sqlite_api: httpx.Client, name: str, parameters: int) -> None:
    shown = sqlite_api.get(f"/architectures/{name}").json()
    assert shown["totals"]["parameters"] == parameters == sum(layer["parameters"] for layer in shown["layers"])
    assert {"kind", "kernel", "stride", "padding", "output_shape", "parameters"} <= set(shown["layers"][0])


def test_layers_are_shown_for_any_variant_stem_and_size(sqlite_api: httpx.Client, problem_of) -> None:
    asked = {"variant": "lif", "stem": "cifar", "image_size": 32, "classes": 100, "channels": 1}
    shown = sqlite_api.get("/architectures/resnet18", params=asked).json()
    assert {name: shown[name] for name in ("variant", "stem", "image_size", "classes")} == {
        "variant": "lif", "stem": "cifar", "image_size": 32, "classes": 100,
    }
    layers = {layer["name"]: layer for layer in shown["layers"]}
    assert layers["encoder.stem.conv1"]["output_shape"] == [64, 32, 32]
    assert layers["encoder.stem.conv1"]["parameters"] == 64 * 9
    assert layers["decoder.lif"]["output_shape"] == [20, 256]
    assert layers["decoder.readout"]["parameters"] == 257 * 100
    for query, pointer in (("stem=imagenet", "/stem"), ("image_size=7", "/image_size"), ("variant=relu", "/variant")):
        problem = problem_of(sqlite_api.get(f"/architectures/resnet20?{query}"), 422)
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer]


def test_attacks_and_suites_are_listed_with_everything_they_do(sqlite_api: httpx.Client) -> None:
    attacks = {a["name"]: a for a in sqlite_api.get("/attacks").json()["items"]}
    assert set(attacks) == set(ATTACKS)
    assert attacks["pgd"]["parameters"]["steps"]["default"] == 20
    assert attacks["square"]["box"] == "black"
    suites = {s["name"]: s for s in sqlite_api.get("/suites").json()["items"]}
    assert set(suites) == set(SUITES)
    assert [s["attack"] for s in suites["quick"]["stages"]] == ["fgsm", "pgd", "square"]
    assert suites["quick"]["stages"][2]["parameters"]["queries"] == 200


@pytest.mark.parametrize(("kind", "name"), [("attacks", "pgd"), ("suites", "quick")])
def test_one_attack_and_one_suite_are_shown_as_they_are_listed(sqlite_api, problem_of, kind: str, name: str) -> None:
    listed = {one["name"]: one for one in sqlite_api.get(f"/{kind}").json()["items"]}
    assert sqlite_api.get(f"/{kind}/{name}").json() == listed[name]
    assert name in problem_of(sqlite_api.get(f"/{kind}/{name}x"), 404)["detail"]


def test_presets_are_listed_and_shown_in_every_form(sqlite_api: httpx.Client, problem_of) -> None:
    listed = {p["name"]: p for p in sqlite_api.get("/presets").json()["items"]}
    assert set(listed) == set(PRESETS)
    assert listed["depth-sweep"]["offline_form"]
    usual, small = (
        sqlite_api.get("/presets/study-cifar10", params=params).json() for params in ({}, {"small": True})
    )
    assert [len(stage) for stage in usual["stages"]] == [4]
    assert "images" not in usual["stages"][0][0]["training"]
    assert small["stages"][0][0]["training"]["images"] == 240, "of the wide networks"
    assert "did you mean 'audit'" in problem_of(sqlite_api.get("/presets/audti"), 404)["detail"]


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_service_takes_what_a_preset_submits(sqlite_api: httpx.Client, name: str, offline: bool) -> None:
    for body in sqlite_api.get(f"/presets/{name}", params={"offline": offline, "small": True}).json()["stages"][0]:
        answer = sqlite_api.post("/experiments", json=body)
        assert answer.status_code == 202, answer.text


def test_the_process_is_alive(sqlite_api: httpx.Client) -> None:
    assert sqlite_api.get("/healthz").json() == {"status": "ok"}


def test_the_service_is_ready_only_while_a_worker_lives(api: httpx.Client, queue, problem_of) -> None:
    problem = problem_of(api.get("/readyz"), 503)
    assert problem["checks"] == {"database": True, "worker": False}
    queue.do(workers.beat, "host:1:1", device="cpu")
    assert api.get("/readyz").json() == {"status": "ok", "checks": {"database": True, "worker": True}}
    queue.do(lambda s: s.execute(update(Worker).values(seen_at=now_epoch() - 3600)))
    assert api.get("/readyz").status_code == 503
    queue.do(workers.beat, "host:1:1", device="cpu")
    assert api.get("/readyz").status_code == 200
    queue.do(workers.leave, "host:1:")
    assert api.get("/readyz").headers["retry-after"] == "5"


def test_the_home_page_names_the_data_sets_and_the_latest_experiments(api: httpx.Client, queue) -> None:
    assert "None yet" in api.get("/").text
    queue.submit(name="first try")
    page = api.get("/").text
    assert "first try" in page
    assert "CIFAR-10" in page
    assert "http://" not in page.replace(str(api.base_url), ""), "a page asks nothing of other servers"


@pytest.mark.parametrize("path", ["/ui", "/ui/"])
def test_the_start_of_all_pages_leads_home(sqlite_api: httpx.Client, path: str) -> None:
    answer = sqlite_api.get(path)
    assert (answer.status_code, answer.headers["location"]) == (308, "/")


def test_no_answer_is_to_be_guessed_at_by_the_browser(sqlite_api: httpx.Client) -> None:
    for path in ("/", "/healthz", "/datasets", "/none", "/leaderboard?dataset=digits"):
        assert sqlite_api.get(path).headers["x-content-type-options"] == "nosniff"


def test_the_description_of_the_api_has_every_resource_and_method(sqlite_api: httpx.Client) -> None:
    paths = sqlite_api.get("/openapi.json").json()["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == PATHS


def test_the_description_of_the_api_is_sound(sqlite_api: httpx.Client) -> None:
    document = sqlite_api.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    names = [o["operationId"] for methods in document["paths"].values() for o in methods.values()]
    assert len(names) == len(set(names))
    for reference in references(document):
        assert reference.startswith("#/"), "nothing to be fetched from elsewhere"
        target: Any = document
        for step in reference[2:].split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], f"{method} {path} says what it does"
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert "application/problem+json" in json.dumps(operation["responses"])


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [r for one in value.values() for r in references(one)]
    return [r for one in value for r in references(one)] if isinstance(value, list) else []
