"""Child processes that leave no orphans."""

import os
import signal
import threading
import time

_LOOK_SECONDS = 0.5


def end_with_parent(parent: int, how: signal.Signals) -> None:
    """Starts a thread that sends this process `how` once its parent has died, however it died."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), how)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
