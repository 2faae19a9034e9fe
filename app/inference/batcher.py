"""Images of concurrent requests, answered together: a bounded queue, and one thread that runs the batches.

    with batcher.arriving(checkpoint_id) as arrival:     # a batch that is about to start may wait for it
        arrival.take(len(files))                         # places in the queue; raises ServiceUnavailable
        images = ...                                     # decode, in another thread
        answers = await arrival.ask(model, images, draws=20, seed=0)

A batch holds images of one checkpoint, of as many requests as there are. It waits only for requests that are in the
house already, being decoded; so a client that is alone never waits. A request of more images than a batch takes goes to
the back of the queue after each of its batches, so that large ones do not keep small ones waiting.
"""

import asyncio
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from app.domain.errors import ServiceUnavailable
from app.inference.predict import Answer, answers, noise_keys

if TYPE_CHECKING:
    from torch import Tensor

    from models.registry import Classifier

STOP_SECONDS = 2.0  # to wait for the batch under way, whose answers nobody gets any more
_STOPPING = "the service is stopping; try again when it is back"


class Observer(Protocol):
    """Who counts."""

    def batch(self, images: int, seconds: float, waits: Sequence[float]) -> None:
        """A batch was run; `waits`: seconds in the queue of each request that began in it."""

    def refused(self) -> None:
        """The queue was full."""


@dataclass(eq=False)
class Asked:
    """A request in the queue, and what of it is answered."""

    key: str
    model: "Classifier"
    images: np.ndarray
    noise: "Tensor"
    draws: int
    future: "asyncio.Future[list[Answer]]"
    since: float = field(default_factory=time.monotonic)
    begun: int = 0  # images in batches so far
    answers: list[Answer] = field(default_factory=list)


Batch = list[tuple[Asked, int]]  # requests, and how many images of each


class Batcher:
    """One a process. Its thread starts with the first request.

    largest: images a batch, 1 for no batching. places: images in the house at once, decoding, waiting or running.
    """

    def __init__(
        self, *, largest: int = 32, wait_seconds: float = 0.005, places: int = 512, threads: int = 1,
        observer: Observer | None = None,
    ) -> None:
        self._largest, self._wait_seconds, self._places, self._threads = largest, wait_seconds, places, threads
        self._observer = observer
        self._changed = threading.Condition()
        self._queue: deque[Asked] = deque()
        self._arriving: Counter[str] = Counter()
        self._running: Batch = []
        self._taken, self._closed = 0, False
        self._thread: threading.Thread | None = None

    @property
    def taken(self) -> int:
        """Images in the house."""
        return self._taken

    @property
    def closed(self) -> bool:
        """Whether nothing is answered any more."""
        return self._closed

    def arriving(self, key: str) -> "Arrival":
        """A request for the network that goes by `key`, from when its body is here until it is answered."""
        return Arrival(self, key)

    def take(self, images: int) -> None:
        """Places in the queue, for an `Arrival`; one that is larger than the whole queue is let in when it is empty."""
        with self._changed:
            if self._closed:
                raise ServiceUnavailable(_STOPPING)
            if not self._taken or self._taken + images <= self._places:
                self._taken += images
                return
        if self._observer is not None:
            self._observer.refused()
        raise ServiceUnavailable(f"{self._taken} images are waiting for predictions, as many as may; try again")

    def came(self, key: str, by: int) -> None:
        """One more request arrives (1), or one is in the queue or gone (-1)."""
        with self._changed:
            self._arriving[key] += by
            if not self._arriving[key]:
                del self._arriving[key]
            self._changed.notify_all()

    def give_back(self, images: int) -> None:
        """Places in the queue."""
        with self._changed:
            self._taken -= images

    def put(self, asked: Asked) -> None:
        """Into the queue. Raises ServiceUnavailable where the service stops."""
        with self._changed:
            if self._closed:
                raise ServiceUnavailable(_STOPPING)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
                self._thread.start()
            self._queue.append(asked)
            self._changed.notify_all()

    def close(self) -> None:
        """Whoever waits is told to come again; the thread ends after the batch it is in."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            left = [*self._queue, *(asked for asked, _ in self._running)]
            self._queue.clear()
            self._changed.notify_all()
        _settle(left, ServiceUnavailable(_STOPPING))
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        import torch

        torch.set_num_threads(self._threads)
        while batch := self._next():
            began = time.monotonic()
            waits = [began - asked.since for asked, images in batch if asked.begun == images]
            try:
                found = self._answers(batch)
            except Exception as error:
                self._fail(batch, error)
                continue
            if self._observer is not None:
                self._observer.batch(len(found), time.monotonic() - began, waits)
            self._hand_out(batch, found)

    def _next(self) -> Batch:
        """Waits for one; empty where the service stops."""
        with self._changed:
            self._running = []
            while not self._queue and not self._closed:
                self._changed.wait()
            deadline = time.monotonic() + self._wait_seconds
            while self._worth_waiting() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._running = [] if self._closed else self._taken_from_queue()
            return self._running

    def _worth_waiting(self) -> bool:
        if self._closed:
            return False
        key = self._queue[0].key
        waiting = sum(len(asked.images) - asked.begun for asked in self._queue if asked.key == key)
        return waiting < self._largest and self._arriving[key] > 0

    def _taken_from_queue(self) -> Batch:
        """Images for the network that the first in the queue asks for."""
        first, room, batch = self._queue[0], self._largest, []
        for asked in list(self._queue):
            if not room:
                break
            if asked.model is not first.model:
                continue
            images = min(room, len(asked.images) - asked.begun)
            room, asked.begun = room - images, asked.begun + images
            self._queue.remove(asked)
            if asked.begun < len(asked.images):
                self._queue.append(asked)
            batch.append((asked, images))
        return batch

    def _answers(self, batch: Batch) -> list[Answer]:
        import torch

        images = np.concatenate([asked.images[asked.begun - n : asked.begun] for asked, n in batch])
        keys = torch.cat([asked.noise[asked.begun - n : asked.begun] for asked, n in batch])
        draws = [asked.draws for asked, n in batch for _ in range(n)]
        return answers(batch[0][0].model, images, keys, draws, alone=self._largest == 1)

    def _fail(self, batch: Batch, error: Exception) -> None:
        failed = [asked for asked, _ in batch]
        with self._changed:
            self._queue = deque(asked for asked in self._queue if asked not in failed)
        _settle(failed, _told(error))

    def _hand_out(self, batch: Batch, found: list[Answer]) -> None:
        done, start = [], 0
        for asked, images in batch:
            asked.answers += found[start : start + images]
            start += images
            if len(asked.answers) == len(asked.images):
                done.append(asked)
        _settle(done)


class Arrival:
    """A request from its body to its answer; as a context manager it gives back the places it took."""

    def __init__(self, batcher: Batcher, key: str) -> None:
        self._batcher, self._key = batcher, key
        self._images, self._here = 0, False

    def __enter__(self) -> Self:
        self._batcher.came(self._key, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._now_here()
        self._batcher.give_back(self._images)

    def take(self, images: int) -> None:
        """Places for so many. Raises ServiceUnavailable where the queue is full."""
        self._batcher.take(images)
        self._images += images

    async def ask(self, model: "Classifier", images: np.ndarray, *, draws: int, seed: int) -> list[Answer]:
        """Images float32 (n, C, H, W) in [0, 1], for which `take` was called -> an answer each."""
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._batcher.put(Asked(self._key, model, images, noise_keys(seed, len(images)), draws, future))
        self._now_here()
        return await future

    def _now_here(self) -> None:
        if not self._here:
            self._here = True
            self._batcher.came(self._key, -1)


def _told(error: Exception) -> Exception:
    """Out of memory is a matter of load."""
    import torch

    out_of_memory = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
    return ServiceUnavailable("there was no memory for this prediction; try again, or with fewer images") \
        if out_of_memory else error


def _settle(requests: Sequence[Asked], error: Exception | None = None) -> None:
    """Wakes those who asked, once an event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Asked]] = defaultdict(list)
    for asked in requests:
        loops[asked.future.get_loop()].append(asked)
    for loop, those in loops.items():
        try:
            loop.call_soon_threadsafe(_set, those, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            continue


def _set(requests: Sequence[Asked], error: Exception | None) -> None:
    for asked in requests:
        if asked.future.done():  # they went away, or were told that the service stops
            continue
        if error is None:
            asked.future.set_result(asked.answers)
        else:
            asked.future.set_exception(error)
