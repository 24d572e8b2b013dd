"""`headrace tail`: what goes through the log, as it goes."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated

import typer
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.text import Text

from headrace.commands.sending_options import StackPortBase
from headrace.endpoints import Endpoints
from headrace.log_identity import BrokerUnavailable
from headrace.registered import registered_codec
from headrace.tailing import ReadRecord, lines_of, read_record
from schemas import topics
from schemas.codec import Codec
from schemas.settings import BrokerSettings


class Topic(StrEnum):
    """The topics whose records can be read."""

    COLLECTED = topics.COLLECTED
    DEAD_LETTER = topics.DEAD_LETTER


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(tail)


def tail(
    topic: Annotated[Topic, typer.Argument(help="What to read.")] = Topic.COLLECTED,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Begin with the oldest records.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many records.", show_default=False)] = None,
    company: Annotated[
        str | None, typer.Option(help="Only this tenant's (companyId); what cannot be read is no one's.")
    ] = None,
    port_base: StackPortBase = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a record.")] = False,
) -> None:
    """Show decoded records of a topic, live, until Ctrl-C.

    Reads beside the workers, without a consumer group, and changes nothing. The embedded broker keeps only what is not
    stored yet, so --from-beginning shows all of a topic on a production log alone.
    """
    broker = BrokerSettings(broker=Endpoints.found(port_base).broker)
    uvloop.run(_tail(topic, broker, registered_codec(broker), from_beginning, limit, company, as_json))


async def _tail(
    topic: Topic,
    broker: BrokerSettings,
    codec: Codec,
    from_beginning: bool,
    limit: int | None,
    company: str | None,
    as_json: bool,
) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    console, shown = Console(highlight=False, soft_wrap=True), 0
    try:
        async with aclosing(_records(topic, broker, codec, from_beginning)) as records:
            async for record in records:
                if company is not None and record.company_id != company:
                    continue
                _print(console, record, as_json)
                shown += 1
                if shown == limit:
                    return
    except asyncio.CancelledError:
        return


async def _records(
    topic: Topic, broker: BrokerSettings, codec: Codec, from_beginning: bool
) -> AsyncGenerator[ReadRecord]:
    consumer = AIOKafkaConsumer(**broker.client_options(), enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        partitions = await _partitions(topic, broker)
        await consumer.start()
        consumer.assign(partitions)
        await (consumer.seek_to_beginning() if from_beginning else consumer.seek_to_end())
        Console(stderr=True).print(f"Reading {topic} at {broker.broker}; Ctrl-C stops.", style="dim", highlight=False)
        async for message in consumer:
            yield read_record(codec, topic.value, message.partition, message.offset, message.key, message.value)
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"The broker at {broker.broker} does not answer: {error!r}.") from error
    finally:
        await consumer.stop()


async def _partitions(topic: Topic, broker: BrokerSettings) -> list[TopicPartition]:
    """All of the topic's; asked for all topics, because asking for one makes some brokers create it."""
    admin = AIOKafkaAdminClient(**broker.client_options())
    try:
        await admin.start()
        for described in await admin.describe_topics():
            if described["topic"] == topic.value:
                return [TopicPartition(topic.value, one["partition"]) for one in described["partitions"]]
    finally:
        await admin.close()
    raise BrokerUnavailable(f"The broker at {broker.broker} has no topic {topic}; `headrace migrate` creates it.")


def _print(console: Console, record: ReadRecord, as_json: bool) -> None:
    if as_json:
        print(record.as_json(), flush=True)
        return
    for style, text in lines_of(record):
        console.print(Text(text, style))
