"""`headrace tail` as a process, on a real broker."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer

from schemas.codec import Codec
from schemas.records import CollectedRecord, DeadLetter
from schemas.topics import COLLECTED, DEAD_LETTER
from tests.contract.broker_fixture import Broker
from tests.contract.outgoing import collected, dead_letter

PROGRAM = """
import typer
from headrace.commands import settings, tail
app = typer.Typer()
tail.register(app)
settings.register(app)
app()
"""
CODEC = Codec()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    running.start()
    yield running
    running.kill()


@asynccontextmanager
async def tailing(broker: Broker, *arguments: str) -> AsyncIterator[Process]:
    environment = {**os.environ, "HEADRACE_BROKER": broker.options["bootstrap_servers"]}
    command = (sys.executable, "-c", PROGRAM, "tail", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def put(broker: Broker, topic: str, *values: bytes) -> None:
    producer = AIOKafkaProducer(**broker.options)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value, b"acme:v", partition=0)
    finally:
        await producer.stop()


def event(name: str, company: str = "acme") -> bytes:
    record = cast(CollectedRecord, collected("v", name).record)
    return CODEC.encode_collected({**record, "companyId": company})


async def documents(process: Process, count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return [json.loads(await process.stdout.readline()) for _ in range(count)]


async def until_reading(process: Process) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        assert b"Reading" in await process.stderr.readline()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_new_records_are_shown_as_they_come_until_it_is_stopped(broker: Broker, number: signal.Signals) -> None:
    await broker.create_topics()
    await put(broker, COLLECTED, event("old"))
    async with tailing(broker, "--json") as process:
        await until_reading(process)
        await put(broker, COLLECTED, event("new"), b"poison", event("newer"))
        new, poison, newer = await documents(process, 3)
        process.send_signal(number)
        _, error = await process.communicate()
        assert (process.returncode, error) == (0, b"")
    assert [one["record"]["events"][0]["eventId"] for one in (new, newer)] == ["new", "newer"]
    assert (poison["offset"], poison["value"]) == (2, b"poison".hex())


async def test_from_the_beginning_up_to_a_limit_and_of_one_tenant(broker: Broker) -> None:
    await broker.create_topics()
    await put(broker, COLLECTED, *(event(f"e-{n}", "acme" if n % 2 else "bolt") for n in range(10)))
    async with tailing(broker, "--from-beginning", "--limit", "3", "--company", "bolt", "--json") as process:
        out, _ = await process.communicate()
        assert process.returncode == 0
    found = [json.loads(line)["record"]["events"][0]["eventId"] for line in out.splitlines()]
    assert found == ["e-0", "e-2", "e-4"]


async def test_dead_letters_are_shown_to_people(broker: Broker) -> None:
    await broker.create_topics()
    letter = cast(DeadLetter, dead_letter("v", "e-1", b'{"type":"?"}').record)
    await put(broker, DEAD_LETTER, CODEC.encode_dead_letter(letter))
    async with tailing(broker, DEAD_LETTER, "--from-beginning", "--limit", "1") as process:
        out, _ = await process.communicate()
    assert b'acme  invalid_type  -  e-1    {"type":"?"}' in out


async def test_without_its_topic_or_a_broker_it_says_so(broker: Broker) -> None:
    async with tailing(broker) as process:
        _, error = await process.communicate()
        assert process.returncode == 1
        assert b"has no topic events.collected" in error
    broker.kill()
    async with tailing(broker) as process:
        _, error = await process.communicate()
        assert process.returncode == 1
        assert b"does not answer" in error
