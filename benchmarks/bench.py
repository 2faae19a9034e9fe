"""The whole comparison with the peers: `make bench`, or `make bench-gpu` on a GPU.

    python -m benchmarks.bench [--rows PGD DeepFool] [--out FOLDER]
    python -m benchmarks.bench --quick --out FOLDER       seconds, without peers or images: whether it runs at all

Writes `latest.json` and `latest.md` (`latest-gpu.*` on a GPU). Ours and a peer run in turn on one thread, and the
process's CPU time counts; each row's ratio is the median over such pairs. What is compared, in `attack_rows`,
`gradient_rows`, `neuron_rows` and `training_rows`; what it shall reach is each row's `target`.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import attack_rows, gradient_rows, network, neuron_rows, training_rows
from benchmarks.contest import Contest, Row, play
from models.folding import folded

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox", "snntorch", "spikingjelly", "numpy")
IMAGES = 128
Maker = Callable[[], Contest]


def lab(device: str, count: int, *, invented: bool = False) -> attack_rows.Lab:
    """The network and images; `invented` ones where any will do."""
    torch.manual_seed(0)
    model = network.network().to(device)
    x0, labels = (torch.rand(count, 3, 32, 32), torch.arange(count) % 10) if invented else network.images(count)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    made = attack_rows.Lab(model, x0.to(device), labels.to(device), count, count, device)
    if invented:
        return made
    batches = [attack_rows.best_batch(encoder, made) for encoder in (folded(model.encoder), model.encoder)]
    return attack_rows.Lab(model, made.x0, made.labels, *batches, device)


def makers(device: str) -> list[Maker]:
    place = lab(device, IMAGES)
    print(f"batches that cost least: {place.batch} images for ours, {place.peers_batch} for the peers'", flush=True)
    return [*attack_rows.contests(place), *gradient_rows.contests(place), *neuron_rows.contests(device),
            *training_rows.contests(place.x0, place.labels, device)]


def quick(device: str) -> list[Maker]:
    """Rows whose peers are our own writing."""
    place = lab(device, 4, invented=True)
    return [
        lambda: gradient_rows.contest(place, "gradient over 20 draws, ParaLIF", "sampled", 20, 15.0, repeats=1),
        lambda: neuron_rows.contests(device)[0](),
        lambda: training_rows.contest(
            place.x0, place.labels, "resnet20", 3, 1.0, image_size=None, repeats=1, device=device
        ),
    ]


def rows(chosen: Sequence[Maker], wanted: Sequence[str]) -> Iterator[Row]:
    print("\n".join(HEADER))
    for make in chosen:
        contest = make()
        if not wanted or any(name.lower() in contest.name.lower() for name in wanted):
            began = time.monotonic()
            row = play(contest)
            print(line(row), f"  ({time.monotonic() - began:.0f} s)", flush=True)
            yield row


def document(found: Sequence[Row], device: str, before: Path) -> dict[str, Any]:
    """Rows of an earlier run on the same machine and versions stay where they were not measured anew."""
    new = {"machine": machine(device), "versions": versions(), "rows": [row.to_dict() for row in found]}
    old = json.loads(before.read_text()) if before.is_file() else new
    if any(old[name] != new[name] for name in ("machine", "versions")):
        return new
    rows = {row["name"]: row for row in (*old["rows"], *new["rows"])}
    return {**new, "rows": list(rows.values())}


def machine(device: str) -> str:
    if device == "cuda":
        return f"one {torch.cuda.get_device_name()}"
    return f"one thread of {_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [row.partition(":")[2].strip() for row in info.read_text().splitlines() if row.startswith("model name")
             ] if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


HEADER = (
    "| | ours, s | peer, s | peer | ratio | target | of the limit | our robust accuracy | the peer's |",
    "|---|---|---|---|---|---|---|---|---|",
)


def line(row: Row) -> str:
    met = "**" if row.ratio >= row.target else ""
    cells = [
        row.name, f"{row.ours:.3g}", f"{row.peer:.3g}", row.peer_name, f"{met}{row.ratio:.1f}x{met}",
        f"{row.target:g}x", _percent(row.limit_share, 0), _percent(row.ours_accuracy, 1),
        _percent(row.peer_accuracy, 1),
    ]
    return f"| {' | '.join(cells)} |"


def _percent(value: float | None, digits: int) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def write(folder: Path, found: dict[str, Any], name: str) -> None:
    lines = [line(Row(**row)) for row in found["rows"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    known = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    text = [f"On {found['machine']}; {known}.", "", "Bold: the target is met.", "", *HEADER, *lines, ""]
    (folder / f"{name}.md").write_text("\n".join(text))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny set of rows, in seconds")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rows", nargs="+", default=(), metavar="PART", help="only rows with this in their names")
    parser.add_argument("--out", type=Path, default=None, help=f"default: {RESULTS.parent.name}/{RESULTS.name}")
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU on this machine")
    torch.set_num_threads(1)
    try:
        chosen = (quick if asked.quick else makers)(asked.device)
    except network.NoImagesError as error:
        parser.error(str(error))
    found = list(rows(chosen, asked.rows))
    out = asked.out or (None if asked.quick else RESULTS)
    if out is not None:
        name = "latest-gpu" if asked.device == "cuda" else "latest"
        write(out, document(found, asked.device, out / f"{name}.json" if asked.rows else out / "none"), name)


if __name__ == "__main__":
    main()
