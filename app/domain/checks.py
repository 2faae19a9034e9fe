"""What in a request does not fit together, each fault with its place and what is allowed.

Fields, types and ranges were checked before, by the models of `app.domain.spec`.
"""

from fractions import Fraction

from app.domain.architectures import ARCHITECTURES
from app.domain.attacks import OWN_GRADIENT, Norm, find_attack
from app.domain.datasets import Dataset
from app.domain.epsilon import parse_epsilon
from app.domain.errors import Problem, suggestion
from app.domain.plan import resolve_training
from app.domain.recipes import RECIPES
from app.domain.spec import AttackUse, EvaluationSpec, ExperimentSpec, TrainingSpec
from app.domain.suites import SUITES
from app.domain.weights import IMAGENET, NO_SOURCE, NO_WEIGHTS, SourceCheckpoint, WeightsSource

MAX_RUNS = 2_000
SMALLEST_SIDE, LARGEST_SIDE = 8, 1024  # of the images as they come
LARGEST_EPS: dict[Norm, int] = {"linf": 1, "l2": 100}


def check_experiment(
    spec: ExperimentSpec, dataset: Dataset, source: WeightsSource = NO_SOURCE
) -> list[Problem]:
    """What does not fit together; empty where all is well. Where checkpoints are named, nothing is trained."""
    found = _check_dataset(dataset)
    if not spec.checkpoints:
        found += _check_count(spec) + _check_image_size(spec, dataset) + _check_images(spec, dataset)
        found += _check_training(spec, source)
        found += _check_source(spec, dataset, source.checkpoint) if source.checkpoint else []
        found += _check_readout(spec, dataset, source)
    return list(dict.fromkeys(found + _check_evaluation(spec.evaluation, dataset)))  # each fault once


def _check_count(spec: ExperimentSpec) -> list[Problem]:
    runs = len(spec.architectures) * len(spec.seeds) * (1 + len(spec.variants) * 2 * len(spec.branch_seeds))
    if runs <= MAX_RUNS:
        return []
    return [Problem("/seeds", f"asks for up to {runs} runs; at most {MAX_RUNS} are allowed")]


def _check_dataset(dataset: Dataset) -> list[Problem]:
    found = []
    if len(dataset.classes) < 2:
        found.append(Problem("/dataset", f"{dataset.name} has {len(dataset.classes)} class; at least 2 are needed"))
    low, high = min(dataset.shape[1:]), max(dataset.shape[1:])
    if low < SMALLEST_SIDE or high > LARGEST_SIDE:
        size = f"{dataset.shape[2]}x{dataset.shape[1]}"
        detail = f"the images of {dataset.name} are {size}; sides of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels are taken"
        found.append(Problem("/dataset", detail))
    return found


def _check_image_size(spec: ExperimentSpec, dataset: Dataset) -> list[Problem]:
    side = spec.training.image_size or min(dataset.shape[1:])
    pointer = "/training/image_size" if spec.training.image_size else "/dataset"
    return [
        Problem(pointer, f"{name} needs images of at least {facts.minimum_size} pixels a side, not {side}")
        for name in spec.architectures
        if SMALLEST_SIDE <= side < (facts := ARCHITECTURES[name]).minimum_size
    ]


def _check_training(spec: ExperimentSpec, source: WeightsSource) -> list[Problem]:
    training, found = spec.training, []
    if training.recipe is not None and training.recipe not in RECIPES:
        detail = f"unknown recipe {training.recipe!r}{suggestion(training.recipe, RECIPES)}"
        return [Problem("/training/recipe", detail)]
    recipe = RECIPES[training.recipe or ("default" if training.weights == NO_WEIGHTS else "study")]
    if training.adversarial_eps is not None and recipe.inner is None:
        detail = f"the recipe {recipe.name!r} sees no adversarial images"
        found.append(Problem("/training/adversarial_eps", f"{detail}; name the recipe 'adversarial', or leave it out"))
    if training.adversarial_eps is not None and parse_epsilon(training.adversarial_eps) > LARGEST_EPS["linf"]:
        found.append(Problem("/training/adversarial_eps", "must be at most 1: pixels lie in 0..1"))
    if training.weights == IMAGENET and training.stem == "cifar":
        found.append(Problem("/training/stem", "ImageNet weights are for the stem 'imagenet'"))
    for name in spec.architectures:
        facts = ARCHITECTURES[name]
        if training.weights == IMAGENET and not facts.weights:
            offers = [a.name for a in ARCHITECTURES.values() if a.weights]
            detail = f"{name} has no {training.weights} weights; use 'none', or one of {', '.join(offers)}"
            found.append(Problem("/training/weights", detail))
        found += _check_depths(training, name, facts.depths)
    return found + _check_overrides(spec) + _check_branch_at(spec, source)


def _check_readout(spec: ExperimentSpec, dataset: Dataset, source: WeightsSource) -> list[Problem]:
    """`features` needs a feature for each class, and an encoder that learns."""
    if spec.decoder.readout == "mean":
        return []
    if "lif" not in spec.variants:
        return [Problem("/decoder/readout", "'features' is for the variant lif, which is not asked for; use 'mean'")]
    found = []
    for name in spec.architectures:
        facts = ARCHITECTURES[name]
        if facts.features < len(dataset.classes):
            detail = f"{name} has {facts.features} features, and {dataset.name} {len(dataset.classes)} classes"
            found.append(Problem("/decoder/readout", f"'features' needs one for each class: {detail}; use 'mean'"))
        if resolve_training(spec.training, name, "lif", source).freeze_depth >= facts.depths:
            detail = f"'features' learns nothing with all {facts.depths} groups of {name} frozen; freeze fewer"
            found.append(Problem("/decoder/readout", detail))
    return found


def _check_images(spec: ExperimentSpec, dataset: Dataset) -> list[Problem]:
    """Of each class one image to train on and one to validate on."""
    least = 2 * len(dataset.classes)
    if spec.training.images is None or least <= spec.training.images <= dataset.train_size:
        return []
    here = f"{dataset.name} has {dataset.train_size} training images in {len(dataset.classes)} classes"
    detail = f"{here}: use {least} to {dataset.train_size}, or leave it out for all"
    return [Problem("/training/images", detail)]


def _check_overrides(spec: ExperimentSpec) -> list[Problem]:
    """An override that changes nothing was meant for another cell. (The parent of a branch is trained as its cell.)"""
    return [
        Problem(
            f"/training/overrides/{i}",
            f"is for no cell of this experiment: architectures {', '.join(spec.architectures)}; "
            f"variants {', '.join(spec.variants)}",
        )
        for i, override in enumerate(spec.training.overrides)
        if override.architecture not in (None, *spec.architectures) or override.variant not in (None, *spec.variants)
    ]


def _check_source(spec: ExperimentSpec, dataset: Dataset, source: SourceCheckpoint) -> list[Problem]:
    """Whether the encoder of a checkpoint can be the start of all that is asked for."""
    found = []
    if spec.architectures != [source.architecture]:
        detail = f"checkpoint {source.id} is a {source.architecture}; name it alone in architectures"
        found.append(Problem("/training/weights", detail))
    if spec.training.stem not in (None, source.stem):
        found.append(Problem("/training/stem", f"checkpoint {source.id} has the stem {source.stem!r}"))
    if dataset.shape[0] not in (1, source.channels):
        detail = f"checkpoint {source.id} takes grey images; those of {dataset.name} have {dataset.shape[0]} channels"
        found.append(Problem("/training/weights", detail))
    return found


def _check_depths(training: TrainingSpec, name: str, depths: int) -> list[Problem]:
    places = [("/training/freeze_depth", training.freeze_depth)]
    places += [(f"/training/overrides/{i}/freeze_depth", o.freeze_depth) for i, o in enumerate(training.overrides)
               if o.architecture in (None, name)]
    found = []
    for pointer, depth in places:
        if depth and training.weights == NO_WEIGHTS:
            detail = "freezing untrained weights makes no sense: use 0, or weights that are trained"
            found.append(Problem(pointer, detail))
        elif depth is not None and depth > depths:
            found.append(Problem(pointer, f"{name} has {depths} residual groups: use 0..{depths}"))
    return found


def _check_branch_at(spec: ExperimentSpec, source: WeightsSource) -> list[Problem]:
    found = []
    for name in spec.architectures:
        for variant in spec.variants:
            cell = resolve_training(spec.training, name, variant, source)
            if cell.branch_at > cell.epochs:
                detail = f"{name} {variant} trains {cell.epochs} epochs; branch at 1..{cell.epochs}"
                found.append(Problem(_branch_at_pointer(spec.training, name, variant), detail))
    return found


def _branch_at_pointer(training: TrainingSpec, architecture: str, variant: str) -> str:
    """The last place that set it for this cell."""
    places = [
        i for i, o in enumerate(training.overrides)
        if o.branch_at is not None and o.architecture in (None, architecture) and o.variant in (None, variant)
    ]
    return f"/training/overrides/{places[-1]}/branch_at" if places else "/training/branch_at"


def _check_evaluation(evaluation: EvaluationSpec, dataset: Dataset) -> list[Problem]:
    found = _check_suite(evaluation)
    found = found or _check_one_draw(evaluation)
    largest = Fraction(LARGEST_EPS[evaluation.norm])
    for i, value in enumerate(evaluation.eps or []):
        if parse_epsilon(value) > largest:
            detail = f"must be at most {largest} for {evaluation.norm}: pixels lie in 0..1"
            found.append(Problem(f"/evaluation/eps/{i}", detail))
    if len({parse_epsilon(e) for e in evaluation.eps or []}) != len(evaluation.eps or []):
        found.append(Problem("/evaluation/eps", "names one radius twice"))
    if evaluation.norm not in dataset.default_eps and evaluation.eps is None:
        detail = f"{dataset.name} has no default radii for {evaluation.norm}; give some"
        found.append(Problem("/evaluation/eps", detail))
    return found


def _check_suite(evaluation: EvaluationSpec) -> list[Problem]:
    if evaluation.attacks is not None:
        if evaluation.suite is not None:
            return [Problem("/evaluation/suite", "give a suite or a list of attacks, not both")]
        return [p for i, use in enumerate(evaluation.attacks) for p in _check_attack(use, evaluation.norm, i)]
    name = evaluation.suite or "quick"
    if name not in SUITES:
        return [Problem("/evaluation/suite", f"unknown suite {name!r}{suggestion(name, SUITES)}")]
    if evaluation.norm not in SUITES[name].norms:
        allowed = ", ".join(SUITES[name].norms)
        return [Problem("/evaluation/norm", f"suite {name} is for {allowed}; for {evaluation.norm} list attacks")]
    return []


def _check_one_draw(evaluation: EvaluationSpec) -> list[Problem]:
    """An attack through another gradient than the network's own averages draws, or does what the study did not."""
    if "one-draw-gradients" not in evaluation.as_published:
        return []
    if evaluation.attacks is not None:
        used = [(use.name, use.parameters.get("gradient", OWN_GRADIENT)) for use in evaluation.attacks]
    else:
        stages = SUITES[evaluation.suite or "quick"].stages_for(evaluation.norm)
        used = [(stage.attack, stage.parameters.get("gradient", OWN_GRADIENT)) for stage in stages]
    others = sorted({name for name, gradient in used if gradient != OWN_GRADIENT})
    if not others:
        return []
    detail = f"'one-draw-gradients' is for attacks through the network's own gradient; {', '.join(others)} takes others"
    return [Problem("/evaluation/as_published", f"{detail}: use the suite 'study', 'quick' or 'standard'")]


def _check_attack(use: AttackUse, norm: Norm, index: int) -> list[Problem]:
    try:
        attack = find_attack(use.name)
    except ValueError as error:
        return [Problem(f"/evaluation/attacks/{index}/name", str(error))]
    if norm not in attack.norms:
        detail = f"{use.name} is for {', '.join(attack.norms)}, not {norm}"
        return [Problem(f"/evaluation/attacks/{index}/name", detail)]
    try:
        attack.resolve(use.parameters)
    except ValueError as error:
        return [Problem(f"/evaluation/attacks/{index}/parameters", str(error))]
    return []
