import math

import pytest
import torch

from models.membrane import PositiveScalar, filtered, membrane_kernel

DT = 0.001


def kernel(timesteps, *, tau_mem=0.02, tau_syn=0.02, kind="causal", dtype=torch.float64):
    return membrane_kernel(timesteps, tau_mem=tau_mem, tau_syn=tau_syn, time_step=DT, kind=kind, dtype=dtype)


def impulse_response(k, *, tau_mem, tau_syn):
    alpha, beta = math.exp(-DT / tau_syn), math.exp(-DT / tau_mem)
    if alpha == beta:
        return (1 - beta) * (k + 1) * beta**k
    return (1 - beta) * (alpha ** (k + 1) - beta ** (k + 1)) / (alpha - beta)


@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(0.02, 0.02), (0.02, 0.005), (0.001, 0.2)])
def test_causal_kernel_is_the_impulse_response(tau_mem, tau_syn):
    matrix = kernel(20, tau_mem=tau_mem, tau_syn=tau_syn)
    h = [impulse_response(k, tau_mem=tau_mem, tau_syn=tau_syn) for k in range(20)]
    for t in range(20):
        expected = [h[t - s] if s <= t else 0.0 for s in range(20)]
        torch.testing.assert_close(matrix[t], torch.tensor(expected, dtype=torch.float64))


def test_kernel_is_continuous_where_the_time_constants_meet():
    torch.testing.assert_close(kernel(20, tau_syn=0.02 * (1 + 1e-9)), kernel(20, tau_syn=0.02), atol=1e-8, rtol=1e-7)


def reference_weights(timesteps, tau):
    """g_{(t-s) mod 2T}, g the full convolution of the two filters cut at T, by plain sums."""
    a = math.exp(-DT / tau)
    cut_syn = [a**k for k in range(timesteps)]
    cut_mem = [(1 - a) * a**k for k in range(timesteps)]
    g = [0.0] * (2 * timesteps)
    for i, left in enumerate(cut_syn):
        for j, right in enumerate(cut_mem):
            g[i + j] += left * right
    rows = [[g[(t - s) % (2 * timesteps)] for s in range(timesteps)] for t in range(timesteps)]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("timesteps", [1, 2, 20])
def test_reference_kernel_is_its_formula(timesteps):
    torch.testing.assert_close(kernel(timesteps, kind="reference"), reference_weights(timesteps, 0.02))


def test_reference_kernel_wraps_the_last_input_round_to_the_first_output():
    wrapped = kernel(20, kind="reference")
    assert wrapped[0, -1].item() == pytest.approx(0.307, abs=5e-4)
    assert kernel(20)[0, 0].item() == pytest.approx(0.049, abs=5e-4)
    assert kernel(20)[0, -1] == 0
    assert (wrapped - kernel(20)).tril().abs().max() < 1e-12  # only the future differs


def test_reference_kernel_is_what_the_published_transform_computes():
    x = torch.randn(20, dtype=torch.float64)
    decay = torch.exp(-torch.arange(20, dtype=torch.float64) * DT / 0.02)
    spectrum = torch.fft.rfft(decay, n=40) * torch.fft.rfft((1 - decay[1]) * decay, n=40)
    published = torch.fft.irfft(spectrum * torch.fft.rfft(x, n=40), n=40)[:20]
    torch.testing.assert_close(kernel(20, kind="reference") @ x, published)


@pytest.mark.parametrize("kind", ["causal", "reference"])
def test_gradients_reach_both_time_constants_where_they_are_equal(kind):
    taus = [torch.tensor(0.02, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def weights(tau_mem, tau_syn):
        return kernel(6, tau_mem=tau_mem, tau_syn=tau_syn, kind=kind)

    assert torch.autograd.gradcheck(weights, taus)


def test_half_precision_kernels_are_rounded_not_computed_in_half_precision():
    exact = kernel(200)
    torch.testing.assert_close(kernel(200, dtype=torch.bfloat16), exact.bfloat16(), rtol=1e-2, atol=1e-8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = kernel(200, dtype=torch.float32)
    torch.testing.assert_close(inside.double(), exact, rtol=1e-4, atol=1e-8)


def test_tiny_time_constants_do_not_overflow():
    assert kernel(500, tau_mem=1e-6, tau_syn=1e-6, dtype=torch.float32).isfinite().all()


def test_filtered_is_a_product_over_time_for_any_layout():
    matrix = torch.randn(5, 5)
    x = torch.randn(2, 5, 3, 4).transpose(1, 2).transpose(0, 1)  # (3, 2, 5, 4), not contiguous
    torch.testing.assert_close(filtered(x, matrix), torch.einsum("ts,abs...->abt...", matrix, x))
    assert filtered(torch.empty(0, 5, 4), matrix).shape == (0, 5, 4)


def test_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="did you mean 'causal'"):
        kernel(5, kind="casual")


def test_positive_scalar_starts_at_its_value_and_stays_positive():
    scalar = PositiveScalar(0.02, learn=True)
    assert scalar().item() == torch.tensor(0.02).item()
    with torch.no_grad():
        scalar.theta.sub_(50)
    assert scalar().item() > 0
    assert PositiveScalar(3.0, learn=False)() == 3.0
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive"):
            PositiveScalar(value, learn=False)
