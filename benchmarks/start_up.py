"""How long one waits: for `spikeproof --help`, for the API, for a job's first batch.

    python -m benchmarks.start_up [--repeats 5]

Medians by the clock, and of the CPU time of the processes that one waits for: what an idle machine would need where
they have one thread. A job's time runs from the claim of its run to the first batch that it reports, which may be a
second late; the data set are scans of digits, in 32x32 as CIFAR's images are.
"""

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

COMMAND = [sys.executable, "-m", "app.cli"]
TARGETS = {"spikeproof --help": 0.3, "the API answers": 3.0, "first batch, resnet20": 6.0,
           "first batch, resnet18": 10.0, "first batch, resnet50": 10.0}  # fmt: skip
TICKS = os.sysconf("SC_CLK_TCK")
Times = tuple[float, float]  # by the clock, and CPU


def help_text() -> Times:
    began = time.perf_counter()
    process = subprocess.Popen([*COMMAND, "--help"], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


@contextmanager
def service() -> Iterator[tuple[str, Times]]:
    """A fresh one: its address, and what it took until it answered, migrations among it."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SPIKEPROOF_DATA_DIR": folder, "SPIKEPROOF_WORKERS": "1"}
        began = time.perf_counter()
        process = subprocess.Popen([*COMMAND, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.DEVNULL, env=environment)  # fmt: skip
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            wait_for(lambda: get(f"{found[0]}/healthz"))
            took = time.perf_counter() - began
            api = [pid for pid in children(process.pid) if "worker" not in command_of(pid)]
            yield found[0], (took, sum(map(cpu_of, [process.pid, *api])))
        finally:
            process.terminate()
            process.communicate()


def first_batch(url: str, architecture: str, seed: int) -> Times:
    """Of a training that is cancelled then."""
    asked = {"dataset": "digits", "architectures": [architecture], "variants": ["default"], "seeds": [seed],
             "training": {"image_size": 32, "epochs": 99}}  # fmt: skip
    body = json.dumps(asked).encode()
    with urlopen(Request(f"{url}/experiments", body, {"Content-Type": "application/json"})) as answer:
        experiment = json.load(answer)
    run = next(run["id"] for run in experiment["runs"] if run["kind"] == "train")
    began = wait_for(lambda: get(f"{url}/runs/{run}")["state"] == "running" and time.perf_counter())
    wait_for(lambda: (get(f"{url}/runs/{run}")["phase"] or "").startswith("epoch"))
    took = time.perf_counter() - began
    cpu = sum(cpu_of(pid) for pid in processes() if run in command_of(pid))
    urlopen(Request(f"{url}/experiments/{experiment['id']}/cancel", method="POST")).close()
    wait_for(lambda: get(f"{url}/runs/{run}")["state"] == "cancelled")
    return took, cpu


def get(url: str) -> Any:
    with urlopen(url) as answer:
        return json.load(answer)


def wait_for(look: Callable[[], Any], seconds: float = 300.0) -> Any:
    """The first thing it finds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except OSError:  # not yet
            pass
        time.sleep(0.02)
    raise TimeoutError


def processes() -> Iterator[int]:
    yield from (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:  # it has ended
        return ""


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(repeats: int) -> dict[str, list[Times]]:
    found: dict[str, list[Times]] = {name: [] for name in TARGETS}
    for repeat in range(repeats):
        found["spikeproof --help"].append(help_text())
        with service() as (url, answered):
            found["the API answers"].append(answered)
            for architecture in ("resnet20", "resnet18", "resnet50"):
                found[f"first batch, {architecture}"].append(first_batch(url, architecture, repeat))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args(arguments).repeats
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and the service with it
    began = os.getloadavg()[0]
    measured = measure(repeats)
    print(f"{os.cpu_count()} cores ({platform.machine()}), load average {began:.1f} to {os.getloadavg()[0]:.1f}\n")
    print("| | seconds | CPU seconds | at most |\n|---|---|---|---|")
    for name, times in measured.items():
        clock, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {name} | {clock:.2f} | {cpu:.2f} | {TARGETS[name]:g} |")


if __name__ == "__main__":
    main()
