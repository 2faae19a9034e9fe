"""Attacks over tensors, one a file, named by its paper name. The catalogue in `app.domain.attacks` is their table."""

from functools import cache
from importlib import import_module
from typing import Any

from app.domain.attacks import Norm, find_attack
from app.domain.errors import PluginError
from worker.attacks.attack import Attack
from worker.attacks.search import Found
from worker.attacks.target import Classifier, Target, frozen


@cache
def attack_class(name: str) -> type[Attack]:
    """The class of that `name` in the module that its entry names. Raises ValueError for an unknown attack, PluginError
    where there is no such class."""
    place = find_attack(name).module or f"worker.attacks.{name}"
    try:
        inside = vars(import_module(place)).values()
    except ImportError as error:
        raise PluginError(f"the attack {name!r} cannot be imported from {place}: {error}") from error
    for found in inside:
        if isinstance(found, type) and issubclass(found, Attack) and getattr(found, "name", None) == name:
            return found
    raise PluginError(f"{place} has no attack with the name {name!r}")


def build_attack(name: str, *, norm: Norm, **given: Any) -> Attack:
    """`build_attack("pgd", norm="linf", steps=40)`: the catalogue's defaults where nothing is given.

    Raises ValueError for an unknown attack, parameter or norm, naming what is allowed.
    """
    settings = find_attack(name).resolve(given)
    return attack_class(name)(norm=norm, **settings)


__all__ = ["Attack", "Classifier", "Found", "Target", "attack_class", "build_attack", "frozen"]
