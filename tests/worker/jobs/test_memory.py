"""Memory that does not suffice: the error comes from the network itself, in a real evaluation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from app.storage import results
from app.storage.tables import Run
from models.registry import ModelSpec, build
from tests.service import make_settings
from worker.jobs import evaluate, memory, verify
from worker.jobs.block_files import read_block
from worker.jobs.memory import is_out_of_memory

CPU = torch.device("cpu")
EVALUATION = {"attacks": [{"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": 2}}], "eps": ["8/255"],
              "images": 110}  # fmt: skip


@pytest.fixture
def memory_for(monkeypatch) -> Callable[..., list[int]]:
    """`memory_for(5)`: from now on networks that jobs open have memory for five images at once; returns what came."""

    def limit(images: int, error: Exception | None = None, after: int = 0) -> list[int]:
        error, came = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), []

        def hook(_module: Any, given: tuple[torch.Tensor, ...]) -> None:
            came.append(len(given[0]))
            if len(given[0]) > images and len(came) > after:
                raise error

        for module, name in ((evaluate, "open_checkpoint"), (verify, "open_published")):
            opened = getattr(module, name)

            def opening(*arguments: Any, opened: Any = opened) -> Any:
                row, model = opened(*arguments)
                model.encoder.register_forward_pre_hook(hook)
                return row, model

            monkeypatch.setattr(module, name, opening)
        return came

    return limit


def evaluated(workshop, batch: int) -> Run:
    """One more evaluation of the same checkpoint."""
    workshop.settings = make_settings(data_dir=workshop.queue.data_dir, attack_batch=batch)
    workshop.change(Run, share_key=Run.id)(Run.kind == "evaluate")
    workshop.queue.submit(evaluation=EVALUATION)
    run: Run = workshop.finish_evaluations()[-1]
    return run


def blocks(workshop, run: Run) -> list[dict[str, np.ndarray]]:
    with workshop.queue.database.reading() as session:
        paths = results.blocks(session, run.id)
    return [read_block(workshop.queue.data_dir / paths[number]).to_arrays() for number in sorted(paths)]


def same(a: Run, b: Run, workshop) -> None:
    assert a.id != b.id
    for one, other in zip(blocks(workshop, a), blocks(workshop, b), strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)
    assert a.metrics["robust"] == b.metrics["robust"]
    assert a.metrics["clean"] == b.metrics["clean"]


def test_the_batch_is_halved_until_it_fits_and_every_bit_is_as_in_a_quiet_run_with_that_batch(
    workshop, memory_for
) -> None:
    workshop.trained()
    quiet = evaluated(workshop, batch=25)
    came = memory_for(30)
    starved = evaluated(workshop, batch=100)
    assert came[:5] == [1, 2, 100, 50, 25], "two gradients are weighed, then the batch is halved"
    assert max(came[5:]) <= 25, "what is known not to fit is not tried again"
    same(starved, quiet, workshop)
    assert starved.metrics["attack_batch"] == 25
    assert [c["attack_batch"] for c in starved.metrics["conditions"]] == [25]


def test_memory_that_runs_out_in_a_later_block_costs_that_block_alone_and_hardly_a_verdict(
    workshop, memory_for
) -> None:
    workshop.trained()
    quiet = evaluated(workshop, batch=40)
    came = memory_for(30, after=12)
    starved = evaluated(workshop, batch=40)
    assert 40 in came[12:], "it ran out in the second block"
    assert [c["attack_batch"] for c in starved.metrics["conditions"]] == [40, 20]
    for one, other in zip(blocks(workshop, starved), blocks(workshop, quiet), strict=True):
        assert (one["ids"] == other["ids"]).all()
        assert (one["majority"] != other["majority"]).sum() <= 1


def test_a_figure_measured_with_a_halved_batch_is_verified_and_a_verification_halves_too(workshop, memory_for) -> None:
    workshop.trained()
    run = evaluated(workshop, batch=100)
    memory_for(30)
    found = workshop.verify(run.metrics["checkpoint"])
    assert found.state == "succeeded", found.error
    assert found.metrics["agrees"] is True
    assert found.metrics["conditions"][0]["attack_batch"] == 25
    assert found.metrics["figures"][0]["tolerance"]["bit_for_bit"] is False


def test_where_not_even_one_image_fits_the_run_fails_and_says_what_to_change(workshop, memory_for) -> None:
    workshop.trained()
    memory_for(0)
    workshop.queue.submit(evaluation=EVALUATION)
    run = workshop.work()
    assert run.state == "failed"
    assert run.error.startswith("out of memory on cpu with one image at a time: use a device with more memory")


def test_any_other_error_is_not_taken_for_it(workshop, memory_for) -> None:
    workshop.trained()
    came = memory_for(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    workshop.queue.submit(evaluation=EVALUATION)
    with pytest.raises(RuntimeError, match="mat1"):
        workshop.work()
    assert len(came) == 1


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("x"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
], ids=["python", "cuda", "cpu", "cublas"])  # fmt: skip
def test_every_way_in_which_memory_runs_out_is_known(error) -> None:
    assert is_out_of_memory(error)


def test_a_real_allocation_that_is_too_large_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("variant", ["default", "lif"])
def test_the_first_batch_is_what_activations_leave_room_for(variant: str, monkeypatch) -> None:
    spec = ModelSpec("resnet20", variant, classes=3, image_shape=(1, 8, 8), mean=(0.5,), std=(0.5,))
    model = build(spec).train()
    an_image = memory.activation_bytes(model, CPU, 9) - memory.activation_bytes(model, CPU, 8)
    assert an_image >= 4 * 8 * 8 * 16 * 7  # what the ReLUs of the first group put out
    for room, batch in ((9 * an_image, 8), (1, 1), (20 * an_image, 20)):
        monkeypatch.setattr(memory, "CPU_BYTES", room)
        assert memory.fitting_batch(model, CPU, 20) == batch
    assert model.training


def test_heads_that_spike_take_memory_for_every_draw() -> None:
    sizes = [memory.activation_bytes(build(ModelSpec(
        "resnet20", variant, classes=3, image_shape=(1, 8, 8), mean=(0.5,), std=(0.5,))), CPU, 2)
        for variant in ("default", "lif")]
    assert sizes[1] > sizes[0] + 2 * 4 * memory.DRAWS * 64
