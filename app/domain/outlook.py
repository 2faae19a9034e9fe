"""How far an experiment is, and how long it will take, from its runs counted by kind and state.

    progress(tallies)       # 0..1
    eta(tallies)            # seconds left on one worker

Both follow from what is stored alone, not from the time at which one looks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.lifecycle import TERMINAL

TOO_EARLY = 0.02  # with less progress than this, nothing is said of the time left


class Counted(Protocol):
    """What is looked at of a run."""

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def state(self) -> str: ...  # noqa: D102

    @property
    def progress(self) -> float: ...  # noqa: D102

    @property
    def started_at(self) -> float | None: ...  # noqa: D102

    @property
    def finished_at(self) -> float | None: ...  # noqa: D102

    @property
    def progress_at(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Tally:
    """The runs of an experiment of one kind and state. Times are sums over those of which they are known."""

    kind: str
    state: str
    count: int
    progress: float  # sum
    took: float  # seconds from start to end
    timed: int  # of how many
    left: float  # seconds, by how fast each has moved so far
    foreseen: int  # of how many
    ended: float | None  # seconds since 1970: the last that has


def tallies_of(runs: Iterable[Counted]) -> list[Tally]:
    """`app.storage.tallies` counts the same in the database."""
    groups: dict[tuple[str, str], list[Counted]] = {}
    for run in runs:
        groups.setdefault((run.kind, run.state), []).append(run)
    return [_tally(kind, state, members) for (kind, state), members in groups.items()]


def _tally(kind: str, state: str, members: Sequence[Counted]) -> Tally:
    took = [r.finished_at - r.started_at for r in members if r.started_at is not None and r.finished_at is not None]
    left = [
        (r.progress_at - r.started_at) * (1 - r.progress) / r.progress for r in members
        if r.started_at is not None and r.progress_at is not None and r.progress > TOO_EARLY
    ]
    progress = sum(r.progress for r in members)
    ended = max((r.finished_at for r in members if r.finished_at is not None), default=None)
    return Tally(kind, state, len(members), progress, sum(took), len(took), sum(left), len(left), ended)


def progress(tallies: Sequence[Tally]) -> float:
    """0..1: how much of the work is done; what failed or was cancelled counts as far as it came."""
    count = sum(t.count for t in tallies)
    return sum(t.count if t.state == "succeeded" else t.progress for t in tallies) / count if count else 1.0


def eta(tallies: Sequence[Tally]) -> float | None:
    """Seconds of work left on one worker, by the mean time of the finished runs of each kind, else by how fast a
    running one has moved up to its last sign of progress; None while unknown."""
    mean = {t.kind: t.took / t.timed for t in tallies if t.state == "succeeded" and t.timed}
    left = 0.0
    for t in tallies:
        if t.state in TERMINAL:
            continue
        if t.kind in mean:
            left += (t.count - t.progress) * mean[t.kind]
        elif t.state == "running" and t.foreseen == t.count:
            left += t.left
        else:
            return None
    return round(left, 1)
