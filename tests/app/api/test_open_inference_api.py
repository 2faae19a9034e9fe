"""`/v2`: by a standard client, tritonclient from PyPI, and by hand where that client would not err."""

import json
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.storage.engine import Database
from tests.app.work import Queue
from tests.service import make_settings

IMAGES = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)


@pytest.fixture(scope="session")
def backend() -> str:
    """Predictions do not depend on the database: one is enough here."""
    return "sqlite"


@pytest.fixture(scope="module")
def queue(module_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Queue:
    return Queue(module_database, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def data_dir(queue: Queue) -> Path:
    return queue.data_dir


@pytest.fixture(scope="module")
def api(queue: Queue, serve_module) -> httpx.Client:
    return serve_module(make_settings(data_dir=queue.data_dir, database_url=queue.database.url))


@pytest.fixture(scope="module")
def trained(queue: Queue) -> Callable[..., str]:
    return lru_cache(queue.trained)


@pytest.fixture
def triton(api: httpx.Client) -> Iterator[Any]:
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    client = http.InferenceServerClient(f"{api.base_url.host}:{api.base_url.port}")
    yield client
    client.close()


def refused(response: httpx.Response, status: int, word: str) -> None:
    """Both contracts at once: the protocol's `error`, and the problem document of all other routes."""
    assert response.status_code == status, response.text
    body = response.json()
    assert word in body["error"]
    assert (body["detail"], body["status"]) == (body["error"], status)


def infer(api: httpx.Client, model: str, **changed: Any) -> httpx.Response:
    tensor = {"name": "images", "datatype": "FP32", "shape": [3, 1, 8, 8], "data": IMAGES.tolist()}
    body = {"inputs": [{**tensor, **changed.pop("tensor", {})}], **changed}
    return api.post(f"/v2/models/{model}/infer", json={k: v for k, v in body.items() if v is not None})


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("variant", ["default", "lif"])
def test_a_standard_client_is_answered_as_predict_answers(triton, api, trained, variant: str, binary: bool) -> None:
    import tritonclient.http as http

    model = trained(variant)
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(model)
    assert triton.is_model_ready(model, "1")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    told = triton.get_model_metadata(model)
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    names = [output["name"] for output in told["outputs"]]
    tensor = http.InferInput("images", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES, binary_data=binary)
    wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in names]
    found = triton.infer(model, [tensor], outputs=wanted, request_id="7", parameters={"draws": 20, "seed": 5})
    assert found.get_response()["id"] == "7"
    predicted = api.post(
        f"/checkpoints/{model}/predict", json={"images": IMAGES.tolist(), "seed": 5, "top": 10}
    ).json()["predictions"]
    for i, one in enumerate(predicted):
        for top in one["top"]:
            assert found.as_numpy("probabilities")[i, top["index"]] == pytest.approx(top["probability"], abs=1e-6)
            if variant == "lif":
                assert found.as_numpy("spread")[i, top["index"]] == pytest.approx(top["sd"], abs=1e-6)
    assert ("spread" in names) == (variant == "lif")
    assert found.as_numpy("logits").shape == (3, 10)


def test_a_standard_client_that_names_no_outputs_gets_all(triton, trained) -> None:
    import tritonclient.http as http

    tensor = http.InferInput("images", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES)
    found = triton.infer(trained("lif"), [tensor], model_version="1")
    assert all(found.as_numpy(name).shape == (3, 10) for name in ("probabilities", "logits", "spread"))


def test_a_standard_client_hears_why_it_was_refused(triton, trained) -> None:
    import tritonclient.http as http

    tensor = http.InferInput("images", [1, 1, 8, 7], "FP32")
    tensor.set_data_from_numpy(IMAGES[:1, :, :, :7])
    with pytest.raises(http.InferenceServerException, match=r"\[1 to 256, 1, 8, 8\]"):
        triton.infer(trained(), [tensor])
    assert not triton.is_model_ready("ckpt_none")


def test_flat_and_nested_json_and_bytes_are_the_same(api, trained) -> None:
    model = trained()
    nested = infer(api, model).json()
    assert infer(api, model, tensor={"data": IMAGES.reshape(-1).tolist()}).json() == nested
    size = {"binary_data_size": IMAGES.nbytes}
    head = {
        "inputs": [{"name": "images", "datatype": "FP32", "shape": [3, 1, 8, 8], "parameters": size}],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "probabilities"}],
    }
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = api.post(f"/v2/models/{model}/infer", content=text + IMAGES.tobytes(), headers=headers)
    end = int(answer.headers["Inference-Header-Content-Length"])
    logits, probabilities = json.loads(answer.content[:end])["outputs"]
    assert logits == {"name": "logits", "datatype": "FP32", "shape": [3, 10], "parameters": {"binary_data_size": 120}}
    by_name = {output["name"]: output for output in nested["outputs"]}
    assert probabilities == by_name["probabilities"]
    assert list(struct.unpack("<30f", answer.content[end:])) == by_name["logits"]["data"]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"tensor": {"name": "x"}}, "the one input is 'images' of FP32"), ({"tensor": {"datatype": "FP64"}}, "FP32"),
        ({"tensor": {"shape": [3, 8, 8]}}, "/inputs/0/shape"), ({"tensor": {"shape": []}}, "/inputs/0/shape"),
        ({"tensor": {"shape": [0, 1, 8, 8]}}, "/inputs/0/shape"), ({"tensor": {"shape": [257, 1, 8, 8]}}, "256"),
        ({"tensor": {"shape": [2, 1, 8, 8]}}, "must hold 128 numbers"), ({"tensor": {"data": None}}, "is required"),
        ({"tensor": {"data": "x"}}, "numbers"), ({"tensor": {"data": [[1], [1, 2]]}}, "equal length"),
        ({"tensor": {"data": (IMAGES + 1).tolist()}}, "0..1"), ({"tensor": {"data": (IMAGES > 0).tolist()}}, "numbers"),
        ({"tensor": {"parameters": {"binary_data_size": 768}}}, "one of both"), ({"inputs": []}, "/inputs"),
        ({"parameters": {"draw": 1}}, "did you mean 'draws'"), ({"parameters": {"draws": 0}}, "/parameters/draws"),
        ({"parameters": {"seed": -1}}, "/parameters/seed"),
        ({"outputs": [{"name": "spread"}]}, "probabilities or logits"),
        ({"outputs": [{"name": "logits"}] * 2}, "twice"), ({"unknown": 1}, "/unknown"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_the_protocol_s_own_form(api, trained, changed: Any, word: str) -> None:
    refused(infer(api, trained(), **changed), 422, word)


def test_spread_needs_two_draws(api, trained) -> None:
    asked = {"parameters": {"draws": 1}, "outputs": [{"name": "spread"}]}
    refused(infer(api, trained("lif"), **asked), 422, "with one draw")
    outputs = infer(api, trained("lif"), parameters={"draws": 1}).json()["outputs"]
    assert [output["name"] for output in outputs] == ["probabilities", "logits"]


def infer_binary(
    api: httpx.Client, model: str, content: bytes, *, longer: int = 0, length: str | None = None
) -> httpx.Response:
    """A request that is right if `content` is, with a header that counts so many bytes too many, or says `length`."""
    tensor = {"name": "images", "datatype": "FP32", "shape": [3, 1, 8, 8]}
    text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(content)}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text) + longer) if length is None else length}
    return api.post(f"/v2/models/{model}/infer", content=text + content, headers=headers)


def test_a_wrong_length_of_the_json_is_refused(api, trained) -> None:
    content = IMAGES.tobytes()
    assert infer_binary(api, trained(), content).status_code == 200
    for longer in (-1, -200, 1, 200):
        refused(infer_binary(api, trained(), content, longer=longer), 422, "")
    for length in ("-1", "x", "1" * 19, "1.0"):
        refused(infer_binary(api, trained(), content, length=length), 422, "number of bytes of the JSON")
    assert infer(api, trained()).status_code == 200
    tensor = {"name": "images", "datatype": "FP32", "shape": [3, 1, 8, 8], "data": IMAGES.tolist()}
    text = json.dumps({"inputs": [tensor]}).encode()
    for more, status in ((0, 200), (1, 422)):
        headers = {"Inference-Header-Content-Length": str(len(text) + more)}
        answer = api.post(f"/v2/models/{trained()}/infer", content=text, headers=headers)
        assert answer.status_code == status, answer.text


def test_bytes_of_another_size_or_compressed_ones_are_refused(api, trained) -> None:
    tensor = {"data": None, "parameters": {"binary_data_size": 767}}
    refused(infer(api, trained(), tensor=tensor), 422, "0 bytes follow the JSON")
    for content in (b"", IMAGES.tobytes()[:-1], IMAGES.tobytes() + b"\x00"):
        refused(infer_binary(api, trained(), content), 422, f"{len(content)} bytes follow the JSON")
    answer = api.post(f"/v2/models/{trained()}/infer", content=b"x", headers={"Content-Encoding": "gzip"})
    refused(answer, 415, "Content-Encoding")


def test_models_and_versions_that_are_not_there_are_not_found(api, trained) -> None:
    for path in ("/v2/models/none", "/v2/models/none/ready", f"/v2/models/{trained()}/versions/2", "/v2/none"):
        refused(api.get(path), 404, "")
    refused(infer(api, "none"), 404, "none")


def test_a_body_beyond_the_limit_is_too_large(api, trained) -> None:
    refused(api.post(f"/v2/models/{trained()}/infer", content=b"x" * (17 * 2**20)), 413, "larger")
