"""How many images an evaluation attacks at once, and when memory does not suffice all the same.

The first guess is what the activations of a gradient leave room for. Where it was too much, the batch is halved and
the evaluation goes on from the block it was in.

The blocks of images stay as they are, and with them what is stored; results do not depend on the batch but for the
last bits of float32 sums.
"""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from app.domain.errors import JobError
from models.noise import KeyedNoise, image_keys
from models.registry import Classifier
from worker.attacks import Target, frozen

T = TypeVar("T")
# As PyTorch says it where there is no class for it: its allocator of the CPU, cuBLAS and cuDNN, and the driver.
_WORDS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_EVALUATION = "use a device with more memory, or a smaller image_size or architecture, or fewer timesteps"
_ADVICE = {
    "train": "lower training.batch_size or training.image_size, or raise training.freeze_depth",
    "branch": "lower training.batch_size, decoder.timesteps or decoder.hidden",
    "quantise": "lower quantisation.batch_size",
    "shard": _EVALUATION,
    "evaluate": _EVALUATION,
    "verify": _EVALUATION,
    "attack": _EVALUATION,
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what it says, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def too_little(kind: str, device: str, at: str = "") -> str:
    """Why a run of that kind fails, and what to change."""
    return f"out of memory on {device}{at}: {_ADVICE[kind]}; then submit it again"


# For the activations of one gradient. On a CPU too much memory ends the process, where a GPU says so in time. There
# it is a constant: the last bits change with the batch, and a shard on another machine shall have the same.
CPU_BYTES = 2**30
GPU_SHARE = 0.5
DRAWS = 20  # of one gradient, the most that a suite asks for


def fitting_batch(model: Classifier, device: torch.device, most: int) -> int:
    """How many images a gradient of the network can take at once, a power of two or `most`: by their activations, which
    one image more is measured to add."""
    try:
        one, two = (activation_bytes(model, device, images) for images in (1, 2))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return most  # `Batch` finds out, and says what to change
    room = CPU_BYTES
    if device.type == "cuda":
        room = int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    fits = max(room // max(two - one, 1), 1)
    return most if fits >= most else int(2 ** (fits.bit_length() - 1))


def activation_bytes(model: Classifier, device: torch.device, images: int) -> int:
    """What autograd keeps for one gradient of an attack."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def derive(pixels: Tensor, logits: Tensor, _rows: Tensor) -> Tensor:
        return torch.autograd.grad(logits.sum(), pixels)[0]

    with frozen(model), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        target = Target(model, batch_size=images)
        noise = KeyedNoise(image_keys(0, "memory", torch.arange(images, device=device)))
        x = torch.full((images, *model.spec.image_shape), 0.5, device=device)
        target.differentiate(x, derive, draws=target.effective_draws(DRAWS), noise=noise)
    return sum(kept.values())


class Batch:
    """How many images go through the network at once: halved where they do not fit, for the rest of the job.

        clean = batch.fitting(lambda size: evaluate_clean(..., batch_size=size))
    """

    def __init__(self, size: int, kind: str, device: str, halved: Callable[[int], None] = lambda _size: None) -> None:
        self.size, self._kind, self._device, self._halved = size, kind, device, halved

    def fitting(self, work: Callable[[int], T]) -> T:
        """What `work(size)` returns, begun anew with half the size as often as memory runs out.

        Raises JobError where even one image does not fit.
        """
        while True:
            try:
                return work(self.size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.size == 1:
                    raise JobError(too_little(self._kind, self._device, " with one image at a time")) from error
            self._halve()  # only here: the error's traceback held what filled the memory

    def _halve(self) -> None:
        self.size //= 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"out of memory on {self._device}: going on with {self.size} images at once", flush=True)
        self._halved(self.size)
