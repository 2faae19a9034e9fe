"""Seeds that set everything. Random numbers are drawn from generators keyed by what they are for, so
that a resumed training draws what an uninterrupted one would, without any saved generator state."""

import hashlib

import torch


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed that depends on every part and on nothing else: `derive_seed("order", seed, epoch)`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def generator(*parts: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator of one's own, keyed by the parts."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


def make_deterministic(threads: int) -> None:
    """Same bits for the same inputs on this machine, with this number of threads: sums depend on it.

    On a GPU an operation without a deterministic kernel warns instead of failing: the gradient of the resize
    to 224 pixels has none.
    """
    torch.set_num_threads(threads)
    # Not `use_deterministic_algorithms`, which is the same but imports torch's compiler first: 1.4 s of every job.
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    torch.backends.cudnn.benchmark = False
