"""The evaluation of one block of images: every attack of a protocol at every radius.

Radii ascend, and the worst candidate of an image at one radius is a candidate at the next: it lies in the
larger ball. Where a suite works on survivors, an image that is confirmed broken is attacked no more, neither
by later stages nor at larger radii; otherwise each attack runs on every image at every radius of its grid,
its own figure is its own success, and only the headline inherits.

Nothing depends on which images share a block or a batch: two half blocks give what one whole gives.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.domain.protocol import Protocol
from app.domain.suites import stage_labels
from worker.attacks import Attack, Classifier, Found, Target, build_attack, frozen
from worker.attacks.ball import lengths
from worker.attacks.search import Progress
from worker.evaluation.block import Array, BlockResult, empty_rows
from worker.evaluation.explored import Explored
from worker.evaluation.published import NormalisedInput
from worker.evaluation.votes import Jury
from worker.evaluation.worst import Worst


def evaluate_block(
    model: Classifier, images: Tensor, labels: Tensor, ids: Tensor, *, protocol: Protocol, seed: int,
    batch_size: int = 128, siblings: Sequence[Classifier] = (), progress: Progress | None = None,
) -> BlockResult:
    """Attacks the images as `protocol` says, on the model's device. The unit of resuming.

    images: float32 (n, C, H, W) in [0, 1]; labels, ids: int64 (n,), ids unique, in any order. `siblings`: the pool
    of transfer attacks, on the same device; without any these are passed over. Where the protocol's eps are as
    published, of the normalised input, the adversarial images are such inputs (`worker.evaluation.published`) and norms
    are in its units. `progress` is called with the share
    of the work done, at each step of an attack; what it raises ends the evaluation.
    """
    if not len(images) or len(torch.unique(ids)) != len(ids):
        raise ValueError("a block needs images, and each an id of its own: ids key the noise")
    device = next((p.device for p in model.parameters()), images.device)
    images, unit, options = images.to(device), 1.0, protocol.as_published
    if "normalised-eps" in options:
        seen = NormalisedInput.of(model)  # type: ignore[arg-type]  # one of ours
        siblings = [seen.sibling(each) for each in siblings]  # type: ignore[arg-type]
        model, images, unit = seen.model, seen.images(images), seen.span
    with ExitStack() as stack:
        for each in (model, *siblings):
            stack.enter_context(frozen(each))
        target = Target(
            model, batch_size=batch_size, siblings=siblings, as_trained="one-draw-gradients" in options,
            once="one-forward-verdicts" in options,
        )
        jury = Jury(target, labels.to(device), ids.to(device), seed)
        return _Evaluation(images, jury, protocol, progress or _silent, unit=unit).run()


class _Evaluation:
    """`unit`: what one of the protocol's units of length measures the images in."""

    def __init__(self, x0: Tensor, jury: Jury, protocol: Protocol, progress: Progress, *, unit: float) -> None:
        self.unit = unit
        self.x0, self.jury, self.protocol, self.progress = x0, jury, protocol, progress
        self.attacks = [build_attack(s.attack, norm=protocol.norm, **s.parameters) for s in protocol.stages]
        self.explored = {a: Explored(a, x0, jury) for a in self.attacks if a.minimum_norm}
        self.arrays = empty_rows(len(protocol.eps), len(self.attacks), len(x0))
        self.rows = torch.arange(len(x0), device=x0.device)
        self.steps = sum(1 for radius in range(len(protocol.eps)) for _ in self._stages(radius))
        self.steps_done = 0
        self.kept: list[Array] = []

    def run(self) -> BlockResult:
        point, self.clean_share = self.jury.select(self.x0, self.rows)
        self.clean_votes = self.jury.vote(point.features, self.rows)
        self.worst = Worst(self.x0, self.clean_share, self.clean_votes)
        for radius in range(len(self.protocol.eps)):
            for number in self._stages(radius):
                self._stage(radius, number)
            self._note_radius(radius)
        return self._result()

    def _stages(self, radius: int) -> Iterator[int]:
        """Numbers of the stages that run at a radius on this model."""
        epsilon = self.protocol.eps[radius]
        planned = enumerate(zip(self.protocol.stages, self.attacks, strict=True))
        return (
            number for number, (stage, attack) in planned
            if (stage.grid is None or epsilon in stage.grid) and attack.applies_to(self.jury.target)
        )

    def _stage(self, radius: int, number: int) -> None:
        rows = self.worst.standing() if self.protocol.survivors else self.rows
        if len(rows):
            self._judge(self._attack(self.attacks[number], rows, radius), rows, radius, number)
        self.arrays["after"][radius, number] = _numpy(self.worst.correct) / self.jury.draws[1]
        self.arrays["standing"][radius, number] = _numpy(self.worst.share > 0)
        self.steps_done += 1
        self.progress(self.steps_done / self.steps)

    def _attack(self, attack: Attack, rows: Tensor, radius: int) -> Found:
        done, steps, report = self.steps_done, self.steps, self.progress

        def progress(share: float) -> None:
            report((done + share) / steps)

        radii = torch.full((len(rows),), float(self.protocol.eps[radius]) / self.unit, device=rows.device)
        if attack.minimum_norm:
            return self.explored[attack].at(rows, radii, progress)
        return attack(
            self.jury.target, self.x0[rows], self.jury.labels[rows], epsilon=radii, ids=self.jury.ids[rows],
            seed=self.jury.seed, progress=progress,
        )

    def _judge(self, found: Found, rows: Tensor, radius: int, number: int) -> None:
        """The verdicts on what an attack found, and who of it becomes the worst of its image."""
        candidate = f"{radius}/{number}"
        point, share = self.jury.select(found.x, rows, candidate)
        norm = self._lengths(found.x - self.x0[rows])
        self._write((radius, number, _numpy(rows)), share=share, norm=norm, success=share == 0,
                    rejected=found.rejected, queries=found.queries, gradients=found.gradients, faulty=found.faulty)
        worse = self.worst.worse(share, rows)
        if len(worse):
            votes = self.jury.vote(point.features[worse], rows[worse], candidate)
            self.worst.replace(
                rows[worse], found.x[worse], share[worse], votes, candidate=1 + number, radius=radius
            )

    def _note_radius(self, radius: int) -> None:
        worst = self.worst
        self._write(radius, chosen=worst.candidate, chosen_at=worst.radius, chosen_share=worst.share,
                    chosen_norm=self._lengths(worst.x - self.x0), correct=worst.correct,
                    majority=worst.majority)
        new = _numpy(worst.radius == radius)
        index = self.arrays["adversarial_index"]
        index[radius] = index[radius - 1] if radius else -1
        index[radius, new] = len(self.kept) + np.arange(new.sum())
        self.kept.extend(_numpy(worst.x)[new])

    def _lengths(self, delta: Tensor) -> Tensor:
        return lengths(delta, self.protocol.norm) * self.unit

    def _write(self, place: Any, **values: Tensor) -> None:
        for name, value in values.items():
            self.arrays[name][place] = _numpy(value)

    def _result(self) -> BlockResult:
        shape = (0, *self.x0.shape[1:])
        return BlockResult(
            ids=_numpy(self.jury.ids), labels=_numpy(self.jury.labels),
            eps=np.array([str(e) for e in self.protocol.eps]),
            attacks=np.array(stage_labels(self.protocol.stages)),
            draws=np.array(self.jury.draws), clean_share=_numpy(self.clean_share),
            clean_correct=_numpy(self.clean_votes.correct), clean_majority=_numpy(self.clean_votes.majority),
            adversarial=np.stack(self.kept) if self.kept else np.empty(shape, np.float32), **self.arrays,
        )


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.cpu().numpy()
    return array


def _silent(share: float) -> None:
    """Progress that nobody watches."""
