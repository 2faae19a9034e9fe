"""As published: what the study computed, by name. Each is off by default, and marked wherever it was used.

| name | what it does | how it is asked for |
|---|---|---|
| features-readout | "lif" answers with the encoder's features, not with its neurons | `decoder.readout: features` |
| gain-1 | ParaLIF's logits are means of spikes, in [0, 1] | `decoder.gain: 1.0` |
| wrapped-kernel | ParaLIF's kernel wraps round in time: its end reaches its beginning | `decoder.kernel: reference` |
| biased-estimator | the gradient of a Bernoulli draw is multiplied by p | `decoder.estimator: published` |
| clamped-features | features are clamped to [0, 1], not min-max normalised | `decoder.normalisation: clamp` |
| detached-encoding | no gradient passes the Bernoulli encoding | `decoder.encoding_gradient: none` |
| one-draw-gradients | attacks differentiate one draw, as training does | `evaluation.as_published` |
| one-forward-verdicts | one forward pass says whether an image is robust | `evaluation.as_published` |
| correct-images | only images that one forward pass gets right are attacked | `evaluation.as_published` |
| normalised-eps | eps and perturbation are of the normalised input, one clip range | `evaluation.as_published` |

Figures under an option of the evaluation have a protocol of their own: they share no ranking with others. Why each
misleads, and by how much: `docs/as-published.md`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

EvaluationOption = Literal["one-draw-gradients", "one-forward-verdicts", "correct-images", "normalised-eps"]
EVALUATION_OPTIONS: tuple[EvaluationOption, ...] = get_args(EvaluationOption)
IMAGES = 100  # of the study, at most

# name -> (variant that reads the setting, or both; setting; value)
_DECODER: dict[str, tuple[tuple[str, ...], str, Any]] = {
    "features-readout": (("lif",), "readout", "features"),
    "gain-1": (("paralif",), "gain", 1.0),
    "wrapped-kernel": (("paralif",), "kernel", "reference"),
    "biased-estimator": (("paralif",), "estimator", "published"),
    "clamped-features": (("lif", "paralif"), "normalisation", "clamp"),
    "detached-encoding": (("lif", "paralif"), "encoding_gradient", "none"),
}
OPTIONS = (*_DECODER, *EVALUATION_OPTIONS)
DECODER: dict[str, Any] = {setting: value for _, setting, value in _DECODER.values()}  # all of them at once


def decoder_marks(decoder: Mapping[str, Any] | None) -> list[str]:
    """The options that a decoder's settings, those its variant reads, amount to."""
    given = decoder or {}
    return [name for name, (_, setting, value) in _DECODER.items() if given.get(setting) == value]


def marks(decoder: Mapping[str, Any] | None, evaluation: Sequence[str] = ()) -> list[str]:
    """All options behind a figure, in the order of the table."""
    return [*decoder_marks(decoder), *(name for name in EVALUATION_OPTIONS if name in evaluation)]


def marks_text(names: Sequence[str]) -> str:
    """`"as published: gain-1, wrapped-kernel"`; empty where there are none."""
    return f"as published: {', '.join(names)}" if names else ""
