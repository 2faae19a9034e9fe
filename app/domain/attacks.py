"""The catalogue: which attacks there are, with norms, parameters and references.

The attacks themselves are in `worker.attacks`, one a file under the same name; suites are in `app.domain.suites`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.domain.errors import suggestion
from app.domain.plugins import Catalogue

Norm = Literal["linf", "l2"]
NORMS: tuple[Norm, ...] = ("linf", "l2")
OWN_GRADIENT = "own"  # the model as it is; other names are those of `models.gradients`
EXPECTED_GRADIENT = "expected"  # of the logits averaged over all noise; a deterministic model's are its own


@dataclass(frozen=True)
class Parameter:
    """One setting of an attack: default, inclusive range or choices, and what it means."""

    default: int | float | str | bool
    meaning: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: Any) -> str | None:
        """What is wrong with `value`, or None."""
        kind = type(self.default)
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (kind is not bool and isinstance(value, bool)):
            return f"must be {_KINDS[kind]}, not {value!r}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, not {value!r}"
        if self.minimum is not None and self.maximum is not None and not self.minimum <= value <= self.maximum:
            return f"must lie in {self.minimum:.15g}..{self.maximum:.15g}, not {value!r}"
        return None


_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True)
class Attack:
    """A catalogue entry."""

    name: str
    title: str
    norms: tuple[Norm, ...]
    box: Literal["white", "black", "none"]
    reference: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    module: str = ""  # that has the class with this `name`; empty: `worker.attacks.NAME`

    def faults(self, given: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with which parameter, those unknown first."""
        unknown = {name: f"unknown parameter {name!r}{suggestion(name, self.parameters)}"
                   for name in given if name not in self.parameters}  # fmt: skip
        checked = {name: p.check(given[name]) for name, p in self.parameters.items() if name in given}
        return unknown | {name: fault for name, fault in checked.items() if fault}

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` over the defaults. Raises ValueError naming every fault and what is allowed."""
        if faults := self.faults(given):
            told = (fault if name not in self.parameters else f"{name} {fault}" for name, fault in faults.items())
            raise ValueError(f"{self.name}: " + "; ".join(told))
        # 1 and 1.0 are one value of a number: they must not make two protocols
        return {name: type(p.default)(given.get(name, p.default)) for name, p in self.parameters.items()}


_DRAWS = Parameter(8, "draws averaged for one gradient of a stochastic model (EOT)", 1, 256)
# Names of `models.gradients`, each written in one way only: they are part of a protocol's identity.
SURROGATE_GRID = (
    "straight_through", "atan:1", "atan:2", "atan:4", "atan:8", "rectangle:0.5", "rectangle:1", "rectangle:2",
    "fast_sigmoid", "bptr", "rga", "pdsg", "assg",
)
_GRADIENT = Parameter(
    OWN_GRADIENT, "how a spiking model is differentiated: as it is, in expectation, or through another surrogate",
    choices=(OWN_GRADIENT, "sampled", EXPECTED_GRADIENT, *SURROGATE_GRID),
)

ATTACKS = Catalogue(
    "attacks", Attack,
    (
        Attack(
            "fgsm", "Fast gradient sign method", ("linf", "l2"), "white",
            "Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572", {"draws": _DRAWS},
        ),
        Attack(
            "pgd", "Projected gradient descent (BIM without random start)", ("linf", "l2"), "white",
            "Madry et al. 2018, arXiv:1706.06083",
            {
                "steps": Parameter(20, "gradient steps", 1, 10_000),
                "step_size": Parameter(0.25, "length of a step as a share of eps", 1e-4, 10.0),
                "random_start": Parameter(True, "start at a uniform point of the ball"),
                "restarts": Parameter(1, "independent starts", 1, 100),
                "draws": _DRAWS,
            },
        ),
        Attack(
            "mifgsm", "Momentum iterative FGSM", ("linf", "l2"), "white",
            "Dong et al. 2018, arXiv:1710.06081",
            {
                "steps": Parameter(10, "gradient steps", 1, 10_000),
                "step_size": Parameter(0.1, "length of a step as a share of eps", 1e-4, 10.0),
                "momentum": Parameter(1.0, "share of the summed gradients kept at a step", 0.0, 10.0),
                "draws": _DRAWS,
                "gradient": _GRADIENT,
            },
        ),
        Attack(
            "apgd", "Auto-PGD", ("linf", "l2"), "white",
            "Croce, Hein 2020, arXiv:2003.01690",
            {
                "loss": Parameter(
                    "ce", "climbed: cross-entropy or difference of logits ratio, away from the label or to targets",
                    choices=("ce", "dlr", "ce-targeted", "dlr-targeted"),
                ),
                "steps": Parameter(100, "gradient steps", 1, 10_000),
                "targets": Parameter(9, "target classes, highest logits first; of targeted losses", 1, 1000),
                "restarts": Parameter(1, "independent starts", 1, 100),
                "rho": Parameter(0.75, "share of a window's steps that must rise, or the step is halved", 0.0, 1.0),
                "draws": _DRAWS,
                "gradient": _GRADIENT,
            },
        ),
        Attack(
            "sapgd", "Stable adaptive PGD, for spiking networks", ("linf",), "white",
            "Wang, Zhao, Chen, Zhang, Zeng 2025, arXiv:2512.22522",
            {"steps": Parameter(100, "gradient steps", 1, 10_000), "draws": _DRAWS, "gradient": _GRADIENT},
        ),
        Attack(
            "deepfool", "DeepFool, projected into the ball", ("linf", "l2"), "white",
            "Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv:1511.04599",
            {
                "steps": Parameter(50, "linearisations", 1, 1000),
                "overshoot": Parameter(0.02, "how far past the boundary, as a share", 0.0, 1.0),
                "candidates": Parameter(10, "classes considered, highest logits first", 2, 1000),
                "draws": _DRAWS,
            },
        ),
        Attack(
            "fab", "FAB-T: fast adaptive boundary, projected into the ball", ("linf", "l2"), "white",
            "Croce, Hein 2020, arXiv:1907.02044",
            {
                "steps": Parameter(100, "linearisations a target", 1, 10_000),
                "targets": Parameter(9, "target classes, highest logits first", 1, 1000),
                "restarts": Parameter(1, "independent starts", 1, 100),
                "alpha_max": Parameter(0.1, "largest share of the step towards the image's own plane", 0.0, 1.0),
                "eta": Parameter(1.05, "how far to the plane and past it", 1.0, 2.0),
                "beta": Parameter(0.9, "share of the perturbation kept once it fools", 0.0, 1.0),
                "draws": _DRAWS,
                "gradient": _GRADIENT,
            },
        ),
        Attack(
            "square", "Square attack", ("linf", "l2"), "black",
            "Andriushchenko et al. 2020, arXiv:1912.00049",
            {
                "queries": Parameter(5000, "forward passes an image", 1, 100_000),
                "p_init": Parameter(0.8, "share of the pixels in the first square", 1e-3, 1.0),
                "schedule": Parameter(
                    "scaled", "p halves after fixed query counts, or those scaled by queries/10000",
                    choices=("scaled", "standard"),
                ),
                "draws": _DRAWS,
            },
        ),
        Attack(
            "cw", "Carlini and Wagner, projected into the ball", ("l2",), "white",
            "Carlini, Wagner 2017, arXiv:1608.04644",
            {
                "steps": Parameter(1000, "Adam steps for one c", 1, 100_000),
                "searches": Parameter(9, "values of c tried in a binary search", 1, 30),
                "learning_rate": Parameter(0.01, "of Adam, on the tanh variable", 1e-5, 1.0),
                "initial_c": Parameter(1e-3, "first weight of the misclassification term", 1e-8, 1e8),
                "confidence": Parameter(0.0, "margin by which the model has to err, in logits", 0.0, 1000.0),
                "abort_early": Parameter(True, "end a search when a tenth of its steps brought nothing"),
                "draws": _DRAWS,
                "gradient": _GRADIENT,
            },
        ),
        Attack(
            "fmn", "Fast minimum-norm attack, projected into the ball", ("linf", "l2"), "white",
            "Pintor, Roli, Brendel, Biggio 2021, arXiv:2102.12827",
            {
                "steps": Parameter(100, "gradient steps", 1, 10_000),
                "step_size": Parameter(1.0, "L2 length of the first step, in pixel units", 1e-4, 1000.0),
                "gamma": Parameter(0.05, "first change of the radius, as a share", 1e-3, 0.999),
                "draws": _DRAWS,
                "gradient": _GRADIENT,
            },
        ),
        Attack(
            "hopskipjump", "HopSkipJump, projected into the ball", ("linf", "l2"), "black",
            "Chen, Jordan, Wainwright 2020, arXiv:1904.02144",
            {
                "queries": Parameter(5000, "forward passes an image", 1, 1_000_000),
                "first_evaluations": Parameter(100, "queries for the first direction; the j-th takes sqrt(j) times it",
                                               2, 10_000),
                "gamma": Parameter(1.0, "how near the boundary the search goes, in the paper's unit", 1e-4, 1e4),
                "draws": _DRAWS,
            },
        ),
        Attack(
            "transfer", "Transfer from sibling networks of the experiment", ("linf", "l2"), "black",
            "Papernot, McDaniel, Goodfellow 2016, arXiv:1605.07277; PGD on each sibling: Madry et al. 2018",
            {
                "steps": Parameter(20, "gradient steps on each sibling", 1, 10_000),
                "step_size": Parameter(0.25, "length of a step as a share of eps", 1e-4, 10.0),
                "draws": Parameter(8, "draws averaged for one gradient of a stochastic sibling (EOT)", 1, 256),
            },
        ),
        Attack(
            "noise", "Random noise: the floor every attack must beat", ("linf", "l2"), "none",
            "uniform in the ball, or Gaussian scaled into it",
            {
                "distribution": Parameter("uniform", "of the perturbation", choices=("uniform", "gaussian")),
                "tries": Parameter(10, "perturbations an image", 1, 10_000),
            },
        ),
    ),
)


def find_attack(name: str) -> Attack:
    """The catalogue entry. Raises ValueError naming the nearest."""
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}{suggestion(name, ATTACKS)}")
    return ATTACKS[name]
