from typing import get_args

import pytest

from app.domain import lifecycle
from app.domain.lifecycle import experiment_state


@pytest.mark.parametrize(
    ("runs", "state"),
    [
        ("succeeded succeeded", "succeeded"),
        ("queued queued", "queued"),
        ("queued succeeded", "running"),
        ("running queued failed", "running"),
        ("failed failed", "failed"),
        ("cancelled cancelled", "cancelled"),
        ("succeeded failed", "partial"),
        ("succeeded cancelled", "partial"),
        ("failed cancelled", "failed"),
    ],
)
def test_the_state_of_an_experiment_follows_from_its_runs(runs: str, state: str) -> None:
    assert experiment_state(runs.split(), cancelled=False) == state  # type: ignore[arg-type]


@pytest.mark.parametrize("runs", ["queued", "running succeeded", "failed succeeded", "cancelled"])
def test_a_cancelled_experiment_is_cancelled_at_once(runs: str) -> None:
    assert experiment_state(runs.split(), cancelled=True) == "cancelled"  # type: ignore[arg-type]


def test_what_was_all_done_before_the_cancel_has_succeeded() -> None:
    assert experiment_state(["succeeded"], cancelled=True) == "succeeded"


def test_the_lists_of_states_have_every_state() -> None:
    assert set(lifecycle.RUN_STATES) == set(get_args(lifecycle.RunState))
    assert set(lifecycle.EXPERIMENT_STATES) == set(get_args(lifecycle.ExperimentState))
