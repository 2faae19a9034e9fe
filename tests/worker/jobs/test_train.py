"""What a training is given of the images."""

from typing import Any

import numpy as np
import pytest

from app.domain.errors import JobError
from tests.worker.jobs.conftest import Workshop
from worker.data import Arrays, Split
from worker.jobs.train import splits_of


def arrays(count: int = 200) -> Arrays:
    labels = np.arange(count) % 10
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)  # each known by its pixel
    split = Split(images, labels)
    return Arrays("x", tuple("0123456789"), split, split, "0" * 64, (0.5,), (0.5,))


def test_part_of_the_images_is_split_into_what_is_trained_on_and_what_is_held_out() -> None:
    trained, held_out = splits_of(arrays(), {"images": 100, "validation_share": 0.1})
    assert (len(trained), len(held_out)) == (90, 10)
    assert not set(trained.images.ravel()) & set(held_out.images.ravel())
    assert np.array_equal(trained.images.ravel() % 10, trained.labels)
    whole = [len(part) for part in splits_of(arrays(), {"validation_share": 0.1})]
    assert whole == [180, 20]


def test_a_training_is_given_no_more_images_than_it_asked_for(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def look(_model: Any, training: Split, validation: Split, *_: Any, **__: Any) -> None:
        given.extend((len(training), len(validation)))
        raise JobError("seen enough")

    monkeypatch.setattr("worker.jobs.train.train", look)
    workshop.queue.submit(training={"images": 60})
    assert workshop.work().error == "seen enough"
    assert given == [50, 10]
