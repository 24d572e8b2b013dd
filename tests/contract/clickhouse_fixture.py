"""The ClickHouse the contract suite runs against: an embedded one of its own, or the one at HEADRACE_CLICKHOUSE_URL."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.ports import free_port

START_TIMEOUT = 30.0


class EmbeddedClickHouse:
    """The embedded server as a child process on `path`; its stderr is kept in a file beside the folder."""

    def __init__(self, path: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = path.with_suffix(".log")
        command = [sys.executable, "-m", "headrace.embedded.clickhouse", "--path", str(path), "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)

    def wait_until_ready(self) -> "EmbeddedClickHouse":
        """Return when /ping answers. Raises AssertionError with the log where the process ended instead."""
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                httpx.get(f"{self.url}/ping")
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError(f"No answer from {self.url} in {START_TIMEOUT} s: {self.log.read_text()}")

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(signum)
        code = self.process.wait(30)
        self.stdout = self.process.stdout.read() if self.process.stdout else b""
        if self.process.stdout:
            self.process.stdout.close()
        return code


@contextmanager
def running(path: Path) -> Iterator[EmbeddedClickHouse]:
    """An embedded server that ends with the block, whatever happened to it inside."""
    server = EmbeddedClickHouse(path)
    try:
        yield server.wait_until_ready()
    finally:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


@contextmanager
def clickhouse_url(path: Path) -> Iterator[str]:
    """The URL of the ClickHouse under test."""
    if url := os.environ.get("HEADRACE_CLICKHOUSE_URL"):
        yield url
        return
    with running(path) as server:
        yield server.url
