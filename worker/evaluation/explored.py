"""Minimum-norm attacks search without a radius: one search an image serves every radius of a run."""

from dataclasses import fields

import torch
from torch import Tensor

from worker.attacks import Attack, Found
from worker.attacks.search import Progress
from worker.evaluation.votes import Jury


class Explored:
    """An attack's results on a block's images, each image searched when it is first asked for.

    Counts are those of the search, at each radius that uses it: what its figure takes if it stands alone.
    """

    def __init__(self, attack: Attack, x0: Tensor, jury: Jury) -> None:
        self.attack, self.x0, self.jury = attack, x0, jury
        self.known = torch.zeros_like(jury.ids, dtype=torch.bool)
        queries, gradients, faulty = (torch.zeros_like(jury.ids) for _ in range(3))
        self.found = Found(x0.clone(), queries, gradients, faulty, torch.zeros_like(self.known))

    def at(self, rows: Tensor, radii: Tensor, progress: Progress) -> Found:
        """What was found for images `rows`, put into balls of `radii`."""
        self._search(rows[~self.known[rows]], progress)
        found = Found(*(getattr(self.found, field.name)[rows] for field in fields(Found)))
        return self.attack.confine(found, self.x0[rows], radii)

    def _search(self, rows: Tensor, progress: Progress) -> None:
        if not len(rows):
            return
        jury = self.jury
        new = self.attack.explore(
            jury.target, self.x0[rows], jury.labels[rows], epsilon=torch.ones_like(rows, dtype=torch.float32),
            ids=jury.ids[rows], seed=jury.seed, progress=progress,
        )
        for field in fields(Found):
            getattr(self.found, field.name)[rows] = getattr(new, field.name)
        self.known[rows] = True
