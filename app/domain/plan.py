"""An experiment becomes a graph of runs.

A `train` run per (architecture, seed), a `branch` run per spiking variant and branch seed from that
checkpoint, where int8 is asked for a `quantise` run per network, an `evaluate` run per checkpoint, and before it, where
they are asked for, `shard` runs that attack some of its blocks of images each. A run's `spec` says everything that its
result depends on, so two runs with one key have one result and can be shared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from app.domain.architectures import ARCHITECTURES, SPIKING, VARIANT_FACTS
from app.domain.attacks import find_attack
from app.domain.datasets import Dataset
from app.domain.epsilon import parse_epsilon
from app.domain.lifecycle import RunKind
from app.domain.pool import TRANSFER, Sibling, pool_of
from app.domain.protocol import Protocol, digest
from app.domain.published import EVALUATION_OPTIONS, EvaluationOption
from app.domain.recipes import RECIPES, Recipe
from app.domain.spec import DecoderSpec, EvaluationSpec, ExperimentSpec, QuantisationSpec, TrainingSpec
from app.domain.subject import precision_of, subject_of
from app.domain.suites import NORMALISED_UNIT, SUITES, Stage
from app.domain.weights import IMAGENET, NO_SOURCE, NO_WEIGHTS, WeightsSource

VALIDATION_SHARE = 0.1  # of the training split, stratified; the test split is never chosen on


@dataclass(frozen=True)
class CellTraining:
    """Everything about the training of one cell (architecture x variant) of the table."""

    weights: dict[str, Any]  # which, as the run's specification says it
    stem: str
    image_size: int | None
    resize: int | None
    freeze_depth: int
    images: int | None  # null: the whole training split
    adversarial_eps: Fraction | None  # null: the headline radius
    epochs: int
    branch_epochs: int
    branch_at: int
    batch_size: int
    mixed_precision: bool
    continuous_rates: tuple[float, float]
    branch_rates: tuple[float, float]
    recipe: Recipe


@dataclass(frozen=True)
class PlannedRun:
    """A run to be; `depends_on` is the key of the run whose checkpoint it starts from, `siblings` are those of the
    runs whose checkpoints its transfer pool has, `shards` those of the runs that attack its blocks. It waits for all of
    them. No result depends on `shards`: they are no part of the specification.

    `stored_as`: the share key of a run that is there already. One that was repeated afresh has another than its
    specification's: its checkpoint must not be taken for the first one's.
    """

    kind: RunKind
    spec: dict[str, Any]
    depends_on: str | None = None
    stored_as: str | None = None
    siblings: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of what must have succeeded before."""
        return (*([self.depends_on] if self.depends_on else []), *self.siblings, *self.shards)

    @cached_property
    def key(self) -> str:
        """Names the specification: equal keys, equal results. (`subject` is only shown; `of` determines it.)"""
        return self.stored_as or digest({name: value for name, value in self.spec.items() if name != "subject"})


def resolve_training(
    training: TrainingSpec, architecture: str, variant: str, source: WeightsSource = NO_SOURCE
) -> CellTraining:
    """Defaults from the weights and the recipe, then the request, then the overrides that fit the cell."""
    pretrained = training.weights != NO_WEIGHTS
    stem, image_size = _usual_input(training, source)
    stem = training.stem or stem
    recipe = RECIPES[training.recipe or ("study" if pretrained else "default")]
    given: dict[str, Any] = {
        name: value
        for source in (training, *(o for o in training.overrides if _fits(o, architecture, variant)))
        for name, value in source.model_dump().items()
        if value is not None
    }
    rate = given.get("learning_rate")
    epochs = given.get("epochs", recipe.continuous.epochs)
    return CellTraining(
        weights=source.identity(training.weights, architecture),
        stem=stem if stem in (stems := ARCHITECTURES[architecture].stems) else stems[0],
        image_size=training.image_size or image_size,
        resize=_resize(training, source, recipe, architecture, training.image_size or image_size),
        freeze_depth=given.get("freeze_depth", 3 if pretrained else 0),
        images=given.get("images"),
        adversarial_eps=parse_epsilon(given["adversarial_eps"]) if "adversarial_eps" in given else None,
        epochs=epochs,
        branch_epochs=given.get("branch_epochs", recipe.branch.epochs),
        branch_at=given.get("branch_at", epochs),
        batch_size=given.get("batch_size", recipe.batch_size),
        mixed_precision=training.mixed_precision,
        continuous_rates=_rates(rate, recipe.continuous.learning_rate, recipe.continuous.decoder_learning_rate),
        branch_rates=_rates(
            rate, recipe.branch.learning_rate, recipe.branch_rate(variant, ARCHITECTURES[architecture].features)
        ),
        recipe=recipe,
    )


def _usual_input(training: TrainingSpec, source: WeightsSource) -> tuple[str, int | None]:
    """Stem and image size (null: as the images come) where the request names none."""
    if source.checkpoint is not None:
        return source.checkpoint.stem, source.checkpoint.image_size
    return ("imagenet", 224) if training.weights == IMAGENET else ("cifar", None)


def _resize(
    training: TrainingSpec, source: WeightsSource, recipe: Recipe, architecture: str, image_size: int | None
) -> int | None:
    """The side to resize to before the middle is kept (null: no crop), in torchvision's proportion to 224."""
    if source.checkpoint is not None:  # a size that is only repeated changes nothing
        return source.checkpoint.resize if image_size == source.checkpoint.image_size else None
    offers = [offer for offer in ARCHITECTURES[architecture].weights if offer.name == training.weights]
    if not recipe.center_crop or not offers or image_size is None:
        return None
    return round(image_size * offers[0].resize / 224)


def _fits(override: Any, architecture: str, variant: str) -> bool:
    return override.architecture in (None, architecture) and override.variant in (None, variant)


def _rates(given: float | None, rate: float, decoder_rate: float) -> tuple[float, float]:
    return (rate, decoder_rate) if given is None else (given, given)


def make_protocol(evaluation: EvaluationSpec, dataset: Dataset) -> Protocol:
    """The protocol an evaluation asks for, its defaults filled in from suite and data set."""
    if evaluation.attacks is None:
        suite = SUITES[evaluation.suite or "quick"]
        name, version, survivors, stages = suite.name, suite.version, suite.survivors, suite.stages_for(evaluation.norm)
        diagnostics = suite.diagnostics
    else:
        name, version, survivors, diagnostics = "custom", 1, True, "rows"
        stages = tuple(Stage(use.name, find_attack(use.name).resolve(use.parameters)) for use in evaluation.attacks)
    options = tuple(name for name in EVALUATION_OPTIONS if name in evaluation.as_published)
    if options:  # which the checks, made for figures that are to be believed, know nothing of
        diagnostics, stages = "rows", tuple(_as_published(stage, options) for stage in stages)
    if evaluation.eps is not None:  # radii asked for: every stage runs at each
        stages = tuple(Stage(s.attack, s.parameters) for s in stages)
    grid = {eps for s in stages for eps in s.grid or ()}
    eps = {parse_epsilon(e) for e in evaluation.eps or ()} or grid or _default_eps(dataset, evaluation, options)
    return Protocol(
        dataset=dataset.name, fingerprint=dataset.fingerprint, norm=evaluation.norm, eps=tuple(sorted(eps)),
        suite=name, suite_version=version, survivors=survivors, stages=stages,
        images=min(evaluation.images, dataset.test_size), diagnostics=diagnostics,
        clean_images=_clean_images(evaluation, dataset), as_published=options,
    )


def _clean_images(evaluation: EvaluationSpec, dataset: Dataset) -> int | None:
    """Null where it is the whole test split: one result, one name."""
    asked = evaluation.clean_images
    return None if asked is None or asked >= dataset.test_size else asked


def _as_published(stage: Stage, options: Sequence[EvaluationOption]) -> Stage:
    """One draw a gradient; the study's radii as it wrote them."""
    parameters, grid = dict(stage.parameters), stage.grid
    if "one-draw-gradients" in options and "draws" in parameters:
        parameters["draws"] = 1
    if "normalised-eps" in options and grid is not None:
        grid = tuple(eps / NORMALISED_UNIT for eps in grid)
    return Stage(stage.attack, parameters, grid)


def _default_eps(
    dataset: Dataset, evaluation: EvaluationSpec, options: Sequence[EvaluationOption]
) -> set[Fraction]:
    unit = NORMALISED_UNIT if "normalised-eps" in options else 1
    return {parse_epsilon(e) / unit for e in dataset.default_eps[evaluation.norm]}


def expand(
    experiment: ExperimentSpec, dataset: Dataset, trained: Sequence[PlannedRun] = (),
    source: WeightsSource = NO_SOURCE,
) -> list[PlannedRun]:
    """All runs of the experiment, each after the one it depends on, none twice.

    `trained`: the finished runs behind `experiment.checkpoints`, which are evaluated instead of new ones.
    `source`: what `experiment.training.weights` was found to be.
    """
    protocol = make_protocol(experiment.evaluation, dataset)
    if experiment.training.images == dataset.train_size:  # one result, one name
        whole = experiment.training.model_copy(update={"images": None})
        experiment = experiment.model_copy(update={"training": whole})
    cells = [[run] for run in trained] or list(_cells(experiment, dataset, source))
    chains = [chain for cell in cells for chain in _in_precisions(cell, experiment, dataset)]
    outside = {run.key for run in trained}
    pooled = [run for chain in chains for run in chain] if TRANSFER in {s.attack for s in protocol.stages} else None
    runs: dict[str, PlannedRun] = {}
    last: dict[str, PlannedRun] = {}  # what waits for runs of other cells
    for chain in chains:
        pool = None if pooled is None else pool_of(chain[-1], pooled)
        evaluation = _evaluate_run(chain[-1], protocol, pool, corruptions=experiment.evaluation.corruptions)
        shards = _shard_runs(evaluation, protocol, experiment.evaluation.shards)
        runs |= {run.key: run for run in chain if run.key not in outside}
        group = last if evaluation.siblings else runs
        group |= {run.key: run for run in shards}
        group[evaluation.key] = replace(evaluation, shards=tuple(run.key for run in shards)) if shards else evaluation
    return list((runs | last).values())


def _cells(experiment: ExperimentSpec, dataset: Dataset, source: WeightsSource) -> Iterator[list[PlannedRun]]:
    """The chain of trainings behind each checkpoint that the table shows: `[train]` or `[train, branch]`."""
    for architecture in experiment.architectures:
        for seed in experiment.seeds:
            for variant in experiment.variants:
                training = resolve_training(experiment.training, architecture, variant, source)
                kept = _kept_epochs(experiment, training, architecture, source)
                parent = _train_run(dataset, architecture, seed, training, kept)
                if variant not in SPIKING:
                    yield [parent]
                    continue
                for branch_seed in experiment.branch_seeds:
                    yield [parent, _branch_run(parent, variant, branch_seed, training, experiment.decoder)]


def _in_precisions(
    cell: list[PlannedRun], experiment: ExperimentSpec, dataset: Dataset
) -> Iterator[list[PlannedRun]]:
    """The cell in each precision that is asked for; a network that is quantised already as it is."""
    if precision_of(cell[-1].spec) != "float32":
        yield cell
        return
    for precision in experiment.precision:
        yield cell if precision == "float32" else [*cell, _quantise_run(cell[-1], experiment.quantisation, dataset)]


def _quantise_run(source: PlannedRun, quantisation: QuantisationSpec, dataset: Dataset) -> PlannedRun:
    """The network of another run in eight bits. `source`: the kind of that run, all of whose words stay."""
    how = {"method": quantisation.method, "images": quantisation.images}
    if quantisation.method == "qat":
        how |= {name: getattr(quantisation, name) for name in ("epochs", "learning_rate", "batch_size")}
    kept = {name: value for name, value in source.spec.items() if name != "keep_epochs"}
    spec = {
        **kept, "dataset": _dataset_reference(dataset), "kind": "quantise", "source": source.spec["kind"],
        "parent": source.key, "precision": "int8", "quantisation": how,
    }
    return PlannedRun("quantise", spec, source.key)


def _kept_epochs(
    experiment: ExperimentSpec, training: CellTraining, architecture: str, source: WeightsSource
) -> list[int]:
    """After which epochs the parent's weights are kept, for all cells that branch from this very parent."""
    spiking = [v for v in experiment.variants if v in SPIKING]
    cells = [resolve_training(experiment.training, architecture, v, source) for v in spiking]
    return sorted({c.branch_at for c in cells if c.branch_at < c.epochs and _parent_of(c) == _parent_of(training)})


def _parent_of(training: CellTraining) -> CellTraining:
    return replace(training, branch_epochs=0, branch_at=0, branch_rates=(0.0, 0.0))


def _train_run(
    dataset: Dataset, architecture: str, seed: int, training: CellTraining, kept_epochs: list[int]
) -> PlannedRun:
    spec = {
        "kind": "train", "dataset": _dataset_reference(dataset), "architecture": architecture, "variant": "default",
        "seed": seed, "epochs": training.epochs, "keep_epochs": kept_epochs,
        "model": {**training.weights, "stem": training.stem, "image_size": _image_size(training, dataset),
                  **({"resize": training.resize} if training.resize is not None else {})},
        "training": _training_dict(training, training.continuous_rates) | _adversary(training, dataset),
    }
    return PlannedRun("train", spec)


def _adversary(training: CellTraining, dataset: Dataset) -> dict[str, Any]:
    """What an adversarial training trains against; nothing for others, whose runs keep their names."""
    inner = training.recipe.inner
    if inner is None:
        return {}
    epsilon = training.adversarial_eps or parse_epsilon(dataset.headline_eps["linf"])
    return {"adversary": {"norm": "linf", "epsilon": str(epsilon), "steps": inner.steps, "step_size": inner.step_size}}


def _image_size(training: CellTraining, dataset: Dataset) -> int | None:
    """Null where the images have this size already: then nothing is resized."""
    side = training.image_size
    return None if training.resize is None and dataset.shape[1:] == (side, side) else side


def _branch_run(
    parent: PlannedRun, variant: str, branch_seed: int, training: CellTraining, decoder: DecoderSpec
) -> PlannedRun:
    against = {name: value for name, value in parent.spec["training"].items() if name == "adversary"}
    spec = {
        **{name: parent.spec[name] for name in ("dataset", "architecture", "seed", "model")},
        "kind": "branch", "variant": variant, "branch_seed": branch_seed, "parent": parent.key,
        "parent_epochs": training.branch_at, "parent_training": parent.spec["training"],
        "epochs": training.branch_epochs, "decoder": decoder_settings(decoder, variant),
        "training": _training_dict(training, training.branch_rates) | against
        | {"draws": training.recipe.draws(variant)},
    }
    return PlannedRun("branch", spec, parent.key)


# Settings that came later: as usual, they are left out, so that older runs keep their names.
_ADDED = {"normalisation": "min_max", "encoding_gradient": "straight_through"}


def decoder_settings(decoder: DecoderSpec, variant: str) -> dict[str, Any]:
    """The settings that this variant's head depends on; the others must not keep two equal runs apart."""
    read = VARIANT_FACTS[variant].settings
    found = {name: value for name, value in decoder.model_dump().items() if name in read}
    if variant != "lif" and "readout" in read:
        found["readout"] = "mean"  # "features" is for lif alone
    return {name: value for name, value in found.items() if _ADDED.get(name) != value}


def _training_dict(training: CellTraining, rates: tuple[float, float]) -> dict[str, Any]:
    recipe = training.recipe
    later = {} if training.images is None else {"images": training.images}  # where as usual, runs keep their names
    later |= {"mixed_precision": True} if training.mixed_precision else {}
    return later | {
        "recipe": recipe.name, "recipe_version": recipe.version, "schedule": recipe.schedule,
        "momentum": recipe.momentum, "nesterov": recipe.nesterov, "weight_decay": recipe.weight_decay,
        "augment": recipe.augment, "randaugment_on": list(recipe.randaugment_on),
        "batch_size": training.batch_size, "learning_rate": rates[0], "decoder_learning_rate": rates[1],
        "freeze_depth": training.freeze_depth, "validation_share": VALIDATION_SHARE,
    }


def _dataset_reference(dataset: Dataset) -> dict[str, Any]:
    return {"name": dataset.name, "fingerprint": dataset.fingerprint}


def _evaluate_run(
    trained: PlannedRun, protocol: Protocol, pool: list[Sibling] | None, *, corruptions: bool
) -> PlannedRun:
    """`pool`: of transfer attacks, or None where the protocol has none. It is part of the run's specification.

    `corruptions` too, and no part of the protocol: robust accuracies do not depend on it.
    """
    spec = {"kind": "evaluate", "of": trained.key, "attack_seed": 0, "protocol": protocol.to_dict(),
            "subject": subject_of(trained.spec)}
    if corruptions and protocol.suite != "audit":  # which measures them anyway
        spec["corruptions"] = True
    if pool is None:
        return PlannedRun("evaluate", spec, trained.key)
    spec["pool"] = [{"run": sibling.key, "role": sibling.role} for sibling in pool]
    return PlannedRun("evaluate", spec, trained.key, siblings=tuple(sibling.key for sibling in pool))


def _shard_runs(evaluation: PlannedRun, protocol: Protocol, wanted: int) -> list[PlannedRun]:
    """Runs that attack every so many-th of its blocks each; none where one would attack them all."""
    count = min(wanted, protocol.blocks)
    if count == 1:
        return []
    kept = {name: value for name, value in evaluation.spec.items() if name != "corruptions"}  # no attack reads it
    return [
        replace(evaluation, kind="shard", spec={
            **kept, "kind": "shard", "shard": number, "shards": count,
            "subject": _as_shard(evaluation.spec["subject"], number, count),
        })
        for number in range(count)
    ]  # fmt: skip


def _as_shard(subject: Mapping[str, Any], number: int, count: int) -> dict[str, Any]:
    """As lists show it: which of them it is."""
    settings = filter(None, [subject["settings"], f"shard {number + 1} of {count}"])
    return {**subject, "settings": ", ".join(settings)}


def verify_run(
    trained: Mapping[str, Any], checkpoint: str, epochs: str, evaluations: Sequence[str], *, clean: bool
) -> PlannedRun:
    """Computes the figures of these evaluations of a checkpoint again. `trained`: the specification it came from."""
    subject = {**subject_of(trained), "epochs": epochs}
    spec = {"kind": "verify", "checkpoint": checkpoint, "runs": list(evaluations), "clean": clean, "subject": subject}
    return PlannedRun("verify", spec)
