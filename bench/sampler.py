"""A sampling profiler inside the process, of nothing but the standard library.

A thread looks some hundred times a second at the stack of every other thread, and charges it with the CPU that its
thread has used since the last look, native code included. What a thread used before it began to wait is charged to the
wait, because that is where it is found: `bench.traces` gives it to what the thread was seen doing at other times.

It samples while the file BASE.on exists, then writes BASE.stacks: `thread;frame;…;frame nanoseconds` a line, outermost
frame first, a frame as `function (module)`.
"""

import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

INTERVAL: Final = 0.003
#: How long the sampler lets another thread keep the interpreter's lock: longer, and short tasks are never seen.
_SWITCH_SECONDS: Final = 0.0001
_NOTHING: Final = 10_000  # ns; a thread that used less did not run

Stack = tuple[str, ...]


class Sampler(threading.Thread):
    """Samples the process that it runs in, for as long as that lives."""

    def __init__(self, base: str) -> None:
        super().__init__(name="sampler", daemon=True)
        self._on, self._out = Path(f"{base}.on"), Path(f"{base}.stacks")
        self._used: Counter[Stack] = Counter()
        self._clocks: dict[int, int] = {}
        self._names: dict[CodeType, str] = {}

    def run(self) -> None:
        """Wait for the file, sample, write, again and again."""
        while True:
            while not self._on.exists():
                time.sleep(0.05)
            usual = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_SECONDS)
            self._look()
            self._used.clear()
            while self._on.exists():
                time.sleep(INTERVAL)
                self._look()
            sys.setswitchinterval(usual)
            draft = self._out.with_suffix(".draft")
            draft.write_text("".join(f"{';'.join(stack)} {used}\n" for stack, used in self._used.items()))
            draft.rename(self._out)

    def _look(self) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident == self.ident:
                continue
            try:
                used = time.clock_gettime_ns(time.pthread_getcpuclockid(ident))
            except OSError:  # it ended meanwhile
                continue
            spent = used - self._clocks.get(ident, used)
            self._clocks[ident] = used
            if spent > _NOTHING:
                self._used[(names.get(ident, str(ident)), *self._frames(frame))] += spent

    def _frames(self, frame: FrameType | None) -> Stack:
        frames = []
        while frame is not None:
            code = frame.f_code
            name = self._names.get(code)
            if name is None:
                name = f"{code.co_qualname} ({frame.f_globals.get('__name__', '?')})".replace(";", ",")
                self._names[code] = name
            frames.append(name)
            frame = frame.f_back
        return tuple(reversed(frames))
