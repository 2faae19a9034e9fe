"""The worst candidate of each image so far, chosen on selection draws, reported on fresh ones."""

import torch
from torch import Tensor

from worker.evaluation.block import CLEAN
from worker.evaluation.votes import Votes


class Worst:
    """Starts from the unchanged images; a challenger takes over where its selection share is lower.

    Of equals the earlier candidate stays, so a cheaper attack keeps what it broke.
    """

    def __init__(self, x0: Tensor, share: Tensor, votes: Votes) -> None:
        self.x = x0.clone()  # (n, C, H, W)
        self.share = share.clone()  # (n,) correct share of the selection draws
        self.correct = votes.correct.clone()  # int64 (n,) of the fresh draws
        self.majority = votes.majority.clone()  # bool (n, 3)
        self.candidate = torch.full_like(self.correct, CLEAN)  # int64 (n,)
        self.radius = torch.full_like(self.correct, -1)  # int64 (n,) number of the radius it was found at

    def standing(self) -> Tensor:
        """The images that no candidate is confirmed to break, int64."""
        return (self.share > 0).nonzero()[:, 0]

    def worse(self, share: Tensor, rows: Tensor) -> Tensor:
        """Which of the challengers of images `rows` take over, int64 positions in `rows`."""
        return (share < self.share[rows]).nonzero()[:, 0]

    def replace(
        self, rows: Tensor, x: Tensor, share: Tensor, votes: Votes, *, candidate: int, radius: int
    ) -> None:
        """Puts the challengers in the places of images `rows`."""
        self.x[rows], self.share[rows] = x, share
        self.correct[rows], self.majority[rows] = votes.correct, votes.majority
        self.candidate[rows], self.radius[rows] = candidate, radius
