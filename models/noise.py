"""Where random numbers come from: torch's generators, or one keyed by image.

A measurement on a stochastic network repeats only if its noise does not depend on how the images were
batched. `KeyedNoise` therefore computes each number from (the image's key, the number of the call, the
position within the image) with a counter-based generator: Philox-2x32, ten rounds (Salmon, Moraes, Dror &
Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", doi 10.1145/2063384.2063405). It has no state to
advance, so a subset of the images, in any order and any batch, gets the very same numbers.

    keys = image_keys(seed=0, stream="pgd", ids=torch.tensor([17, 4]))
    KeyedNoise(keys).uniform(20, 2, 64)             # (draws, batch, 64)
    KeyedNoise(keys).uniform_per_image(3, 32, 32)   # (batch, 3, 32, 32)
"""

from __future__ import annotations

import hashlib
import math
from typing import TypeAlias

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF
_MULTIPLIER = 0xD256D193  # Philox-2x32's round multiplier
_WEYL = 0x9E3779B9  # and what its key grows by each round
_ROUNDS = 10
_BLOCKS_AT_ONCE = 32768  # int64 blocks held at a time on a CPU: 256 KiB a buffer, so the rounds stay in cache


def uniform(
    shape: tuple[int, ...],
    *,
    generator: torch.Generator | KeyedNoise | None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Numbers uniform on [0, 1) of `shape`, (draws, batch, *rest) when the generator is a KeyedNoise.

    A half-precision dtype gets float32: rounded to eight bits, a number would reach 1 and draws would be
    biased. A torch.Generator may live on another device than `device`; None means torch's global one.
    """
    wide = torch.promote_types(dtype, torch.float32)
    if isinstance(generator, KeyedNoise):
        draws, batch, *rest = shape
        return generator.uniform(draws, batch, *rest).to(device=device, dtype=wide)
    source = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=source, dtype=wide).to(device)


def image_keys(seed: int, stream: str | int, ids: Tensor, step: int = 0) -> Tensor:
    """One 64-bit key an image, int64 (batch,), from the seed, the stream's name, the image ids and the step.

    Stable over processes, machines and versions of Python. ids: int64 (batch,), on any device.
    """
    text = repr((int(seed), stream, int(step))).encode()
    base = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)
    return _mix(_mix(ids.to(torch.int64)) ^ base)


class KeyedNoise:
    """Random numbers that belong to images, not to places in a batch.

    keys: int64 (batch,), as `image_keys` makes them. Every call of a method takes the next call number, so
    two calls give independent numbers, and a second KeyedNoise of the same keys repeats them in order. The
    draw is the slowest position: 8 draws are the first 8 of 32.
    """

    def __init__(self, keys: Tensor, *, calls: int = 0) -> None:
        if keys.dtype != torch.int64 or keys.dim() != 1:
            raise ValueError(f"keys must be int64 of shape (batch,), got {keys.dtype} {tuple(keys.shape)}")
        self.keys = keys
        self.calls = calls

    def __repr__(self) -> str:
        return f"KeyedNoise(batch={len(self.keys)}, calls={self.calls})"

    def select(self, index: Tensor) -> KeyedNoise:
        """The noise of the images that `index` (int64 indices or a bool mask) picks, at the same call number."""
        return KeyedNoise(self.keys[index], calls=self.calls)

    def uniform(self, draws: int, batch: int, *rest: int) -> Tensor:
        """float32 in [0, 1) with 24 random bits each, (draws, batch, *rest)."""
        self._check(batch)
        return self._numbers(draws, rest, torch.float32)

    def uniform_per_image(self, *rest: int) -> Tensor:
        """float32 in [0, 1), (batch, *rest)."""
        return self._numbers(1, rest, torch.float32)[0]

    def normal_per_image(self, *rest: int) -> Tensor:
        """float32 standard normal, (batch, *rest), by Box & Muller (1958, doi 10.1214/aoms/1177706645)."""
        radius, angle = self._numbers(2, rest, torch.float32)
        return torch.sqrt(-2 * torch.log(1 - radius)) * torch.cos(2 * math.pi * angle)

    def signs_per_image(self, *rest: int) -> Tensor:
        """float32 -1 or +1 with equal chance, (batch, *rest)."""
        return (self.uniform_per_image(*rest) < 0.5).to(torch.float32).mul_(-2).add_(1)

    def integers_per_image(self, high: int, *rest: int) -> Tensor:
        """int64 in 0 .. high - 1, (batch, *rest); 1 <= high <= 2^31. Uneven by less than high / 2^32."""
        if not 1 <= high <= 2**31:
            raise ValueError(f"high must be 1 to 2**31, got {high}")
        words = self._numbers(1, rest, torch.int64)[0]
        return words.mul_(high).bitwise_right_shift_(32)

    def _check(self, batch: int) -> None:
        if batch != len(self.keys):
            raise ValueError(f"this noise belongs to {len(self.keys)} images, asked for a batch of {batch}")

    def _numbers(self, draws: int, rest: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The next call's numbers (draws, batch, *rest): 32-bit words in int64, or float32 in [0, 1)."""
        stream = _mix(self.keys + _signed(0x9E3779B97F4A7C15 * (self.calls + 1)))
        self.calls += 1
        size = math.prod(rest)
        blocks = (size + 1) // 2
        starts = torch.arange(draws, device=stream.device).mul_(blocks).repeat_interleave(len(stream))
        padded = torch.empty(len(starts), 2 * blocks, dtype=dtype, device=stream.device)
        _fill(padded, stream.repeat(draws), starts)
        return padded[:, :size].reshape(draws, len(stream), *rest)


def _fill(rows: Tensor, streams: Tensor, starts: Tensor) -> None:
    """Fill each row (count, 2 blocks) from its stream, the counter running on from its start."""
    blocks = rows.shape[1] // 2
    at_once = _BLOCKS_AT_ONCE if rows.device.type == "cpu" else max(rows.numel(), 1)
    columns = min(max(blocks, 1), at_once)
    step = max(at_once // columns, 1)
    offsets = torch.arange(blocks, device=rows.device)
    pairs = rows.view(len(rows), blocks, 2)
    for row in range(0, len(rows), step):
        part = slice(row, row + step)
        for column in range(0, blocks, columns):
            span = slice(column, column + columns)
            _fill_block(pairs[part, span], streams[part, None], starts[part, None] + offsets[span])


def _fill_block(pairs: Tensor, streams: Tensor, counters: Tensor) -> None:
    low, high = philox(counters, _word(streams, 32), _word(streams, 0))
    for place, word in enumerate((low, high)):
        if pairs.is_floating_point():
            pairs[..., place] = word.bitwise_right_shift_(8)
        else:
            pairs[..., place] = word
    if pairs.is_floating_point():
        pairs.mul_(2.0**-24)


def philox(low: Tensor, high: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Philox-2x32-10 of the counter (low, high) under `key`: two 32-bit words. All int64 holding 32 bits.

    `low` is overwritten; `high` and `key` broadcast against it.
    """
    other = high.expand_as(low).clone()
    product = torch.empty_like(low)
    for turn in range(_ROUNDS):
        round_key = (key + _WEYL * turn) & _LOW
        torch.mul(low, _MULTIPLIER, out=product)  # wraps as unsigned would: the bits are the same
        torch.bitwise_right_shift(product, 32, out=low)
        low.bitwise_xor_(other).bitwise_xor_(round_key).bitwise_and_(_LOW)  # clears the sign the shift drew in
        torch.bitwise_and(product, _LOW, out=other)
    return low, other


def _word(bits: Tensor, shift: int) -> Tensor:
    return torch.bitwise_right_shift(bits, shift).bitwise_and_(_LOW)


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser, a bijection of 64 bits (Steele, Lea & Flood 2014, doi 10.1145/2660193.2660195)."""
    bits = (bits ^ _shifted(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shifted(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own draws in the sign."""
    return torch.bitwise_right_shift(bits, by).bitwise_and_(2 ** (64 - by) - 1)


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


Generator: TypeAlias = torch.Generator | KeyedNoise | None
