"""Training recipes by name. A recipe's version is raised when results would change."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

Schedule = Literal["one-cycle", "constant"]


@dataclass(frozen=True)
class Phase:
    """How one of the two trainings runs: of the continuous model, or of a branch."""

    epochs: int
    learning_rate: float
    decoder_learning_rate: float  # of the head; a fresh spiking head takes larger steps than its encoder


@dataclass(frozen=True)
class NoisyHead:
    """How a ParaLIF head is trained otherwise: its read-out is the mean of a few spikes, the noisiest there is.

    draws: of its spikes for one training step, of which the loss is the mean; the encoder runs once for all of them.
    wide_learning_rate: of a head on WIDE features or more, which moves further at one rate; None: as other heads.
    """

    draws: int = 1
    wide_learning_rate: float | None = None


@dataclass(frozen=True)
class InnerAttack:
    """The PGD that adversarial training trains against: Linf, `steps` of `step_size` times the radius."""

    steps: int
    step_size: float


WIDE = 512


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum. `augment`: random crop and mirror image as the data set allows. `center_crop`: with
    ImageNet weights, images are resized to more than the network takes and their middle is kept, as torchvision does.
    """

    name: str
    version: int
    title: str
    continuous: Phase
    branch: Phase
    schedule: Schedule
    batch_size: int
    momentum: float
    nesterov: bool
    weight_decay: float
    augment: bool
    randaugment_on: tuple[str, ...] = ()
    center_crop: bool = False
    paralif: NoisyHead = NoisyHead()
    inner: InnerAttack | None = None  # of an adversarial training

    def branch_rate(self, variant: str, features: int) -> float:
        """The learning rate of a spiking head on so many features."""
        wide = self.paralif.wide_learning_rate if variant == "paralif" and features >= WIDE else None
        return self.branch.decoder_learning_rate if wide is None else wide

    def draws(self, variant: str) -> int:
        """Draws of the noise for one training step."""
        return self.paralif.draws if variant == "paralif" else 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "default", 2, "from scratch: one-cycle SGD with Nesterov momentum, crops, mirror images of photographs",
            Phase(20, 0.1, 0.1), Phase(10, 0.02, 0.1), "one-cycle", 64, 0.9, True, 5e-4, True,
            paralif=NoisyHead(draws=8, wide_learning_rate=0.02),
        ),
        Recipe(
            "study", 2, "as the study: SGD at a constant rate, torchvision's preprocessing, RandAugment on CIFAR-100",
            Phase(5, 0.001, 0.001), Phase(5, 0.001, 0.001), "constant", 64, 0.9, False, 1e-4, False,
            randaugment_on=("cifar100",), center_crop=True,
        ),
        Recipe(
            "adversarial", 1, "PGD-7 adversarial training (Madry et al. 2018, arXiv:1706.06083), else as `default`",
            Phase(20, 0.1, 0.1), Phase(10, 0.02, 0.1), "one-cycle", 64, 0.9, True, 5e-4, True,
            paralif=NoisyHead(draws=8, wide_learning_rate=0.02), inner=InnerAttack(7, 0.25),
        ),
    )
}
UNDEFENDED = frozenset(name for name, recipe in RECIPES.items() if recipe.inner is None)
# What figures may be asked of; networks that were trained elsewhere are "imported".
if TYPE_CHECKING:
    MeasuredRecipe = str
else:
    MeasuredRecipe = Literal[(*RECIPES, "imported")]
