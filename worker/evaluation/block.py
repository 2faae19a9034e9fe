"""What an evaluation found on one block of images: plain arrays, to be stored as one .npz and joined later."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ALL = slice(None)
CLEAN = 0  # candidate number of the unchanged image; the attack of stage a is number 1 + a


@dataclass
class BlockResult:
    """n images, E radii (ascending), A attacks. NaN, 0 or False where an attack did not run.

    An attack runs at a radius of its grid, on the images its suite gives it: in a suite on survivors those not
    confirmed broken before, at this or a smaller radius, and of a bisected curve those alone whose bisection passes
    here; otherwise all.
    """

    ids: Array  # int64 (n,)
    labels: Array  # int64 (n,)
    eps: Array  # text (E,): exact fractions
    attacks: Array  # text (A,): the labels of the stages
    draws: Array  # int64 (2,): selection and fresh draws actually used; 1, 1 for a deterministic model
    clean_share: Array  # float32 (n,): correct share of the selection draws on the unchanged image
    clean_correct: Array  # int64 (n,): correct answers of the fresh draws on it
    clean_majority: Array  # bool (n, 3)
    share: Array  # float32 (E, A, n): correct share of the selection draws on the attack's image
    success: Array  # bool (E, A, n): confirmed broken, no selection draw correct
    norm: Array  # float32 (E, A, n): of the attack's perturbation
    queries: Array  # int64 (E, A, n): images passed through the encoder, whatever the draws
    gradients: Array  # int64 (E, A, n): passes back through it
    faulty: Array  # int64 (E, A, n): gradients that were zero or not finite
    rejected: Array  # bool (E, A, n): the attack's image failed the re-check; the unchanged one stands in
    after: Array  # float32 (E, A, n): fresh correct share on the worst candidate so far, after this stage
    standing: Array  # bool (E, A, n): not confirmed broken by any candidate so far, after this stage
    chosen: Array  # int64 (E, n): the worst candidate, CLEAN or 1 + attack
    chosen_at: Array  # int64 (E, n): number of the radius it was found at, -1 for CLEAN
    chosen_share: Array  # float32 (E, n): its correct share of the selection draws
    chosen_norm: Array  # float32 (E, n)
    correct: Array  # int64 (E, n): correct answers of the fresh draws on it: the headline
    majority: Array  # bool (E, n, 3): votes over 1, 10, 100 fresh draws
    adversarial: Array  # float32 (k, C, H, W): the chosen images that are not the unchanged one, each once
    adversarial_index: Array  # int64 (E, n): where in `adversarial`, -1 for the unchanged image

    def to_arrays(self) -> dict[str, Array]:
        """For `np.savez`; no pickling needed."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """The inverse of `to_arrays`; takes what `np.load` gives."""
        return cls(**{field.name: np.asarray(arrays[field.name]) for field in fields(cls)})

    def images(self, clean: Array, *, radius: int, rows: Array | slice = ALL) -> Array:
        """The chosen image of each of `rows` at radius number `radius`; clean: float32 (n, C, H, W), of these rows."""
        index = self.adversarial_index[radius, rows]
        found = np.array(clean, np.float32)
        found[index >= 0] = self.adversarial[index[index >= 0]]
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """One JSON-safe row for each image, attack and radius that was run."""
        for e, a, i in np.argwhere(~np.isnan(self.share)):
            yield {
                "eps": str(self.eps[e]), "attack": str(self.attacks[a]), "image_id": int(self.ids[i]),
                "correct_share": float(self.share[e, a, i]), "success": bool(self.success[e, a, i]),
                "norm": float(self.norm[e, a, i]), "queries": int(self.queries[e, a, i]),
                "gradients": int(self.gradients[e, a, i]),
            }


def empty_rows(radii: int, attacks: int, images: int) -> dict[str, Array]:
    """The arrays that stages fill in, (E, A, n) and (E, n), with nothing run yet."""
    every, chosen = (radii, attacks, images), (radii, images)
    counts = {name: np.zeros(every, np.int64) for name in ("queries", "gradients", "faulty")}
    flags = {name: np.zeros(every, bool) for name in ("success", "rejected", "standing")}
    values = {name: np.full(every, np.nan, np.float32) for name in ("share", "norm", "after")}
    numbers = {name: np.full(chosen, -1) for name in ("chosen", "chosen_at", "correct", "adversarial_index")}
    shares = {name: np.full(chosen, np.nan, np.float32) for name in ("chosen_share", "chosen_norm")}
    return {**counts, **flags, **values, **numbers, **shares, "majority": np.zeros((*chosen, 3), bool)}
