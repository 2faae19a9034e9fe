"""Batched against unbatched predictions: the same service twice, one with SPIKEPROOF_PREDICT_BATCH=1, taking turns.

    python -m benchmarks.serving [--architectures resnet20] [--clients 32] [--seconds 5] [--rounds 3] [--png]

Networks are untrained: speed does not depend on the weights. Each client sends one 32x32 image a request over its own
connection, and the next one when it has the answer: as FP32 bytes to /v2 (as standard clients do), or with --png as a
file to /checkpoints/ID/predict. Stochastic networks answer with 20 draws. Rounds of the two services take turns; the
answers of both are compared. Of each: requests a second, p50 and p99, and CPU time of the service a request; the
last does not depend on what else the machine does. Then one client alone, against the bare forward pass.
"""

import argparse
import asyncio
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

from app.client import Client
from benchmarks.load import cpu_seconds, service
from models import checkpoint
from models.noise import KeyedNoise, image_keys
from models.registry import Classifier, ModelSpec, build

VARIANTS = ("default", "lif", "paralif")
DRAWS = 20
MODES = {"batched": "32", "unbatched": "1"}


@dataclass
class Served:
    """One of the two services, and what was measured of it."""

    address: str
    pid: int
    ids: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Measured:
    """Of one service and network, over all rounds."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def text(self) -> str:
        cuts = quantiles(self.seconds, n=100)
        return (f"{median(self.rates):7.1f} requests/s  {median(self.cpu_ms):6.2f} ms CPU  "
                f"p50 {1000 * cuts[49]:7.1f}  p99 {1000 * cuts[98]:7.1f} ms")  # fmt: skip


def network(architecture: str, variant: str) -> Classifier:
    torch.manual_seed(0)
    return build(ModelSpec(architecture, variant, 10, (3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)).eval()


@contextmanager
def serving(batch: str, architectures: list[str]) -> Iterator[Served]:
    os.environ |= {"SPIKEPROOF_PREDICT_BATCH": batch, "SPIKEPROOF_RATE_LIMIT": "0"}
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), "") as (address, pid):
        served = Served(address, pid)
        with Client(address) as client:
            for architecture in architectures:
                for variant in VARIANTS:
                    file = Path(folder) / f"{architecture}-{variant}.safetensors"
                    checkpoint.save(file, network(architecture, variant), {})
                    shown = client.upload(file, dataset="cifar10", name=file.stem, seed="0")
                    served.ids[architecture, variant] = shown["id"]
        yield served


def request_of(served: Served, model: str, image: np.ndarray, seed: int, *, png: bool) -> bytes:
    """A whole HTTP request."""
    if png:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        body, kind = part + file.getvalue() + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
        path, more = f"/checkpoints/{model}/predict?draws={DRAWS}&seed={seed}", ""
    else:
        pixels = (image.astype(np.float32) / 255).transpose(2, 0, 1)[None]
        tensor = {"name": "images", "datatype": "FP32", "shape": list(pixels.shape),
                  "parameters": {"binary_data_size": pixels.nbytes}}  # fmt: skip
        asked = {"inputs": [tensor], "parameters": {"draws": DRAWS, "seed": seed}}
        head = json.dumps(asked).encode()
        body, kind = head + pixels.tobytes(), "application/octet-stream"
        path, more = f"/v2/models/{model}/infer", f"Inference-Header-Content-Length: {len(head)}\r\n"
    host = urlsplit(served.address).netloc
    text = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return text.encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
    body = await reader.readexactly(length)
    if " 200 " not in head.partition("\r\n")[0]:
        raise RuntimeError(f"{head}{body!r}")
    return body


async def load(served: Served, requests: list[bytes], clients: int, seconds: float) -> list[float]:
    """Times of the requests of all clients; each sends all of `requests` in turn, beginning at its own."""
    port, found = urlsplit(served.address).port, []
    until = time.monotonic() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.monotonic()) < until:
            await exchange(reader, writer, requests[number % len(requests)])
            found.append(time.monotonic() - began)
            number += 1
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return found


def measure(served: Served, into: Measured, requests: list[bytes], clients: int, seconds: float) -> None:
    asyncio.run(load(served, requests, clients, 0.5))  # until everything is loaded and warm
    spent, began = cpu_seconds(served.pid), time.monotonic()
    found = asyncio.run(load(served, requests, clients, seconds))
    into.cpu_ms.append(1000 * (cpu_seconds(served.pid) - spent) / len(found))
    into.rates.append(len(found) / (time.monotonic() - began))
    into.seconds += found


def answers(served: Served, requests: list[bytes], clients: int) -> list[bytes]:
    """Of `clients` at once."""
    port = urlsplit(served.address).port

    async def one(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = await exchange(reader, writer, request)
        writer.close()
        return body

    async def all_() -> list[bytes]:
        found: list[bytes] = []
        for start in range(0, len(requests), clients):
            found += await asyncio.gather(*map(one, requests[start : start + clients]))
        return found

    return asyncio.run(all_())


def bare(model: Classifier, count: int = 50) -> tuple[float, float]:
    """Median seconds of a forward pass of one image with one thread: of the clock, and of CPU time."""
    torch.set_num_threads(1)
    pixels, times, spent = torch.rand(1, 3, 32, 32), [], []
    with torch.inference_mode():
        for _ in range(count):
            began, before = time.monotonic(), time.process_time()
            noise = KeyedNoise(image_keys(0, "predict", torch.arange(1)))
            model.decoder(model.encoder(pixels), draws=DRAWS if model.stochastic else 1, generator=noise)
            times.append(time.monotonic() - began)
            spent.append(time.process_time() - before)
    return median(times), median(spent)


def compare(both: dict[str, Served], architecture: str, variant: str, given: argparse.Namespace) -> None:
    images = np.random.default_rng(0).integers(0, 256, (given.clients, 32, 32, 3), dtype=np.uint8)
    requests = {
        mode: [request_of(served, served.ids[architecture, variant], image, seed, png=given.png)
               for seed, image in enumerate(images)]
        for mode, served in both.items()
    }  # fmt: skip
    measured = {mode: Measured() for mode in both}
    for number in range(given.rounds):
        for mode in list(both)[:: 1 if number % 2 else -1]:
            measure(both[mode], measured[mode], requests[mode], given.clients, given.seconds)
    print(f"\n{architecture} {variant}, {given.clients} clients")
    for mode, one in measured.items():
        print(f"  {mode:10}", one.text())
    fast, slow = measured["batched"], measured["unbatched"]
    print(f"  batched is {median(fast.rates) / median(slow.rates):.2f} times as fast by throughput, "
          f"{median(slow.cpu_ms) / median(fast.cpu_ms):.2f} times by CPU time")
    together = answers(both["batched"], requests["batched"], given.clients)
    singly = answers(both["batched"], requests["batched"], 1)
    print(f"  {sum(map(bytes.__eq__, together, singly))} of {len(singly)} answers have the bits that they have alone")
    alone, model, forward = Measured(), network(architecture, variant), []
    for _ in range(given.rounds):
        forward.append(bare(model))
        measure(both["batched"], alone, requests["batched"], 1, given.seconds / 2)
    clock, cpu = (1000 * median(values) for values in zip(*forward, strict=True))
    print(f"  one client: p50 {1000 * median(alone.seconds):.1f} ms, the bare forward pass {clock:.1f} ms; by CPU time "
          f"{median(alone.cpu_ms):.2f} ms and {cpu:.2f} ms, so the service adds {median(alone.cpu_ms) - cpu:.2f} ms",
          flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["resnet20"])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--png", action="store_true")
    given = parser.parse_args()
    with ExitStack() as opened:
        both = {mode: opened.enter_context(serving(batch, given.architectures)) for mode, batch in MODES.items()}
        for architecture in given.architectures:
            for variant in VARIANTS:
                compare(both, architecture, variant, given)
        print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; torch {torch.__version__}")


if __name__ == "__main__":
    main()
