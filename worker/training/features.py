"""What frozen layers put out for images that are not augmented: computed once, kept as files, read in every epoch.

    frozen = keep(model, training, validation, depth=3, files=SharedFiles(...))
    train(model, training, validation, config, augmentation, frozen=frozen)

A frozen layer is in evaluation mode, so its output on an image is always the same. It is kept behind the last frozen
layer, or behind the average pool where all are frozen, and serves every training with these frozen weights and images:
of other epochs, variants, branch seeds, and of other seeds where all start from one encoder.

In float32 a training reads the bits that it would compute itself, as far as a layer's output does not depend on how
many images go through it at once (docs/decisions/0029 has where it does).
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from app.domain.protocol import digest
from models.encoder import Encoder
from models.freezing import evaluating
from models.registry import Classifier
from worker.data import Split
from worker.data.batches import batch_of, to_pixels
from worker.data.shared_files import SharedFiles

BATCH = 64
PROBE_IMAGES = 16
DTYPE = np.dtype(np.float32)


class Rows:
    """The kept output for a split: `rows[index]` is float32, on the device. Held there where it takes at most `memory`
    bytes; on a CPU it is mapped, and the system's page cache, shared by all jobs, is what holds it."""

    def __init__(self, kept: np.memmap, device: torch.device, memory: int, *, channels_last: bool) -> None:
        self.kept, self.device, self.channels_last = kept, device, channels_last
        held = device.type != "cpu" and kept.nbytes <= memory
        self._on_device = torch.from_numpy(np.array(kept)).to(device) if held else None

    def __getitem__(self, index: np.ndarray) -> Tensor:
        if self._on_device is None:
            rows = torch.from_numpy(self.kept[index]).to(self.device)
        else:
            rows = self._on_device[torch.from_numpy(index).to(self.device)]
        return rows.permute(0, 3, 1, 2) if self.channels_last else rows


@dataclass(frozen=True)
class Frozen:
    """The first `depth` layers of an encoder, all frozen, and what is kept of them; None: it is computed as needed."""

    depth: int = 0
    training: Rows | None = None
    validation: Rows | None = None

    def after(self, encoder: Encoder, hidden: Tensor) -> Tensor:
        """Features (batch, F) from what the frozen layers put out."""
        return hidden if self.depth == encoder.depths else encoder.after(hidden, self.depth)


def output(encoder: Encoder, pixels: Tensor, depth: int) -> Tensor:
    """What is kept: (batch, channels, h, w) behind layer `depth`, or (batch, F) where that is the last one."""
    hidden = encoder.until(pixels, depth)
    return encoder.after(hidden, depth) if depth == encoder.depths else hidden


def keep(
    model: Classifier, training: Split | None, validation: Split, *, depth: int, files: SharedFiles, memory: int = 0
) -> Frozen:
    """The output of the first `depth` layers, found or computed now, as far as there is room. `training` None: its
    images change from epoch to epoch. `memory`: see `Rows`."""
    if depth == 0:
        return Frozen()
    rows = None if training is None else _rows(model, training, depth, files, memory)
    return Frozen(depth, rows, _rows(model, validation, depth, files, memory))


def _rows(model: Classifier, split: Split, depth: int, files: SharedFiles, memory: int) -> Rows | None:
    encoder, device = model.encoder, next(model.parameters()).device

    def put_out(index: np.ndarray) -> Tensor:
        return output(encoder, to_pixels(batch_of(split, index)[0], device), depth)

    def parts() -> Iterator[np.ndarray]:
        return (_array(part, last) for part in _in_parts(put_out, len(split), files.tell))

    with evaluating(model), torch.no_grad():
        first = put_out(np.arange(min(PROBE_IMAGES, len(split))))
        last = not first.is_contiguous()  # then the channels come last, and the layers behind expect them there
        probe = _array(first, last)
        key = _key(encoder, split, depth, probe)
        kept = files.get(key, (len(split), *probe.shape[1:]), DTYPE, parts)
    return None if kept is None else Rows(kept, device, memory, channels_last=last)


def _array(hidden: Tensor, channels_last: bool) -> np.ndarray:
    array: np.ndarray = (hidden.permute(0, 2, 3, 1) if channels_last else hidden).cpu().numpy()
    return array


def _in_parts(
    put_out: Callable[[np.ndarray], Tensor], count: int, tell: Callable[[str], None]
) -> Iterator[Tensor]:
    for index in np.array_split(np.arange(count), -(-count // BATCH)):
        tell(f"frozen features, {index[0] / count:.0%}")
        yield put_out(index)


def _key(encoder: Encoder, split: Split, depth: int, probe: np.ndarray) -> str:
    """Names everything that the output depends on; of code, library and device by their output on the first images."""
    weights = hashlib.sha256()
    for number, stage in enumerate(encoder.stages(depth)):
        for name, value in stage.state_dict().items():
            array = value.cpu().numpy()
            weights.update(repr((number, name, array.shape, str(array.dtype))).encode())
            weights.update(np.ascontiguousarray(array).data)
    normalize = encoder.normalize
    return digest({
        "weights": weights.hexdigest(), "depth": depth,
        "mean": normalize.mean.flatten().tolist(), "std": normalize.std.flatten().tolist(),
        "image_size": normalize.image_size, "resize": normalize.resize,
        "images": _sha256(split.images), "output": _sha256(probe),
    })  # fmt: skip


def _sha256(array: np.ndarray) -> str:
    found = hashlib.sha256(repr((array.shape, str(array.dtype))).encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
