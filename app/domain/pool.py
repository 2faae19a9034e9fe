"""The transfer pool of an evaluation: which other networks of its experiment adversarial images are made on.

Whatever fools a sibling is offered to the network itself: what breaks it this way, and no white-box attack did, is a
sign of masked gradients. docs/decisions/0010-transfer-pool.md says why these siblings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.domain.architectures import SPIKING
from app.domain.subject import group_of

TRANSFER = "transfer"  # the attack whose pool this is
OTHER_SEEDS = 2  # at most, the lowest ones: a seed added to an experiment later changes no pool of the others


class Trained(Protocol):
    """A run that makes a checkpoint, as the plan has it."""

    @property
    def key(self) -> str:
        """Names it."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """What its checkpoint depends on."""


@dataclass(frozen=True)
class Sibling:
    """A run whose checkpoint is in the pool, and what it is to the network under attack."""

    key: str
    role: str


def pool_of(run: Trained, others: Iterable[Trained]) -> list[Sibling]:
    """The siblings of the run's network among the others, none twice, in an order that does not depend on theirs:

    of a quantised network the float32 one it is made of, whose gradients nothing rounds; the default network of the
    same architecture and seed (the parent, where it is there), the same cell of the table
    at other seeds, the other spiking variant of the same seed. An imported network has no relatives but those seeds.
    """
    known = sorted({o.key: o for o in others if o.key != run.key}.values(), key=lambda other: _order(run, other))
    found = [Sibling(o.key, "float32 source") for o in known if run.spec["kind"] == "quantise" and _is_source(run, o)]
    found += [Sibling(o.key, "default sibling") for o in known if _is_default_sibling(run, o)][:1]
    found += [Sibling(o.key, "other seed") for o in known if _is_other_seed(run, o)][:OTHER_SEEDS]
    found += [Sibling(o.key, "other spiking variant") for o in known if _is_other_variant(run, o)][:1]
    return found


def _order(run: Trained, other: Trained) -> tuple[bool, bool, int, str]:
    """Its parent first, then what has the same one, then by seed."""
    parent = run.spec.get("parent")
    return other.key != parent, other.spec.get("parent") != parent, other.spec["seed"], other.key


def _is_source(run: Trained, other: Trained) -> bool:
    return bool(other.key == run.spec["parent"])


def _is_default_sibling(run: Trained, other: Trained) -> bool:
    return run.spec["variant"] in SPIKING and other.spec["variant"] == "default" and _same_seed(run, other)


def _is_other_variant(run: Trained, other: Trained) -> bool:
    same_branch = run.spec.get("branch_seed") == other.spec.get("branch_seed")
    spiking = run.spec["variant"] in SPIKING and other.spec["variant"] in SPIKING
    return spiking and run.spec["variant"] != other.spec["variant"] and same_branch and _same_seed(run, other)


def _is_other_seed(run: Trained, other: Trained) -> bool:
    return (
        other.spec["seed"] != run.spec["seed"] and other.spec.get("branch_seed") == run.spec.get("branch_seed")
        and group_of(other.spec) == group_of(run.spec)
    )


def _same_seed(run: Trained, other: Trained) -> bool:
    same = all(run.spec[name] == other.spec[name] for name in ("dataset", "architecture", "seed"))
    return same and "import" not in (run.spec["kind"], other.spec["kind"])
