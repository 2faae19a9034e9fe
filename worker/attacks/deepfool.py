"""DeepFool: step after step to the nearest boundary of the linearised classifier."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.attacks.attack import Attack
from worker.attacks.ball import direction, lengths, per_image
from worker.attacks.search import Search


@dataclass(frozen=True, kw_only=True)
class DeepFool(Attack):
    """r <- r + d_k u(w_k) for the nearest k, d_k = |f_k| / ||w_k||_q, f_k = z_k - z_y, w_k = grad f_k.

    q = 1 and u = sign for Linf, q = 2 and u = w/||w||_2 for L2; x = clip(x0 + (1 + overshoot) r), and the
    first x that fools the model is projected into the ball afterwards. z is the mean over the draws.

    Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv:1511.04599. Differs in measuring from the label, not from
    the clean prediction; in considering only the `candidates` highest logits; and in at least 1e-4
    of length a step, without which an image may stay on the boundary for ever.
    """

    name = "deepfool"
    minimum_norm = True
    steps: int
    overshoot: float
    candidates: int
    draws: int

    def run(self, search: Search) -> None:
        """A step: one query to see who is fooled, then one forward and `candidates` - 1 backward passes."""
        at = search.forward(search.x0, step=0)
        rivals = self._rivals(at.logits.mean(0), search.labels)
        x, r, rivals = search.drop_fooled(search.x0, at, search.x0, torch.zeros_like(search.x0), rivals)
        for step in range(self.steps):
            if not len(search):
                return
            r = r + self._move(search, x, rivals, step)
            x = (search.x0 + (1 + self.overshoot) * r).clamp_(0, 1)
            at = search.forward(x, step=step + 1)
            x, r, rivals = search.drop_fooled(x, at, x, r, rivals)
            search.progress((step + 1) / self.steps)
        search.submit(x)

    def _rivals(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The classes to be considered beside the label, highest logits first, (batch, candidates - 1)."""
        count = min(self.candidates, logits.shape[1]) - 1
        return logits.scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices

    def _move(self, search: Search, x: Tensor, rivals: Tensor, step: int) -> Tensor:
        def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return self._to_boundary(pixels, logits.mean(0), search.labels[rows], rivals[rows])

        return search.differentiate(x, derive, passes=rivals.shape[1], step=step).gradient

    def _to_boundary(self, pixels: Tensor, logits: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
        """The shortest step onto one of the linearised boundaries, (batch, C, H, W)."""
        gaps = logits.gather(1, rivals) - logits.gather(1, labels[:, None])  # (batch, rivals)
        nearest = torch.full_like(gaps[:, 0], torch.inf)
        move = torch.zeros_like(pixels)
        for rank in range(gaps.shape[1]):
            (w,) = torch.autograd.grad(gaps[:, rank].sum(), pixels, retain_graph=rank + 1 < gaps.shape[1])
            distance = gaps[:, rank].abs() / _dual_length(w, self.norm)
            closer = distance < nearest
            nearest = torch.where(closer, distance, nearest)
            move = torch.where(per_image(closer, w), direction(w, self.norm), move)
        return per_image(nearest + 1e-4, move) * move


def _dual_length(w: Tensor, norm: str) -> Tensor:
    """||w||_1 for Linf, ||w||_2 for L2; a zero gradient has no boundary, at distance infinity or NaN."""
    return w.flatten(1).abs().sum(1) if norm == "linf" else lengths(w, "l2").to(w.dtype)
