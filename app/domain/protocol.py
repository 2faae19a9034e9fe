"""What a robustness figure was measured under. Only rows of one protocol identity share a ranking."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from app.domain.attacks import NORMS, Norm
from app.domain.epsilon import format_epsilon, parse_epsilon
from app.domain.published import EvaluationOption
from app.domain.suites import Diagnostics, Stage

SELECTION_DRAWS = 32  # S: draws that choose the worst candidate of an image
FRESH_DRAWS = 100  # R: fresh draws that are reported on it
BLOCK_IMAGES = 100  # stored, resumed, sharded at a time; no setting: a resumed run must cut as it was cut before
NORM_TOLERANCE = 1e-6  # an accepted image may exceed eps by float32 rounding, no more


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def blocks_of(images: int) -> int:
    """How many blocks so many images are cut into."""
    return -(-images // BLOCK_IMAGES)


@dataclass(frozen=True)
class Protocol:
    """Data set, images, norm, radii (ascending) and attacks with their budgets."""

    dataset: str
    fingerprint: str
    norm: Norm
    eps: tuple[Fraction, ...]
    suite: str
    suite_version: int
    survivors: bool
    stages: tuple[Stage, ...]
    images: int
    precision: str = "float32"
    diagnostics: Diagnostics = "rows"
    clean_images: int | None = None  # that the clean accuracy is measured on; None: the whole test split
    as_published: tuple[EvaluationOption, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; radii as text fractions. What has a default only where it is not the default: protocols are
        named by this text, and those measured before there was a choice keep their names."""
        chosen: dict[str, Any] = {} if self.diagnostics == "rows" else {"diagnostics": self.diagnostics}
        if self.clean_images is not None:
            chosen["clean_images"] = self.clean_images
        if self.as_published:
            chosen["as_published"] = list(self.as_published)
        return chosen | {
            "dataset": self.dataset, "fingerprint": self.fingerprint, "norm": self.norm,
            "eps": [str(e) for e in self.eps], "suite": self.suite, "suite_version": self.suite_version,
            "survivors": self.survivors, "images": self.images, "precision": self.precision,
            "stages": [_stage_to_dict(s) for s in self.stages],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        assert data["norm"] in NORMS
        stages = tuple(_stage_from_dict(s) for s in data["stages"])
        eps = tuple(parse_epsilon(e) for e in data["eps"])
        return cls(**{
            **data, "eps": eps, "stages": stages, "as_published": tuple(data.get("as_published", ())),
        })

    @property
    def blocks(self) -> int:
        """In how many blocks its images are attacked (as published, fewer where fewer images are answered right)."""
        return blocks_of(self.images)

    def stages_at(self, eps: Fraction) -> tuple[Stage, ...]:
        """The stages that run at this radius."""
        return tuple(s for s in self.stages if s.grid is None or eps in s.grid)

    def identity(self, eps: Fraction) -> str:
        """Names the protocol of one figure: equal exactly where figures may be ranked together.

        The other radii of the run are left out: they can only have tightened this one (an image
        broken in a smaller ball is broken in a larger one).
        """
        return digest({
            **self.to_dict(), "eps": str(eps),
            "stages": [_stage_to_dict(s) | {"grid": None} for s in self.stages_at(eps)],
        })

    @property
    def family(self) -> str:
        """Names the protocol but for its radii: figures of one family make a curve over eps."""
        return digest({**self.to_dict(), "eps": None})[:16]

    def describe(self, eps: Fraction) -> dict[str, Any]:
        """The `protocol` member of a leaderboard row."""
        return {
            "norm": self.norm, "eps": float(eps), "eps_text": format_epsilon(eps), "suite": self.suite,
            "suite_version": self.suite_version, "images": self.images, "precision": self.precision,
            "survivors": self.survivors, "family": self.family,
        } | ({"as_published": list(self.as_published)} if self.as_published else {})


def _stage_to_dict(stage: Stage) -> dict[str, Any]:
    grid = None if stage.grid is None else [str(e) for e in stage.grid]
    return {"attack": stage.attack, "parameters": dict(stage.parameters), "grid": grid}


def _stage_from_dict(data: Mapping[str, Any]) -> Stage:
    grid = None if data["grid"] is None else tuple(parse_epsilon(e) for e in data["grid"])
    return Stage(data["attack"], dict(data["parameters"]), grid)
