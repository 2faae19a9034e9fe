"""The kernels of `models.fused`; importing this needs Triton. A program has NEURONS neurons, of all `neurons` a step.

BETA, THRESHOLD: 0 for one number for all neurons, 1 for one each feature; the last dimension are the features.
"""

import triton
import triton.language as tl


@triton.jit
def forward(
    current, beta, threshold, potential, spikes, neurons, features, steps,
    BETA: tl.constexpr, THRESHOLD: tl.constexpr, NEURONS: tl.constexpr,
):  # fmt: skip
    """u = (x + beta u) - threshold S, S = u > threshold, in the order of `models.neurons.lif`'s loop."""
    neuron = tl.program_id(0) * NEURONS + tl.arange(0, NEURONS)
    inside = neuron < neurons
    decay = tl.load(beta + BETA * (neuron % features), mask=inside)
    level = tl.load(threshold + THRESHOLD * (neuron % features), mask=inside)
    place = neuron.to(tl.int64)
    u = tl.zeros([NEURONS], current.dtype.element_ty)
    fired = u
    for _ in range(steps):
        x = tl.load(current + place, mask=inside)
        u = (x + u * decay) - fired * level
        fired = tl.where(u > level, 1.0, 0.0).to(u.dtype)
        tl.store(potential + place, u, mask=inside)
        tl.store(spikes + place, fired, mask=inside)
        place += neurons


@triton.jit
def backward(
    source, beta, adjoint, neurons, features, steps, last, BETA: tl.constexpr, NEURONS: tl.constexpr
):  # fmt: skip
    """a = source + beta a, from the last step to the first; `last`: where the last step begins."""
    neuron = tl.program_id(0) * NEURONS + tl.arange(0, NEURONS)
    inside = neuron < neurons
    decay = tl.load(beta + BETA * (neuron % features), mask=inside)
    place = neuron.to(tl.int64) + last
    later = tl.zeros([NEURONS], source.dtype.element_ty)
    for _ in range(steps):
        later = tl.load(source + place, mask=inside) + later * decay
        tl.store(adjoint + place, later, mask=inside)
        place -= neurons
