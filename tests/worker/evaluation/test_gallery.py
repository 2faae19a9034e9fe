"""Examples of an evaluation, and the sheet they are shown on."""

import numpy as np
import pytest
from PIL import Image

from worker.evaluation import evaluate_block, image_verdicts
from worker.evaluation.contact_sheet import Heading, contact_sheet
from worker.evaluation.gallery import SHOWN, STANDING, Example, examples, pick

HEADING = Heading("resnet20 lif on digits", "of 40 images")


def rows_of(*kinds: str) -> list[dict]:
    flags = {"fooled": (True, False), "stands": (True, True), "wrong": (False, False)}
    return [{"clean_majority": flags[kind][0], "majority": flags[kind][1]} for kind in kinds]


def test_the_first_fooled_and_some_that_stand_are_shown_and_none_that_was_wrong_before() -> None:
    shown = pick(rows_of(*["wrong"] * 5, *["fooled"] * 20, *["stands"] * 20))
    assert shown == [*range(5, 5 + SHOWN - STANDING), 25, 26, 27]
    assert pick(rows_of(*["stands"] * 20, "fooled", "fooled")) == [*range(10), 20, 21]
    assert pick(rows_of(*["fooled"] * 20)) == list(range(SHOWN))
    assert pick(rows_of("fooled", "wrong", "stands")) == [0, 2]
    assert pick(rows_of("wrong")) == []


@pytest.mark.parametrize("kind", ["rows", "noisy_rows"])
def test_the_answers_shown_are_the_verdicts(kind, images, labels, ids, protocol, request) -> None:
    model, asked = request.getfixturevalue(kind), protocol("fgsm")
    halves = [
        evaluate_block(model, images[part], labels[part], ids[part], protocol=asked, seed=3)
        for part in (slice(0, 17), slice(17, 40))
    ]
    clean = images.numpy()

    def originals(wanted):
        return clean[[ids.tolist().index(one) for one in wanted]]

    for radius in range(3):
        parts = zip(halves, (clean[:17], clean[17:]), strict=True)
        rows = [r for b, part in parts for r in image_verdicts(b, part, "linf") if r["eps"] == b.eps[radius]]
        shown = examples(model, halves, originals, rows, radius=radius, seed=3)
        assert len(shown) == SHOWN
        for example in shown:
            position = ids.tolist().index(example.verdict["image_id"])
            np.testing.assert_array_equal(example.clean, clean[position])
            assert example.label == labels[position]
            assert example.clean_answer == example.label
            assert (example.answer == example.label) is example.verdict["majority"]
            assert np.abs(example.adversarial - example.clean).max() == pytest.approx(example.verdict["linf"], abs=1e-6)
        assert {e.answer == e.label for e in shown} == {True, False}


def example(shape: tuple[int, int, int], change: float, answer: int = 1) -> Example:
    clean = np.full(shape, 0.5, np.float32)
    row = {"attack": "pgd" if change else None, "linf": change, "l2": change, "ssim": None, "correct_share": 0.0}
    return Example(clean, clean + np.float32(change), 0, 0, answer, row)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 224, 224), (3, 20, 31)])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_a_sheet_can_be_drawn_of_images_of_any_size(shape: tuple[int, int, int], count: int) -> None:
    sheet = contact_sheet([example(shape, 0.1)] * count, ["cat", "d" * 80], "linf", HEADING)
    assert sheet.mode == "RGB"
    assert sheet.width < 1200
    assert sheet.height < 1000


def test_the_change_is_amplified_by_one_factor_so_that_the_largest_goes_to_white() -> None:
    sheet = np.asarray(contact_sheet([example((1, 8, 8), 0.1), example((1, 8, 8), -0.05)], "ab", "linf", HEADING))
    tile, left, between, top = 112, 28, 28, 96 + 56  # the middle of the first line of tiles
    third = left + 2 * (tile + 4) + tile // 2
    card = 3 * tile + 8 + between
    assert sheet[top, third].tolist() == [255] * 3
    assert sheet[top, third + card].tolist() == [64] * 3, "half as large a change, down"
    assert sheet[top, left + tile // 2].tolist() == [128] * 3, "the clean image, unchanged"
    assert sheet[top, left + tile + 4 + tile // 2].tolist() == [153] * 3, "the adversarial one"


def test_a_fooled_image_is_framed_and_one_that_stands_is_not() -> None:
    frames = [
        np.count_nonzero((np.asarray(contact_sheet([example((1, 8, 8), 0.1, answer)], "ab", "l2", HEADING))
                          == (0xD5, 0x5E, 0x00)).all(2))
        for answer in (1, 0)
    ]  # fmt: skip
    assert frames[0] > 4 * 112
    assert frames[1] == 0


def test_a_sheet_without_examples_says_so() -> None:
    assert isinstance(contact_sheet([], ["a"], "linf", HEADING), Image.Image)
