"""FGSM: one step of the whole radius."""

from dataclasses import dataclass

from worker.attacks.attack import Attack
from worker.attacks.ball import direction, per_image, project
from worker.attacks.loss import cross_entropy
from worker.attacks.search import Search


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x = clip(x0 + epsilon u(grad CE(x0))), u = sign (Linf) or g/||g||_2 (L2).

    Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572. The step is taken for every image, also for one that
    is misclassified as it stands.
    """

    name = "fgsm"
    draws: int

    def run(self, search: Search) -> None:
        """One gradient a sample."""
        x0, epsilon = search.x0, search.epsilon
        gradient = search.gradient(x0, cross_entropy, step=0).gradient
        x = x0 + per_image(epsilon, x0) * direction(gradient, self.norm)
        search.submit(project(x, x0, epsilon, self.norm))
        search.progress(1.0)
