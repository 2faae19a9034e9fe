"""The evaluation of one block of images: every attack of a protocol at every radius.

Radii ascend, and the worst candidate of an image at one radius is a candidate at the next: it lies in the
larger ball. Where a suite works on survivors, an image that is confirmed broken is attacked no more, neither
by later stages nor at larger radii; otherwise each attack runs on every image at every radius of its grid,
its own figure is its own success, and only the headline inherits.

A dense curve of a deterministic network is searched in one pass, attack by attack: `worker.evaluation.bisection`.

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
from worker.evaluation.bisection import Bisection
from worker.evaluation.block import Array, BlockResult, empty_rows
from worker.evaluation.explored import Explored
from worker.evaluation.published import NormalisedInput
from worker.evaluation.votes import Jury
from worker.evaluation.worst import Worst

DENSE = 4  # radii from which on a curve is bisected: of fewer, the tries that it saves are few


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
        self.radii = torch.tensor([float(eps) / unit for eps in protocol.eps], device=x0.device)
        self.steps = sum(1 for radius in range(len(self.radii)) for _ in self._stages(radius))
        self.steps_done = 0
        self.kept: list[Array] = []

    def run(self) -> BlockResult:
        point, self.clean_share = self.jury.select(self.x0, self.rows)
        self.clean_votes = self.jury.vote(point.features, self.rows)
        self.worst = Worst(self.x0, self.clean_share, self.clean_votes)
        (self._attack_by_attack if self._bisects() else self._radius_by_radius)()
        return self._result()

    def _bisects(self) -> bool:
        """Stochastic images are more or less broken, and have a worst candidate at each radius: nothing to bisect. And
        only the checks of a sample would show that an attack does worse at a larger radius."""
        checked = self.protocol.diagnostics == "full"
        whole = self.protocol.survivors and all(stage.grid is None for stage in self.protocol.stages)
        return checked and whole and not self.jury.target.stochastic and len(self.radii) >= DENSE

    def _radius_by_radius(self) -> None:
        for radius in range(len(self.radii)):
            for number in self._stages(radius):
                self._try_radius(radius, number)
                self._note_stage(radius, number)
            self._note_radius(radius)

    def _attack_by_attack(self) -> None:
        first, radii = True, range(len(self.radii))
        for turn, number in enumerate(self._stages(0), start=1):
            if self.attacks[number].bisects:
                self._bisect(number, from_top=not first)
                first = False
            else:
                for radius in radii:
                    self._try_radius(radius, number)
            for radius in radii:
                self._note_stage(radius, number)
            self._step(turn * len(radii))
        for radius in radii:
            self._note_radius(radius)

    def _stages(self, radius: int) -> Iterator[int]:
        """Numbers of the stages that run at a radius on this model."""
        epsilon = self.protocol.eps[radius]
        planned = enumerate(zip(self.protocol.stages, self.attacks, strict=True))
        return (
            number for number, (stage, attack) in planned
            if (stage.grid is None or epsilon in stage.grid) and attack.applies_to(self.jury.target)
        )

    def _try_radius(self, radius: int, number: int) -> None:
        rows = self.worst.standing(radius).nonzero()[:, 0] if self.protocol.survivors else self.rows
        if len(rows):
            self._try(number, rows, torch.full_like(rows, radius))
        self._step(self.steps_done + 1)

    def _bisect(self, number: int, *, from_top: bool) -> None:
        bisection = Bisection(self.worst.broken_from(len(self.radii)), from_top=from_top)
        while len(rows := bisection.open()):
            bisection.note(rows, self._try(number, rows, bisection.radius[rows]))
            self._step(self.steps_done + 1)

    def _try(self, number: int, rows: Tensor, radius: Tensor) -> Tensor:
        """One attack on images `rows`, each at its `radius`, int64: whom it breaks for certain, bool alike."""
        return self._judge(self._attack(self.attacks[number], rows, radius), rows, radius, number)

    def _step(self, done: int) -> None:
        self.steps_done = done
        self.progress(done / self.steps)

    def _attack(self, attack: Attack, rows: Tensor, radius: Tensor) -> Found:
        done, steps, report = self.steps_done, self.steps, self.progress

        def progress(share: float) -> None:
            report((done + share) / steps)

        if attack.minimum_norm:
            return self.explored[attack].at(rows, self.radii[radius], progress)
        return attack(
            self.jury.target, self.x0[rows], self.jury.labels[rows], epsilon=self.radii[radius],
            ids=self.jury.ids[rows], seed=self.jury.seed, progress=progress,
        )

    def _judge(self, found: Found, rows: Tensor, radius: Tensor, number: int) -> Tensor:
        """The verdicts on what an attack found, and who of it becomes the worst of its image."""
        candidate = f"{int(radius[0])}/{number}"  # one for all where draws are asked for: of a stochastic model
        point, share = self.jury.select(found.x, rows, candidate)
        norm = self._lengths(found.x - self.x0[rows])
        self._write((_numpy(radius), number, _numpy(rows)), share=share, norm=norm, success=share == 0,
                    rejected=found.rejected, queries=found.queries, gradients=found.gradients, faulty=found.faulty)
        worse = self.worst.worse(share, rows, radius)
        if len(worse):
            votes = self.jury.vote(point.features[worse], rows[worse], candidate)
            self.worst.replace(
                rows[worse], found.x[worse], share[worse], votes, candidate=1 + number, radius=radius[worse]
            )
        return share == 0

    def _note_stage(self, radius: int, number: int) -> None:
        self.arrays["after"][radius, number] = _numpy(self.worst.at(radius).correct) / self.jury.draws[1]
        self.arrays["standing"][radius, number] = _numpy(self.worst.standing(radius))

    def _note_radius(self, radius: int) -> None:
        worst = self.worst.at(radius)
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
