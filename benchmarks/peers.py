"""The attacks of torchattacks, foolbox and ART as functions of a seed, with the settings of ours.

    Peers(model, x0, labels, batch=64).find("pgd", "linf", 0.03, Budget())     # {"torchattacks": run, ...}
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.domain.attacks import Norm
from models.registry import Classifier

Run = Callable[[int], Tensor]  # seed -> adversarial images


class InFloat32(torch.nn.Module):
    """ART's HopSkipJump asks about images in float64."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.float())
        return logits


@dataclass(frozen=True)
class Budget:
    """What each attack may spend, ours and theirs alike."""

    queries: int = 300  # Square
    decisions: int = 2000  # HopSkipJump
    steps: int = 20  # PGD, MI-FGSM
    apgd_steps: int = 100
    fab_steps: int = 100
    targets: int = 9
    fmn_steps: int = 100
    cw_steps: int = 100
    cw_searches: int = 5
    cw_rate: float = 0.02
    cw_constant: float = 0.1

    @property
    def rounds(self) -> int:
        """HopSkipJump's rounds of which the probes alone come to `decisions`: theirs is never the smaller budget."""
        spent, rounds = 0, 0
        while spent < self.decisions:
            rounds += 1
            spent += int(100 * rounds**0.5)
        return rounds


class Peers:
    """Raises ImportError where one of them is missing."""

    def __init__(self, model: Classifier, x0: Tensor, labels: Tensor, batch: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two of them import what scipy has moved
            import art.attacks.evasion
            import art.estimators.classification
            import foolbox
            import torchattacks
        self.model, self.x0, self.labels, self.batch = model, x0, labels, batch
        self.torchattacks, self.foolbox, self.art = torchattacks, foolbox.attacks, art.attacks.evasion
        self.foolbox_model = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        self.classifier = art.estimators.classification.PyTorchClassifier(
            InFloat32(model), loss=torch.nn.CrossEntropyLoss(), input_shape=tuple(x0.shape[1:]),
            nb_classes=int(model.spec.classes), clip_values=(0.0, 1.0),
        )

    def find(self, name: str, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        """Every peer that has the attack in this norm."""
        found: dict[str, Run] = getattr(self, f"_{name}")(norm, eps, budget)
        return found

    def _fgsm(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        found = {
            "foolbox": self._by_foolbox(self._of(norm, "FastGradientAttack")(), eps),
            "ART": self._by_art(self.art.FastGradientMethod(
                self.classifier, norm=_art_norm(norm), eps=eps, batch_size=self.batch
            )),
        }
        if norm == "linf":
            found["torchattacks"] = self._by_torchattacks(lambda _: self.torchattacks.FGSM(self.model, eps=eps))
        return found

    def _pgd(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        attack = self.torchattacks.PGD if norm == "linf" else self.torchattacks.PGDL2
        steps = budget.steps
        return {
            "torchattacks": self._by_torchattacks(lambda _: attack(self.model, eps=eps, alpha=eps / 4, steps=steps)),
            "foolbox": self._by_foolbox(self._of(norm, "PGD")(rel_stepsize=0.25, steps=steps), eps),
            "ART": self._by_art(self.art.ProjectedGradientDescentPyTorch(
                self.classifier, norm=_art_norm(norm), eps=eps, eps_step=eps / 4, max_iter=steps, num_random_init=1,
                batch_size=self.batch, verbose=False,
            )),
        }

    def _mifgsm(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        steps = budget.steps
        attack = self._of(norm, "MomentumIterativeFastGradientMethod")
        found = {
            "foolbox": self._by_foolbox(attack(momentum=1.0, rel_stepsize=0.1, steps=steps, random_start=False), eps),
            "ART": self._by_art(self.art.MomentumIterativeMethod(
                self.classifier, norm=_art_norm(norm), eps=eps, eps_step=eps / 10, decay=1.0, max_iter=steps,
                batch_size=self.batch, verbose=False,
            )),
        }
        if norm == "linf":
            found["torchattacks"] = self._by_torchattacks(
                lambda _: self.torchattacks.MIFGSM(self.model, eps=eps, alpha=eps / 10, steps=steps, decay=1.0)
            )
        return found

    def _apgd(
        self, norm: Norm, eps: float, budget: Budget, loss: str = "ce", loss_in_art: str = "cross_entropy"
    ) -> dict[str, Run]:
        steps = budget.apgd_steps
        return {
            "torchattacks": self._by_torchattacks(lambda seed: self.torchattacks.APGD(
                self.model, norm=_short(norm), eps=eps, steps=steps, seed=seed, loss=loss
            )),
            "ART": self._by_art(self.art.AutoProjectedGradientDescent(
                self.classifier, norm=_art_norm(norm), eps=eps, eps_step=2 * eps, max_iter=steps, nb_random_init=1,
                batch_size=self.batch, loss_type=loss_in_art, verbose=False,
            )),
        }

    def _apgd_dlr(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        return self._apgd(norm, eps, budget, "dlr", "difference_logits_ratio")

    def _apgd_t(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        return {"torchattacks": self._by_torchattacks(lambda seed: self.torchattacks.APGDT(
            self.model, norm=_short(norm), eps=eps, steps=budget.apgd_steps, seed=seed, n_classes=budget.targets + 1
        ))}

    def _fab(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        return {"torchattacks": self._by_torchattacks(lambda seed: self.torchattacks.FAB(
            self.model, norm=_short(norm), eps=eps, steps=budget.fab_steps, seed=seed, multi_targeted=True,
            n_classes=budget.targets + 1,
        ))}

    def _square(self, norm: Norm, eps: float, budget: Budget, rescale: bool = True) -> dict[str, Run]:
        return {
            "torchattacks": self._by_torchattacks(lambda seed: self.torchattacks.Square(
                self.model, norm=_short(norm), eps=eps, n_queries=budget.queries, p_init=0.8, loss="margin",
                resc_schedule=rescale, seed=seed,
            )),
            "ART": self._by_art(self.art.SquareAttack(
                self.classifier, norm=_art_norm(norm), eps=eps, max_iter=budget.queries, p_init=0.8,
                batch_size=self.batch, verbose=False,
            )),
        }

    def _deepfool(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        """Only foolbox has the Linf form."""
        attack = self._of(norm, "DeepFoolAttack")(steps=50, overshoot=0.02, candidates=10)
        found = {"foolbox": self._by_foolbox(attack, eps)}
        if norm == "l2":
            found["torchattacks"] = self._by_torchattacks(
                lambda _: self.torchattacks.DeepFool(self.model, steps=50, overshoot=0.02)
            )
            found["ART"] = self._by_art(self.art.DeepFool(
                self.classifier, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=self.batch, verbose=False
            ))
        return found

    def _cw(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        """torchattacks has no search over c: it gets all of the steps at c = 1."""
        steps, searches, rate, constant = budget.cw_steps, budget.cw_searches, budget.cw_rate, budget.cw_constant
        attack = self.foolbox.L2CarliniWagnerAttack(
            steps=steps, binary_search_steps=searches, stepsize=rate, initial_const=constant
        )
        return {
            "torchattacks": self._by_torchattacks(
                lambda _: self.torchattacks.CW(self.model, c=1, steps=steps * searches, lr=rate)
            ),
            "foolbox": self._by_foolbox(attack, eps),
            "ART": self._by_art(self.art.CarliniL2Method(
                self.classifier, learning_rate=rate, binary_search_steps=searches, max_iter=steps,
                initial_const=constant, batch_size=self.batch, verbose=False,
            )),
        }

    def _fmn(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        attack = self.foolbox.LInfFMNAttack if norm == "linf" else self.foolbox.L2FMNAttack
        return {"foolbox": self._by_foolbox(attack(steps=budget.fmn_steps), eps)}

    def _hopskipjump(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        return {
            "foolbox": self._by_foolbox(self.foolbox.HopSkipJumpAttack(steps=budget.rounds, constraint=norm), eps),
            "ART": self._by_art(self.art.HopSkipJump(
                self.classifier, batch_size=self.batch, norm=_art_norm(norm), max_iter=budget.rounds, init_eval=100,
                verbose=False,
            )),
        }

    def _standard(self, norm: Norm, eps: float, budget: Budget) -> dict[str, Run]:
        """torchattacks' APGD, APGD-T, FAB-T and Square, each on what the ones before left."""
        official = Budget(queries=5000)
        kwargs = {"norm": _short(norm), "eps": eps}

        def attacks(seed: int) -> list[Any]:
            return [
                self.torchattacks.APGD(self.model, **kwargs, steps=official.apgd_steps, seed=seed, loss="ce"),
                self.torchattacks.APGDT(self.model, **kwargs, steps=official.apgd_steps, seed=seed, n_classes=10),
                self.torchattacks.FAB(self.model, **kwargs, steps=official.fab_steps, seed=seed, multi_targeted=True,
                                      n_classes=10),
                self.torchattacks.Square(self.model, **kwargs, n_queries=official.queries, resc_schedule=False,
                                         seed=seed),
            ]

        return {"torchattacks": lambda seed: in_turn(self.model, self.x0, self.labels, attacks(seed))}

    def _of(self, norm: Norm, name: str) -> Any:
        return getattr(self.foolbox, {"linf": "Linf", "l2": "L2"}[norm] + name)

    def _by_torchattacks(self, attack: Callable[[int], Any]) -> Run:
        parts = list(zip(self.x0.split(self.batch), self.labels.split(self.batch), strict=True))

        def run(seed: int) -> Tensor:
            built = attack(seed)
            return torch.cat([built(x, y) for x, y in parts])

        return run

    def _by_foolbox(self, attack: Any, eps: float) -> Run:
        parts = list(zip(self.x0.split(self.batch), self.labels.split(self.batch), strict=True))
        return lambda seed: torch.cat([attack(self.foolbox_model, x, y, epsilons=eps)[1] for x, y in parts])

    def _by_art(self, attack: Any) -> Run:
        return lambda seed: torch.from_numpy(attack.generate(self.x0.numpy(), self.labels.numpy())).float()


def in_turn(model: Classifier, x0: Tensor, labels: Tensor, attacks: list[Callable[[Tensor, Tensor], Tensor]]) -> Tensor:
    """Each attack on the images that stand, (batch, C, H, W)."""
    x = x0.clone()
    for attack in attacks:
        with torch.no_grad():
            standing = (model(x).argmax(1) == labels).nonzero()[:, 0]
        if len(standing):
            x[standing] = attack(x0[standing], labels[standing]).detach()
    return x


def _short(norm: Norm) -> str:
    return {"linf": "Linf", "l2": "L2"}[norm]


def _art_norm(norm: Norm) -> float:
    return np.inf if norm == "linf" else 2
