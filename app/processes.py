"""Processes of this machine, and the GPUs they may use."""

import os
import signal
import threading
import time
from functools import cache
from pathlib import Path

_LOOK_SECONDS = 0.5


def end_with_parent(parent: int, how: signal.Signals) -> None:
    """Starts a thread that sends this process `how` once its parent has died, however it died."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), how)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def visible_gpus() -> list[str]:
    """NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, without loading torch."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [d.strip() for d in allowed.split(",") if d.strip() not in ("", "-1")]
    found = [p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*")]
    return sorted((d for d in found if d.isdigit()), key=int)


def gpu_memory() -> tuple[int, int] | None:
    """Bytes in use, by anybody, and bytes in all of the first GPU that this process may use; None: not to be known."""
    gpus = visible_gpus()
    if not gpus:
        return None
    import pynvml

    try:
        _open_nvml()
        by_index = gpus[0].isdigit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(int(gpus[0])) if by_index else pynvml.nvmlDeviceGetHandleByUUID(gpus[0])
        memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
    except pynvml.NVMLError:
        return None
    return int(memory.used), int(memory.total)


@cache
def _open_nvml() -> None:
    import pynvml

    pynvml.nvmlInit()
