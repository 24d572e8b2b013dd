"""A sampling profiler inside the process, of nothing but the standard library.

The kernel's profiling timer goes off each time the process has used so much CPU, in the thread that used it, and
`faulthandler` writes that thread's stack from within the signal handler: also in native code, and without the
interpreter's lock, so that no place is favoured. It samples while the file BASE.on exists, into BASE.traces.
"""

import faulthandler
import signal
import threading
import time
from pathlib import Path
from typing import Final

#: Seconds of CPU between two samples; the kernel rounds up to its tick.
INTERVAL: Final = 0.004


class Sampler(threading.Thread):
    """Switches the timer on and off for as long as the process lives."""

    def __init__(self, base: str) -> None:
        super().__init__(name="sampler", daemon=True)
        self._on, self._out = Path(f"{base}.on"), Path(f"{base}.traces")

    def run(self) -> None:
        """Sample whenever the file exists."""
        while True:
            self._await(True)
            with self._out.open("w") as out:
                faulthandler.register(signal.SIGPROF, file=out, all_threads=False)
                signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
                self._await(False)
                signal.setitimer(signal.ITIMER_PROF, 0)
                time.sleep(0.1)  # a signal that is on its way would end the process
            self._out.rename(self._out.with_suffix(".done"))

    def _await(self, exists: bool) -> None:
        while self._on.exists() is not exists:
            time.sleep(0.05)
