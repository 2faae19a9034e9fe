import pytest

from app.domain.energy import Operations, energy


def test_products_and_spikes_have_their_prices() -> None:
    found = energy([Operations(1_000_000, "float32"), Operations(1_000_000, "float32", inputs=0.25)], {"input": 0.25})
    assert found["microjoules"] == pytest.approx(4.6 + 0.25 * 0.9)
    assert (found["multiply_adds"], found["synaptic_operations"]) == (1_000_000, 250_000)
    assert found["spike_rates"] == {"input": 0.25}


def test_integers_cost_less_and_no_spikes_cost_nothing() -> None:
    assert Operations(10, "int8").picojoules == pytest.approx(3.0)
    assert Operations(10, "int8", inputs=1.0).picojoules == pytest.approx(1.0)
    assert Operations(10, "float32", inputs=0.0).picojoules == 0.0
