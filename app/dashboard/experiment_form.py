"""The form that submits an experiment: a control for each field of the API's own body, with its choices and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from app.dashboard.experiments import missing_role
from app.dashboard.rendering import render
from app.domain.access import LOCAL, Actor
from app.domain.architectures import ARCHITECTURES, VARIANTS, variant_name
from app.domain.attacks import ATTACKS, NORMS
from app.domain.published import EVALUATION_OPTIONS
from app.domain.recipes import RECIPES, Recipe
from app.domain.spec import DecoderSpec, EvaluationSpec, ExperimentSpec, Precision, QuantisationSpec, TrainingSpec
from app.domain.suites import SUITES

_MAIN = ("epochs", "branch_epochs", "freeze_depth")
_MORE = ("stem", "image_size", "branch_at", "batch_size", "learning_rate", "images", "adversarial_eps",
         "mixed_precision")  # fmt: skip
_KINDS = {"integer": "int", "number": "number", "boolean": "flag", "string": "text"}
_HINTS = {
    "/training/epochs": "of the continuous network", "/training/branch_epochs": "of each spiking branch of it",
    "/training/freeze_depth": "residual groups frozen with the stem; trained weights only",
    "/training/branch_at": "epoch of the parent to branch from",
    "/training/image_size": "side in pixels that images are resized to",
    "/training/images": "the first so many of a fixed order of the training images",
    "/training/adversarial_eps": "L∞ radius of the recipe adversarial",
    "/training/mixed_precision": "the encoder learns in bfloat16",
    "/decoder/timesteps": "simulated by the decoder", "/time_limit_seconds": "of each run; 0: none",
    "/evaluation/images": "the first so many of a fixed order of the test images",
    "/evaluation/clean_images": "of the same order, for the clean accuracy; else the whole test split",
}
_LABELS = {  # where the field's own name is that of another one
    "/training/images": "training images", "/quantisation/images": "images that set the ranges",
    **{f"/quantisation/{name}": f"QAT {name.replace('_', ' ')}" for name in ("epochs", "learning_rate", "batch_size")},
}


@dataclass(frozen=True)
class Control:
    """One field: its JSON pointer, what it is read as, its default (None: decided by recipe or data set)."""

    pointer: str
    label: str
    kind: str
    default: Any
    choices: tuple[str, ...] = ()
    hint: str = ""

    @property
    def id(self) -> str:
        """In the page."""
        return self.pointer.strip("/").replace("/", "-")


def controls(model: type[BaseModel], place: str, names: Sequence[str]) -> list[Control]:
    """Of these fields of a model, from its JSON schema."""
    properties = model.model_json_schema()["properties"]
    return [_control(f"{place}/{name}", name, properties[name]) for name in names]


def _control(pointer: str, name: str, schema: Mapping[str, Any]) -> Control:
    options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    choices = tuple(c for one in options for c in one.get("enum", [one["const"]] if "const" in one else []))
    kinds = [_KINDS[one["type"]] for one in options if one.get("type") in _KINDS]
    kind = "either" if len(options) > 1 else "choice" if len(choices) > 1 else kinds[0]
    hint = "; ".join(filter(None, [_HINTS.get(pointer) or schema.get("description", ""), *map(_limits, options)]))
    return Control(pointer, _LABELS.get(pointer, name.replace("_", " ")), kind, schema.get("default"), choices, hint)


def _limits(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum", schema.get("exclusiveMaximum"))
    above = schema.get("exclusiveMinimum")
    if high is None or (low is None and above is None):
        return ""
    return f"{low:,} to {high:,}" if low is not None else f"more than {above:,}, at most {high:,}"


def form_page(datasets: Sequence[Mapping[str, Any]], given: Mapping[str, Any], actor: Actor) -> str:
    """`datasets`: as the API lists them; `given`: fields that are filled in, as an experiment's body."""
    return render(
        "experiment_form.html", datasets=datasets, architectures=ARCHITECTURES.values(), variants=VARIANTS,
        recipes=RECIPES.values(), suites=SUITES.values(), attacks=ATTACKS.values(), norms=NORMS,
        training=controls(TrainingSpec, "/training", _MAIN), more=controls(TrainingSpec, "/training", _MORE),
        decoder=controls(DecoderSpec, "/decoder", [*DecoderSpec.model_fields]),
        quantisation=controls(QuantisationSpec, "/quantisation", [*QuantisationSpec.model_fields]),
        images=controls(EvaluationSpec, "/evaluation", ["images"]), precisions=get_args(Precision),
        measures=controls(EvaluationSpec, "/evaluation", ["clean_images", "corruptions"]), options=EVALUATION_OPTIONS,
        queue=[*controls(ExperimentSpec, "", ["priority", "time_limit_seconds"]),
               *controls(EvaluationSpec, "/evaluation", ["shards"])],
        missing=missing_role(actor, "POST", "/experiments"), actor=actor,
        carried={"given": given, "keys": actor.name != LOCAL.name, "variants": {v: variant_name(v) for v in VARIANTS},
                 "recipes": {recipe.name: _usual(recipe) for recipe in RECIPES.values()}},
    )  # fmt: skip


def _usual(recipe: Recipe) -> dict[str, Any]:
    """What a recipe decides where the form is left open."""
    return {"epochs": recipe.continuous.epochs, "branch_epochs": recipe.branch.epochs, "batch_size": recipe.batch_size,
            "branch_at": "the last epoch", "learning_rate": f"{recipe.continuous.learning_rate:g}"}  # fmt: skip
