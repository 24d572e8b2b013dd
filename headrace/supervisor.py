"""Child processes that stay up: started, watched, started again when they die, ended in order."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import structlog

log = structlog.get_logger(__name__)
_PR_SET_PDEATHSIG: Final = 1
_TAIL_BYTES: Final = 4_000
STOP_SECONDS: Final = 20.0


class ChildFailed(Exception):
    """A child did not come up; the message says which, and the last it logged.

    └── ChildKilled
    """


class ChildKilled(ChildFailed):
    """It was ended by a signal, and not by anything that is wrong with it."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: its name in logs and status, the command line, variables beside our own, and its log file."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path


class Child:
    """One running program. It ends with this process (on Linux) and does not hear the terminal's Ctrl-C."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.restarts = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the program; its output is appended to its log file."""
        with _opened(self.program.log_file) as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.program.environment},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None, "start() comes first"
        return await self._process.wait()

    async def stop(self, patience: float = STOP_SECONDS) -> None:
        """SIGTERM, then SIGKILL after `patience` seconds; SIGKILL at once where that is 0."""
        if self._process is None or self._process.returncode is not None:
            return
        gently = [(signal.SIGTERM, patience)] if patience else []
        for number, seconds in (*gently, (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), seconds)
                return
        log.error("child_does_not_end", child=self.program.name, pid=self._process.pid)

    async def until_ready(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait until it answers; raises ChildFailed when it ends first (killed: ChildKilled) or takes longer."""
        assert self._process is not None, "start() comes first"
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            if self._process.returncode is not None:
                code = self._process.returncode
                failure = ChildKilled if code < 0 else ChildFailed
                raise failure(f"The {self.program.name} ended with status {code}. {self.last_words()}")
            if await asyncio.to_thread(is_ready):
                return
            await asyncio.sleep(0.1)
        raise ChildFailed(f"The {self.program.name} was not ready after {seconds:.0f} s. {self.last_words()}")

    def last_words(self) -> str:
        """The last line of the log file, and where the rest is."""
        with contextlib.suppress(OSError), open(self.program.log_file, "rb") as output:
            output.seek(max(0, self.program.log_file.stat().st_size - _TAIL_BYTES))
            lines = output.read().decode(errors="replace").strip().splitlines()
            if lines:
                return f"It said: {lines[-1]} (all of it: {self.program.log_file})"
        return f"It said nothing in {self.program.log_file}."


def _opened(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "ab")


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
