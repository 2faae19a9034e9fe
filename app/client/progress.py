"""What a waiting program may show."""

import sys
from typing import Any


def show_progress(now: dict[str, Any]) -> None:
    """One line on standard error that is written anew: `exp_...: running, 43 %, 12 s left`. For `Client.wait`."""
    left = now.get("eta_seconds")
    text = f"{now['id']}: {now['state']}, {now['progress']:.0%}" + (f", {left:.0f} s left" if left else "")
    sys.stderr.write(f"\r{text:<76}")
    if now["state"] in ("succeeded", "failed", "cancelled", "partial"):
        sys.stderr.write("\n")
    sys.stderr.flush()
