"""What a training run's specification says about its checkpoint, as rows and lists show it."""

from collections.abc import Mapping
from typing import Any

from app.domain.architectures import ARCHITECTURES
from app.domain.epsilon import format_epsilon, parse_epsilon
from app.domain.protocol import digest
from app.domain.recipes import RECIPES, Phase
from app.domain.spec import DecoderSpec, QuantisationSpec
from app.domain.weights import IMAGENET, NO_WEIGHTS, weights_text

_USUAL_STEM = {NO_WEIGHTS: "cifar", IMAGENET: "imagenet"}
# Names of settings as people write them in a table.
_SHORT = {"learning_rate": "lr", "batch_size": "batch", "freeze_depth": "frozen", "image_size": "size",
          "images": "training images"}  # fmt: skip


def subject_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture, variant, recipe, seeds, `<X,Y>`, the cell of the table, and what is not as usual."""
    return {**shown_subject(spec), "group": group_of(spec)}


def shown_subject(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the cell, whose name costs a digest: for lists."""
    return {
        "dataset": spec["dataset"]["name"], "architecture": spec["architecture"], "variant": spec["variant"],
        "recipe": spec["training"]["recipe"], "precision": precision_of(spec), "seed": spec["seed"],
        "branch_seed": spec.get("branch_seed"), "epochs": epochs_text(spec),
        "settings": settings_text(spec),
    }


def precision_of(spec: Mapping[str, Any]) -> str:
    """Of the network that the run makes; an imported one says it itself."""
    return str(spec.get("precision") or spec["model"].get("precision") or "float32")


def _trained_by(spec: Mapping[str, Any]) -> str:
    """The kind of run that trained the network: what quantises one says what that was."""
    return str(spec.get("source", spec["kind"]))


def epochs_text(spec: Mapping[str, Any]) -> str:
    """`<X>` for a continuous model, `<X,Y>` for a branch of it: the study's notation."""
    if _trained_by(spec) == "import":
        return str(spec["epochs"])  # as declared
    if _trained_by(spec) == "branch":
        return f"<{spec['parent_epochs']},{spec['epochs']}>"
    return f"<{spec['epochs']}>"


def group_of(spec: Mapping[str, Any]) -> str:
    """Names the cell of the table: equal for runs that differ in nothing but their seeds."""
    ignored = {"seed", "branch_seed", "parent", "keep_epochs", "file_sha256"}
    return digest({name: value for name, value in spec.items() if name not in ignored})


def settings_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a training by its dotted name, without seeds, so that two can be compared one by one.

    `training` is that of the continuous network, `branch` that of the spiking decoder after it.
    """
    branch = _trained_by(spec) == "branch"
    parts = {
        "architecture": spec["architecture"], "variant": spec["variant"], "epochs": epochs_text(spec),
        "precision": precision_of(spec), "quantisation": spec.get("quantisation", {}),
        "name": spec.get("name"), "dataset": spec["dataset"], "decoder": spec.get("decoder", {}),
        "training": spec["parent_training"] if branch else spec["training"],
        "branch": spec["training"] if branch else {}, "model": spec["model"],
    }
    return {name: value for name, value in _flat(parts).items() if value is not None}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    parts = (_flat(inner, f"{name}.{key}" if name else key) for key, inner in value.items())
    return {key: inner for part in parts for key, inner in part.items()}


def settings_text(spec: Mapping[str, Any]) -> str:
    """What differs from the defaults and the recipe, so that two rows can be told apart: `"gain 1, lr 0.05"`."""
    found = _unusual_decoder(spec)
    rounded = _quantisation(spec)
    if _trained_by(spec) == "import":
        return ", ".join([spec["name"], *_listed(found | _unusual_input(spec)), *rounded])
    recipe = RECIPES[spec["training"]["recipe"]]
    branched = _trained_by(spec) == "branch"
    phase = recipe.branch if branched else recipe.continuous
    found |= _unusual_training(spec["training"], phase, recipe.batch_size)
    if branched:
        parent = _unusual_training(spec["parent_training"], recipe.continuous, recipe.batch_size)
        found |= {f"parent {name}": value for name, value in parent.items() if found.get(name) != value}
    return ", ".join([*_listed(found | _weights(spec) | _unusual_input(spec)), *rounded])


def _quantisation(spec: Mapping[str, Any]) -> list[str]:
    """The method, and what of it is not as usual: `["qat", "qat epochs 5"]`."""
    given = spec.get("quantisation")
    if given is None:
        return []
    method, usual = given["method"], QuantisationSpec().model_dump()
    unusual = {f"{method} {name.replace('_', ' ')}": value for name, value in given.items()
               if name != "method" and value != usual[name]}  # fmt: skip
    return [method, *_listed(unusual)]


def _listed(settings: Mapping[str, Any]) -> list[str]:
    return [f"{_SHORT.get(name, name)} {_text(value)}" for name, value in settings.items()]


def _unusual_decoder(spec: Mapping[str, Any]) -> dict[str, Any]:
    usual = DecoderSpec().model_dump()
    return {name: value for name, value in spec.get("decoder", {}).items() if value != usual[name]}


def _unusual_training(training: Mapping[str, Any], phase: Phase, batch_size: int) -> dict[str, Any]:
    usual = {"learning_rate": phase.learning_rate, "batch_size": batch_size, "freeze_depth": 0}
    seen = {"images": training["images"]} if "images" in training else {}
    if "adversary" in training:
        seen["trained against eps"] = format_epsilon(parse_epsilon(training["adversary"]["epsilon"]))
    if training.get("mixed_precision"):
        seen["trained in"] = "bfloat16"
    return seen | {name: training[name] for name, value in usual.items() if training[name] != value}


def _weights(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Where there were weights to take, rows say that none were taken: the study's figures have them."""
    if spec["model"]["weights"] != NO_WEIGHTS:
        return {"weights": weights_text(spec["model"])}
    return {"weights": NO_WEIGHTS} if ARCHITECTURES[spec["architecture"]].weights else {}


def _unusual_input(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Of the network: a size, and a stem that its weights do not bring with them."""
    model = spec["model"]
    usual = {"image_size": None, "stem": _USUAL_STEM.get(model.get("weights"), model["stem"])}
    return {name: model[name] for name, value in usual.items() if model[name] != value}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
