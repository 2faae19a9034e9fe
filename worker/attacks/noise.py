"""Random noise: the floor that every attack must beat."""

from dataclasses import dataclass

from torch import Tensor

from app.domain.attacks import Norm
from models.noise import KeyedNoise
from worker.attacks.attack import Attack
from worker.attacks.ball import direction, lengths, per_image, project
from worker.attacks.search import Search


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """The worst of `tries` perturbations: uniform in the ball, or Gaussian scaled to length epsilon."""

    name = "noise"
    distribution: str
    tries: int

    def run(self, search: Search) -> None:
        """`tries` queries a sample, fewer for one that is fooled on the way."""
        draw = uniform_in_ball if self.distribution == "uniform" else gaussian_on_sphere
        for restart in range(self.tries):
            if not len(search):
                return
            search.restart = restart
            delta = draw(search.x0, search.epsilon, self.norm, search.noise("start"))
            search.offer(project(search.x0 + delta, search.x0, search.epsilon, self.norm))
            search.progress((restart + 1) / self.tries)


def uniform_in_ball(like: Tensor, epsilon: Tensor, norm: Norm, noise: KeyedNoise) -> Tensor:
    """A uniform point of the ball: of the cube (Linf), or a uniform direction times epsilon u^(1/d) (L2)."""
    shape = like.shape[1:]
    if norm == "linf":
        return per_image(epsilon, like) * (2 * noise.uniform_per_image(*shape).to(like.device) - 1)
    unit = direction(noise.normal_per_image(*shape).to(like.device), "l2")
    radius = noise.uniform_per_image().to(like.device) ** (1 / shape.numel())
    return per_image(epsilon * radius, like) * unit


def uniform_in_length(like: Tensor, epsilon: Tensor, norm: Norm, noise: KeyedNoise) -> Tensor:
    """A Gaussian perturbation scaled so that its norm is uniform in [0, epsilon]."""
    return gaussian_on_sphere(like, epsilon * noise.uniform_per_image().to(like.device), norm, noise)


def gaussian_on_sphere(like: Tensor, epsilon: Tensor, norm: Norm, noise: KeyedNoise) -> Tensor:
    """A Gaussian perturbation scaled so that its norm is epsilon."""
    delta = noise.normal_per_image(*like.shape[1:]).to(like.device)
    return delta * per_image(epsilon / lengths(delta, norm).to(delta.dtype), delta)


def start_on_sphere(like: Tensor, epsilon: Tensor, norm: Norm, noise: KeyedNoise) -> Tensor:
    """Where AutoAttack's attacks start: epsilon t/max|t|, t uniform (Linf), or epsilon t/||t||_2, t Gaussian (L2)."""
    if norm == "l2":
        return gaussian_on_sphere(like, epsilon, "l2", noise)
    t = 2 * noise.uniform_per_image(*like.shape[1:]).to(like.device) - 1
    return t * per_image(epsilon / lengths(t, "linf").to(t.dtype), t)
