"""GET /checkpoints/{id}/evaluations, and the pages of checkpoints without a browser."""

import json
import re

import pytest

from app.dashboard.checkpoints import most_confused
from app.storage import results, runs
from models.registry import ModelSpec

CLEAN = {"accuracy": 0.75, "images": 4, "draws": 1, "per_class": [0.5, 1.0] + [None] * 8,
         "confusion": [[1, 1, *[0] * 8], [0, 2, *[0] * 8], *[[0] * 10] * 8]}  # fmt: skip


@pytest.fixture
def measured(queue) -> str:
    """The id of a checkpoint with an evaluation at three radii."""
    queue.submit()
    fence = queue.must_claim()
    model = ModelSpec("resnet20", "default", 10, (1, 8, 8), mean=(0.3,), std=(0.4,)).to_dict()
    checkpoint = queue.checkpoint(fence, spec={"model": model, "classes": list("0123456789"), "epochs": "<5>"})
    queue.succeed(fence)
    fence = queue.must_claim()
    queue.do(results.add_figures, fence, queue.figures(queue.run(fence.run_id)))
    queue.do(runs.succeed, fence, {"checkpoint": checkpoint, "clean": {"accuracy": 0.5, "images": 10, "draws": 1}})
    return checkpoint


def test_figures_come_by_radius_with_what_an_older_version_left_out_as_null(api, measured, problem_of) -> None:
    answer = api.get(f"/checkpoints/{measured}/evaluations").json()
    assert answer["next"] is None
    [evaluation] = answer["items"]
    assert evaluation["clean"]["confusion"] is None
    eps = [figure["eps"] for figure in evaluation["figures"]]
    assert eps == sorted(eps)
    assert len(eps) >= 2
    assert evaluation["protocol"]["norm"] == "linf"
    problem_of(api.get("/checkpoints/ckpt_none/evaluations"), 404)
    page = api.get(f"/ui/checkpoints/{measured}")
    assert page.status_code == 200
    assert "before accuracy by class was kept" in page.text
    rows = re.findall(r'<th scope="row">(clean, [^<]+)</th><td class="number"><b>([\d.]+)</b>', page.text)
    assert rows == [("clean, all 10", "50.0"), ("clean, these 359", "97.0")]


def test_a_page_of_what_is_not_there_is_a_problem(api) -> None:
    assert api.get("/ui/checkpoints/ckpt_none").status_code == 404
    assert api.get("/ui/playground?checkpoint=ckpt_none").status_code == 404
    assert "There is no checkpoint to play with yet" in api.get("/ui/playground").text
    assert "There are none yet" in api.get("/ui/checkpoints").text


def test_what_is_confused_most_comes_first() -> None:
    classes = list("0123456789")
    assert most_confused(CLEAN, classes) == [{"true": "0", "answer": "1", "count": 1, "share": 0.5}]
    assert most_confused(None, classes) == []


def test_the_code_on_the_page_works(api, queue, tmp_path, monkeypatch, capsys) -> None:
    checkpoint = queue.trained("paralif")
    page = api.get(f"/ui/checkpoints/{checkpoint}").text
    code = re.search(r'aria-label="Python code">(.*?)</pre>', page, re.S)[1].replace("&#34;", '"').replace("&lt;", "<")
    (tmp_path / f"{checkpoint}.safetensors").write_bytes(api.get(f"/checkpoints/{checkpoint}/file").content)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert len(json.loads(capsys.readouterr().out)) == 2, "the class of each of two images"
