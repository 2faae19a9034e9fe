"""What stands of each image after all attacks: how far its worst candidate went, how like the image it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worker.evaluation.block import CLEAN, Array, BlockResult

SSIM_WINDOW = 7  # pixels, the usual one; it fits into the digits' 8x8
SMALLEST_WINDOW = 3


@dataclass(frozen=True)
class Distances:
    """Of k images from others, all float64 (k,), in pixel units. `ssim` is NaN where images are too small."""

    linf: Array
    l2: Array
    ssim: Array


def distances(x: Array, clean: Array) -> Distances:
    """How far float32 images x (k, C, H, W) in [0, 1] are from `clean`, likewise."""
    delta = (x.astype(np.float64) - clean).reshape(len(x), int(np.prod(x.shape[1:])))
    similar = [structural_similarity(one, other) for one, other in zip(x, clean, strict=True)]
    return Distances(
        linf=np.abs(delta).max(1, initial=0.0), l2=np.sqrt((delta**2).sum(1)), ssim=np.array(similar, np.float64)
    )


def structural_similarity(x: Array, y: Array) -> float:
    """SSIM of two images (C, H, W) in [0, 1], the mean over channels; 1 for equal ones.

    The uniform window of 7 pixels with sample variances, K1 = .01, K2 = .03; smaller only where the image is. NaN for
    a side below 3. Wang, Bovik, Sheikh, Simoncelli 2004, doi:10.1109/TIP.2003.819861.
    """
    from skimage.metrics import structural_similarity as ssim  # half a second to import

    side = min(SSIM_WINDOW, *x.shape[1:])
    window = side - 1 + side % 2  # odd
    if window < SMALLEST_WINDOW:
        return float("nan")
    pair = (x.astype(np.float64), y.astype(np.float64))
    return float(ssim(*pair, data_range=1.0, channel_axis=0, win_size=window))  # type: ignore[no-untyped-call]


def image_verdicts(block: BlockResult, clean: Array, norm: str, unit: float = 1.0) -> Iterator[dict[str, Any]]:
    """One JSON-safe row for each image and radius. clean: float32 (n, C, H, W), the block's unchanged images, and
    `unit` what one of their units of length measures in the protocol's.

    `attack` is None where no attack did harm: norms are 0 then, and the similarity 1.
    """
    found = distances(np.asarray(block.adversarial), clean[_owners(block)])
    found = replace(found, linf=found.linf * unit, l2=found.l2 * unit)
    for e, i in np.ndindex(block.chosen.shape):
        k, candidate = int(block.adversarial_index[e, i]), int(block.chosen[e, i])
        linf, l2, ssim = (float(v[k]) for v in (found.linf, found.l2, found.ssim)) if k >= 0 else (0.0, 0.0, 1.0)
        yield {
            "eps": str(block.eps[e]), "image_id": int(block.ids[i]),
            "attack": None if candidate == CLEAN else str(block.attacks[candidate - 1]),
            "norm": linf if norm == "linf" else l2, "linf": linf, "l2": l2, "ssim": None if np.isnan(ssim) else ssim,
            "correct_share": float(block.correct[e, i] / block.draws[1]), "majority": bool(block.majority[e, i, -1]),
            "clean_correct_share": float(block.clean_correct[i] / block.draws[1]),
            "clean_majority": bool(block.clean_majority[i, -1]),
        }


def mean_distances(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """By radius, over the images that an attack changed: `{"8/255": {"mean_linf": ..., "mean_l2": ..., "mean_ssim":
    ...}}`; None where there is none."""
    return {
        eps: {f"mean_{name}": _mean(rows, eps, name) for name in ("linf", "l2", "ssim")}
        for eps in dict.fromkeys(str(row["eps"]) for row in rows)
    }


def _mean(rows: Sequence[dict[str, Any]], eps: str, name: str) -> float | None:
    values = [r[name] for r in rows if r["eps"] == eps and r["attack"] is not None and r[name] is not None]
    return float(np.mean(values)) if values else None


def _owners(block: BlockResult) -> Array:
    """Which image each adversarial one is of, int64 (k,)."""
    owners = np.zeros(len(block.adversarial), np.int64)
    radius, image = np.nonzero(block.adversarial_index >= 0)
    owners[block.adversarial_index[radius, image]] = image
    return owners
