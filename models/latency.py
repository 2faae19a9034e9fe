"""How long a prediction of one image takes on this machine's processor."""

from __future__ import annotations

import copy
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from models.int8_kernels import available, on_integers
from models.registry import Classifier

WARM_UP = 3
MOST_PREDICTIONS, FEWEST_PREDICTIONS = 50, 5
LONGEST_SECONDS = 3.0


def prediction_latency(model: Classifier) -> dict[str, Any]:
    """The median over predictions of one image and one draw, one after another, on the CPU as it is.

    `{"p50_ms": 1.8, "predictions": 50, "batch": 1, "threads": 1, "machine": "AMD EPYC", "kernels": "int8"}`. Whoever
    else works on the machine is in it. `kernels`: float32, int8, or simulated for int8 where there are none. The
    network is left as it was.
    """
    fast = model.spec.precision == "int8" and available()
    network = on_integers(model) if fast else copy.deepcopy(model).cpu().eval()
    pixels = torch.full((1, *model.spec.image_shape), 0.5)
    generator = torch.Generator().manual_seed(0)
    took: list[float] = []
    began = time.perf_counter()
    with torch.inference_mode():
        for number in range(WARM_UP + MOST_PREDICTIONS):
            if len(took) >= FEWEST_PREDICTIONS and time.perf_counter() - began > LONGEST_SECONDS:
                break
            start = time.perf_counter()
            network(pixels, generator=generator)
            if number >= WARM_UP:
                took.append(time.perf_counter() - start)
    kernels = "int8" if fast else "float32" if model.spec.precision == "float32" else "simulated"
    return {
        "p50_ms": round(1000 * statistics.median(took), 3), "predictions": len(took), "batch": 1,
        "threads": torch.get_num_threads(), "machine": processor(), "kernels": kernels,
    }


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
