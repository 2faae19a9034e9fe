"""Every preset's small form, run to the end through the embedded service: runs, processor time, tables, verifications.

    python benchmarks/presets.py WORK --datasets FOLDER [--presets NAME ...] [--online]

FOLDER has `cifar10`, `cifar100` and `fashion-mnist` as `NAME/{train,test}/CLASS/*.png`. Each preset gets a fresh data
folder below WORK, a service of its own on a free port, and is submitted by the command that a user types. At its end
every checkpoint is verified, and a checkpoint file with a changed byte must be refused. WORK/PRESET.md has what came of
it, WORK/PRESET.html the experiments' reports.
"""

import argparse
import hashlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from app.client import Client
from app.domain.epsilon import parse_epsilon
from app.domain.presets import PRESETS

COMMAND = [sys.executable, "-m", "app.cli"]
START_SECONDS = 120.0


@contextmanager
def service(data: Path) -> Iterator[dict[str, str]]:
    """`spikeproof serve` with one worker; gives the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "SPIKEPROOF_DATA_DIR": str(data), "SPIKEPROOF_WORKERS": "1", "SPIKEPROOF_PORT": str(port),
           "SPIKEPROOF_THREADS_PER_JOB": "1", "SPIKEPROOF_URL": f"http://127.0.0.1:{port}"}  # fmt: skip
    with (data / "serve.log").open("w") as log:
        process = subprocess.Popen([*COMMAND, "serve"], env=env, stdout=log, stderr=log)
        try:
            _until_ready(env["SPIKEPROOF_URL"])
            yield env
        finally:
            process.terminate()
            process.wait(60)


def _until_ready(url: str) -> None:
    import httpx

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit(f"the service at {url} was not ready after {START_SECONDS:.0f} s")


def run_preset(name: str, work: Path, datasets: Path, *, offline: bool) -> str:
    """Markdown: what one preset came to."""
    data = work / name
    data.mkdir(parents=True)
    (data / "datasets").symlink_to(datasets.resolve())
    began, cpu = time.monotonic(), _child_seconds()
    forms = ["--offline", "--small"] if offline else ["--small"]
    with service(data) as env:
        submitted = [*COMMAND, "submit", "--preset", name, *forms, "--wait"]
        done = subprocess.run(submitted, env=env, capture_output=True, text=True, check=False)
        wall = time.monotonic() - began
        with Client(env["SPIKEPROOF_URL"]) as client:
            experiments = [client.experiment(one["id"]) for one in reversed(client.experiments())]
            lines = [_summary(experiments), *_boards(client, experiments)]
            reports = [client.report(one["id"]) for one in experiments]
            (work / f"{name}.html").write_text("\n".join(reports))
            checks = _verified(client, env, data)
    used = _child_seconds() - cpu
    head = f"## {name} {' '.join(forms)}: status {done.returncode}, {used / 60:.1f} CPU minutes, {wall / 60:.1f} wall"
    return "\n\n".join([head, *([] if done.returncode == 0 else [done.stderr[-2000:]]), *lines, *checks])


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _summary(experiments: list[dict[str, Any]]) -> str:
    runs = [run for one in experiments for run in one["runs"]]
    counts = {state: sum(run["state"] == state for run in runs) for state in sorted({run["state"] for run in runs})}
    own = sum(not run["reused"] for run in runs)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{len(experiments)} experiments, {own} runs of their own; {states}."


def _boards(client: Client, experiments: list[dict[str, Any]]) -> Iterator[str]:
    """The leaderboard of each data set at each radius; `others` that it says were measured otherwise are left out."""
    for dataset in sorted({one["dataset"] for one in experiments}):
        curve = {point["eps_text"] for row in client.leaderboard(dataset)["rows"] for point in row["curve"]}
        for eps in sorted(curve, key=parse_epsilon):
            yield f"{dataset}, eps {eps}:"
            yield client.leaderboard_text(dataset, "md", eps=eps)


def _verified(client: Client, env: dict[str, str], data: Path) -> list[str]:
    """Every checkpoint that has figures, recomputed; then one again, with a byte of its file changed."""
    measured = {name for one in client.iter_experiments() for run in client.experiment(one["id"])["runs"]
                if run["kind"] == "evaluate" and (name := run["checkpoint"])}  # fmt: skip
    rows = [row for row in client.iter_checkpoints() if row["id"] in measured]
    found = [f"verify {row['variant']} {row['id']}: {_verify(env, row['id'])}" for row in rows]
    tampered = rows[0]
    _change_a_byte(_file_of(data, tampered))
    return [*found, f"the same with one byte of {tampered['id']}'s file changed: {_verify(env, tampered['id'])}"]


def _file_of(data: Path, row: dict[str, Any]) -> Path:
    for path in sorted(data.rglob("*.safetensors")):
        if hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]:
            return path
    raise SystemExit(f"no file of checkpoint {row['id']}")


def _change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def _verify(env: dict[str, str], checkpoint: str) -> str:
    done = subprocess.run(
        [*COMMAND, "verify", checkpoint, "--wait"], env=env, capture_output=True, text=True, check=False
    )
    last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
    return f"status {done.returncode}: {' '.join(last)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--datasets", type=Path, required=True)
    parser.add_argument("--presets", nargs="+", default=sorted(PRESETS), choices=sorted(PRESETS))
    parser.add_argument("--online", action="store_true", help="without --offline: takes ImageNet weights")
    asked = parser.parse_args()
    for name in asked.presets:
        text = run_preset(name, asked.work, asked.datasets, offline=not asked.online)
        (asked.work / f"{name}.md").write_text(text + "\n")
        print(text.splitlines()[0], flush=True)


if __name__ == "__main__":
    main()
