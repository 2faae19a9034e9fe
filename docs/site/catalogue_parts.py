"""Architectures, data sets, presets, recipes and spike modes, from their catalogues."""

from tables import code, table

from app.domain.architectures import ARCHITECTURES
from app.domain.datasets import KNOWN
from app.domain.presets import PRESETS
from app.domain.recipes import RECIPES
from models.expectation import has_closed_form
from models.firing import SPIKE_MODES, STOCHASTIC_MODES, usual_threshold


def architectures() -> str:
    """What may be trained, and from which weights."""
    rows = [
        (code(a.name), a.title, f"0 to {a.depths}", a.features, ", ".join(map(code, a.stems)),
         "; ".join(f"{w.title}, {w.imagenet_accuracy:.2%} on ImageNet" for w in a.weights) or "none", a.reference)
        for a in ARCHITECTURES.values()
    ]  # fmt: skip
    return table(("name", "", "freeze depth", "features", "stems", "weights", "reference"), rows)


def datasets() -> str:
    """Sizes, default radii (the headline in bold), licence."""
    rows = [
        (code(d.name), d.title, len(d.classes), "x".join(map(str, d.shape)), f"{d.train_size:,} / {d.test_size:,}",
         _radii(d.eps["linf"], d.headline["linf"]), _radii(d.eps["l2"], d.headline["l2"]), d.licence, d.source)
        for d in KNOWN.values()
    ]  # fmt: skip
    head = ("name", "", "classes", "shape", "train / test", "eps, Linf", "eps, L2", "licence", "source")
    return table(head, rows)


def _radii(all_of: tuple[str, ...], headline: str) -> str:
    return ", ".join(f"**{eps}**" if eps == headline else eps for eps in all_of)


def presets() -> str:
    """Experiments by name."""
    rows = [
        (code(p.name), p.title, sum(map(len, p.stages)), "its own" if p.offline else "the same")
        for p in PRESETS.values()
    ]
    return table(("name", "", "experiments", "`--offline` form"), rows)


def recipes() -> str:
    """How networks are trained."""
    rows = [
        (code(r.name), r.version, r.title, f"`<{r.continuous.epochs},{r.branch.epochs}>`", r.continuous.learning_rate,
         f"{r.branch.learning_rate}, head {r.branch.decoder_learning_rate}", r.batch_size, r.weight_decay)
        for r in RECIPES.values()
    ]  # fmt: skip
    head = ("name", "version", "", "epochs", "rate", "rate of a branch", "batch", "weight decay")
    return table(head, rows)


def spike_modes() -> str:
    """The firing rules of ParaLIF neurons."""
    rows = [
        (code(mode), "drawn" if mode in STOCHASTIC_MODES else "threshold",
         "" if (threshold := usual_threshold(mode)) is None else f"{threshold:.3g}",
         "yes" if has_closed_form(mode) else "no")
        for mode in SPIKE_MODES
    ]  # fmt: skip
    return table(("mode", "spikes are", "usual threshold", "expected logits in closed form"), rows)
