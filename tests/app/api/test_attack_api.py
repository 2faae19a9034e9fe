"""POST /checkpoints/{id}/attack over HTTP, on both databases; what the job does is tested with the jobs."""

import io

import numpy as np
import pytest
from PIL import Image

from app.storage import references, runs

GREY = [[0.5] * 8 for _ in range(8)]


@pytest.fixture
def checkpoint(queue) -> str:
    queue.submit()
    fence = queue.must_claim()
    made = queue.checkpoint(fence)
    queue.succeed(fence)
    return made


def png(value: int = 100, size: tuple[int, int] = (8, 8)) -> bytes:
    out = io.BytesIO()
    Image.new("L", size, value).save(out, "PNG")
    return out.getvalue()


def test_a_run_is_queued_with_the_usual_attack_before_all_others(api, queue, checkpoint) -> None:
    response = api.post(f"/checkpoints/{checkpoint}/attack", json={"test_image": 17})
    assert response.status_code == 202
    run = response.json()
    assert response.headers["location"] == f"/runs/{run['id']}"
    assert (run["kind"], run["state"], run["dataset"], run["reused"]) == ("attack", "queued", "digits", False)
    spec = api.get(f"/runs/{run['id']}").json()["spec"]
    assert (spec["attack"], spec["norm"], spec["eps"], spec["label"]) == ("pgd", "linf", "32/255", None)
    assert spec["parameters"]["steps"] == 20
    assert spec["image"] == {"test_image": 17, "fingerprint": "digits-1"}
    assert [one["id"] for one in api.get("/runs?kind=attack").json()["items"]] == [run["id"]]
    assert queue.must_claim().run_id == run["id"], "the evaluation was queued before it"


def test_a_file_is_kept_as_pixels_with_its_run(api, queue, checkpoint, data_dir) -> None:
    fields = {"attack": "apgd", "parameters": '{"steps": 3}', "eps": "0.25", "label": "7", "norm": "l2", "seed": "4"}
    answer = api.post(f"/checkpoints/{checkpoint}/attack", files={"image": ("a.png", png())}, data=fields)
    assert answer.status_code == 202, answer.text
    run = queue.run(answer.json()["id"])
    assert (run.spec["label"], run.spec["seed"], run.spec["eps"], run.spec["norm"]) == (7, 4, "1/4", "l2")
    assert run.spec["parameters"]["steps"] == 3
    kept = np.load(data_dir / run.metrics["input"])
    assert (kept.shape, kept.dtype) == ((1, 8, 8), np.float32)
    np.testing.assert_array_equal(kept, np.float32(100 / 255))
    with queue.database.reading() as session:
        known = {one.path for one in references.references(session)}
    assert run.metrics["input"] in known, "else gc would take it for garbage, and no backup would have it"


def test_the_same_question_has_the_same_run_and_a_fresh_one_its_own(api, queue, checkpoint, data_dir) -> None:
    url = f"/checkpoints/{checkpoint}/attack"
    first = api.post(url, json={"image": GREY}).json()
    folders = set((data_dir / "runs").iterdir())
    again = api.post(url, json={"image": [GREY]}).json()
    assert (again["id"], again["reused"]) == (first["id"], True)
    assert set((data_dir / "runs").iterdir()) == folders, "its copy of the pixels went"
    queue.do(runs.succeed, queue.must_claim(), {})
    assert api.post(url, json={"image": GREY}).json()["id"] == first["id"]
    others = [{"image": GREY, "fresh": True}, {"image": GREY, "seed": 1}, {"image": GREY, "eps": "8/255"},
              {"image": [[0.25] * 8] * 8}, {"test_image": 0}, {"image": GREY, "label": 3}]  # fmt: skip
    ids = [api.post(url, json=body).json()["id"] for body in others]
    assert len({first["id"], *ids}) == 7


def test_what_does_not_fit_is_refused_with_its_place(api, checkpoint, problem_of, data_dir) -> None:
    url = f"/checkpoints/{checkpoint}/attack"
    folders = list((data_dir / "runs").iterdir()) if (data_dir / "runs").exists() else []
    problem_of(api.post("/checkpoints/ckpt_none/attack", json={"test_image": 0}), 404)
    image = {"image": GREY}
    for body, pointer in (
        ({}, "/image"), ({"test_image": 0, **image}, "/image"), ({"image": [[2.0] * 8] * 8}, "/image"),
        ({"image": [[0.5] * 7] * 8}, "/image"), ({"test_image": 359}, "/test_image"),
        ({"test_image": -1}, "/test_image"), ({**image, "eps": 0}, "/eps"),
        ({**image, "attack": "pdg"}, "/attack"), ({**image, "attack": "transfer"}, "/attack"),
        ({**image, "attack": "cw"}, "/norm"), ({**image, "parameters": {"stepz": 1}}, "/parameters/stepz"),
        ({**image, "parameters": {"steps": 0}}, "/parameters/steps"), ({**image, "eps": 2}, "/eps"),
        ({**image, "label": 10}, "/label"), ({**image, "label": "ten"}, "/label"), ({**image, "norm": "l1"}, "/norm"),
        ({**image, "atack": "pgd"}, "/atack"), ([], ""),
    ):  # fmt: skip
        problem = problem_of(api.post(url, json=body), 422)
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer], body
    problem_of(api.post(url, files={"image": ("a.png", b"GIF89a")}), 415)
    problem_of(api.post(url, content=b"x", headers={"content-type": "image/png"}), 415)
    problem = problem_of(api.post(url, files={"image": ("a.png", png())}, data={"seed": "no"}), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/seed"]
    assert api.get("/runs?kind=attack").json()["items"] == []
    assert (list((data_dir / "runs").iterdir()) if folders else []) == folders, "nothing is left of what was refused"


def test_it_is_cancelled_by_itself_and_goes_with_its_checkpoint(api, queue, checkpoint) -> None:
    run = api.post(f"/checkpoints/{checkpoint}/attack", json={"image": GREY}).json()["id"]
    assert api.post(f"/runs/{run}/cancel").json()["state"] == "cancelled"
    assert api.post(f"/runs/{run}/retry").json()["state"] == "queued"
    api.post(f"/runs/{run}/cancel")
    experiment = api.get("/experiments").json()["items"][0]["id"]
    api.post(f"/experiments/{experiment}/cancel")
    assert api.delete(f"/experiments/{experiment}?files=true").status_code == 200
    assert api.get(f"/runs/{run}").status_code == 404


def test_pictures_are_those_of_an_attack_that_succeeded(api, queue, checkpoint, data_dir, problem_of) -> None:
    run = api.post(f"/checkpoints/{checkpoint}/attack", json={"image": GREY}).json()["id"]
    problem_of(api.get(f"/runs/{run}/original.png"), 404)
    (data_dir / "runs" / run / "picture.png").write_bytes(png(7))
    queue.do(runs.succeed, queue.must_claim(), {"pictures": {"original": f"runs/{run}/picture.png"}})
    answer = api.get(f"/runs/{run}/original.png")
    assert (answer.content, answer.headers["content-type"]) == (png(7), "image/png")
    problem_of(api.get(f"/runs/{run}/adversarial.png"), 404)


def test_a_file_by_another_name_is_told_the_right_one(api, checkpoint, problem_of) -> None:
    files = {"images": ("mine.png", png())}
    [error] = problem_of(api.post(f"/checkpoints/{checkpoint}/attack", files=files), 422)["errors"]
    assert (error["pointer"], "field named image" in error["detail"]) == ("/images", True)
