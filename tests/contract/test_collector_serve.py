"""The collector as a process: it stops without losing a request, and says in a sentence why it cannot start."""

import asyncio
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.collecting import event

PROGRAM = """
import asyncio, sys, uvloop
from collector.app import Collector
from collector.serve import serve
from collector.settings import CollectorSettings
from collector.sink import MemorySink
from tests.collecting import FixedTenants

class SlowSink(MemorySink):
    async def send(self, records):
        print("sending", flush=True)
        await asyncio.sleep(0.5)
        await super().send(records)

    async def close(self):
        print("closed with", len(self.records), flush=True)

async def main():
    return await serve(Collector(FixedTenants(), SlowSink()), CollectorSettings(collector_port=int(sys.argv[1])))

sys.exit(uvloop.run(main()))
"""


@asynccontextmanager
async def started(port: int) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, str(port), stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_with(process: Process, text: str) -> str:
    assert process.stdout is not None
    async for line in process.stdout:
        if text in line.decode():
            return line.decode()
    raise AssertionError(f"The process ended without saying {text!r}.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_request_in_flight_is_finished_before_the_process_ends(number: signal.Signals) -> None:
    async with started(0) as process, httpx.AsyncClient(auth=("wk-acme", ""), timeout=30) as client:
        found = re.search(r"127\.0\.0\.1:(\d+)", await line_with(process, "collector_listens"))
        assert found is not None
        request = asyncio.create_task(client.post(f"http://127.0.0.1:{found[1]}/v1/batch", json=event()))
        await line_with(process, "sending")
        process.send_signal(number)
        assert (await request).json()["accepted"] == 1
        await line_with(process, "closed with 1")
        assert await process.wait() == 0


async def test_a_port_that_is_taken_is_one_sentence_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with started(port) as process:
            out, error = await process.communicate()
    assert process.returncode == 1
    assert error.decode() == (
        f"The collector cannot listen on 127.0.0.1:{port}: Address already in use; free the port or choose another.\n"
    )
    assert b"closed with 0" in out
