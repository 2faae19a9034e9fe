"""Which images of an evaluation are shown as examples, and what the model answers on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.domain.protocol import FRESH_DRAWS
from worker.attacks import Classifier, Target, frozen
from worker.evaluation.block import Array, BlockResult
from worker.evaluation.votes import fresh_noise, majority

SHOWN = 12
STANDING = 3  # of them at least, where there are so many: a gallery of successes alone would flatter the attack


@dataclass(frozen=True)
class Example:
    """One image, its worst candidate (float32 (C, H, W) in [0, 1]) and the votes on both; `verdict`: its row."""

    clean: Array
    adversarial: Array
    label: int
    clean_answer: int
    answer: int
    verdict: Mapping[str, Any]


def pick(verdicts: Sequence[Mapping[str, Any]]) -> list[int]:
    """Positions of the images to show at one radius, ascending: of those that are right unattacked the first that are
    fooled, and the first that stand. Never by how they look."""
    right = [i for i, row in enumerate(verdicts) if row["clean_majority"]]
    fooled = [i for i in right if not verdicts[i]["majority"]]
    standing = [i for i in right if verdicts[i]["majority"]]
    few = fooled[: SHOWN - min(STANDING, len(standing))]
    return sorted(few + standing[: SHOWN - len(few)])


def examples(
    model: Classifier, blocks: Sequence[BlockResult], originals: Callable[[Array], Array],
    verdicts: Sequence[Mapping[str, Any]], *, radius: int, seed: int,
) -> list[Example]:
    """Of an evaluation with attack seed `seed`, at radius number `radius`. originals: from ids (n,) to unchanged
    images, float32 (n, C, H, W); verdicts: the rows of that radius, in the order of the blocks. Answers are the vote of
    the draws that were reported."""
    chosen = pick(verdicts)
    if not chosen:
        return []
    ids, labels = (np.concatenate([getattr(b, name) for b in blocks])[chosen] for name in ("ids", "labels"))
    clean = originals(ids)
    worst = np.array(clean, np.float32)
    starts = np.cumsum([0, *(len(b.ids) for b in blocks)])
    for block, start, end in zip(blocks, starts[:-1], starts[1:], strict=True):
        here = [k for k, place in enumerate(chosen) if start <= place < end]
        if here:
            worst[here] = block.images(worst[here], radius=radius, rows=np.array(chosen)[here] - start)
    before, after = (_answers(model, x, ids, seed) for x in (clean, worst))
    return [
        Example(clean[k], worst[k], int(labels[k]), before[k], after[k], verdicts[i]) for k, i in enumerate(chosen)
    ]


def _answers(model: Classifier, x: Array, ids: Array, seed: int) -> list[int]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    keys = torch.from_numpy(np.array(ids, np.int64)).to(device)
    with frozen(model), torch.no_grad():
        images: Tensor = torch.from_numpy(np.array(x, np.float32)).to(device)
        target = Target(model, batch_size=SHOWN)
        logits = target.forward(images, draws=FRESH_DRAWS, noise=fresh_noise(seed, keys)).logits
        found: list[int] = majority(logits.argmax(2), logits.shape[2]).tolist()
    return found
