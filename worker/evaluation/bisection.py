"""The smallest radius that breaks each image, found in a few tries where a run up the curve takes one a radius."""

import torch
from torch import Tensor


class Bisection:
    """One attack's way through the radii, numbered from 0 up, for each image by itself.

    What fails at a radius counts as failing at the smaller ones, which are not tried (decision 27). broken: int64 (n,),
    the number of the smallest radius that earlier attacks broke an image at, or how many radii there are. `from_top`:
    first the largest radius at which the image stands, where hardly any attack after the first succeeds; else the
    middle.

        while len(rows := bisection.open()):
            bisection.note(rows, broken(rows, bisection.radius[rows]))
    """

    def __init__(self, broken: Tensor, *, from_top: bool) -> None:
        self._low, self._high = torch.zeros_like(broken), broken.clone()
        self.radius = self._high - 1 if from_top else self._high // 2  # int64 (n,): of the next try

    def open(self) -> Tensor:
        """The images to be tried once more, int64."""
        return (self._low < self._high).nonzero()[:, 0]

    def note(self, rows: Tensor, broken: Tensor) -> None:
        """Whether images `rows` were broken at the radius of their try, bool alike."""
        tried = self.radius[rows]
        self._high[rows] = torch.where(broken, tried, self._high[rows])
        self._low[rows] = torch.where(broken, self._low[rows], tried + 1)
        self.radius[rows] = (self._low[rows] + self._high[rows]) // 2
