"""What each option of `app.domain.published` does to the figures of one network, alone and together.

    python benchmarks/as_published.py CHECKPOINT.safetensors FOLDER [--images 60]

CHECKPOINT: a default network of CIFAR-10. FOLDER: `{train,test}/CLASS/*.png`. Spiking heads are trained on its frozen
features (the read-out `features` has none to train: there the last group is, for an epoch). Each is then measured
twice at 2/255: under the study's protocol (FGSM, DeepFool, Square, one draw a gradient, one forward pass a verdict,
images that one pass gets right, eps in units of the normalised input), and under ours (APGD through the expected
model and over draws, Square; the first images of the evaluation's order; 100 fresh draws). Then the options of the
evaluation, one by one, on the head that has none of the decoder's.
"""

import argparse
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).parents[1]))
from app.domain.attacks import find_attack
from app.domain.datasets import KNOWN
from app.domain.protocol import Protocol
from app.domain.published import EVALUATION_OPTIONS
from app.domain.suites import Stage
from models.checkpoint import load
from models.decoder import Decoder, DecoderConfig
from models.registry import Classifier, branch
from worker.data import Split
from worker.data.folder import read_split
from worker.data.splits import evaluation_images, stratified_holdout
from worker.evaluation import evaluate_block, evaluate_clean, summarise
from worker.evaluation.clean import first_right, pixels
from worker.training.loop import Config, train

RADIUS = Fraction(2, 255)
EPOCHS, RATE, BATCH = 5, 0.1, 64
CLEAN_IMAGES = 500
ALL = DecoderConfig(gain=1.0, kernel="reference", estimator="published", normalisation="clamp",
                    encoding_gradient="none")  # fmt: skip
PARALIF = {
    "none": DecoderConfig(), "gain-1": DecoderConfig(gain=1.0), "wrapped-kernel": DecoderConfig(kernel="reference"),
    "biased-estimator": DecoderConfig(estimator="published"), "clamped-features": DecoderConfig(normalisation="clamp"),
    "detached-encoding": DecoderConfig(encoding_gradient="none"), "all five": ALL,
}  # fmt: skip
STUDY = (("fgsm", {}), ("deepfool", {"steps": 3, "candidates": 3}), ("square", {"queries": 30, "schedule": "standard"}))
OURS = (
    ("apgd", {"steps": 10, "gradient": "expected"}), ("apgd", {"steps": 5, "gradient": "sampled"}),
    ("square", {"queries": 30}),
)  # fmt: skip


class Data(NamedTuple):
    """CIFAR-10: what heads are trained on, what is held out of it, and the test split."""

    train: Split
    validation: Split
    test: Split


def read(folder: Path, classes: tuple[str, ...]) -> Data:
    """From an image folder; the held-out tenth is not trained on."""
    images, labels = read_split(folder / "train", classes, (3, 32, 32), lambda _: None)
    kept, held = stratified_holdout(labels, 0.1, key="cifar10/validation")
    test = Split(*read_split(folder / "test", classes, (3, 32, 32), lambda _: None))
    return Data(Split(images[kept], labels[kept]), Split(images[held], labels[held]), test)


@torch.no_grad()
def features_of(model: Classifier, split: Split) -> Tensor:
    """(n, F), of the images as they are."""
    return torch.cat([model.encoder(x) for x in pixels(split.images).split(250)])


def train_head(decoder: Decoder, features: Tensor, labels: Tensor) -> None:
    """One-cycle SGD on frozen features, one draw a step."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(decoder.parameters(), lr=RATE, momentum=0.9, nesterov=True)
    steps = EPOCHS * -(-len(features) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps + 1, pct_start=0.25, cycle_momentum=False
    )
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(features)).split(BATCH):
            loss = cross_entropy(decoder(features[rows])[0], labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def tuned(model: Classifier, data: Data) -> Classifier:
    """The read-out `features`, with the last group trained for an epoch: its decoder cannot be."""
    head = branch(model, "lif", DecoderConfig(readout="features"))
    config = Config("as-published", 1, BATCH, 0.02, 0.02, 0.9, True, 5e-4, "one-cycle", False, False, 2)
    train(head, data.train, data.validation, config, KNOWN["cifar10"].augmentation)
    return head.eval()


def protocol(stages: tuple[tuple[str, dict[str, object]], ...], options: tuple[str, ...], eps: Fraction) -> Protocol:
    """`stages` under these options of the evaluation."""
    chosen = []
    for name, given in stages:
        parameters = find_attack(name).resolve(given)
        if "one-draw-gradients" in options and "draws" in parameters:
            parameters["draws"] = 1
        chosen.append(Stage(name, parameters))
    ordered = tuple(name for name in EVALUATION_OPTIONS if name in options)
    return Protocol("cifar10", "", "linf", (eps,), "custom", 1, True, tuple(chosen), 0, as_published=ordered)


def robust(model: Classifier, data: Data, asked: Protocol, images: int) -> float:
    """Robust accuracy in per cent. In normalised units the radius is that of the same size, divided by the mean sd."""
    test = data.test
    if "normalised-eps" in asked.as_published:
        unit = Fraction(str(round(float(np.mean(model.spec.std)), 4)))
        asked = replace(asked, eps=tuple(eps / unit for eps in asked.eps))
    ids = evaluation_images(test.labels, "cifar10", images)
    if "correct-images" in asked.as_published:
        order = evaluation_images(test.labels, "cifar10", len(test.labels))
        ids = first_right(model, test.images, test.labels, order, images, seed=0)
    block = evaluate_block(
        model, pixels(test.images[ids]), torch.from_numpy(test.labels[ids]), torch.from_numpy(ids),
        protocol=asked, seed=0, batch_size=64,
    )
    return 100 * float(summarise([block], asked)[0]["robust_accuracy"])


def clean(model: Classifier, data: Data) -> float:
    """Per cent of the first test images, 100 draws."""
    ids = evaluation_images(data.test.labels, "cifar10", CLEAN_IMAGES)
    found = evaluate_clean(model, data.test.images[ids], data.test.labels[ids], ids, seed=0)
    return 100 * found.accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    model, metadata = load(asked.checkpoint)
    data = read(asked.folder, tuple(metadata["classes"]))
    features, labels = features_of(model, data.train), torch.from_numpy(data.train.labels)
    study, ours = protocol(STUDY, EVALUATION_OPTIONS, RADIUS), protocol(OURS, (), RADIUS)

    def show(name: str, network: Classifier) -> None:
        figures = (clean(network, data), robust(network, data, study, asked.images),
                   robust(network, data, ours, asked.images))  # fmt: skip
        print(f"| {name} | {' | '.join(f'{figure:.1f}' for figure in figures)} |", flush=True)

    print("| network, option | clean % | the study's protocol % | ours % |\n|---|---|---|---|")
    show("default", model)
    plain = branch(model, "paralif")
    for name, config in PARALIF.items():
        torch.manual_seed(0)
        head = branch(model, "paralif", config)
        train_head(head.decoder, features, labels)
        show(f"paralif, {name}", head.eval())
        plain = head if name == "none" else plain
    torch.manual_seed(0)
    lif = branch(model, "lif")
    train_head(lif.decoder, features, labels)
    show("lif, none", lif.eval())
    show("lif, features-readout", tuned(model, data))
    print("\n| paralif, option of the evaluation | robust % |\n|---|---|")
    for options in ((), *((name,) for name in EVALUATION_OPTIONS), EVALUATION_OPTIONS):
        figure = robust(plain, data, protocol(STUDY, options, RADIUS), asked.images)
        print(f"| {', '.join(options) or 'none'} | {figure:.1f} |", flush=True)
    print(f"\n{time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    main()
