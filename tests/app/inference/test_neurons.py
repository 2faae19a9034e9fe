"""Which neurons are shown where nobody names any."""

import torch

from app.inference.neurons import _telling


def test_of_classes_those_that_spike_most_and_of_hidden_ones_those_nearest_to_every_other_step() -> None:
    rates = (1.0, 0.5, 0.0, 0.75)
    spikes = torch.stack([(torch.arange(4) < 4 * rate).float() for rate in rates], dim=1)  # (steps, neurons)
    assert _telling(spikes, 2, hidden=False) == [0, 3]
    assert _telling(spikes, 2, hidden=True) == [1, 3]
