"""Checkpoints over HTTP: listed, downloaded, asked for predictions."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import models
from app.storage.engine import Database
from tests.app.work import Queue
from tests.service import make_settings

GREY = [[0.5] * 8 for _ in range(8)]


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
    """One service for all tests here: what they ask changes nothing."""
    return serve_module(make_settings(data_dir=queue.data_dir, database_url=queue.database.url))


@pytest.fixture(scope="module")
def trained(queue: Queue) -> Callable[..., str]:
    """`trained("lif", seed=1)`: the id of a checkpoint, made once."""
    return lru_cache(queue.trained)


def encoded(kind: str = "PNG", mode: str = "L", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


def files(*contents: bytes, field: str = "images", name: str = "image.png") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (name, content)) for content in contents]


def predict(api: httpx.Client, checkpoint: str, **options: Any) -> httpx.Response:
    return api.post(f"/checkpoints/{checkpoint}/predict", **options)


def test_checkpoints_are_listed_newest_first_by_data_set_architecture_and_variant(api, trained) -> None:
    first, second = trained("default"), trained("lif", seed=1)
    listed = api.get("/checkpoints?variant=lif").json()["items"]
    assert listed[0]["id"] == second
    assert {c["variant"] for c in listed} == {"lif"}
    assert api.get("/checkpoints?dataset=cifar10").json()["items"] == []
    assert first in {c["id"] for c in api.get("/checkpoints?variant=default&architecture=resnet20").json()["items"]}
    shown = api.get(f"/checkpoints/{second}").json()
    assert shown["spec"]["model"]["variant"] == "lif"
    assert {"seed", "metrics", "sha256", "size", "parent", "created_at", "run_id"} <= set(shown)
    assert api.get("/checkpoints", params={"run": shown["run_id"]}).json()["items"][0]["id"] == second


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/checkpoints?variant=LIF", 422, "'default', 'lif' or 'paralif'"),
        ("/checkpoints?architecture=resnet34", 422, "'resnet20'"),
        ("/checkpoints?dataset=cifar", 404, "did you mean 'cifar10'"),
        ("/checkpoints?run=run_0", 404, "there is no run"),
        ("/experiments?dataset=cifar", 404, "did you mean 'cifar10'"),
        ("/experiments?dataset=cifar&state=failed", 404, "did you mean 'cifar10'"),
        ("/runs?experiment=exp_0", 404, "there is no experiment"),
        ("/ui/checkpoints?variant=LIF", 422, "&#39;default&#39;"),
        ("/ui/checkpoints?dataset=cifar", 404, "did you mean"),
        ("/ui/experiments?dataset=cifar", 404, "did you mean"),
    ],
)
def test_a_filter_that_names_nothing_there_is_says_so_in_place_of_an_empty_list(api, path, status, said) -> None:
    answer = api.get(path)
    assert (answer.status_code, said in answer.text) == (status, True)


def test_a_filter_that_names_something_without_any_is_an_empty_list(api, trained) -> None:
    trained()
    for path in ("/checkpoints", "/experiments"):
        assert api.get(path, params={"dataset": "cifar100"}).json()["items"] == []
    page = api.get("/ui/checkpoints", params={"dataset": "cifar100", "variant": ""})  # as a form sends it
    assert (page.status_code, "ckpt_" in page.text) == (200, False)


def test_the_file_is_the_one_its_digest_names(api, trained) -> None:
    checkpoint = trained()
    response = api.get(f"/checkpoints/{checkpoint}/file")
    digest = hashlib.sha256(response.content)
    row = api.get(f"/checkpoints/{checkpoint}").json()
    assert digest.hexdigest() == row["sha256"]
    assert len(response.content) == row["size"]
    assert response.headers["etag"] == f'"{row["sha256"]}"'
    assert response.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert f"{checkpoint}.safetensors" in response.headers["content-disposition"]


def test_a_file_that_the_client_has_is_not_sent_again(api, trained) -> None:
    checkpoint = trained()
    tag = api.get(f"/checkpoints/{checkpoint}/file").headers["etag"]
    again = api.get(f"/checkpoints/{checkpoint}/file", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = api.get(f"/checkpoints/{checkpoint}/file", headers={"If-None-Match": '"0"'})
    assert other.status_code == 200


def test_part_of_a_file_can_be_had(api, trained) -> None:
    response = api.get(f"/checkpoints/{trained()}/file", headers={"Range": "bytes=0-7"})
    assert (response.status_code, len(response.content)) == (206, 8)


def test_a_file_that_is_gone_or_was_changed_is_never_served_or_run(api, trained, data_dir, problem_of) -> None:
    changed, gone = trained(seed=7), trained(seed=8)  # no other test's
    path = data_dir / f"runs/{api.get(f'/checkpoints/{changed}').json()['run_id']}/model.safetensors"
    other = data_dir / f"runs/{api.get(f'/checkpoints/{gone}').json()['run_id']}/model.safetensors"
    path.write_bytes(other.read_bytes())  # a sound checkpoint, but not this one
    other.unlink()
    for checkpoint in (changed, gone):
        problem = problem_of(predict(api, checkpoint, json={"images": [GREY]}), 404)
        assert "gone or damaged" in problem["detail"]
    problem_of(api.get(f"/checkpoints/{gone}/file"), 404)
    path.write_bytes(path.read_bytes()[:-1])
    problem_of(api.get(f"/checkpoints/{changed}/file"), 404)


@pytest.mark.parametrize(
    ("kind", "mode", "size"),
    [("PNG", "L", (8, 8)), ("PNG", "RGBA", (8, 8)), ("PNG", "P", (8, 8)), ("PNG", "1", (8, 8)), ("JPEG", "RGB", (8, 8)),
     ("JPEG", "CMYK", (8, 8)), ("PNG", "RGB", (100, 30))],
)  # fmt: skip
def test_png_and_jpeg_of_every_mode_and_size_are_classified(api, trained, kind: str, mode: str, size: Any) -> None:
    answer = predict(api, trained(), files=files(encoded(kind, mode, size))).json()
    [prediction] = answer["predictions"]
    top = prediction["top"]
    assert len(top) == 5
    assert [t["probability"] for t in top] == sorted((t["probability"] for t in top), reverse=True)
    assert 0 < sum(t["probability"] for t in top) <= 1.000001
    assert {t["class"] for t in top} < set("0123456789")
    assert (answer["stochastic"], prediction["draws"], top[0]["sd"], top[0]["votes"]) == (False, 1, None, 1.0)


def test_an_image_as_a_file_and_as_pixels_gives_one_answer(api, trained) -> None:
    checkpoint, content = trained(), encoded()
    pixels = (np.asarray(Image.open(io.BytesIO(content)), float) / 255).astype(np.float32).tolist()
    by_file = predict(api, checkpoint, files=files(content)).json()["predictions"]
    assert predict(api, checkpoint, json={"images": [pixels]}).json()["predictions"] == by_file
    assert predict(api, checkpoint, json={"images": [[pixels]]}).json()["predictions"] == by_file


def test_a_stochastic_network_answers_the_same_for_the_same_seed(api, trained) -> None:
    checkpoint = trained("paralif")
    one, again, other = (
        predict(api, checkpoint, json={"images": [GREY, GREY], "draws": 10, "seed": s}).json() for s in (1, 1, 2)
    )
    assert one == again
    assert one["stochastic"]
    assert one["predictions"] != other["predictions"]
    top = one["predictions"][0]["top"][0]
    assert top["sd"] >= 0
    assert 0 <= top["votes"] <= 1
    assert one["predictions"][0] != one["predictions"][1], "each image has draws of its own"


def test_an_image_has_the_same_draws_however_many_are_sent_with_it(api, trained) -> None:
    checkpoint = trained("paralif")
    alone = predict(api, checkpoint, json={"images": [GREY], "draws": 40, "seed": 5}).json()["predictions"][0]
    among = predict(api, checkpoint, json={"images": [GREY] * 20, "draws": 40, "seed": 5}).json()["predictions"]
    assert among[0] == alone
    assert len({str(p) for p in among}) == 20


def test_options_may_stand_in_the_query_or_in_the_body(api, trained) -> None:
    checkpoint = trained("lif")
    in_query = predict(api, checkpoint, files=files(encoded()), params={"draws": 3, "seed": 7, "top": 2}).json()
    assert (in_query["seed"], in_query["predictions"][0]["draws"], len(in_query["predictions"][0]["top"])) == (7, 3, 2)
    both = predict(api, checkpoint, json={"images": [GREY], "seed": 9}, params={"draws": 3, "seed": 7}).json()
    assert (both["seed"], both["predictions"][0]["draws"]) == (9, 3)
    data, params = {"draws": "3", "seed": "7"}, {"seed": 1, "top": 2}
    form = predict(api, checkpoint, files=files(encoded()), data=data, params=params)
    assert form.json() == in_query, "the form counts before the query, and what it leaves out is taken from there"


def test_the_answers_are_those_of_the_network_itself(api, trained, data_dir) -> None:
    torch = pytest.importorskip("torch")
    from models.checkpoint import load

    checkpoint = trained()
    model, _ = load(data_dir / f"runs/{api.get(f'/checkpoints/{checkpoint}').json()['run_id']}/model.safetensors")
    with torch.inference_mode():
        expected = model(torch.full((1, 1, 8, 8), 0.5)).softmax(-1)[0]
    top = predict(api, checkpoint, json={"images": [GREY], "top": 10}).json()["predictions"][0]["top"]
    assert [t["index"] for t in top] == expected.argsort(descending=True).tolist()
    assert [t["probability"] for t in top] == pytest.approx(expected.sort(descending=True).values.tolist(), abs=1e-6)


BROKEN = {
    "truncated PNG": encoded()[:80], "truncated JPEG": encoded("JPEG", "RGB")[:200], "text": b"hello", "nothing": b"",
    "BMP": encoded("BMP"), "GIF": encoded("GIF"), "TIFF": encoded("TIFF"), "PNG header only": encoded()[:16],
    "PNG of wrong checksums": encoded()[:40] + b"\x00\x01" + encoded()[42:],
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN.values(), ids=[name.replace(" ", "-") for name in BROKEN])
def test_a_file_that_is_no_sound_png_or_jpeg_is_an_unsupported_type(api, trained, problem_of, content: bytes) -> None:
    problem = problem_of(predict(api, trained(), files=files(encoded(), content)), 415)
    assert "PNG or JPEG" in problem["detail"]


def test_a_mislabelled_image_is_judged_by_what_it_is(api, trained, problem_of) -> None:
    checkpoint = trained()
    assert predict(api, checkpoint, files=files(encoded("JPEG", "RGB"), name="a.png")).status_code == 200
    problem_of(predict(api, checkpoint, files=files(encoded("BMP"), name="a.png")), 415)


def test_an_image_that_would_unpack_to_gigabytes_is_refused(api, trained, problem_of) -> None:
    checkpoint, out = trained(), io.BytesIO()
    Image.new("1", (9000, 9000)).save(out, "PNG")
    problem = problem_of(predict(api, checkpoint, files=files(out.getvalue())), 422)
    assert "9000x9000" in problem["detail"]
    for side in (12_000, 60_000):  # Pillow warns of the first and refuses the second
        bomb = bytearray(encoded())
        bomb[16:24] = side.to_bytes(4, "big") * 2
        bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
        response = predict(api, checkpoint, files=files(bytes(bomb)))
        problem_of(response, 415 if response.status_code == 415 else 422)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"images": [[[0.5] * 8] * 7]}, "/images/0"), ({"images": [GREY, [[[0.5] * 8] * 8] * 3]}, "/images/1"),
        ({"images": [[[0.5] * 8] * 7 + [[0.5] * 9]]}, "/images/0"), ({"images": [[[2.0] * 8] * 8]}, "/images/0"),
        ({"images": [[["x"] * 8] * 8]}, "/images/0"), ({"images": [[[None] * 8] * 8]}, "/images/0"),
        ({"images": ["x"]}, "/images/0"), ({"images": [5]}, "/images/0"), ({"images": []}, "/images"),
        ({"images": [GREY] * 257}, "/images"), ({}, "/images"), ({"images": [GREY], "draws": 0}, "/draws"),
        ({"images": [GREY], "seed": -1}, "/seed"), ({"images": [GREY], "draw": 1}, "/draw"),
        ({"images": [[[-0.001] * 8] * 8]}, "/images/0"), ([], ""), ({"images": [GREY], "top": True}, "/top"),
    ],
)  # fmt: skip
def test_pixels_that_do_not_fit_are_refused_with_a_pointer(api, trained, problem_of, body: Any, pointer: str) -> None:
    problem = problem_of(predict(api, trained(), json=body), 422)
    assert [e["pointer"] for e in problem["errors"]] == [pointer]


@pytest.mark.parametrize("content", [b"{", b'{"images": [[[NaN]]]}', b'{"images":' + b"[" * 10_000, b"\xff"])
def test_what_is_not_json_is_refused(api, trained, problem_of, content: bytes) -> None:
    problem_of(predict(api, trained(), content=content, headers={"content-type": "application/json"}), 422)


def test_a_form_has_images_and_nothing_else(api, trained, problem_of) -> None:
    checkpoint, picture = trained(), ("a.png", encoded())
    for more in ({"imgs": picture}, {"image": picture}):
        [error] = problem_of(predict(api, checkpoint, files={"images": picture, **more}), 422)["errors"]
        assert error["pointer"] == f"/{next(iter(more))}"
        assert "field named images" in error["detail"]
    answer = predict(api, checkpoint, files={"images": picture}, data={"draws": "0", "seed": "one"})
    assert [error["pointer"] for error in problem_of(answer, 422)["errors"]] == ["/draws", "/seed"]
    answer = predict(api, checkpoint, files={"other": picture}, data={"images": "text"})
    assert [error["pointer"] for error in problem_of(answer, 422)["errors"]] == ["/other"]


def test_too_many_files_are_refused(api, trained, problem_of) -> None:
    problem = problem_of(predict(api, trained(), files=files(*[encoded()] * 257)), 422)
    assert "256" in problem["errors"][0]["detail"]


def test_a_form_without_files_or_a_broken_one_is_refused(api, trained, problem_of) -> None:
    checkpoint = trained()
    form = {"content-type": "multipart/form-data; boundary=x"}
    text = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\nhello\r\n--x--\r\n'
    for content in (text, b"", b"--x\r\ngarbage"):
        problem = problem_of(predict(api, checkpoint, content=content, headers=form), 422)
        assert problem["errors"][0]["pointer"] == "/images"
    problem_of(predict(api, checkpoint, content=text, headers={"content-type": "multipart/form-data"}), 422)


@pytest.mark.parametrize("kind", ["text/plain", "image/png", ""])
def test_another_type_of_body_is_unsupported(api, trained, problem_of, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    problem_of(predict(api, trained(), content=encoded(), headers=headers), 415)


def test_an_upload_beyond_the_limit_is_too_large(api, trained, problem_of) -> None:
    problem_of(predict(api, trained(), files=files(b"x" * (17 * 2**20))), 413)


def test_a_checkpoint_that_is_not_there_is_not_found_whatever_is_sent(api, problem_of) -> None:
    problem_of(predict(api, "ckpt_none", json={"images": [GREY]}), 404)


def test_concurrent_requests_get_what_each_gets_alone(api, trained) -> None:
    checkpoint = trained("lif")
    bodies = [{"images": [GREY] * (1 + i % 3), "seed": i, "draws": 5 + i % 2} for i in range(24)]
    with ThreadPoolExecutor(12) as pool:
        together = [r.json() for r in pool.map(lambda body: predict(api, checkpoint, json=body), bodies)]
    for body, found in zip(bodies, together, strict=True):
        alone = predict(api, checkpoint, json=body).json()
        for one, other in zip(found["predictions"], alone["predictions"], strict=True):
            assert [t["index"] for t in one["top"]] == [t["index"] for t in other["top"]]
            wanted = [t["probability"] for t in other["top"]]
            assert [t["probability"] for t in one["top"]] == pytest.approx(wanted, abs=1e-6)


def test_a_full_queue_says_when_to_come_again(queue, serve, trained, problem_of) -> None:
    small = serve(make_settings(data_dir=queue.data_dir, database_url=queue.database.url, predict_queue=1))
    checkpoint, body = trained("lif"), {"images": [GREY] * 256, "draws": 200}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: predict(small, checkpoint, json=body), range(4)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) < 4
    for answer in refused:
        problem_of(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
    assert refused


def test_the_snippet_of_a_checkpoint_answers_as_the_service_in_a_process_that_has_only_the_models(
    api, trained, tmp_path
) -> None:
    checkpoint = trained("lif")
    shown = api.get(f"/checkpoints/{checkpoint}").json()
    assert len(shown["snippet"].splitlines()) == 10
    (tmp_path / f"{checkpoint}.safetensors").write_bytes(api.get(f"/checkpoints/{checkpoint}/file").content)
    shutil.copytree(Path(models.__file__).parent, tmp_path / "models")
    images = [np.full((1, 8, 8), level).tolist() for level in (0.25, 0.75)]
    pixels = "torch.tensor([0.25, 0.75]).view(2, 1, 1, 1).expand(2, 1, 8, 8)"
    code = shown["snippet"].replace("torch.rand(2, 1, 8, 8)", pixels)
    code += "print(logits.softmax(-1).mean(0).tolist())\nimport sys\nprint('app' in sys.modules)\n"
    command = [sys.executable, "-c", code]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    first, probabilities, has_app = done.stdout.splitlines()
    found = predict(api, checkpoint, json={"images": images, "top": 10}).json()["predictions"]
    assert json.loads(first) == [one["top"][0]["index"] for one in found]
    for row, one in zip(json.loads(probabilities), found, strict=True):
        assert [row[t["index"]] for t in one["top"]] == pytest.approx([t["probability"] for t in one["top"]], abs=1e-6)
    assert has_app == "False"
