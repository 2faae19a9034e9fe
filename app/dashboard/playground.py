"""The playground's page: an image, a checkpoint, an attack, and what comes of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.rendering import render
from app.domain.access import Role, covers
from app.domain.architectures import variant_name
from app.domain.pool import TRANSFER


def playground_page(
    checkpoints: Sequence[Mapping[str, Any]], datasets: Mapping[str, Mapping[str, Any]],
    attacks: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], role: Role,
    *, worker: bool,
) -> str:
    """`checkpoints`: in full; `datasets`: those of them that are known here; `chosen`: what the address names."""
    usable = [attack for attack in attacks if attack["name"] != TRANSFER]
    setup = {
        "checkpoints": {c["id"]: choice(c) for c in checkpoints}, "datasets": datasets, "chosen": chosen,
        "attacks": {
            attack["name"]: {name: attack[name] for name in ("norms", "title", "parameters")} for attack in usable
        },
    }
    return render(
        "playground.html", setup=setup, attacks=usable, groups=grouped(checkpoints), chosen=chosen,
        may_submit=covers(role, "submitter"), worker=worker,
    )


def choice(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a page needs to know of a checkpoint that can be chosen."""
    return {
        "dataset": checkpoint["dataset"], "classes": checkpoint["spec"]["classes"], "variant": checkpoint["variant"],
        "shape": checkpoint["spec"]["model"]["image_shape"], "text": text_of(checkpoint),
    }


def text_of(checkpoint: Mapping[str, Any]) -> str:
    """`"resnet20 ParaLIF, seed 1, <20,10>, ...x7k2"`, and int8 where it is quantised. Several may have all but
    the end of their id in common: trained on other images, or elsewhere."""
    rounded = f" {checkpoint['precision']}" if checkpoint["precision"] != "float32" else ""
    network = f"{checkpoint['architecture']} {variant_name(checkpoint['variant'])}{rounded}"
    return f"{network}, seed {checkpoint['seed']}, {checkpoint['epochs']}, ...{checkpoint['id'][-4:]}"


def grouped(checkpoints: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Data set -> (id, text) of its checkpoints, in the order given."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in checkpoints:
        found.setdefault(one["dataset"], []).append((one["id"], text_of(one)))
    return found
