"""Accuracy against eps: one line for each row of the leaderboard, whatever its radius."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from app.domain.architectures import VARIANTS, variant_name
from app.domain.leaderboard import OK, Measured, PerImage, by_radius, latest, over_seeds, robust_accuracy, row_id
from app.domain.protocol import digest

_SHOWN = ("architecture", "variant", "recipe", "precision", "epochs", "settings")


def curves(
    measured: Iterable[Measured], family: str | None, attack: str | None = None, per_image: PerImage | None = None
) -> list[dict[str, Any]]:
    """The lines of one protocol but for its radii (`family`), by architecture and variant.

    `attack`: its own figures instead of the robust accuracy; radii at which it did not run are left out. Each point
    has the id of the leaderboard row it is a figure of.
    """
    groups: dict[str, list[Measured]] = defaultdict(list)
    for m in latest(measured):
        if m.protocol["family"] == family and (attack is None or attack in m.attacks):
            groups[m.group].append(m)
    lines = [_line(members, attack, per_image) for members in groups.values()]
    ordered = sorted(lines, key=lambda line: (line["architecture"], VARIANTS.index(line["variant"]),
                                              *(line[name] for name in _SHOWN[2:]), line["id"]))  # fmt: skip
    return [{**line, "label": label} for line, label in zip(ordered, labels(ordered), strict=True)]


def labels(lines: Sequence[dict[str, Any]]) -> list[str]:
    """`"resnet20 LIF"`, and of the rest what tells lines apart: `"resnet20 LIF <20,10>, gain 1"`."""
    telling = [n for n in _SHOWN[2:] if any(_alike(a, b) and a[n] != b[n] for a in lines for b in lines)]
    texts = []
    for line in lines:
        rest = ", ".join(str(line[name]) for name in telling if line[name])
        texts.append(f"{line['architecture']} {variant_name(line['variant'])}" + (f" {rest}" if rest else ""))
    return texts


def _alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return bool(a["architecture"] == b["architecture"] and a["variant"] == b["variant"])


def _line(members: Sequence[Measured], attack: str | None, per_image: PerImage | None) -> dict[str, Any]:
    first = members[0]
    points = [_point(at_eps, attack, per_image) for _, at_eps in by_radius(members)]
    widest = by_radius(members)[-1][1]
    return {
        "id": digest([first.group, first.protocol["family"]])[:16], **{name: getattr(first, name) for name in _SHOWN},
        "clean_accuracy": over_seeds(widest, first.test_images, "clean_accuracy"),
        "clean_accuracy_subset": over_seeds(widest, int(first.protocol["images"]), "clean_accuracy_subset"),
        "test_images": first.test_images, "points": points,
        "verdict": next((p["verdict"] for p in points if p["verdict"] != OK), OK),
        "reasons": sorted({reason for p in points for reason in p["reasons"]}),
        "draws": first.draws, "parameters": first.parameters,
    }


def _point(at_eps: Sequence[Measured], attack: str | None, per_image: PerImage | None) -> dict[str, Any]:
    first = at_eps[0]
    if attack is None:
        accuracy = robust_accuracy(at_eps, per_image)
    else:
        accuracy = over_seeds(at_eps, int(first.protocol["images"]), attack)
    return {
        "eps": first.protocol["eps"], "eps_text": first.protocol["eps_text"],
        "row": row_id(first.group, first.protocol_id), "accuracy": accuracy,
        "verdict": next((m.verdict for m in at_eps if m.verdict != OK), OK),
        "reasons": sorted({reason for m in at_eps for reason in m.reasons}),
    }
