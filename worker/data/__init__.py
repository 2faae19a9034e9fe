"""Images as arrays: decoded once, memory-mapped, split, augmented."""

from worker.data.arrays import Arrays, Split, load

__all__ = ["Arrays", "Split", "load"]
