"""When a job is stopped for taking too long or for being silent."""

from dataclasses import replace

import pytest

from app.storage.watching import Watched
from tests.service import make_settings
from worker.patience import WANTED, Patience, Stop

SEEN = Watched(False, progress_at=1.0, phase="attacking, block 1/2", worked_seconds=0.0, time_limit_seconds=0.0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def patience(clock: Clock, stall_seconds: float = 60.0) -> Patience:
    return Patience(make_settings(stall_seconds=stall_seconds), clock)


def after(clock: Clock, watching: Patience, seconds: float, seen: Watched = SEEN) -> Stop | None:
    clock.now += seconds
    return watching.look(seen)


def test_a_job_that_does_not_move_is_stopped_and_that_counts_as_a_try(clock) -> None:
    watching = patience(clock)
    assert after(clock, watching, 0) is None
    assert after(clock, watching, 59) is None
    stop = after(clock, watching, 2)
    assert stop is not None
    assert stop.count_try
    assert not stop.final
    assert stop.reason.startswith("no progress for 60 s, the last at: attacking, block 1/2;")
    assert "SPIKEPROOF_STALL_SECONDS" in stop.reason


def test_a_job_that_moves_goes_on_whatever_the_clock_of_the_database_says(clock) -> None:
    watching = patience(clock)
    for moved in (1.0, 10**9, 5.0, 6.0, 7.0):  # a clock that was set, forwards and back
        assert after(clock, watching, 50, replace(SEEN, progress_at=moved)) is None


def test_silence_while_the_database_is_away_does_not_count(clock) -> None:
    watching = patience(clock)
    assert after(clock, watching, 0) is None
    clock.now += 500
    watching.interrupted()
    assert after(clock, watching, 50) is None
    assert after(clock, watching, 50) is not None


def test_zero_seconds_is_no_limit(clock) -> None:
    assert after(clock, patience(clock, stall_seconds=0), 10**7) is None


def test_the_time_of_earlier_attempts_counts_and_no_further_try_is_made(clock) -> None:
    watching = patience(clock, stall_seconds=0)
    seen = replace(SEEN, worked_seconds=80.0, time_limit_seconds=100.0)
    assert after(clock, watching, 19, seen) is None
    stop = after(clock, watching, 2, seen)
    assert stop is not None
    assert stop.final
    assert "time limit of 100 s" in stop.reason
    assert "time_limit_seconds" in stop.reason


def test_a_limit_that_is_raised_while_the_job_works_holds_at_once(clock) -> None:
    watching = patience(clock, stall_seconds=0)
    assert after(clock, watching, 90, replace(SEEN, time_limit_seconds=100.0)) is None
    assert after(clock, watching, 90, replace(SEEN, time_limit_seconds=1000.0)) is None


def test_who_cancels_is_heard_before_any_limit(clock) -> None:
    seen = replace(SEEN, cancel_requested=True, time_limit_seconds=1.0)
    assert after(clock, patience(clock), 10**6, seen) == WANTED
