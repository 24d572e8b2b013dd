"""The log that a stack runs on: the embedded broker, or a Kafka of yours. All that differs between them is here."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import structlog
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from headrace.embedded.broker import TOPIC_CONFIG, EmbeddedBroker
from headrace.log_topics import ensure_set_topics
from headrace.supervisor import Program
from schemas.settings import BrokerSettings
from schemas.topics import SPECS, TopicError, ensure_topics
from streams.settings import WorkerSettings

log = structlog.get_logger(__name__)

READY_SECONDS: Final = 60.0
#: Of a data folder that does not say.
_PARTITIONS_BEFORE: Final = 4
_BLOCK_OF_ONE_PARTITION: Final = 12_000_000
_TELL_SECONDS: Final = 2.0
#: Starts a program and returns once the function says that it is ready.
Run = Callable[[Program, Callable[[], bool]], Awaitable[None]]


class StackLog(Protocol):
    """What a stack asks of its log.

    `forgets`: the log is gone when its broker dies. Then the stack runs the broker, a new log takes the place of the
    lost one, and workers keep fixed names. `environment` is what collector and workers get to work with this log.
    """

    @property
    def address(self) -> str: ...

    @property
    def forgets(self) -> bool: ...

    @property
    def environment(self) -> Mapping[str, str]: ...

    async def open(self, run: Run) -> None:
        """Start the broker where it is the stack's, and return once every topic is served.

        Raises BrokerError, ChildFailed and TopicError.
        """

    async def drop_stored(self, group: str) -> None:
        """Free what the workers have stored, where nothing else does; to be called about once a second."""

    async def remove_member(self, group: str, worker: str) -> None:
        """Tell the group, where it does not see that in time, that a worker has ended."""


class EmbeddedLog:
    """A new, empty log at each `open`, in the memory of a broker that the stack runs.

    `data` is the stack's folder, which keeps the number of partitions that it began with: a partition's unfinished
    blocks are found by its number, and a journal's progress in the ledger holds for one number of partitions.
    """

    forgets = True

    def __init__(self, data: Path, port: int, log_file: Path, workers: int = 1) -> None:
        self._data, self._workers = data, workers
        self._broker, self._log_file = EmbeddedBroker(data / "broker", port), log_file
        self.address = self._broker.address
        self.environment: dict[str, str] = {
            "HEADRACE_BROKER": self.address,
            "HEADRACE_BROKER_SECURITY": "PLAINTEXT",
            "HEADRACE_LOG_ID": "",
            "HEADRACE_JOURNAL": "always",
        }

    async def open(self, run: Run) -> None:
        """As in StackLog."""
        partitions = note_partitions(self._data, self._workers)
        self.environment |= block_settings(partitions, self._workers)
        self._broker.prepare(uuid.uuid4())
        program = Program("broker", self._broker.command(), {}, self._log_file)
        await run(program, self._broker.is_ready)
        await ensure_topics(self.address, dict.fromkeys(SPECS, partitions), TOPIC_CONFIG, READY_SECONDS)

    async def drop_stored(self, group: str) -> None:
        """The broker keeps its log in memory, and pays for every byte of it."""
        with suppress(KafkaError, OSError):
            await self._broker.drop_committed(group)

    async def remove_member(self, group: str, worker: str) -> None:
        """The broker would wait half a minute for each that was killed, while the group forms anew."""
        with suppress(KafkaError, OSError):
            async with asyncio.timeout(_TELL_SECONDS):  # a worker is not started later because the broker hangs
                await self._broker.remove_member(group, worker)


class KafkaLog:
    """A Kafka that runs by itself and keeps what it acknowledged; SASL and TLS by the environment's settings."""

    forgets = False

    def __init__(self, address: str) -> None:
        self.address = address
        self.environment = {"HEADRACE_BROKER": address, "HEADRACE_JOURNAL": "when_away"}

    async def open(self, run: Run) -> None:  # noqa: ARG002 - nothing to run
        """As in StackLog."""
        await ensure_set_topics(BrokerSettings(broker=self.address), READY_SECONDS)

    async def drop_stored(self, group: str) -> None:
        """Nothing: the topics' retention does."""

    async def remove_member(self, group: str, worker: str) -> None:
        """Nothing: a session that ends does."""


def note_partitions(data: Path, workers: int) -> int:
    """How many partitions the embedded log of a data folder has, noted in it: set, or as before, or one a worker.

    Each partition has blocks of its own, and a block costs ClickHouse about 0.1 s however small it is. Raises
    TopicError where the note is no such number.
    """
    note, settings = data / "partitions", BrokerSettings()
    if "partitions" in settings.model_fields_set:
        partitions = settings.partitions
    elif note.exists():
        partitions = _noted(note)
    else:
        partitions = _PARTITIONS_BEFORE if (data / "broker").exists() else workers
    note.write_text(f"{partitions}\n")
    if workers > partitions:
        log.warning("workers_idle", workers=workers, partitions=partitions)
    return partitions


def block_settings(partitions: int, workers: int) -> dict[str, str]:
    """What the workers of an embedded log are told of blocks, where nobody set it.

    Where each has one partition, blocks are larger: that costs an event less, and three blocks of a partition are in
    memory. Several workers store one each at a time, since all share the cores with ClickHouse.
    """
    told, said = dict[str, str](), WorkerSettings().model_fields_set
    if partitions <= workers and "block_max_bytes" not in said:
        told["HEADRACE_BLOCK_MAX_BYTES"] = str(_BLOCK_OF_ONE_PARTITION)
    if workers > 1 and "blocks_at_once" not in said:
        told["HEADRACE_BLOCKS_AT_ONCE"] = "1"
    return told


def _noted(note: Path) -> int:
    text = note.read_text(errors="replace").strip()
    try:
        return BrokerSettings.model_validate({"partitions": text}).partitions
    except ValidationError as error:
        raise TopicError(
            f"{note} holds {text[:40]!r} where the number of partitions of the folder's log belongs, 1 to 10000: write "
            "the number that it had into it (one a worker at first, unless it was set), or set HEADRACE_PARTITIONS."
        ) from error
