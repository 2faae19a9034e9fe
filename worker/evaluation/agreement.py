"""Whether figures that were computed a second time are those that were stored.

Under the same conditions (device kind, versions, threads, batch) every bit must be the same. Under others float32
sums differ in their last bits, and an image on the edge may fall to the other side: at most one verdict in 1,000,
and one in a smaller set of images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from worker.evaluation.block import BlockResult
from worker.evaluation.summary import AXIS

VERDICTS = 0.001  # share of the verdicts that may differ under other conditions
_SAID = {
    "device": "device", "hardware": "hardware", "torch": "torch", "threads": "threads",
    "attack_batch": "images attacked at once", "code_version": "spikeproof",
}


@dataclass(frozen=True)
class Terms:
    """What agreement means for one evaluation; `because`: why its bits may differ, empty where they may not."""

    because: tuple[str, ...] = ()

    @property
    def bit_for_bit(self) -> bool:
        """Whether nothing may differ."""
        return not self.because

    def allowed(self, images: int) -> int:
        """How many of so many verdicts may differ."""
        return 0 if self.bit_for_bit else max(1, int(images * VERDICTS))

    def describe(self, images: int) -> dict[str, Any]:
        """The tolerance of a figure over so many images, as it is shown."""
        share = self.allowed(images) / images
        return {"bit_for_bit": self.bit_for_bit, "because": list(self.because), "verdicts": self.allowed(images),
                "accuracy": share}  # fmt: skip


def terms(then: Sequence[Mapping[str, Any]], now: Mapping[str, Any], *, deterministic: bool = True) -> Terms:
    """`then`: the conditions of every attempt of the evaluation. `deterministic`: of the kernels used now."""
    because = [] if deterministic else ["a kernel that this network needs has no fixed order of sums on a GPU"]
    if not then:
        because.append("the evaluation did not record its conditions")
    if len(then) > 1:
        because.append("the evaluation was resumed under other conditions than it was begun under")
    for name in _SAID if len(then) == 1 else ():
        if then[0].get(name) != now[name]:
            because.append(f"{_SAID[name]}: {then[0].get(name)} then, {now[name]} now")
    return Terms(tuple(because))


def compare_clean(
    stored: Mapping[str, Any], found: Mapping[str, Any], shown: Sequence[float], on: Terms
) -> dict[str, Any]:
    """The accuracy on the test split; stored, found: a CleanResult as a dictionary; shown: as the figures repeat it.

    images_differing counts what the two confusion matrices tell apart, so it is a lower bound.
    """
    was, now, images = stored["accuracy"], found["accuracy"], int(found["images"])
    moved = int(np.abs(np.subtract(stored["confusion"], found["confusion"])).sum()) // 2
    faults = [f"the figures show {value}" for value in sorted({*shown} - {was})]
    if on.bit_for_bit and dict(stored) != dict(found):
        faults.append("details differ" if was == now else "other answers")
    if not on.bit_for_bit and (moved > on.allowed(images) or abs(was - now) > on.allowed(images) / images):
        faults.append("other answers")
    return _figure("clean accuracy", was, now, images, moved, faults, on)


def compare_robust(
    shown: Mapping[str, Any] | None, stored: Sequence[BlockResult] | None, found: Sequence[BlockResult],
    summary: Mapping[str, Any], radius: int, on: Terms, *, rows_differing: int = 0,
) -> dict[str, Any]:
    """The robust accuracy at radius number `radius`, with that after (or of) each attack.

    shown: robust_accuracy and attacks of the stored figure, None where it is gone. stored: the evaluation's blocks,
    None where one cannot be read. found, summary: the new ones and their figures at this radius. rows_differing: of
    the per-image rows, how many are not those of the block they came from.
    """
    images = sum(len(block.ids) for block in found)
    now, attacks = summary["robust_accuracy"], summary["attacks"]
    faults = ["the stored figure is gone"] if shown is None else _off(shown, now, attacks, images, on)
    differing = None
    if stored is None:
        faults.append("a stored block is gone or damaged")
    else:
        differing, arrays = _differences(stored, found, radius)
        if differing > on.allowed(images):
            faults.append(f"{differing} of {images} images have another verdict")
        if on.bit_for_bit and arrays:
            faults.append(f"stored rows differ in {', '.join(arrays)}")
    if rows_differing:
        faults.append(f"{rows_differing} per-image rows are not those that were measured")
    was = None if shown is None else shown["robust_accuracy"]
    figure = _figure("robust accuracy", was, now, images, differing, faults, on)
    both = {} if shown is None else shown["attacks"]
    names = [*dict.fromkeys([*both, *attacks])]
    return figure | {
        "eps_text": summary["eps_text"], "eps_exact": summary["eps_exact"],
        "attacks": {name: {"stored": both.get(name), "recomputed": attacks.get(name)} for name in names},
    }


def _figure(
    name: str, was: float | None, now: float, images: int, differing: int | None, faults: list[str], on: Terms
) -> dict[str, Any]:
    return {
        "figure": name, "stored": was, "recomputed": now, "agrees": not faults, "reasons": faults,
        "images": images, "images_differing": differing, "tolerance": on.describe(images),
    }


def _off(
    shown: Mapping[str, Any], now: float, attacks: Mapping[str, float], images: int, on: Terms
) -> list[str]:
    """Which of the numbers shown are further off than allowed."""
    pairs = {"robust accuracy": (shown["robust_accuracy"], now)}
    pairs |= {name: (shown["attacks"].get(name), attacks.get(name)) for name in [*shown["attacks"], *attacks]}
    limit = on.allowed(images) / images + 1e-9 if not on.bit_for_bit else 0.0
    return [
        f"{name} is {was} as stored, {again} as recomputed"
        for name, (was, again) in pairs.items()
        if was != again and (was is None or again is None or abs(was - again) > limit)
    ]


def _differences(stored: Sequence[BlockResult], found: Sequence[BlockResult], radius: int) -> tuple[int, list[str]]:
    """How many images have another verdict at this radius, and which arrays have another bit there."""
    verdicts, names = 0, dict[str, None]()
    for was, now in zip(stored, found, strict=True):
        if was.ids.tolist() != now.ids.tolist() or was.eps.tolist() != now.eps.tolist():
            return sum(len(block.ids) for block in found), ["ids"]
        verdicts += int((was.majority[radius, :, -1] != now.majority[radius, :, -1]).sum())
        for field in fields(BlockResult):
            one, other = (_at(block, field.name, radius) for block in (was, now))
            if one.shape != other.shape or one.dtype != other.dtype or one.tobytes() != other.tobytes():
                names[field.name] = None
    return verdicts, [*names]


def _at(block: BlockResult, name: str, radius: int) -> np.ndarray:
    """The part of a block's array that belongs to this radius, or to all."""
    array: np.ndarray = getattr(block, name)
    index = block.adversarial_index[radius]
    if name == "adversarial_index":
        array = index >= 0
    elif name == "adversarial":
        array = array[index[index >= 0]]
    elif AXIS.get(name, 0) > 0:
        array = array[radius]
    return np.ascontiguousarray(array)


def verdict(figures: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Whether all figures agree, and the sentence that says so."""
    wrong = [figure for figure in figures if not figure["agrees"]]
    if not figures:
        return True, "The file is the one that was published; there is no evaluation of it to compare with."
    if wrong:
        named = "; ".join(f"{_name(figure)}: {', '.join(figure['reasons'])}" for figure in wrong)
        return False, f"Does not agree: {len(wrong)} of {len(figures)} figures. {named}."
    loose = [figure for figure in figures if not figure["tolerance"]["bit_for_bit"]]
    if not loose:
        return True, f"Agrees: all {len(figures)} figures, bit for bit."
    because = "; ".join(dict.fromkeys(reason for figure in loose for reason in figure["tolerance"]["because"]))
    return True, f"Agrees: all {len(figures)} figures, to one verdict in 1,000. Bits may differ, since {because}."


def _name(figure: Mapping[str, Any]) -> str:
    at = f" at {figure['eps_text']}" if "eps_text" in figure else ""
    return f"{figure['figure']}{at} of run {figure['run']}" if "run" in figure else f"{figure['figure']}{at}"
