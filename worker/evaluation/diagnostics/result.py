"""What a check says: a value beside its thresholds, a verdict, and words to act on."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from worker.evaluation.block import Array
from worker.evaluation.diagnostics.significance import surely_above

Verdict = Literal["ok", "warn", "fail", "not applicable"]


@dataclass(frozen=True)
class Result:
    """One check at one radius, or of the whole evaluation. `warn`, `fail`: None where nothing makes it so."""

    check: str
    value: float | None
    warn: float | None
    fail: float | None
    verdict: Verdict
    text: str
    eps: str | None = None  # exact radius of the figures it marks; None: all of them

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)


@dataclass(frozen=True)
class Threshold:
    """A check's name and its limits: above `warn` is worth a look, surely above `fail` condemns the figure."""

    check: str
    warn: float
    fail: float | None

    def grade(self, value: float, text: str, *, sure: bool = True, eps: str | None = None) -> Result:
        """`sure`: whether noise cannot explain that `value` is above `fail`; without it, a warning."""
        verdict: Verdict = "warn" if value > self.warn else "ok"
        if self.fail is not None and value > self.fail:
            verdict = "fail" if sure else "warn"
        return Result(self.check, value, self.warn, self.fail, verdict, text, eps)

    def grade_images(self, by_image: Array, text: str, *, eps: str | None = None) -> Result:
        """Of a mean over images, (n,); sure by `surely_above`."""
        value = float(np.mean(by_image, dtype=np.float64))
        sure = self.fail is None or surely_above(by_image, self.fail)
        return self.grade(value, text, sure=sure, eps=eps)

    def not_applicable(self, why: str, *, eps: str | None = None) -> Result:
        """Says why there is nothing to check."""
        return Result(self.check, None, self.warn, self.fail, "not applicable", why, eps)


def points(share: float) -> str:
    """`.125` -> "12.5 points"."""
    return f"{100 * share:.1f} points"
