"""How attacks are compared: images on which luck decides get more seeds, for all who play."""

import pytest
import torch
from torch import Tensor

from benchmarks.attacks_against_peers import Contest


class Parity(torch.nn.Module):
    """Answers 0 where the image's one pixel is below one half."""

    def forward(self, x: Tensor) -> Tensor:
        high = (x.flatten(1)[:, 0] >= 0.5).float()
        return torch.stack((1 - high, high), 1)


LABELS = torch.tensor([0, 0, 0, 1])
IMAGES = torch.tensor([0.4, 0.4, 0.4, 0.6]).view(4, 1, 1, 1)


def fooling(images: Tensor, falls: dict[int, list[int]]):
    """An attack under which, by seed, these of the images fall."""
    def run(seed: int) -> Tensor:
        x = images.clone()
        rows = falls.get(seed, [])
        x[rows] = torch.where(images[rows] < 0.5, 0.6, 0.4)
        return x

    return run


def test_undecided_is_what_any_attack_fooled_in_some_seeds_only_and_more_seeds_count_for_these_alone() -> None:
    ours = fooling(IMAGES, {0: [0, 1], 1: [0]})
    peer = fooling(IMAGES, {0: [0, 3], 1: [0, 3]})
    contest = Contest("PGD", "linf", 0.25, {"ours": ours, "peer": peer})
    contest.play(Parity(), IMAGES, LABELS, seeds=2)  # type: ignore[arg-type]
    assert contest.accuracy("ours") == pytest.approx((0 + 1 / 2 + 1 + 1) / 4)
    assert contest.accuracy("peer") == pytest.approx((0 + 1 + 1 + 0) / 4)
    rows = contest.undecided()
    assert rows.tolist() == [1, 3], "ours was lucky once with 1, the peer always with 3; 0 fell and 2 stood for all"

    some = IMAGES[rows]
    further = Contest("PGD", "linf", 0.25, {"ours": fooling(some, {2: [0], 3: [0]}), "peer": fooling(some, {3: [1]})})
    further.play(Parity(), some, LABELS[rows], seeds=2, first=2)  # type: ignore[arg-type]
    contest.add(rows, further)
    assert contest.accuracy("ours") == pytest.approx((0 + 1 / 4 + 1 + 1) / 4)
    assert contest.accuracy("peer") == pytest.approx((0 + 1 + 1 + 1 / 4) / 4)
    assert len(contest.seconds["ours"]) == 2, "times are those of all images"
