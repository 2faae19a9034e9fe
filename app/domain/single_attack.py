"""An attack on one image of somebody's choice: what `POST /checkpoints/{id}/attack` takes, and the run it becomes.

    wanted = AttackRequest(attack="pgd", eps="8/255", test_image=17)
    problems = check_attack(wanted, classes, dataset)
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, ClassVar

from pydantic import Field

from app.domain.attacks import Norm, find_attack
from app.domain.checks import LARGEST_EPS
from app.domain.datasets import Dataset, headline_eps
from app.domain.epsilon import parse_epsilon
from app.domain.errors import Problem, suggestion
from app.domain.plan import PlannedRun
from app.domain.pool import TRANSFER
from app.domain.spec import Name, Radius, Strict
from app.domain.subject import subject_of

LARGEST_INDEX = 10**9
PRIORITY = 10  # the highest: somebody waits for it, and it takes seconds


class ImageRequest(Strict):
    """Which image: one of the test split, by its number; a file or pixels come beside this."""

    json_fields: ClassVar[frozenset[str]] = frozenset({"test_image", "seed", "parameters", "fresh", "neurons", "count"})
    test_image: int | None = Field(
        None, ge=0, le=LARGEST_INDEX, description="its number in the test split, in place of an image of one's own"
    )
    seed: int = Field(0, ge=0, lt=2**31)


class AttackRequest(ImageRequest):
    """The attack, its radius, and the class that the image is of."""

    attack: Name = "pgd"
    parameters: dict[Name, int | float | Name | bool] = Field(default_factory=dict, max_length=50)
    norm: Norm = "linf"
    eps: Radius | None = Field(None, description="null: the radius that the leaderboard of the data set shows first")
    label: Annotated[int, Field(ge=0)] | Name | None = Field(
        None, description="the true class by number or name; null: the test image's, else what the network answers"
    )
    fresh: bool = Field(False, description="run it anew, even where the same was asked before")

    def radius(self, dataset: str) -> Fraction:
        """The radius asked for, or the usual one of the data set."""
        return parse_epsilon(self.eps if self.eps is not None else headline_eps(dataset)[self.norm])


def check_attack(wanted: AttackRequest, classes: Sequence[str]) -> list[Problem]:
    """What of the attack, its radius and the label cannot be."""
    return [*_check_attack(wanted), *_check_radius(wanted), *_check_label(wanted.label, classes)]


def check_test_image(index: int, dataset: Dataset, image_shape: Sequence[int]) -> list[Problem]:
    """Whether the data set has it, and the network takes its images."""
    if tuple(image_shape) != dataset.shape:
        shapes = f"{list(dataset.shape)}, the network takes {list(image_shape)}"
        return [Problem("/test_image", f"images of {dataset.name} have the shape {shapes}; send an image of your own")]
    if index >= dataset.test_size:
        return [Problem("/test_image", f"{dataset.name} has the test images 0..{dataset.test_size - 1}")]
    return []


def _check_attack(wanted: AttackRequest) -> list[Problem]:
    try:
        attack = find_attack(wanted.attack)
    except ValueError as error:
        return [Problem("/attack", str(error))]
    if attack.name == TRANSFER:
        return [Problem("/attack", "transfer needs the sibling networks of an experiment; name another attack")]
    if wanted.norm not in attack.norms:
        return [Problem("/norm", f"{attack.name} is for {', '.join(attack.norms)}, not {wanted.norm}")]
    return [Problem(f"/parameters/{name}", fault) for name, fault in attack.faults(wanted.parameters).items()]


def _check_radius(wanted: AttackRequest) -> list[Problem]:
    largest = LARGEST_EPS[wanted.norm]
    if wanted.eps is None or parse_epsilon(wanted.eps) <= largest:
        return []
    return [Problem("/eps", f"must be at most {largest} for {wanted.norm}: pixels lie in 0..1")]


def _check_label(label: int | str | None, classes: Sequence[str]) -> list[Problem]:
    if isinstance(label, int) and label >= len(classes):
        return [Problem("/label", f"there are the classes 0..{len(classes) - 1}, not {label}")]
    if isinstance(label, str) and label not in classes:
        return [Problem("/label", f"unknown class {label!r}{suggestion(label, classes)}")]
    return []


def attack_run(
    wanted: AttackRequest, trained: Mapping[str, Any], checkpoint: Mapping[str, Any], image: Mapping[str, Any]
) -> PlannedRun:
    """`trained`: the specification that the checkpoint comes from; `checkpoint`: its `id`, `dataset`, `epochs` and
    `classes`; `image`: `{"sha256": ...}` of pixels that were sent, or `{"test_image": 17, "fingerprint": ...}`."""
    classes: Sequence[str] = checkpoint["classes"]
    label = classes.index(wanted.label) if isinstance(wanted.label, str) else wanted.label
    spec = {
        "kind": "attack", "checkpoint": checkpoint["id"], "image": dict(image), "label": label, "seed": wanted.seed,
        "attack": wanted.attack, "parameters": find_attack(wanted.attack).resolve(wanted.parameters),
        "norm": wanted.norm, "eps": str(wanted.radius(checkpoint["dataset"])),
        "subject": {**subject_of(trained), "epochs": checkpoint["epochs"]},
    }
    return PlannedRun("attack", spec)
