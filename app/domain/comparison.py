"""Two rows of one protocol, compared seed by seed and image by image, with a conclusion in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.domain.architectures import variant_name
from app.domain.leaderboard import OK, Measured, PerImage, seed_means, seed_shares
from app.domain.statistics import BOOTSTRAP_SEEDS, SIGNIFICANT, PairedDifference, mcnemar, paired_difference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.domain.statistics import Shares

    Verdicts = NDArray[np.bool_]

_MOST_NAMED = 6  # settings in the conclusion; all are listed
_THESE_IMAGES = " Test and interval speak of other seeds on these very images, not of other images."
_UNCORRECTED = "No p is corrected for how many comparisons are made."


@dataclass(frozen=True)
class Side:
    """One of the two: its row, its figures (one a seed and branch seed), its settings by dotted name."""

    row: Mapping[str, Any]
    members: Sequence[Measured]
    settings: Mapping[str, Any]
    radii: Sequence[Measured] = ()  # its figures at every radius of the protocol's family

    @property
    def seeds(self) -> set[int]:
        """Those it was measured with."""
        return {m.seed for m in self.members}

    def of(self, seeds: set[int]) -> list[Measured]:
        """Its figures of those seeds."""
        return [m for m in self.members if m.seed in seeds]

    def at(self, eps: float, seeds: set[int]) -> list[Measured]:
        """The same at another radius."""
        return [m for m in self.radii if m.protocol["eps"] == eps and m.seed in seeds]


def protocol_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What keeps figures of two protocols (as `Protocol.to_dict` has them, with one radius each) from being compared:
    `["suite: quick against standard", ...]`."""
    named = {"fingerprint": "the images of the data set", "stages": "the attacks' budgets",
             "survivors": "attacks on survivors only"}  # fmt: skip
    different = [name for name in a if a[name] != b.get(name)]
    return [
        named[name] if name in ("fingerprint", "stages") else
        f"{named.get(name, name.replace('_', ' '))}: {a[name]} against {b.get(name)}"
        for name in different
    ]


def compare(a: Side, b: Side, *, per_image: PerImage, votes: PerImage) -> dict[str, Any]:
    """A against B (differences are A minus B) over the seeds they have in common.

    `per_image` answers correct shares, `votes` whether the majority is right, image by image; both may know only
    some of the runs. Robust and clean differences are None without a common seed; then there are none by attack or
    by radius either.
    """
    common = a.seeds & b.seeds
    robust = clean = subset = None
    if common:
        robust = _difference(a.of(common), b.of(common), _robust, per_image)
        clean = _difference(a.of(common), b.of(common), lambda m: m.clean_accuracy, None)
        subset = _difference(a.of(common), b.of(common), lambda m: m.clean_accuracy_subset, None)
    pairs = _mcnemar_pairs(a.of(common), b.of(common), votes)
    settings = differing_settings(a.settings, b.settings)
    return {
        "a": a.row, "b": b.row, "protocol": a.row["protocol"],
        "seeds": {"common": sorted(common), "only_a": sorted(a.seeds - b.seeds), "only_b": sorted(b.seeds - a.seeds)},
        "robust_accuracy": robust and robust.to_dict(), "clean_accuracy": clean and clean.to_dict(),
        "clean_accuracy_subset": subset and subset.to_dict(),
        "attacks": _by_attack(a, b, common), "curve": _by_radius(a, b, common, per_image),
        "p": robust and robust.p, "significant": None if robust is None or robust.p is None else robust.p < SIGNIFICANT,
        "mcnemar": pairs, "differing_settings": settings,
        "conclusion": _conclusion(a, b, robust, pairs, [s["name"] for s in settings]),
    }


def differing_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each with both values; null where one side has no such setting."""
    names = [*a, *(name for name in b if name not in a)]
    return [{"name": n, "a": a.get(n), "b": b.get(n)} for n in names if a.get(n) != b.get(n)]


def _robust(m: Measured) -> float:
    return m.robust_accuracy


def _under(attack: str) -> Callable[[Measured], float]:
    return lambda m: m.attacks[attack]


def _by_attack(a: Side, b: Side, common: set[int]) -> dict[str, Any]:
    """Differences in the figures of the attacks that both have."""
    names = [name for name in a.members[0].attacks if name in b.members[0].attacks] if common else []
    return {
        name: _difference(a.of(common), b.of(common), _under(name), None).to_dict()
        for name in names
    }


def _by_radius(a: Side, b: Side, common: set[int], per_image: PerImage | None) -> list[dict[str, Any]]:
    """Differences in robust accuracy at every radius at which both have all the common seeds."""
    texts = {m.protocol["eps"]: m.protocol["eps_text"] for m in a.radii}
    found = []
    for eps, text in sorted(texts.items()):
        sides = a.at(eps, common), b.at(eps, common)
        if common and all({m.seed for m in side} == common for side in sides):
            robust = _difference(*sides, _robust, per_image)
            found.append({"eps": eps, "eps_text": text, "robust_accuracy": robust.to_dict()})
    return found


def _difference(
    a: Sequence[Measured], b: Sequence[Measured], value: Callable[[Measured], float], per_image: PerImage | None
) -> PairedDifference:
    def image_differences() -> "Shares | None":
        if per_image is None:
            return None
        both = seed_shares(a, per_image), seed_shares(b, per_image)
        return None if both[0] is None or both[1] is None else both[0] - both[1]

    means_a, means_b = (seed_means(side, lambda m: float(value(m))) for side in (a, b))
    return paired_difference(means_a, means_b, image_differences)


def _mcnemar_pairs(a: Sequence[Measured], b: Sequence[Measured], votes: PerImage) -> list[dict[str, Any]]:
    """A test for each pair of networks of one seed. A row without branches meets each branch of the other; two with
    several meet branch seed by branch seed."""
    if not a or not b:
        return []
    right = {**votes([m.run_id for m in a], a[0].eps), **votes([m.run_id for m in b], b[0].eps)}
    found = []
    for one in sorted(a, key=_place):
        for other in sorted((m for m in b if m.seed == one.seed), key=_place):
            matched = one.branch_seed == other.branch_seed or not (_branched(one, a) and _branched(other, b))
            if matched and one.run_id in right and other.run_id in right:
                found.append(_pair(one, other, right[one.run_id] > 0.5, right[other.run_id] > 0.5))
    return found


def _pair(a: Measured, b: Measured, right_a: "Verdicts", right_b: "Verdicts") -> dict[str, Any]:
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p, method = mcnemar(only_a, only_b)
    return {
        "seed": a.seed, "branch_seeds": [a.branch_seed, b.branch_seed], "images": len(right_a),
        "both": int((right_a & right_b).sum()), "only_a": only_a, "only_b": only_b,
        "neither": int((~right_a & ~right_b).sum()), "p": p, "method": method,
    }


def _place(m: Measured) -> tuple[int, int]:
    return m.seed, -1 if m.branch_seed is None else m.branch_seed


def _branched(m: Measured, row: Sequence[Measured]) -> bool:
    return sum(other.seed == m.seed for other in row) > 1


def _conclusion(
    a: Side, b: Side, robust: PairedDifference | None, pairs: Sequence[Mapping[str, Any]], settings: Sequence[str]
) -> str:
    networks = [f"{side.row['architecture']} {variant_name(side.row['variant'])}" for side in (a, b)]
    names = [f"{letter} ({network})" for letter, network in zip("AB", networks, strict=True)]
    if robust is None:
        said = [f"{names[0]} and {names[1]} have no seed in common, so nothing can be compared pairwise: measure both "
                "with the same seeds."]  # fmt: skip
    else:
        said = [_finding(a, names, robust), _significance(robust, pairs)]
        if robust.p is not None or pairs:
            said.append(_UNCORRECTED)
    return " ".join([*said, *_caution(a, b), _what_differs(settings)])


def _finding(a: Side, names: Sequence[str], robust: PairedDifference) -> str:
    p = a.row["protocol"]
    setting = f"On the same {p['images']} images, suite {p['suite']}, {p['norm']} eps {p['eps_text']}"
    seeds = "1 common seed" if robust.n == 1 else f"{robust.n} common seeds"
    points = abs(100 * robust.mean)
    if points < 0.05:
        size = f"{names[0]} and {names[1]} are equally robust to within 0.1 point"
    else:
        size = f"{names[0]} is {points:.1f} points {'more' if robust.mean > 0 else 'less'} robust than {names[1]}"
    low, high = robust.ci95 or (None, None)
    interval = "" if low is None or high is None else f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}, "
    return f"{setting}: {size} ({interval}{seeds})."


def _significance(robust: PairedDifference, pairs: Sequence[Mapping[str, Any]]) -> str:
    significant = [pair for pair in pairs if pair["p"] < SIGNIFICANT]
    if robust.n == 1:
        if not pairs:
            return "With one common seed there is no test over seeds, and verdicts by image are not stored."
        pair = min(pairs, key=lambda pair: float(pair["p"]))
        verdict = "significant" if significant else "not significant"
        return (
            f"Between these two networks the difference is {verdict} image by image (McNemar, p {_p(pair['p'])}); with "
            "one seed it says nothing of other trainings of the two recipes."
        )
    by_image = f" Image by image, {len(significant)} of {len(pairs)} pairs of networks differ significantly (McNemar)."
    by_image = (by_image if pairs else "") + (_THESE_IMAGES if robust.n < BOOTSTRAP_SEEDS else "")
    if robust.p is None:
        return "Every seed gives this very difference: there is no spread between seeds to test it against." + by_image
    if robust.p < SIGNIFICANT:
        return f"The difference is significant over seeds (paired t, p {_p(robust.p)})." + by_image
    return (
        f"The difference is not significant over seeds (paired t, p {_p(robust.p)}): these figures do not show that "
        "one recipe withstands more than the other." + by_image
    )


def _caution(a: Side, b: Side) -> list[str]:
    """A difference of upper bounds may be one of attacks, not of networks."""
    weak = [letter for letter, side in (("A", a), ("B", b)) if side.row["verdict"] != OK]
    if not weak:
        return []
    reasons = dict.fromkeys(reason for side in (a, b) for reason in side.row["reasons"])
    who = f"The figure of {weak[0]} is an upper bound only" if len(weak) == 1 else "Both figures are upper bounds only"
    return [f"{who} ({'; '.join(reasons)}): the true difference may be another, even of the other sign."]


def _what_differs(settings: Sequence[str]) -> str:
    if not settings:
        return "No recorded setting differs."
    more = f" and {len(settings) - _MOST_NAMED} more" if len(settings) > _MOST_NAMED else ""
    return f"Settings that differ: {', '.join(settings[:_MOST_NAMED])}{more}."


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
