"""One gradient of a stochastic ParaLIF network: averaged over 20 draws, and of its expected logits.

Beside them, our own writing of what is usual: the mean over 20 full passes, each with its own noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.attack_rows import Lab
from benchmarks.contest import Contest
from benchmarks.network import with_head
from models.registry import Classifier
from worker.attacks import Target, frozen
from worker.attacks.loss import cross_entropy
from worker.evaluation.votes import fresh_noise

DRAWS = 20
PEER = "20 full passes (our writing)"


def full_passes(model: Classifier, x: Tensor, labels: Tensor, batch: int) -> Tensor:
    total = torch.zeros_like(x)
    for part in torch.arange(len(x), device=x.device).split(batch):
        for _ in range(DRAWS):
            pixels = x[part].clone().requires_grad_()
            loss = functional.cross_entropy(model(pixels), labels[part], reduction="sum")
            total[part] += torch.autograd.grad(loss, pixels)[0] / DRAWS
    return total


def ours(model: Classifier, lab: Lab, gradient: str, draws: int) -> Callable[[int], Tensor]:
    target = Target(model, batch_size=lab.batch).through(gradient)

    def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        return torch.autograd.grad(cross_entropy(logits, lab.labels[rows]).sum(), pixels)[0]

    def run(seed: int) -> Tensor:
        noise = fresh_noise(seed, torch.arange(len(lab.x0), device=lab.x0.device))
        return target.differentiate(lab.x0, derive, draws=draws, noise=noise).gradient

    return run


def contest(lab: Lab, name: str, gradient: str, draws: int, target: float, *, repeats: int = 5) -> Contest:
    model = with_head(lab.model, "paralif").to(lab.device)
    with frozen(model):
        run = ours(model, lab, gradient, draws)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    peer = lambda seed: full_passes(model, lab.x0, lab.labels, lab.peers_batch)  # noqa: E731
    return Contest(name, run, {PEER: peer}, target, repeats=repeats, device=lab.device)


def contests(lab: Lab) -> list[Callable[[], Contest]]:
    return [
        lambda: contest(lab.of(64), "gradient over 20 draws, ParaLIF", "sampled", DRAWS, 15.0),
        lambda: contest(lab.of(64), "gradient of the expected model, ParaLIF", "expected", 1, 20.0),
    ]
