"""The worst candidate of each image so far, chosen on selection draws, reported on fresh ones."""

import torch
from torch import Tensor

from worker.evaluation.block import CLEAN
from worker.evaluation.votes import Votes


class Worst:
    """Starts from the unchanged images; a challenger takes over where its selection share is lower.

    Of equals the earlier candidate stays, so a cheaper attack keeps what it broke. A candidate counts from the radius
    on that it was found at: below, its image is the unchanged one.
    """

    def __init__(self, x0: Tensor, share: Tensor, votes: Votes) -> None:
        self._clean = x0, share, votes
        self.x = x0.clone()  # (n, C, H, W)
        self.share = share.clone()  # (n,) correct share of the selection draws
        self.correct = votes.correct.clone()  # int64 (n,) of the fresh draws
        self.majority = votes.majority.clone()  # bool (n, 3)
        self.candidate = torch.full_like(self.correct, CLEAN)  # int64 (n,)
        self.radius = torch.full_like(self.correct, -1)  # int64 (n,) number of the radius it was found at

    def standing(self, radius: int) -> Tensor:
        """The images that no candidate is confirmed to break at that radius, bool (n,)."""
        return (self.share > 0) | (self.radius > radius)

    def broken_from(self, radii: int) -> Tensor:
        """The number of the smallest radius each image is confirmed broken at, int64 (n,); `radii` where it stands at
        all of them."""
        return torch.where(self.share > 0, radii, self.radius.clamp_min(0))

    def worse(self, share: Tensor, rows: Tensor, radius: Tensor) -> Tensor:
        """Which of the challengers of images `rows` at `radius`, int64 alike, take over: int64 positions in `rows`."""
        clean = self._clean[1][rows]
        return (share < torch.where(self.radius[rows] > radius, clean, self.share[rows])).nonzero()[:, 0]

    def replace(
        self, rows: Tensor, x: Tensor, share: Tensor, votes: Votes, *, candidate: int, radius: Tensor
    ) -> None:
        """Puts the challengers in the places of images `rows`; `radius`: int64, of each."""
        self.x[rows], self.share[rows] = x, share
        self.correct[rows], self.majority[rows] = votes.correct, votes.majority
        self.candidate[rows], self.radius[rows] = candidate, radius

    def at(self, radius: int) -> "Worst":
        """Those found at that radius or at a smaller one."""
        later = self.radius > radius
        if not bool(later.any()):
            return self
        found, rows = Worst(*self._clean), (~later).nonzero()[:, 0]
        for name in ("x", "share", "correct", "majority", "candidate", "radius"):
            getattr(found, name)[rows] = getattr(self, name)[rows]
        return found
