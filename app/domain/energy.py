"""Estimated energy of a prediction, by a stated model: operations counted, each at the price of one in silicon.

    energy = multiply-adds x price(multiply, add) + synaptic operations x price(add)

Prices: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
doi:10.1109/ISSCC.2014.6757323, 45 nm, 0.9 V: float32 multiply 3.7 pJ, add 0.9 pJ; 8-bit integer multiply 0.2 pJ,
32-bit integer add, into which products of 8-bit integers are summed, 0.1 pJ.

A layer that is fed with spikes adds a weight for each spike that arrives: spikes x fan-out synaptic operations, and no
product. Everything else multiplies. Left out: memory, which costs more than arithmetic on most hardware; drawing random
spikes; batch norm, ReLU, pooling and rounding. So it compares networks with one another, on hardware that gains from
zeros, and says nothing of the electricity that this machine takes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SOURCE = "Horowitz 2014, 45 nm: arithmetic alone"
MULTIPLY_ADD_PJ = {"float32": 3.7 + 0.9, "int8": 0.2 + 0.1}
ADD_PJ = {"float32": 0.9, "int8": 0.1}


@dataclass(frozen=True)
class Operations:
    """Of some layers of one prediction (one draw): `inputs` is the share of them that is not zero, None where they are
    no spikes."""

    multiply_adds: int  # as if nothing were zero
    precision: str
    inputs: float | None = None

    @property
    def picojoules(self) -> float:
        """What they cost."""
        if self.inputs is None:
            return self.multiply_adds * MULTIPLY_ADD_PJ[self.precision]
        return self.multiply_adds * self.inputs * ADD_PJ[self.precision]


def energy(parts: Iterable[Operations], rates: Mapping[str, float]) -> dict[str, Any]:
    """`{"microjoules": 188.0, "multiply_adds": 40812544, "synaptic_operations": 0, "spike_rates": {}, "source": ...}`

    `rates`: spikes per neuron and step, as they were measured."""
    found = list(parts)
    spikes = sum(part.multiply_adds * part.inputs for part in found if part.inputs is not None)
    return {
        "microjoules": sum(part.picojoules for part in found) / 1e6,
        "multiply_adds": sum(part.multiply_adds for part in found if part.inputs is None),
        "synaptic_operations": round(spikes),
        "spike_rates": dict(rates), "source": SOURCE,
    }
