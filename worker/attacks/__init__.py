"""Attacks over tensors, one a file, named by its paper name. `ATTACK_CLASSES` is the table of them."""

from typing import Any

from app.domain.attacks import Norm, find_attack
from worker.attacks.apgd import APGD
from worker.attacks.attack import Attack
from worker.attacks.deepfool import DeepFool
from worker.attacks.fgsm import FGSM
from worker.attacks.mifgsm import MIFGSM
from worker.attacks.noise import Noise
from worker.attacks.pgd import PGD
from worker.attacks.search import Found
from worker.attacks.square import Square
from worker.attacks.target import Classifier, Target, frozen

ATTACK_CLASSES: dict[str, type[Attack]] = {cls.name: cls for cls in (FGSM, PGD, MIFGSM, APGD, DeepFool, Square, Noise)}


def build_attack(name: str, *, norm: Norm, **given: Any) -> Attack:
    """`build_attack("pgd", norm="linf", steps=40)`: the catalogue's defaults where nothing is given.

    Raises ValueError for an unknown attack, parameter or norm, naming what is allowed.
    """
    settings = find_attack(name).resolve(given)
    return ATTACK_CLASSES[name](norm=norm, **settings)


__all__ = ["ATTACK_CLASSES", "Attack", "Classifier", "Found", "Target", "build_attack", "frozen"]
