"""Who asks, in `benchmarks/load.py`: requests at a fixed rate over so many connections, and open event streams.

    python -m benchmarks.load_clients ADDRESS '{"seconds": 20, "rate": 200, ...}'  # prints `asked`, then what it found

What it found is one line of JSON. Written on bare sockets, so that this process takes little of the machine that the
service runs on.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import httpx

CALLS = {
    "leaderboard": ["/leaderboard?dataset=digits"],
    "leaderboard, other eps": ["/leaderboard?dataset=digits&eps=8/255"],
    "experiments": ["/experiments"],
    "experiments, any page": [],  # filled in: every page of 50
    "runs": ["/runs"],
    "runs, any page": [],
    "runs, filtered": ["/runs?state=succeeded&kind=evaluate&limit=100"],
}
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def pages(address: str, path: str) -> list[str]:
    """The address of each page of a list."""
    found = [path]
    with httpx.Client(base_url=address, timeout=60) as client:
        while following := client.get(found[-1]).json()["next"]:
            found.append(f"{path}?cursor={following}")
    return found


def calls(address: str) -> dict[str, list[str]]:
    """What is asked, in turn."""
    lists = {f"{name}, any page": pages(address, f"/{name}") for name in ("experiments", "runs")}
    return {**CALLS, **lists}


class Load:
    """Open loop: a request is due whether or not those before it were answered; its wait counts."""

    def __init__(self, address: str, asked: dict[str, list[str]]) -> None:
        url = urlsplit(address)
        self._host, self._port = url.hostname, url.port
        self._paths = {name: cycle(paths) for name, paths in asked.items()}
        self.times: dict[str, list[float]] = {name: [] for name in asked}
        self.errors: Counter[str] = Counter()

    async def ask(self, seconds: float, rate: float, connections: int) -> None:
        """All of it."""
        due: asyncio.Queue[tuple[str, float] | None] = asyncio.Queue()
        answering = [asyncio.create_task(self._connection(due)) for _ in range(connections)]
        began, names = time.monotonic(), cycle(self._paths)
        for number in range(int(seconds * rate)):
            at = began + number / rate
            if (early := at - time.monotonic()) > 0:
                await asyncio.sleep(early)
            due.put_nowait((next(names), at))
        for _ in answering:
            due.put_nowait(None)
        await asyncio.gather(*answering)

    async def _connection(self, due: "asyncio.Queue[tuple[str, float] | None]") -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        while (item := await due.get()) is not None:
            name, at = item
            writer.write(f"GET {next(self._paths[name])} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                if head[9:12] != b"200":
                    self.errors[head[9:12].decode()] += 1
            except (OSError, asyncio.IncompleteReadError) as error:
                self.errors[type(error).__name__] += 1
                reader, writer = await asyncio.open_connection(self._host, self._port)
            self.times[name].append(time.monotonic() - at)
        writer.close()


async def follow(address: str, experiment: str) -> dict[str, Any]:
    """One stream, until its end: numbers of events after those that say how things stood, and how many of each kind."""
    url = urlsplit(address)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    path = f"/experiments/{experiment}/events"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    numbers: list[int] = []
    kinds: Counter[str] = Counter()
    while line := await reader.readline():
        if line.startswith(b"id: "):
            numbers.append(int(line[4:]))
        elif line.startswith(b"event: "):
            kinds[line[7:].decode().strip()] += 1
    writer.close()
    since = numbers[0] if numbers else 0
    return {"experiment": experiment, "since": since, "numbers": [n for n in numbers if n > since], "kinds": kinds}


async def main(address: str, given: dict[str, Any]) -> dict[str, Any]:
    asked = calls(address)
    streams = [
        asyncio.create_task(follow(address, given["experiments"][n % len(given["experiments"])]))
        for n in range(given["streams"])
    ]
    await asyncio.sleep(given["ahead"])
    load = Load(address, asked)
    await load.ask(given["seconds"], given["rate"], given["connections"])
    print("asked", flush=True)  # the worker may end what the streams wait for
    ended = await asyncio.wait_for(asyncio.gather(*streams), 300)
    return {"times": load.times, "errors": load.errors, "streams": ended}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))))
