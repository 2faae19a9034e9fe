"""What keeps a ParaLIF head behind a linear one where there are many classes: heads on frozen features.

    python benchmarks/paralif_heads.py CHECKPOINT.safetensors FOLDER

CHECKPOINT: a default network; FOLDER: its data set, `train/CLASS/*.png`. A tenth of the training images is held out;
all figures are of these, the test split is not read. One-cycle SGD with Nesterov momentum, 12 epochs, batches of 64,
weight decay 5e-4, seed 0. `one draw`: mean accuracy over ten draws; `expected`: of the expected logits, which is what
a vote of very many draws comes to.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).parents[1]))
from models.checkpoint import load
from models.decoder import Decoder, DecoderConfig, build_decoder
from worker.data.folder import read_split
from worker.data.splits import stratified_holdout
from worker.evaluation.clean import pixels

EPOCHS, BATCH, DECAY = 12, 64, 5e-4


class Trial(NamedTuple):
    """A head and how it is trained; `draws` 0: through its expected logits."""

    variant: str
    rate: float
    draws: int
    config: DecoderConfig


TRIALS = (
    Trial("default", 0.1, 1, DecoderConfig()),
    Trial("default", 0.5, 1, DecoderConfig()),
    Trial("paralif", 0.1, 4, DecoderConfig()),
    Trial("paralif", 0.1, 0, DecoderConfig()),
    Trial("paralif", 0.5, 0, DecoderConfig()),
    Trial("paralif", 2.0, 0, DecoderConfig()),
    Trial("paralif", 0.5, 0, DecoderConfig(tau_mem=0.005, tau_syn=0.005)),
    Trial("paralif", 0.5, 0, DecoderConfig(tau_mem=0.1, tau_syn=0.1)),
    Trial("paralif", 0.5, 0, DecoderConfig(learn_time_constants=True)),
    Trial("paralif", 0.5, 0, DecoderConfig(timesteps=40)),
)


def train_head(trial: Trial, features: Tensor, labels: Tensor, classes: int) -> Decoder:
    """From a fresh head of seed 0."""
    torch.manual_seed(0)
    decoder = build_decoder(trial.variant, features=features.shape[1], classes=classes, config=trial.config)
    groups = [
        {"params": [p for p in decoder.parameters() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in decoder.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=trial.rate, momentum=0.9, nesterov=True)
    steps = EPOCHS * -(-len(features) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, trial.rate, total_steps=steps + 1, pct_start=0.25, cycle_momentum=False
    )
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(features)).split(BATCH):
            logits = decoder(features[rows], draws=trial.draws) if trial.draws else decoder.expected(features[rows])
            loss = cross_entropy(logits.flatten(0, 1), labels[rows].repeat(len(logits)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return decoder


@torch.no_grad()
def measured(decoder: Decoder, features: Tensor, labels: Tensor) -> tuple[float, float]:
    """(one draw, expected), per cent."""
    torch.manual_seed(1)
    drawn = torch.cat([decoder(part, draws=10) for part in features.split(250)], dim=1).argmax(2)
    sure = decoder.expected(features)[0].argmax(1)
    return 100 * float((drawn == labels).float().mean()), 100 * float((sure == labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, metadata = load(asked.checkpoint)
    images, y = read_split(asked.folder / "train", metadata["classes"], model.spec.image_shape, lambda _: None)
    kept, held = stratified_holdout(y, 0.1, key=f"{metadata['run']['dataset']['name']}/validation")
    with torch.no_grad():
        features = torch.cat([model.encoder(part) for part in pixels(images).split(250)])
    labels, classes = torch.from_numpy(y), len(metadata["classes"])
    print("| head | rate | draws a step | settings | one draw % | expected % | gain | CPU s |\n" + "|---" * 8 + "|")
    for trial in TRIALS:
        began = time.process_time()
        decoder = train_head(trial, features[kept], labels[kept], classes)
        figures = measured(decoder, features[held], labels[held])
        usual, given = DecoderConfig().to_dict(), trial.config.to_dict()
        settings = ", ".join(f"{name} {value}" for name, value in given.items() if usual[name] != value)
        gain = f"{float(decoder.gain.scale().detach()):.1f}" if hasattr(decoder, "gain") else ""  # type: ignore[operator, union-attr]
        print(f"| {trial.variant} | {trial.rate:g} | {trial.draws or 'expected'} | {settings} | {figures[0]:.1f} "
              f"| {figures[1]:.1f} | {gain} | {time.process_time() - began:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
