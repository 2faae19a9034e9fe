"""Our attacks beside torchattacks, foolbox and ART: strength, then process-CPU seconds.

    python benchmarks/attacks_against_peers.py                      digits, ResNet-20, a minute
    SPIKEPROOF_TEST_DATA=... python benchmarks/attacks_against_peers.py --dataset cifar10 [--checkpoint FILE]

`--attacks standard standard-l2` sets our suite `standard` against torchattacks' APGD-CE, APGD-T, FAB-T and Square
at AutoAttack's budgets. Same network, images, radii, steps and queries (HopSkipJump's peers count rounds: they get
as many as `--decisions` probes make, and their bisections on top); what a peer returns is put into the ball where it
is not. Each seed runs ours and every peer in turn, so that the shared machine is equally slow for all; times are
medians over seeds, accuracies means; an attack without randomness runs once. Needs the peers: an environment beside
the project's own (see the Makefile).
"""

import argparse
import io
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from app.domain.attacks import NORMS, Norm
from app.domain.suites import SUITES
from benchmarks.peers import Budget, Peers, Run
from models.checkpoint import load
from models.registry import Classifier, ModelSpec, build
from worker.attacks import Attack, Target, build_attack, frozen
from worker.attacks.ball import acceptable, project


@dataclass
class Contest:
    """One attack at one radius: ours and the peers', to be run on the same images."""

    name: str
    norm: Norm
    epsilon: float
    runs: dict[str, Run]
    random: bool = True
    correct: dict[str, list[Tensor]] = field(default_factory=dict)  # a seed: float32 (images,), NaN where not played
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def accuracy(self, who: str) -> float:
        """Mean over images of each one's mean over seeds."""
        return float(torch.stack(self.correct[who]).nanmean(0).mean())

    def time(self, who: str) -> float:
        return statistics.median(self.seconds[who])

    def play(self, model: Classifier, x0: Tensor, labels: Tensor, seeds: int, first: int = 0) -> None:
        for seed in range(first, first + seeds) if self.random else [0]:
            for who, run in self.runs.items():
                torch.manual_seed(seed)
                np.random.seed(seed)
                start = time.process_time()
                x = run(seed)
                self.seconds.setdefault(who, []).append(time.process_time() - start)
                correct = _correct(model, _inside(x, x0, self.epsilon, self.norm), labels)
                self.correct.setdefault(who, []).append(correct)

    def undecided(self) -> Tensor:
        """The images, int64 positions, that stood and fell by turns: in some seed, under some attack, ours or a
        peer's. Luck decides about them, so these are worth more seeds, and all who play have the same ones."""
        found = torch.stack([correct for played in self.correct.values() for correct in played])
        return (found != found[0]).any(0).nonzero()[:, 0]

    def add(self, rows: Tensor, other: "Contest") -> None:
        """What another contest found with these rows of the images, under further seeds."""
        for who, played in other.correct.items():
            for correct in played:
                nowhere = torch.full_like(self.correct[who][0], torch.nan)
                self.correct[who].append(nowhere.index_put((rows,), correct))


def _inside(x: Tensor, x0: Tensor, epsilon: float, norm: Norm) -> Tensor:
    radii = torch.full((len(x0),), epsilon)
    x = project(x.detach().float(), x0, radii, norm)
    assert acceptable(x, x0, radii, norm).all()
    return x


@torch.no_grad()
def _correct(model: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    return (model(x).argmax(1) == labels).float()


@dataclass(frozen=True)
class Entry:
    """A line of the table: our attack with its parameters, and the peers' name of it."""

    name: str
    attack: str  # in our catalogue; a suite for "standard"
    norm: Norm
    peers: str
    given: Callable[[Budget], dict[str, Any]] = lambda budget: {}

    @property
    def random(self) -> bool:
        """Whether it differs from seed to seed, ours or a peer's."""
        return self.attack not in ("fgsm", "mifgsm", "deepfool", "cw", "fmn")


ENTRIES: dict[str, Entry] = {
    f"{key}-l2" if norm == "l2" else key: Entry(f"{title} L2" if norm == "l2" else title, attack, norm, key, given)
    for key, title, attack, norms, given in (
        ("fgsm", "FGSM", "fgsm", NORMS, lambda b: {}),
        ("pgd", "PGD", "pgd", NORMS, lambda b: {"steps": b.steps}),
        ("mifgsm", "MI-FGSM", "mifgsm", NORMS, lambda b: {"steps": b.steps, "step_size": 0.1}),
        ("apgd", "APGD-CE", "apgd", NORMS, lambda b: {"loss": "ce", "steps": b.apgd_steps}),
        ("apgd_dlr", "APGD-DLR", "apgd", NORMS, lambda b: {"loss": "dlr", "steps": b.apgd_steps}),
        ("apgd_t", "APGD-T", "apgd", NORMS,
         lambda b: {"loss": "dlr-targeted", "steps": b.apgd_steps, "targets": b.targets}),
        ("fab", "FAB-T", "fab", NORMS, lambda b: {"steps": b.fab_steps, "targets": b.targets}),
        ("square", "Square", "square", NORMS, lambda b: {"queries": b.queries}),
        ("deepfool", "DeepFool", "deepfool", NORMS, lambda b: {}),
        ("cw", "CW", "cw", ("l2",), lambda b: {
            "steps": b.cw_steps, "searches": b.cw_searches, "learning_rate": b.cw_rate, "initial_c": b.cw_constant,
        }),
        ("fmn", "FMN", "fmn", NORMS, lambda b: {"steps": b.fmn_steps}),
        ("hopskipjump", "HopSkipJump", "hopskipjump", NORMS, lambda b: {"queries": b.decisions}),
        ("standard", "standard", "standard", NORMS, lambda b: {}),
    )
    for norm in norms
}
PEERS = ("torchattacks", "foolbox", "ART")
AT_ONCE = tuple(key for key in ENTRIES if not key.startswith("standard"))  # `standard` takes the time of all others


def contests(
    model: Classifier, x0: Tensor, labels: Tensor, *, radii: dict[str, float], names: Sequence[str] = AT_ONCE,
    budget: Budget = Budget(), batch: int = 64,  # noqa: B008 (frozen)
) -> list[Contest]:
    """The table. radii: one for each of ENTRIES that is named. Raises ImportError without the peers."""
    peers, found = Peers(model, x0, labels, batch), []
    for name in names:
        entry, epsilon = ENTRIES[name], radii[name]
        runs = {"ours": _ours(entry, model, x0, labels, epsilon, budget, batch)}
        runs |= peers.find(entry.peers, entry.norm, epsilon, budget)
        found.append(Contest(entry.name, entry.norm, epsilon, runs, entry.random))
    return found


def _ours(
    entry: Entry, model: Classifier, x0: Tensor, labels: Tensor, epsilon: float, budget: Budget, batch: int
) -> Run:
    stages = [(entry.attack, entry.given(budget))]
    if entry.attack in SUITES:
        stages = [(stage.attack, dict(stage.parameters)) for stage in SUITES[entry.attack].stages]
    attacks, target = [build_attack(a, norm=entry.norm, **g) for a, g in stages], Target(model, batch_size=batch)
    ids = torch.arange(len(x0))

    def on_all(attack: Attack, seed: int) -> Tensor:
        return attack(target, x0, labels, epsilon=torch.full((len(x0),), epsilon), ids=ids, seed=seed).x

    def on_survivors(seed: int) -> Tensor:
        x = x0.clone()
        for attack in attacks:
            rows = (target.forward(x).logits[0].argmax(1) == labels).nonzero()[:, 0]
            if len(rows):
                radii = torch.full((len(rows),), epsilon)
                x[rows] = attack(target, x0[rows], labels[rows], epsilon=radii, ids=ids[rows], seed=seed).x
        return x

    return on_survivors if len(attacks) > 1 else lambda seed: on_all(attacks[0], seed)


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's scans: train images float32 (n, 1, 8, 8), labels, test images, labels."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    order = np.random.default_rng(0).permutation(len(scans.target))
    x, y = torch.tensor(scans.images / 16, dtype=torch.float32)[order, None], torch.tensor(scans.target)[order]
    return x[:1397], y[:1397], x[1397:], y[1397:]


def cifar10(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """10,000 training and 400 test images from the packed files: WebP strips of stacked images."""
    train, test = read_packed(folder / "cifar10-train1.npz"), read_packed(folder / "cifar10-test.npz", 400)
    return *train, *test


def read_packed(path: Path, limit: int = 10_000) -> tuple[Tensor, Tensor]:
    from PIL import Image

    packed = np.load(path)
    raw, offsets = packed["data"].tobytes(), packed["offsets"]
    strips = [
        np.asarray(Image.open(io.BytesIO(raw[a:b])).convert("RGB")).reshape(-1, 32, 32, 3)
        for a, b in itertools.pairwise(offsets)
    ]
    images = torch.from_numpy(np.concatenate(strips)[:limit].copy()).permute(0, 3, 1, 2).float() / 255
    return images.contiguous(), torch.from_numpy(packed["labels"][:limit].astype(np.int64))


def train(x: Tensor, labels: Tensor, *, epochs: int, seed: int = 0) -> Classifier:
    """A ResNet-20 by SGD with a one-cycle rate; enough of a network to be attacked."""
    torch.manual_seed(seed)
    channels = x.shape[1]
    spec = ModelSpec("resnet20", "default", 10, (channels, *x.shape[2:]), (0.5,) * channels, (0.25,) * channels)
    model = build(spec).train()
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(x) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, total_steps=steps)
    for step in range(steps):
        if step % (len(x) // 128) == 0:
            order = torch.randperm(len(x))
        part = order[128 * (step % (len(x) // 128)) :][:128]
        optimiser.zero_grad()
        functional.cross_entropy(model(x[part]), labels[part]).backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def _radii(linf: float, l2: float, **others: float) -> dict[str, float]:
    return {key: {"linf": linf, "l2": l2}[entry.norm] for key, entry in ENTRIES.items()} | others


# Where about half of the images stand, so that one attack can be told from another.
RADII = {
    "digits": _radii(0.08, 0.42, **{"fgsm": 0.15, "fgsm-l2": 0.6, "square": 0.12, "square-l2": 0.9, "deepfool-l2": 0.6,
                                    "hopskipjump": 0.12, "hopskipjump-l2": 0.6}),
    "cifar10": _radii(1 / 255, 0.1, **{"square": 2 / 255, "square-l2": 0.4, "deepfool-l2": 0.12,
                                       "hopskipjump": 2 / 255, "hopskipjump-l2": 0.25}),
}


HEADER = ("| attack | eps | who | robust accuracy | CPU s | ratio |", "|---|---|---|---|---|---|")


def lines(contest: Contest) -> list[str]:
    """Markdown: robust accuracy and seconds, and how many times our seconds a peer takes."""
    return [
        f"| {contest.name} | {contest.epsilon:.4g} | {who} | {100 * contest.accuracy(who):.2f} % "
        f"| {contest.time(who):.2f} | {contest.time(who) / contest.time('ours'):.1f}x |"
        for who in contest.runs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(RADII), default="digits")
    parser.add_argument("--attacks", nargs="+", choices=sorted(ENTRIES), default=AT_ONCE, metavar="NAME",
                        help=f"of {', '.join(ENTRIES)}; all but `standard`, whose budgets are AutoAttack's")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--eps", type=float, help="the radius, instead of the table's")
    parser.add_argument("--checkpoint", type=Path, help="a network to attack instead of one trained here")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--queries", type=int, default=300, help="of Square")
    parser.add_argument("--decisions", type=int, default=2000, help="queries of HopSkipJump")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    x, labels, x0, y0 = digits() if asked.dataset == "digits" else cifar10(Path(os.environ["SPIKEPROOF_TEST_DATA"]))
    model = load(asked.checkpoint)[0].eval() if asked.checkpoint else train(x, labels, epochs=asked.epochs)
    x0, y0 = x0[: asked.images], y0[: asked.images]
    budget = Budget(queries=asked.queries, decisions=asked.decisions)
    with frozen(model):
        clean = f"clean accuracy {100 * _correct(model, x0, y0).mean():.1f} % of {len(x0)}"
        print(f"{model.spec.architecture} on {asked.dataset}: {clean}")
        radii = {name: asked.eps or radius for name, radius in RADII[asked.dataset].items()}
        played = contests(model, x0, y0, radii=radii, names=asked.attacks, budget=budget)
        print("\n".join(HEADER))
        for contest in played:
            contest.runs = {who: run for who, run in contest.runs.items() if who in ("ours", *asked.peers)}
            contest.play(model, x0, y0, asked.seeds)
            print("\n".join(lines(contest)), flush=True)  # a long table is worth reading before it is done


if __name__ == "__main__":
    main()
