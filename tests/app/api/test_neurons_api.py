"""POST /checkpoints/{id}/neurons: bounded, repeatable, and what `predict` answers from."""

import numpy as np
import pytest

from app.domain.access import role_needed

GREY = [[0.5] * 8 for _ in range(8)]


@pytest.fixture(scope="session")
def backend() -> str:
    """Nothing is stored: one database is enough."""
    return "sqlite"


def test_a_draw_is_the_first_that_predict_makes_with_the_seed(api, queue) -> None:
    checkpoint = queue.trained("paralif")
    seen = api.post(f"/checkpoints/{checkpoint}/neurons", json={"image": GREY, "seed": 5}).json()
    asked = {"images": [GREY], "seed": 5, "draws": 1}
    predicted = api.post(f"/checkpoints/{checkpoint}/predict", json=asked).json()["predictions"][0]["top"][0]
    assert seen["answer"]["class"] == predicted["class"]
    assert seen["answer"]["probability"] == pytest.approx(predicted["probability"], abs=1e-6)
    assert (seen["variant"], seen["timesteps"], seen["neuron_count"]) == ("paralif", 20, 10)
    assert [one["class"] for one in seen["neurons"]] == list("0123456789")
    spikes = np.array([one["spikes"] for one in seen["neurons"]])
    assert spikes.shape == (10, 20)
    assert spikes.mean() == pytest.approx(seen["rates"]["neurons"])
    assert api.post(f"/checkpoints/{checkpoint}/neurons", json={"image": GREY, "seed": 5}).json() == seen
    assert api.post(f"/checkpoints/{checkpoint}/neurons", json={"image": GREY, "seed": 6}).json() != seen


def test_hidden_neurons_are_chosen_by_number_or_by_what_they_tell(api, queue) -> None:
    url = f"/checkpoints/{queue.trained('lif')}/neurons"
    named = api.post(url, json={"image": GREY, "neurons": [200, 3]}).json()
    assert [(one["neuron"], one["class"]) for one in named["neurons"]] == [(200, None), (3, None)]
    assert named["rule"] == {"kind": "threshold", "threshold": 1.0, "line": 1.0, "resets": True}
    bodies = [{"image": GREY, "neurons": list(range(start, start + 64))} for start in (0, 64, 128, 192)]
    every = [one for body in bodies for one in api.post(url, json=body).json()["neurons"]]
    told = api.post(url, json={"image": GREY, "count": 3}).json()["neurons"]
    rates = {one["neuron"]: np.mean(one["spikes"]) for one in every}
    nearest = sorted(rates, key=lambda number: (round(abs(rates[number] - 0.5), 9), number))[:3]
    assert [one["neuron"] for one in told] == sorted(nearest)


def test_neurons_that_fire_always_or_never_are_counted(api, queue) -> None:
    url = f"/checkpoints/{queue.trained('lif')}/neurons"
    every = [
        one for start in range(0, 256, 64)
        for one in api.post(url, json={"image": GREY, "neurons": list(range(start, start + 64))}).json()["neurons"]
    ]
    fired = [sum(one["spikes"]) for one in every]
    told = api.post(url, json={"image": GREY}).json()["saturated"]
    assert told == {"always": fired.count(20), "never": fired.count(0)}
    assert told["never"] > 0


def test_what_cannot_be_watched_is_refused_with_its_place(api, queue, problem_of) -> None:
    url = f"/checkpoints/{queue.trained('lif')}/neurons"
    for body, pointer in (
        ({}, "/image"), ({"image": GREY, "neurons": [256]}, "/neurons"), ({"image": GREY, "neurons": []}, "/neurons"),
        ({"image": GREY, "neurons": list(range(65))}, "/neurons"), ({"image": GREY, "count": 65}, "/count"),
        ({"test_image": 400}, "/test_image"), ({"image": GREY, "draws": 2}, "/draws"),
    ):  # fmt: skip
        problem = problem_of(api.post(url, json=body), 422)
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer], body
    problem_of(api.post("/checkpoints/ckpt_none/neurons", json={"image": GREY}), 404)
    assert "decoded" in problem_of(api.post(url, json={"test_image": 0}), 409)["detail"]
    default = queue.trained()
    problem = problem_of(api.post(f"/checkpoints/{default}/neurons", json={"image": GREY}), 409)
    assert "no spiking neurons" in problem["detail"]
    page = api.get(f"/ui/neurons?checkpoint={default}")
    assert (page.status_code, "no spiking neurons" in page.text) == (409, True)


def test_it_stores_nothing_so_a_reader_may_ask() -> None:
    assert role_needed("POST", "/checkpoints/ckpt_1/neurons") == "reader"
    assert role_needed("POST", "/checkpoints/ckpt_1/attack") == "submitter"
