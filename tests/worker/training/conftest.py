"""What trainings have in common."""

from collections.abc import Iterator

import pytest
import torch

from worker.training.seeding import make_deterministic


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """As a job trains."""
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)
