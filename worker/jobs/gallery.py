"""The pictures of an evaluation: one contact sheet a radius, in the attempt's folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from app.domain.architectures import variant_name
from app.domain.epsilon import format_epsilon
from app.domain.protocol import Protocol
from app.storage import artifacts
from models.registry import Classifier
from worker.evaluation import BlockResult
from worker.evaluation.block import Array
from worker.evaluation.contact_sheet import Heading, contact_sheet
from worker.evaluation.gallery import examples
from worker.jobs.job import Job

_NORMS = {"linf": "L∞", "l2": "L2"}


def write_gallery(
    job: Job, model: Classifier, protocol: Protocol, originals: Callable[[Array], Array], blocks: Sequence[BlockResult],
    verdicts: Sequence[Mapping[str, Any]], classes: Sequence[str],
) -> dict[str, str]:
    """Exact radius -> path of its PNG, as the database keeps it. `originals`: from ids to unchanged images, float32
    (n, C, H, W)."""
    paths = {}
    for number, eps in enumerate(protocol.eps):
        of_it = [row for row in verdicts if row["eps"] == str(eps)]
        shown = examples(model, blocks, originals, of_it, radius=number, seed=job.spec["attack_seed"])
        sheet = contact_sheet(shown, classes, protocol.norm, _heading(job, protocol, format_epsilon(eps), of_it))
        path = job.folder / f"gallery-{number}.png"
        artifacts.publish(path, lambda beside, sheet=sheet: _save(sheet, beside))  # type: ignore[misc]
        paths[str(eps)] = artifacts.relative(job.settings.data_dir, path)
    return paths


def _heading(job: Job, protocol: Protocol, eps: str, verdicts: Sequence[Mapping[str, Any]]) -> Heading:
    subject = job.spec["subject"]
    right = [row for row in verdicts if row["clean_majority"]]
    fooled = sum(not row["majority"] for row in right)
    draws = ", answers by vote of the draws" if subject["variant"] != "default" else ""
    network = f"{subject['architecture']} {variant_name(subject['variant'])}"
    return Heading(
        f"{network} on {subject['dataset']}, {_NORMS[protocol.norm]} eps {eps}",
        f"suite {protocol.suite} v{protocol.suite_version}, seed {subject['seed']}: of {len(verdicts)} images "
        f"{len(right)} are right unattacked, and {fooled} of those are fooled{draws}; the first of either kind",
    )


def _save(sheet: Image.Image, path: Path) -> None:
    sheet.save(path, format="PNG", optimize=True)
