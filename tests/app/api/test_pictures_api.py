"""Images of a test split, once a worker has decoded it."""

import io

import numpy as np
import pytest
from PIL import Image

from app.storage import datasets
from worker.data import load


@pytest.fixture
def digits(data_dir):
    found = datasets.find("digits", data_dir)
    return load(found.name, found.fingerprint, found.classes, found.shape, data_dir)


def test_an_image_is_the_one_that_evaluations_know_by_this_number(api, digits) -> None:
    answer = api.get("/datasets/digits/images/17/image.png")
    with Image.open(io.BytesIO(answer.content)) as image:
        np.testing.assert_array_equal(np.asarray(image), digits.test.images[17][..., 0])
    label = int(digits.test.labels[17])
    assert answer.headers["x-label"] == str(label)
    shown = api.get("/datasets/digits/images/17").json()
    assert shown == {"dataset": "digits", "index": 17, "label": {"index": label, "class": str(label)},
                     "image": "/datasets/digits/images/17/image.png", "test_size": 359}  # fmt: skip


def test_what_is_not_there_is_said(api, digits, problem_of) -> None:
    for path in ("/datasets/digits/images/359", "/datasets/digits/images/-1/image.png", "/datasets/digit/images/0"):
        problem_of(api.get(path), 404)
    problem_of(api.get("/datasets/digits/images/one"), 422)


def test_before_a_run_has_used_the_data_set_it_is_a_conflict(api, problem_of) -> None:
    assert "decoded" in problem_of(api.get("/datasets/digits/images/0/image.png"), 409)["detail"]
