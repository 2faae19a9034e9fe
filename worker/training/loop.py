"""Ordinary training by backpropagation, through time where the head has any.

    result = train(model, train_split, validation_split, config, augmentation)

Everything random is keyed by (stream, epoch), so training resumed from `State` ends bit-identical to
training that was never interrupted.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from app.domain.datasets import Augmentation
from app.domain.errors import JobError
from models.freezing import evaluating, freeze, train_mode
from models.registry import Classifier
from worker.data import Split
from worker.data.augment import crop_and_flip, rand_augment
from worker.data.batches import Images, batch_of, to_pixels
from worker.training.adversary import Adversary
from worker.training.features import Frozen
from worker.training.seeding import generator

VALIDATION_BATCH = 500
Compile = Callable[[nn.Module], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Config:
    """How to train. `stream` keys the order of images, augmentation and spike noise."""

    stream: str
    epochs: int
    batch_size: int
    learning_rate: float
    decoder_learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    schedule: str
    augment: bool
    randaugment: bool
    freeze_depth: int
    draws: int = 1  # of a stochastic head for one step, of which the loss is the mean
    adversary: Adversary | None = None  # who replaces each batch by the worst images near it
    mixed_precision: bool = False  # the encoder's forward and backward passes in bfloat16

    def alters_images(self, augmentation: Augmentation) -> bool:
        """Whether an image may differ from epoch to epoch."""
        moved = self.augment and (augmentation.flip or augmentation.crop_padding > 0)
        return moved or self.randaugment or self.adversary is not None

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], stream: str) -> Self:
        """From a run's specification (`app.domain.plan`)."""
        training = spec["training"]
        given = {name: training[name] for name in cls.__dataclass_fields__ if name in training}
        if "adversary" in given:
            given["adversary"] = Adversary.from_dict(given["adversary"])
        randaugment = spec["dataset"]["name"] in training["randaugment_on"]
        return cls(stream=stream, epochs=spec["epochs"], randaugment=randaugment, **given)


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch reached. Losses in nats, accuracies as fractions, one draw of a stochastic model."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass
class State:
    """Where training stands after `epoch` epochs: all it needs to go on."""

    epoch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Hooks:
    """Called as training goes on: every batch with the share done, every epoch with its state."""

    on_batch: Callable[[float, str], None] = lambda _share, _phase: None
    on_epoch: Callable[[EpochRecord, State], None] = lambda _record, _state: None


def train(
    model: Classifier,
    data: Split,
    validation: Split,
    config: Config,
    augmentation: Augmentation,
    *,
    device: torch.device | str = "cpu",
    resume: State | None = None,
    hooks: Hooks | None = None,
    frozen: Frozen | None = None,
    memory: int = 0,
    compiled: Compile | None = None,
) -> list[EpochRecord]:
    """Trains the model in place; returns a record an epoch. Raises JobError when the loss is not finite.

    compiled: makes a faster function of the encoder, for the batches it learns from; see `graphs`.
    memory: bytes of a GPU that images may take, to lie there instead of being sent batch by batch.
    frozen: what `features.keep` found of this model to config.freeze_depth; of the training images only where
    they are not altered.
    """
    model.to(device)
    freeze(model, config.freeze_depth)
    hooks, frozen, encode = hooks or Hooks(), frozen or Frozen(), compiled(model.encoder) if compiled else model.encoder
    training = _Training(model, data, validation, config, augmentation, hooks, frozen, memory, encode)
    training.restore(resume)
    while len(training.records) < config.epochs:
        training.run_epoch(len(training.records) + 1)
    return training.records


def graphs(encoder: nn.Module) -> Callable[[Tensor], Tensor]:
    """The encoder as fused kernels, launched together as CUDA graphs. Batches have at most two sizes, each a graph."""
    compiled: Callable[[Tensor], Tensor] = torch.compile(encoder, mode="reduce-overhead", dynamic=False)
    return compiled


def accuracy(
    model: Classifier, split: Split, stream: tuple[str | int, ...], frozen: Frozen | None = None
) -> tuple[float, float]:
    """(accuracy, cross-entropy in nats) over the split, one draw a stochastic image. frozen: where the split is what
    a training is validated on."""
    frozen = frozen or Frozen()
    device = next(model.parameters()).device
    noise = generator(*stream, device=device)
    correct, loss = 0, 0.0
    with evaluating(model), torch.no_grad():
        for start in range(0, len(split), VALIDATION_BATCH):
            index = np.arange(start, min(start + VALIDATION_BATCH, len(split)))
            if frozen.validation is not None:
                features = frozen.after(model.encoder, frozen.validation[index])
            else:
                features = model.encoder(to_pixels(batch_of(split, index)[0], device))
            logits = model.decoder(features, generator=noise)[0]
            labels = torch.from_numpy(split.labels[index]).to(device)
            correct += int((logits.argmax(1) == labels).sum())
            loss += float(cross_entropy(logits, labels, reduction="sum"))
    return correct / len(split), loss / len(split)


class _Training:
    """One training under way: model, optimiser, schedule, and the records so far."""

    def __init__(
        self, model: Classifier, data: Split, validation: Split, config: Config, augmentation: Augmentation,
        hooks: Hooks, frozen: Frozen, memory: int, encode: Callable[[Tensor], Tensor],
    ) -> None:
        self.model, self.data, self.validation, self.config = model, data, validation, config
        self.augmentation, self.hooks, self.frozen, self.encode = augmentation, hooks, frozen, encode
        self.device = next(model.parameters()).device
        self.images = Images(data, self.device, 0 if self.frozen.training else memory)
        self.batches = max(1, min(-(-len(data) // config.batch_size), len(data) // 2))
        self.optimizer = _optimizer(model, config)
        self.scheduler = _scheduler(self.optimizer, config, self.batches * config.epochs)
        self.records: list[EpochRecord] = []

    def restore(self, state: State | None) -> None:
        if state is None:
            return
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.scheduler.load_state_dict(state.scheduler)
        self.records = [EpochRecord(**record) for record in state.records]

    def run_epoch(self, epoch: int) -> None:
        began, rate = time.monotonic(), self.scheduler.get_last_lr()[0]
        loss, hits = self._pass_over_data(epoch)
        stream = ("validation", self.config.stream, epoch)
        held_out, held_out_loss = accuracy(self.model, self.validation, stream, self.frozen)
        if not math.isfinite(loss) or not math.isfinite(held_out_loss):
            raise JobError(f"training diverged in epoch {epoch} (loss {loss}); lower the learning rate")
        seconds = time.monotonic() - began
        self.records.append(EpochRecord(epoch, float(rate), loss, hits, held_out_loss, held_out, seconds))
        self.hooks.on_epoch(self.records[-1], self._state(epoch))

    def _pass_over_data(self, epoch: int) -> tuple[float, float]:
        """(mean loss, accuracy) over the epoch's batches."""
        config = self.config
        order = generator("order", config.stream, epoch)
        noise = generator("noise", config.stream, epoch, device=self.device)
        loss_sum, hits = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        train_mode(self.model, config.freeze_depth)
        # Batches of nearly one size: no last batch of one image, which batch norm could not take.
        for number, index in enumerate(torch.randperm(len(self.data), generator=order).tensor_split(self.batches)):
            labels = torch.from_numpy(self.data.labels[index.numpy()]).to(self.device)
            features = self._features(index, labels, order, epoch)
            logits = self.model.decoder(features, draws=config.draws, generator=noise)
            loss = cross_entropy(logits.flatten(0, 1), labels.repeat(config.draws))
            self._step(loss)
            loss_sum += loss.detach() * len(labels)
            hits += (logits.detach().argmax(2) == labels).float().mean(0).sum()
            done = epoch - 1 + (number + 1) / self.batches
            self.hooks.on_batch(done / config.epochs, f"epoch {epoch}/{config.epochs}")
        return float(loss_sum) / len(self.data), float(hits) / len(self.data)

    def _features(self, index: Tensor, labels: Tensor, order: torch.Generator, epoch: int) -> Tensor:
        """Float32 (batch, F), whatever they were computed in."""
        if self.frozen.training is not None:
            hidden = self.frozen.training[index.numpy()]
            with self._precision():
                return self.frozen.after(self.model.encoder, hidden).float()
        pixels = to_pixels(self._augmented(self.images[index], order), self.device)
        pixels = self._attacked(pixels, labels, index, epoch)
        with self._precision():
            return self.encode(pixels).float()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.mixed_precision)

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # so it is in torch
        self.optimizer.step()
        self.scheduler.step()

    def _augmented(self, images: Tensor, order: torch.Generator) -> Tensor:
        if self.config.randaugment:
            images = rand_augment(images, order)
        return crop_and_flip(images, self.augmentation, order) if self.config.augment else images

    def _attacked(self, pixels: Tensor, labels: Tensor, index: Tensor, epoch: int) -> Tensor:
        if self.config.adversary is None:
            return pixels
        ids, stream = index.to(self.device), f"{self.config.stream}/{epoch}"
        return self.config.adversary.worst_near(self.model, pixels, labels, ids=ids, stream=stream)

    def _state(self, epoch: int) -> State:
        records = [asdict(record) for record in self.records]
        return State(
            epoch, self.model.state_dict(), self.optimizer.state_dict(), self.scheduler.state_dict(), records
        )


def _optimizer(model: Classifier, config: Config) -> torch.optim.Optimizer:
    """Weights decay; biases, batch norm, thresholds, gain and time constants do not."""
    groups = []
    for part, rate in ((model.encoder, config.learning_rate), (model.decoder, config.decoder_learning_rate)):
        trained = [p for p in part.parameters() if p.requires_grad]
        groups.append({"params": [p for p in trained if p.ndim > 1], "lr": rate, "weight_decay": config.weight_decay})
        groups.append({"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    groups = [g for g in groups if g["params"]]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov)


def _scheduler(optimizer: torch.optim.Optimizer, config: Config, steps: int) -> LRScheduler:
    if config.schedule == "constant":
        return LambdaLR(optimizer, lambda _: 1.0)
    rates = [group["lr"] for group in optimizer.param_groups]  # (OneCycleLR divides by zero below five steps)
    return OneCycleLR(optimizer, rates, total_steps=max(steps + 1, 5), pct_start=0.25, cycle_momentum=False)

