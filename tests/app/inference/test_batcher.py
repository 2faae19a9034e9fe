"""Requests at the same time: batches, a bounded queue, and an end that lets everyone go."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from app.domain.errors import ServiceUnavailable
from app.inference.batcher import Batcher
from models.registry import Classifier, ModelSpec, build

SOON = 30.0  # seconds, for what takes milliseconds


class Noted:
    def __init__(self) -> None:
        self.batches: list[int] = []
        self.waits: list[float] = []
        self.refusals = 0

    def batch(self, images: int, seconds: float, waits: Sequence[float]) -> None:
        self.batches.append(images)
        self.waits += waits

    def refused(self) -> None:
        self.refusals += 1


class Held(torch.nn.Module):
    """An encoder that waits until it may go on."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder, self.entered, self.go = encoder, threading.Event(), threading.Event()

    def forward(self, pixels: torch.Tensor) -> Any:
        self.entered.set()
        assert self.go.wait(SOON)
        return self.encoder(pixels)


def network(variant: str = "default", seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return build(ModelSpec("resnet20", variant, 10, (1, 8, 8), mean=(0.3,), std=(0.4,))).eval()


def held(model: Classifier) -> Held:
    model.encoder = Held(model.encoder)  # type: ignore[assignment]
    return model.encoder  # type: ignore[return-value]


def images(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((number, 1, 8, 8), np.float32)


async def ask(batcher: Batcher, model: Classifier, pixels: np.ndarray, key: str = "a", **options: int) -> Any:
    with batcher.arriving(key) as arrival:
        arrival.take(len(pixels))
        return await arrival.ask(model, pixels, **{"draws": 20, "seed": 0, **options})


async def entered(gate: Held) -> None:
    assert await asyncio.to_thread(gate.entered.wait, SOON)


def test_what_comes_while_a_batch_runs_is_answered_together_with_what_each_gets_alone() -> None:
    noted, model = Noted(), network("paralif")
    batcher, gate = Batcher(largest=8, observer=noted), held(model)
    many = [images(1, seed) for seed in range(20)]

    async def scene() -> list[Any]:
        first = asyncio.create_task(ask(batcher, model, many[0]))
        await entered(gate)
        rest = [asyncio.create_task(ask(batcher, model, pixels, seed=3)) for pixels in many[1:]]
        await asyncio.sleep(0)  # each has begun, and is in the queue
        gate.go.set()
        await first
        return await asyncio.gather(*rest)

    together = asyncio.run(scene())
    assert noted.batches == [1, 8, 8, 3]
    assert len(noted.waits) == 20
    alone = [asyncio.run(ask(batcher, model, pixels, seed=3)) for pixels in many[1:]]
    for [one], [other] in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-6)
    assert batcher.taken == 0
    batcher.close()


def test_requests_for_other_networks_are_not_mixed_in() -> None:
    noted, models = Noted(), [network(seed=seed) for seed in range(2)]
    batcher, gate = Batcher(observer=noted), held(models[0])

    async def scene() -> list[Any]:
        tasks = [asyncio.create_task(ask(batcher, models[0], images(1)))]
        await entered(gate)
        tasks += [asyncio.create_task(ask(batcher, models[i % 2], images(1, i), key=str(i % 2))) for i in range(6)]
        await asyncio.sleep(0)
        gate.go.set()
        return await asyncio.gather(*tasks)

    found = asyncio.run(scene())
    assert noted.batches == [1, 3, 3]
    with torch.inference_mode():
        for i, [one] in enumerate(found[1:]):
            expected = models[i % 2](torch.from_numpy(images(1, i)))[0]
            np.testing.assert_allclose(one.logits, expected, atol=1e-5)
    batcher.close()


def test_a_large_request_does_not_keep_a_small_one_waiting_to_its_end() -> None:
    model = network()
    batcher, gate = Batcher(largest=4), held(model)
    done: list[str] = []

    async def scene() -> None:
        async def one(name: str, number: int) -> None:
            await ask(batcher, model, images(number))
            done.append(name)

        large = asyncio.create_task(one("large", 40))
        await entered(gate)
        small = asyncio.create_task(one("small", 1))
        await asyncio.sleep(0)
        gate.go.set()
        await asyncio.gather(large, small)

    asyncio.run(scene())
    assert done == ["small", "large"]
    batcher.close()


def test_a_full_queue_refuses_and_takes_again_once_there_are_places() -> None:
    noted, model = Noted(), network()
    batcher, gate = Batcher(places=3, observer=noted), held(model)

    async def scene() -> None:
        first = asyncio.create_task(ask(batcher, model, images(2)))
        await entered(gate)
        with pytest.raises(ServiceUnavailable, match="2 images are waiting"):
            await ask(batcher, model, images(2))
        gate.go.set()
        await first
        assert len(await ask(batcher, model, images(5))) == 5, "an empty queue takes whatever a request may have"

    asyncio.run(scene())
    assert noted.refusals == 1
    batcher.close()


def test_a_batch_waits_for_a_request_that_is_being_decoded() -> None:
    noted, model = Noted(), network()
    batcher = Batcher(wait_seconds=SOON, observer=noted)

    async def scene() -> None:
        with batcher.arriving("a") as late, batcher.arriving("b"):
            late.take(1)
            first = asyncio.create_task(ask(batcher, model, images(1)))
            await asyncio.sleep(0)
            await asyncio.gather(first, late.ask(model, images(1), draws=1, seed=0))

    asyncio.run(scene())
    assert noted.batches == [2]
    batcher.close()


def test_an_end_lets_go_of_who_waits_and_of_who_is_in_the_batch() -> None:
    model = network()
    batcher, gate = Batcher(largest=1), held(model)

    async def scene() -> list[Any]:
        tasks = [asyncio.create_task(ask(batcher, model, images(1)))]
        await entered(gate)
        tasks += [asyncio.create_task(ask(batcher, model, images(1))) for _ in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        found = await asyncio.gather(*tasks, return_exceptions=True)
        gate.go.set()
        await closing
        with pytest.raises(ServiceUnavailable, match="stopping"):
            await ask(batcher, model, images(1))
        return found

    assert all(isinstance(found, ServiceUnavailable) for found in asyncio.run(scene()))


def test_a_network_that_fails_fails_its_requests_alone_and_memory_is_a_matter_of_load() -> None:
    sound, broken, hungry = network(), network(), network()

    def raising(error: Exception) -> Any:
        def fail(*_: Any) -> None:
            raise error

        return fail

    broken.encoder.forward = raising(ValueError("broken"))  # type: ignore[method-assign]
    hungry.encoder.forward = raising(torch.cuda.OutOfMemoryError("much"))  # type: ignore[method-assign]
    batcher = Batcher(largest=2)

    async def scene() -> list[Any]:
        asked = [ask(batcher, model, images(3), key) for key, model in (("b", broken), ("h", hungry), ("s", sound))]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = asyncio.run(scene())
    assert isinstance(first, ValueError)
    assert isinstance(second, ServiceUnavailable)
    assert len(third) == 3
    batcher.close()
