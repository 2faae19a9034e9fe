"""Our attacks beside torchattacks, foolbox and ART: strength, then process-CPU seconds.

    python benchmarks/attacks_against_peers.py                      digits, ResNet-20, a minute
    SPIKEPROOF_TEST_DATA=... python benchmarks/attacks_against_peers.py --dataset cifar10

Same network, images, radii, steps and queries; what a peer returns is put into the ball where it is not. Each
seed runs ours and every peer in turn, so that the shared machine is equally slow for all; times are medians over
seeds, accuracies means. Needs the peers: an environment beside the project's own (see the Makefile).
"""

import argparse
import io
import itertools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from app.domain.attacks import Norm
from models.registry import Classifier, ModelSpec, build
from worker.attacks import Target, build_attack, frozen
from worker.attacks.ball import acceptable, project

Run = Callable[[int], Tensor]  # seed -> adversarial images


@dataclass
class Contest:
    """One attack at one radius: ours and the peers', to be run on the same images."""

    name: str
    norm: Norm
    epsilon: float
    runs: dict[str, Run]
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def accuracy(self, who: str) -> float:
        return statistics.mean(self.accuracies[who])

    def time(self, who: str) -> float:
        return statistics.median(self.seconds[who])

    def play(self, model: Classifier, x0: Tensor, labels: Tensor, seeds: int) -> None:
        for seed in range(seeds):
            for who, run in self.runs.items():
                torch.manual_seed(seed)
                np.random.seed(seed)
                start = time.process_time()
                x = run(seed)
                self.seconds.setdefault(who, []).append(time.process_time() - start)
                accuracy = _accuracy(model, _inside(x, x0, self.epsilon, self.norm), labels)
                self.accuracies.setdefault(who, []).append(accuracy)


def _inside(x: Tensor, x0: Tensor, epsilon: float, norm: Norm) -> Tensor:
    radii = torch.full((len(x0),), epsilon)
    x = project(x.detach().float(), x0, radii, norm)
    assert acceptable(x, x0, radii, norm).all()
    return x


@torch.no_grad()
def _accuracy(model: Classifier, x: Tensor, labels: Tensor) -> float:
    return float((model(x).argmax(1) == labels).float().mean())


def contests(
    model: Classifier, x0: Tensor, labels: Tensor, *, radii: dict[str, float], queries: int = 300, batch: int = 64
) -> list[Contest]:
    """The table. radii: fgsm, pgd, deepfool, deepfool_l2, square. Raises ImportError without the peers."""
    peers = _Peers(model, x0, labels, batch)

    def ours(name: str, norm: Norm, epsilon: float, **given: Any) -> Run:
        attack, target = build_attack(name, norm=norm, **given), Target(model, batch_size=batch)
        return lambda seed: attack(
            target, x0, labels, epsilon=torch.full((len(x0),), epsilon), ids=torch.arange(len(x0)), seed=seed
        ).x

    return [
        Contest("FGSM", "linf", e := radii["fgsm"], {"ours": ours("fgsm", "linf", e), **peers.fgsm(e)}),
        Contest("PGD-20", "linf", e := radii["pgd"], {"ours": ours("pgd", "linf", e, steps=20), **peers.pgd(e)}),
        Contest(
            "DeepFool", "linf", e := radii["deepfool"], {"ours": ours("deepfool", "linf", e), **peers.deepfool(e)}
        ),
        Contest(
            "DeepFool L2", "l2", e := radii["deepfool_l2"],
            {"ours": ours("deepfool", "l2", e), **peers.deepfool_l2(e)},
        ),
        Contest(
            f"Square {queries}", "linf", e := radii["square"],
            {"ours": ours("square", "linf", e, queries=queries), **peers.square(e, queries)},
        ),
    ]


class _Peers:
    """The peers' attacks as functions of a seed, with the settings of ours."""

    def __init__(self, model: Classifier, x0: Tensor, labels: Tensor, batch: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two of them import what scipy has moved
            import art.attacks.evasion
            import art.estimators.classification
            import foolbox
            import torchattacks
        self.model, self.x0, self.labels, self.batch = model, x0, labels, batch
        self.torchattacks, self.foolbox, self.art = torchattacks, foolbox, art.attacks.evasion
        self.foolbox_model = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        self.classifier = art.estimators.classification.PyTorchClassifier(
            model, loss=torch.nn.CrossEntropyLoss(), input_shape=tuple(x0.shape[1:]),
            nb_classes=int(model.spec.classes), clip_values=(0.0, 1.0),
        )

    def fgsm(self, eps: float) -> dict[str, Run]:
        return {
            "torchattacks": self._torchattacks(self.torchattacks.FGSM(self.model, eps=eps)),
            "foolbox": self._foolbox(self.foolbox.attacks.LinfFastGradientAttack(), eps),
            "ART": self._art(self.art.FastGradientMethod(self.classifier, eps=eps, batch_size=self.batch)),
        }

    def pgd(self, eps: float) -> dict[str, Run]:
        return {
            "torchattacks": self._torchattacks(self.torchattacks.PGD(self.model, eps=eps, alpha=eps / 4, steps=20)),
            "foolbox": self._foolbox(self.foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=20), eps),
            "ART": self._art(self.art.ProjectedGradientDescentPyTorch(
                self.classifier, eps=eps, eps_step=eps / 4, max_iter=20, num_random_init=1, batch_size=self.batch,
                verbose=False,
            )),
        }

    def deepfool(self, eps: float) -> dict[str, Run]:
        """Only foolbox has the Linf form."""
        attack = self.foolbox.attacks.LinfDeepFoolAttack(steps=50, overshoot=0.02, candidates=10)
        return {"foolbox": self._foolbox(attack, eps)}

    def deepfool_l2(self, eps: float) -> dict[str, Run]:
        attack = self.foolbox.attacks.L2DeepFoolAttack(steps=50, overshoot=0.02, candidates=10)
        return {
            "torchattacks": self._torchattacks(self.torchattacks.DeepFool(self.model, steps=50, overshoot=0.02)),
            "foolbox": self._foolbox(attack, eps),
            "ART": self._art(self.art.DeepFool(
                self.classifier, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=self.batch, verbose=False
            )),
        }

    def square(self, eps: float, queries: int) -> dict[str, Run]:
        scaled = {"norm": "Linf", "eps": eps, "n_queries": queries, "p_init": 0.8, "loss": "margin"}

        def theirs(seed: int) -> Tensor:
            attack = self.torchattacks.Square(self.model, **scaled, resc_schedule=True, seed=seed)
            return self._torchattacks(attack)(seed)

        return {
            "torchattacks": theirs,
            "ART": self._art(self.art.SquareAttack(
                self.classifier, norm=np.inf, eps=eps, max_iter=queries, p_init=0.8, batch_size=self.batch,
                verbose=False,
            )),
        }

    def _torchattacks(self, attack: Any) -> Run:
        parts = list(zip(self.x0.split(self.batch), self.labels.split(self.batch), strict=True))
        return lambda seed: torch.cat([attack(x, y) for x, y in parts])

    def _foolbox(self, attack: Any, eps: float) -> Run:
        parts = list(zip(self.x0.split(self.batch), self.labels.split(self.batch), strict=True))
        return lambda seed: torch.cat([attack(self.foolbox_model, x, y, epsilons=eps)[1] for x, y in parts])

    def _art(self, attack: Any) -> Run:
        return lambda seed: torch.from_numpy(attack.generate(self.x0.numpy(), self.labels.numpy()))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's scans: train images float32 (n, 1, 8, 8), labels, test images, labels."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    order = np.random.default_rng(0).permutation(len(scans.target))
    x, y = torch.tensor(scans.images / 16, dtype=torch.float32)[order, None], torch.tensor(scans.target)[order]
    return x[:1397], y[:1397], x[1397:], y[1397:]


def cifar10(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """10,000 training and 400 test images from the packed files: WebP strips of stacked images."""
    train, test = _read_packed(folder / "cifar10-train1.npz"), _read_packed(folder / "cifar10-test.npz", 400)
    return *train, *test


def _read_packed(path: Path, limit: int = 10_000) -> tuple[Tensor, Tensor]:
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


RADII = {
    "digits": {"fgsm": 0.15, "pgd": 0.08, "deepfool": 0.08, "deepfool_l2": 0.6, "square": 0.12},
    "cifar10": {
        "fgsm": 1 / 255, "pgd": 1 / 255, "deepfool": 1 / 255, "deepfool_l2": 0.12, "square": 2 / 255
    },
}


def table(played: list[Contest]) -> str:
    """Markdown: robust accuracy and seconds, and how many times our seconds a peer takes."""
    lines = ["| attack | eps | who | robust accuracy | CPU s | ratio |", "|---|---|---|---|---|---|"]
    for contest in played:
        for who in contest.runs:
            ratio = contest.time(who) / contest.time("ours")
            lines.append(
                f"| {contest.name} | {contest.epsilon:.4g} | {who} | {100 * contest.accuracy(who):.2f} % "
                f"| {contest.time(who):.2f} | {ratio:.1f}x |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(RADII), default="digits")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--queries", type=int, default=300)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    x, labels, x0, y0 = digits() if asked.dataset == "digits" else cifar10(Path(os.environ["SPIKEPROOF_TEST_DATA"]))
    model, x0, y0 = train(x, labels, epochs=asked.epochs), x0[: asked.images], y0[: asked.images]
    with frozen(model):
        print(f"ResNet-20 on {asked.dataset}: clean accuracy {100 * _accuracy(model, x0, y0):.1f} % of {len(x0)}")
        played = contests(model, x0, y0, radii=RADII[asked.dataset], queries=asked.queries)
        for contest in played:
            contest.play(model, x0, y0, asked.seeds)
    print(table(played))


if __name__ == "__main__":
    main()
