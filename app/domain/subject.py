"""What a training run's specification says about its checkpoint, as rows and lists show it."""

from collections.abc import Mapping
from typing import Any

from app.domain.protocol import digest
from app.domain.recipes import RECIPES, Phase
from app.domain.spec import DecoderSpec

# Names of settings as people write them in a table.
_SHORT = {"learning_rate": "lr", "batch_size": "batch", "freeze_depth": "frozen", "image_size": "size"}


def subject_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture, variant, recipe, seeds, `<X,Y>`, the cell of the table, and what is not as usual."""
    return {
        "dataset": spec["dataset"]["name"], "architecture": spec["architecture"], "variant": spec["variant"],
        "recipe": spec["training"]["recipe"], "precision": "float32", "seed": spec["seed"],
        "branch_seed": spec.get("branch_seed"), "epochs": epochs_text(spec), "group": group_of(spec),
        "settings": settings_text(spec),
    }


def epochs_text(spec: Mapping[str, Any]) -> str:
    """`<X>` for a continuous model, `<X,Y>` for a branch of it: the study's notation."""
    if spec["kind"] == "branch":
        return f"<{spec['parent_epochs']},{spec['epochs']}>"
    return f"<{spec['epochs']}>"


def group_of(spec: Mapping[str, Any]) -> str:
    """Names the cell of the table: equal for runs that differ in nothing but their seeds."""
    ignored = {"seed", "branch_seed", "parent", "keep_epochs"}
    return digest({name: value for name, value in spec.items() if name not in ignored})


def settings_text(spec: Mapping[str, Any]) -> str:
    """What differs from the defaults and the recipe, so that two rows can be told apart: `"gain 1, lr 0.05"`."""
    recipe = RECIPES[spec["training"]["recipe"]]
    phase = recipe.branch if spec["kind"] == "branch" else recipe.continuous
    usual = DecoderSpec().model_dump()
    found = {name: value for name, value in spec.get("decoder", {}).items() if value != usual[name]}
    found |= _unusual_training(spec["training"], phase, recipe.batch_size)
    if spec["kind"] == "branch":
        parent = _unusual_training(spec["parent_training"], recipe.continuous, recipe.batch_size)
        found |= {f"parent {name}": value for name, value in parent.items() if found.get(name) != value}
    return ", ".join(f"{_SHORT.get(name, name)} {_text(value)}" for name, value in (found | _weights(spec)).items())


def _unusual_training(training: Mapping[str, Any], phase: Phase, batch_size: int) -> dict[str, Any]:
    usual = {"learning_rate": phase.learning_rate, "batch_size": batch_size, "freeze_depth": 0}
    return {name: training[name] for name, value in usual.items() if training[name] != value}


def _weights(spec: Mapping[str, Any]) -> dict[str, Any]:
    model = spec["model"]
    usual = {"weights": "none", "image_size": None, "stem": "cifar" if model["weights"] == "none" else "imagenet"}
    return {name: model[name] for name, value in usual.items() if model[name] != value}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
