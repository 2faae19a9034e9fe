"""The GPU's kernels, on a CPU: by Triton's interpreter against the loops, and compiled for GPUs that are not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import fused

triton = pytest.importorskip("triton", reason="Triton, which torch's builds for GPUs bring, is not installed")
ROOT = Path(__file__).parents[2]
AGAINST_THE_LOOP = """
import sys
import torch
from models import fused
from models.neurons import lif

usable = sys.argv[1] == "fused"
fused.usable = lambda x: usable
torch.manual_seed(0)
found = []
for dtype in (torch.float32, torch.float64):
    for features, steps, size in ((7, 5, (3,)), (1, 1, (2, 2)), (300, 20, (2,))):
        for many in (False, True):
            x = (2 * torch.randn(*size, steps, features, dtype=dtype)).requires_grad_()
            beta = (0.5 + torch.rand(features if many else (), dtype=dtype) / 2).requires_grad_()
            threshold = (0.5 + torch.rand(features if many else (), dtype=dtype)).requires_grad_()
            spikes, potential = lif(x, beta=beta, threshold=threshold)
            (spikes * torch.randn_like(spikes) + potential * torch.randn_like(potential)).sum().backward()
            found.append([spikes, potential, x.grad, beta.grad, threshold.grad])
torch.save([[t.detach() for t in row] for row in found], sys.argv[2])
"""


def test_the_interpreted_kernels_are_the_loop_spikes_gradients_and_all(tmp_path: Path) -> None:
    def run(how: str) -> list[list[torch.Tensor]]:
        environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", AGAINST_THE_LOOP, how, str(tmp_path / how)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        found: list[list[torch.Tensor]] = torch.load(tmp_path / how)
        return found

    kernels, loops = run("fused"), run("loop")
    assert len(kernels) == 12
    for kernel, loop in zip(kernels, loops, strict=True):
        assert 0 < loop[0].mean() < 1
        assert torch.equal(kernel[0], loop[0]), "the spikes"
        for one, other in zip(kernel[1:], loop[1:], strict=True):
            torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


def test_where_triton_cannot_run_the_loop_is_kept_and_the_reason_told_once() -> None:
    fused.run_on.cache_clear()
    with pytest.warns(UserWarning, match="LIF runs step by step, as Triton does not work on cpu: .+"):
        assert not fused.run_on(torch.device("cpu"))
    assert not fused.run_on(torch.device("cpu")), "and no second warning, which would be an error"
    fused.run_on.cache_clear()


def test_where_it_can_run_the_kernels_are_taken() -> None:
    tried = "import torch; from models import fused; assert fused.run_on(torch.device('cpu'))"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "error", "-c", tried], env=environment, check=True)


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
@pytest.mark.parametrize("architecture", [75, 90])
def test_they_compile_for_gpus(architecture: int, kind: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models import triton_kernels

    sizes = dict.fromkeys(("neurons", "features", "steps"), "i32")
    constants = {"BETA": 0, "NEURONS": fused.NEURONS}
    forward = dict.fromkeys(("current", "beta", "threshold", "potential", "spikes"), f"*{kind}") | sizes
    backward = dict.fromkeys(("source", "beta", "adjoint"), f"*{kind}") | sizes | {"last": "i64"}
    for kernel, arguments, more in (
        (triton_kernels.forward, forward, {"THRESHOLD": 1}), (triton_kernels.backward, backward, {}),
    ):
        known = constants | more
        source = ASTSource(kernel, arguments | dict.fromkeys(known, "constexpr"), known)
        assert triton.compile(source, target=GPUTarget("cuda", architecture, 32)).asm["cubin"]


def test_on_a_cpu_the_loop_stays() -> None:
    assert not fused.usable(torch.zeros(4, 2))
    assert not fused.usable(torch.zeros(4, 2, device="meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_they_are_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.neurons import lif

    x = (2 * torch.randn(64, 20, 512, device="cuda")).requires_grad_()
    assert fused.usable(x)
    results = []
    for use in (True, False):
        monkeypatch.setattr(fused, "usable", lambda _, use=use: use)
        spikes, potential = lif(x)
        (gradient,) = torch.autograd.grad((spikes + potential**2).sum(), x)
        results.append((spikes, potential, gradient))
    (spikes, potential, gradient), (spikes2, potential2, gradient2) = results
    assert (spikes != spikes2).float().mean() < 1e-5, "but where a potential is the threshold to the last bit"
    same = (spikes == spikes2).all(-2, keepdim=True).expand_as(spikes)
    torch.testing.assert_close(potential[same], potential2[same], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient[same], gradient2[same], rtol=1e-4, atol=1e-4)
