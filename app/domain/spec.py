"""What `POST /experiments` takes: fields, types, ranges, defaults.

What depends on several fields, on the data set or on the catalogues is checked by `app.domain.checks`.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.domain.architectures import VARIANTS, ArchitectureName, Variant
from app.domain.attacks import Norm
from app.domain.epsilon import parse_epsilon
from app.domain.published import EvaluationOption
from app.domain.weights import ALLOWED, weights_name

MAX_SEEDS = 100
MAX_EPS = 50
MAX_CHECKPOINTS = 500
MAX_SHARDS = 64
Precision = Literal["float32", "int8"]
SpikeMode = Literal["SB", "TRB", "GS", "D", "SD", "TD", "TRD", "T", "ST", "TT", "TRT"]


class Strict(BaseModel):
    """No unknown fields, no silent conversion, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _radius(value: float | str) -> float | str:
    parse_epsilon(value)
    return value


def _text(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not hold the character NUL")
    return value


def _no_repeats(values: list[Any]) -> list[Any]:
    if len({str(v) for v in values}) != len(values):
        raise ValueError("must not name anything twice")
    return values


Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MAX_SEEDS), AfterValidator(_no_repeats)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Rate = Annotated[float, Field(gt=0, le=10)]
Batch = Annotated[int, Field(ge=2, le=4096)]
Depth = Annotated[int, Field(ge=0, le=4)]
Radius = Annotated[float | Annotated[str, Field(max_length=100)], AfterValidator(_radius)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_text)]
WeightsName = Annotated[str, Field(max_length=100), AfterValidator(_text), AfterValidator(weights_name)]


class Override(Strict):
    """Another training length or rate for some cells of the table (architecture x variant)."""

    architecture: ArchitectureName | None = None
    variant: Variant | None = None
    epochs: Epochs | None = None
    branch_epochs: Epochs | None = None
    branch_at: Epochs | None = None
    learning_rate: Rate | None = None
    batch_size: Batch | None = None
    freeze_depth: Depth | None = None


class TrainingSpec(Strict):
    """How the networks are trained; null: as the recipe and the weights have it."""

    weights: WeightsName = Field("none", description=f"{ALLOWED}, whose encoder is then the start")
    stem: Literal["imagenet", "cifar"] | None = None
    image_size: Annotated[int, Field(ge=8, le=512)] | None = None
    freeze_depth: Depth | None = None
    images: Annotated[int, Field(ge=1)] | None = Field(
        None, description="train on the first N of a fixed stratified permutation of the training split (null: all)"
    )
    epochs: Epochs | None = None
    branch_epochs: Epochs | None = None
    branch_at: Epochs | None = Field(None, description="branch from the parent after this epoch (null: its last)")
    recipe: Name | None = None
    batch_size: Batch | None = None
    learning_rate: Rate | None = None
    adversarial_eps: Radius | None = Field(
        None, description="Linf radius of the recipe `adversarial` (null: the data set's headline radius)"
    )
    mixed_precision: bool = Field(
        False, description="the encoder learns in bfloat16; weights, heads and every evaluation stay in float32"
    )
    overrides: list[Override] = Field(default_factory=list, max_length=100)


class DecoderSpec(Strict):
    """The spiking heads; `docs` of `models.decoder` have the equations."""

    timesteps: int = Field(20, ge=1, le=200)
    gain: Literal["learned"] | Annotated[float, Field(gt=0, le=1000)] = Field(
        "learned", description="positive scale on the ParaLIF read-out: learned, or fixed at a number"
    )
    readout: Literal["mean", "features"] = Field(
        "mean", description="`features` (lif, as published): the encoder's features are the answer"
    )
    hidden: int = Field(256, ge=1, le=8192)
    beta: float = Field(0.95, gt=0, lt=1)
    spike_mode: SpikeMode = "SB"
    tau_mem: float = Field(0.02, gt=0, le=10, description="seconds")
    tau_syn: float = Field(0.02, gt=0, le=10, description="seconds")
    kernel: Literal["causal", "reference"] = "causal"
    estimator: Literal["exact", "published"] = "exact"
    surrogate: Literal["atan", "fast_sigmoid", "straight_through", "rectangle"] = "atan"
    learn_threshold: bool = True
    learn_time_constants: bool = False
    normalisation: Literal["min_max", "clamp"] = Field("min_max", description="`clamp`: to [0, 1], as published")
    encoding_gradient: Literal["straight_through", "none"] = Field(
        "straight_through", description="through the Bernoulli encoding; `none`: as published"
    )


class QuantisationSpec(Strict):
    """How int8 networks are made of float32 ones; read where `precision` asks for any."""

    method: Literal["ptq", "qat"] = Field(
        "ptq", description="post-training quantisation, or quantisation-aware training on top of it"
    )
    images: int = Field(512, ge=1, le=100_000, description="of the training split, that set the ranges of activations")
    epochs: Epochs = Field(2, description="of the quantisation-aware training")
    learning_rate: Rate = Field(0.002, description="of the quantisation-aware training")
    batch_size: Batch = 64


class AttackUse(Strict):
    """An attack with parameters, in place of a suite."""

    name: Name
    parameters: dict[Name, int | float | Name | bool] = Field(default_factory=dict, max_length=50)

    @model_validator(mode="before")
    @classmethod
    def _is_an_object(cls, given: Any) -> Any:
        if not isinstance(given, dict | AttackUse):
            raise ValueError('an attack is an object such as {"name": "pgd", "parameters": {"steps": 50}}')
        return given


class EvaluationSpec(Strict):
    """What the trained networks are attacked with."""

    suite: Name | None = None
    attacks: Annotated[list[AttackUse], Field(min_length=1, max_length=20)] | None = None
    norm: Norm = "linf"
    eps: Annotated[list[Radius], Field(min_length=1, max_length=MAX_EPS)] | None = None
    images: int = Field(
        1000, ge=1, le=100_000,
        description="the first N of a fixed stratified permutation of the test split, or all that it has",
    )
    corruptions: bool = Field(
        False, description="also accuracy under 15 common corruptions at 5 severities; `audit` always measures it"
    )
    clean_images: Annotated[int, Field(ge=1)] | None = Field(
        None, description="of the same permutation, for the clean accuracy (null: the whole test split)"
    )
    as_published: Annotated[list[EvaluationOption], AfterValidator(_no_repeats)] = Field(
        default_factory=list[EvaluationOption],
        description="ways in which the study measured; figures under one are marked and share no ranking with others",
    )
    shards: int = Field(
        1, ge=1, le=MAX_SHARDS,
        description="runs that share out the attacks of an evaluation, for as many workers; no result depends on it",
    )


class ExperimentSpec(Strict):
    """The body of `POST /experiments`; only `dataset` is required."""

    dataset: Name
    name: Annotated[str, Field(max_length=200), AfterValidator(_text)] | None = None
    architectures: Annotated[list[ArchitectureName], Field(min_length=1), AfterValidator(_no_repeats)] = Field(
        default_factory=lambda: list[ArchitectureName](["resnet20"])
    )
    variants: Annotated[list[Variant], Field(min_length=1), AfterValidator(_no_repeats)] = Field(
        default_factory=lambda: list(VARIANTS)
    )
    precision: Annotated[list[Precision], Field(min_length=1), AfterValidator(_no_repeats)] = Field(
        default_factory=lambda: list[Precision](["float32"]),
        description="of the networks that are evaluated; `int8` quantises the float32 one of each cell",
    )
    seeds: Seeds = Field(default_factory=lambda: [0, 1, 2])
    branch_seeds: Seeds = Field(default_factory=lambda: [0])
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    decoder: DecoderSpec = Field(default_factory=DecoderSpec)
    quantisation: QuantisationSpec = Field(default_factory=QuantisationSpec)
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)
    checkpoints: Annotated[list[Name], Field(max_length=MAX_CHECKPOINTS), AfterValidator(_no_repeats)] = Field(
        default_factory=list,
        description="existing ones to evaluate; then nothing is trained, and of the rest only `evaluation`,"
        " `precision` and `quantisation` are read",
    )
    fresh: bool = Field(False, description="run everything anew, even what already succeeded")
    priority: int = Field(0, ge=-10, le=10, description="runs of a higher one are taken first; no result depends on it")
    time_limit_seconds: float | None = Field(
        None, ge=0, le=10**8,
        description="of each of its runs, over all attempts, waiting not counted; 0: none; null: as the service is set",
    )


class VerifySpec(Strict):
    """The body of `POST /checkpoints/{id}/verify`; it may be left out."""

    runs: Annotated[list[Name], Field(max_length=MAX_CHECKPOINTS), AfterValidator(_no_repeats)] | None = Field(
        None, description="evaluations of this checkpoint that succeeded (null: all of them)"
    )
    clean: bool = Field(True, description="also the clean accuracy on the whole test split")
