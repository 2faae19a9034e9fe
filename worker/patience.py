"""How long a job may take, and how long it may be silent. The supervisor asks at each look.

Both are measured with this process's clock, which neither a clock that is set nor a sleeping laptop moves; the
database tells only that something has moved, and what earlier attempts took.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from app.settings import Settings
from app.storage.watching import Watched


@dataclass(frozen=True)
class Stop:
    """Why a job is stopped. `count_try`: it was the job's own fault; `final`: trying again would not help."""

    reason: str
    count_try: bool = False
    final: bool = False


WANTED = Stop("its worker was stopped")  # or someone cancelled the run


class Patience:
    """Of one attempt, from its start."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_seconds, self._clock = settings.stall_seconds, clock
        self._began = self._moved = clock()
        self._seen: float | None = None  # `progress_at`, as the database had it last

    def look(self, seen: Watched) -> Stop | None:
        """Why the job must be stopped now, or None."""
        now = self._clock()
        if seen.progress_at != self._seen:
            self._seen, self._moved = seen.progress_at, now
        if seen.cancel_requested:
            return WANTED
        if 0 < seen.time_limit_seconds < seen.worked_seconds + now - self._began:
            return Stop(_too_long(seen.time_limit_seconds, seen.phase), final=True)
        if 0 < self._stall_seconds < now - self._moved:
            return Stop(_stalled(self._stall_seconds, seen.phase), count_try=True)
        return None

    def interrupted(self) -> None:
        """The database was away, and with it whatever the job had to tell: its silence counts anew."""
        self._moved = self._clock()


def _too_long(limit: float, phase: str | None) -> str:
    return (
        f"the run took longer than its time limit of {limit:g} s over all attempts, and was stopped at: "
        f"{phase or 'its start'}. Trying it again goes on from what is stored, for as long again; or submit it with "
        "a larger time_limit_seconds, fewer epochs, images or attacks"
    )


def _stalled(seconds: float, phase: str | None) -> str:
    return (
        f"no progress for {seconds:g} s, the last at: {phase or 'its start'}; the job was stopped. If it only is slow, "
        "raise SPIKEPROOF_STALL_SECONDS"
    )
