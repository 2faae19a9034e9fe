"""What the study's protocol says of a checkpoint, beside what ours says: how much of its robustness is an illusion.

    python benchmarks/study_protocol.py CHECKPOINT.safetensors FOLDER [--suite spiking]

The study's protocol, on 100 test images that one forward pass gets right: FGSM, L-inf DeepFool and Square with 100
queries, as the peers have them, each against a network that draws its noise anew at each call; gradients of one
draw; an image is robust if one more forward pass is right. Ours: a suite of this project on the same images, chosen
and reported on draws of their own, the mean over 100 fresh draws. FOLDER: `test/CLASS/*.png`. Needs the peers.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from app.domain.epsilon import format_epsilon, parse_epsilon
from app.domain.protocol import Protocol
from app.domain.suites import SUITES
from models.checkpoint import load
from models.registry import Classifier
from worker.attacks import frozen
from worker.attacks.ball import project
from worker.data.folder import read_split
from worker.data.splits import evaluation_images
from worker.evaluation import evaluate_block, summarise
from worker.evaluation.clean import pixels

# .01 and .1 of the study's grids (in ImageNet-normalised units, one of which is .225 of a pixel) between ours.
RADII = ("0.5/255", "0.00225", "2/255", "8/255", "0.0225", "0.1125")
Attack = Callable[[Tensor, Tensor], Tensor]  # images, labels -> adversarial images

IMAGES = 100  # the study's
QUERIES = 100
BATCH = 50


def chosen_images(
    model: Classifier, folder: Path, dataset: str, classes: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """The first IMAGES of the evaluation's order that one forward pass gets right: (n, C, H, W), labels, ids."""
    images, labels = read_split(folder, classes, model.spec.image_shape, lambda _: None)
    order = evaluation_images(labels, dataset, min(len(labels), 4 * IMAGES))
    x, y = pixels(images[order]), torch.from_numpy(labels[order])
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero()[:IMAGES, 0]
    return x[right], y[right], torch.from_numpy(order)[right]


def as_the_study(
    model: Classifier, x0: Tensor, labels: Tensor, radii: Sequence[Fraction]
) -> dict[str, dict[str, float]]:
    """Radius -> robust accuracy by attack: one draw a gradient, one forward pass a verdict."""
    deepfool, found = _deepfool(model, x0, labels), {}
    for radius in radii:
        fgsm, square = _others(model, float(radius))
        limits = torch.full((len(x0),), float(radius))
        adversarial = {
            "FGSM": _in_parts(fgsm, x0, labels),
            "DeepFool": deepfool,
            f"Square {QUERIES}": _in_parts(square, x0, labels),
        }
        found[format_epsilon(radius)] = {
            name: _right_once(model, project(x, x0, limits, "linf"), labels) for name, x in adversarial.items()
        }
    return found


def _others(model: Classifier, radius: float) -> tuple[Attack, Attack]:
    import torchattacks

    square = torchattacks.Square(
        model, norm="Linf", eps=radius, n_queries=QUERIES, p_init=0.8, loss="margin", seed=0
    )
    return torchattacks.FGSM(model, eps=radius), square


def _deepfool(model: Classifier, x0: Tensor, labels: Tensor) -> Tensor:
    """The nearest adversarial images, whatever their distance: a radius cuts them off. Minutes on a noisy network."""
    import foolbox

    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfDeepFoolAttack(steps=50, overshoot=0.02, candidates=10)
    return _in_parts(lambda x, y: attack(bounded, x, y, epsilons=None)[0], x0, labels)


def _in_parts(attack: Attack, x0: Tensor, labels: Tensor) -> Tensor:
    torch.manual_seed(0)
    return torch.cat([attack(x, y) for x, y in zip(x0.split(BATCH), labels.split(BATCH), strict=True)]).detach()


@torch.no_grad()
def _right_once(model: Classifier, x: Tensor, labels: Tensor) -> float:
    return float((model(x).argmax(1) == labels).float().mean())


def as_we_do(
    model: Classifier, x0: Tensor, labels: Tensor, ids: Tensor, radii: list[Fraction], suite: str
) -> dict[str, float]:
    """Radius -> the headline on the same images, by one of our suites."""
    named = SUITES[suite]
    stages = tuple(stage for stage in named.stages if stage.attack != "transfer")
    protocol = Protocol(
        dataset="cifar10", fingerprint="", norm="linf", eps=tuple(sorted(radii)), suite=suite,
        suite_version=named.version, survivors=named.survivors, stages=stages, images=len(x0),
    )
    began = time.monotonic()

    def progress(share: float) -> None:
        print(f"\r{suite}: {share:6.1%} after {time.monotonic() - began:.0f} s", end="", file=sys.stderr, flush=True)

    block = evaluate_block(model, x0, labels, ids, protocol=protocol, seed=0, batch_size=BATCH, progress=progress)
    print(file=sys.stderr)
    return {figure["eps_text"]: figure["robust_accuracy"] for figure in summarise([block], protocol)}


def table(study: dict[str, dict[str, float]], ours: dict[str, float]) -> str:
    """Markdown, per cent of the images."""
    names = list(next(iter(study.values())))
    lines = [f"| eps | {' | '.join(names)} | the study's lowest | ours | illusion |", "|---" * (len(names) + 4) + "|"]
    for radius, found in study.items():
        lowest, figures = min(found.values()), [100 * value for value in found.values()]
        cells = [f"{f:.0f}" for f in figures] + [f"{100 * lowest:.0f}", f"{100 * ours[radius]:.1f}"]
        lines.append(f"| {radius} | {' | '.join(cells)} | {100 * (lowest - ours[radius]):.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, help="of the data set, with test/CLASS/*.png")
    parser.add_argument("--suite", default="spiking", choices=sorted(SUITES))
    parser.add_argument("--eps", nargs="+", default=RADII)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    model, metadata = load(asked.checkpoint)
    radii = [parse_epsilon(text) for text in asked.eps]
    with frozen(model):
        dataset, classes = metadata["run"]["dataset"]["name"], metadata["classes"]
        x0, labels, ids = chosen_images(model, asked.folder / "test", dataset, classes)
        study = as_the_study(model, x0, labels, radii)
    print(f"{model.spec.architecture} {model.spec.variant}, {len(x0)} images that one forward pass gets right")
    print(table(study, as_we_do(model, x0, labels, ids, radii, asked.suite)))


if __name__ == "__main__":
    main()
