"""States of runs and experiments, and which changes are allowed.

    queued -> running -> succeeded | failed | cancelled
    queued -> cancelled | failed            (failed: what it depends on failed)
    running -> queued                       (its worker died or stopped; tried again)
    failed | cancelled -> queued            (an explicit retry, which is a new attempt)
"""

from collections.abc import Iterable
from typing import Literal

RunState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ExperimentState = Literal["queued", "running", "succeeded", "failed", "cancelled", "partial"]
RunKind = Literal["train", "branch", "quantise", "shard", "evaluate", "verify", "attack", "import"]
# shard: attacks some blocks of an evaluation; import: stands for foreign weights
# Runs that only look at a checkpoint: no experiment has them, and they go where it goes.
ONLY_LOOK: tuple[RunKind, ...] = ("verify", "attack")

RUN_STATES: tuple[RunState, ...] = ("queued", "running", "succeeded", "failed", "cancelled")
EXPERIMENT_STATES: tuple[ExperimentState, ...] = (*RUN_STATES, "partial")
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
RETRIABLE: frozenset[str] = frozenset({"failed", "cancelled"})
# A specification in one of these is shared by whoever asks for it again.
SHARED: tuple[RunState, ...] = ("queued", "running", "succeeded")


def experiment_state(runs: Iterable[RunState], *, cancelled: bool) -> ExperimentState:
    """The state of an experiment follows from its runs' and from whether someone cancelled it."""
    states = set(runs)
    if states <= {"succeeded"}:
        return "succeeded"
    if cancelled:
        return "cancelled"
    if states - TERMINAL:
        return "queued" if states == {"queued"} else "running"
    if len(states) == 1:
        return "failed" if "failed" in states else "cancelled"
    return "partial" if "succeeded" in states else "failed"
