"""The stack: broker, ClickHouse, collector and workers as child processes, in the order of the path.

The embedded broker keeps its log only as long as it lives. When it dies, a new log with a new identity takes its place:
the workers start again on it, the collector's journal sends again what was not stored, and what was stored is
recognised. On a Kafka of the user's own nothing of that is needed, and the stack runs the other parts only.
"""

import asyncio
import fcntl
import itertools
import os
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

import httpx
import structlog

from headrace.detours import DetourSettings
from headrace.embedded.broker import BrokerError
from headrace.endpoints import DROP_REQUESTS, Endpoints
from headrace.runfile import RunFile, read_run_file, remove_run_file, write_run_file
from headrace.stack_logs import READY_SECONDS, EmbeddedLog, KafkaLog, StackLog
from headrace.supervisor import STOP_SECONDS, Child, ChildFailed, ChildKilled, Program
from schemas.settings import ClickHouseSettings
from schemas.tenants import TenantsError, load_tenants, write_tenants
from schemas.topics import TopicError
from streams.settings import WorkerSettings
from warehouse.client import ClickHouse
from warehouse.migrate import Target, apply_migrations, set_retention

log = structlog.get_logger(__name__)
FIRST_COMPANY: Final = "demo"
#: A program that is killed while it starts is started again so often; one that ends by itself is not.
_KILLED_STARTS: Final = 3
_DROP_SECONDS: Final = 2.0
_RESTART_SECONDS: Final = (0.2, 0.5, 1, 2, 5, 10)


class StackError(Exception):
    """The stack cannot start; one sentence that says what is wrong, where, and what to do."""


class Stack:
    """Starts, watches and stops the whole; `workers` of them share one consumer group.

    `broker` is the address of a Kafka of the user's own; "": the embedded one.
    """

    def __init__(self, port_base: int, data: Path, workers: int, broker: str = "") -> None:
        self.data = data
        self.tenants_file = data / "tenants.yaml"
        self.read_token = ""
        self._port_base = port_base
        self._group = WorkerSettings().consumer_group
        self._lock: IO[str] | None = None
        embedded = EmbeddedLog(data, port_base + 3, self._log_file("broker"), workers)
        self._log: StackLog = KafkaLog(broker) if broker else embedded
        self.endpoints = replace(Endpoints.at(port_base), broker=self._log.address)
        self._stopping = asyncio.Event()
        self._replaced: set[Child] = set()
        self._on_log = asyncio.Lock()
        self._watches: set[asyncio.Task[None]] = set()
        names = ["worker", *(f"worker-{number}" for number in range(2, workers + 1))]
        self._ports = {"collector": port_base, "clickhouse": port_base + 2}
        self._ports |= {"broker": port_base + 3} if self._log.forgets else {}
        self._ports |= {name: port_base + 4 + number for number, name in enumerate(names)}
        self._children: dict[str, Child] = {}
        self._worker_names = names
        self._started = False

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by program."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    async def start(self) -> None:
        """Bring everything up, in order; raises StackError."""
        self._take_data_folder()
        await self._await_predecessor()
        self._check_ports()
        self._ensure_tenants()
        try:
            await self._start_clickhouse()
            await self._log.open(self._run)
            await asyncio.gather(self._start_collector(), self._start_workers())
        except (BrokerError, ChildFailed, TopicError) as error:
            raise StackError(str(error)) from error
        for name in self._children:
            watch = asyncio.create_task(self._watch(name), name=f"watch {name}")
            self._watches.add(watch)
        self._watches.add(asyncio.create_task(self._free_stored(), name="free what is stored"))
        self._started = True
        self._note()

    async def stop(self) -> None:
        """End everything in the order of the path, so that each part can hand on what it has."""
        self._stopping.set()
        for name in ("collector", *self._worker_names, "broker", "clickhouse"):
            if name in self._children:
                # The broker would write a snapshot that nobody reads.
                await self._children[name].stop(0.0 if name == "broker" else STOP_SECONDS)
        await asyncio.gather(*self._watches, return_exceptions=True)
        noted = read_run_file(self._port_base)
        if noted and noted["supervisor"] == os.getpid():  # a stack that could not start leaves another's note alone
            remove_run_file(self._port_base)
        if self._lock:
            self._lock.close()

    def _take_data_folder(self) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.data / ".lock", "w")  # noqa: SIM115 - held until the stack stops
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(f"Another `headrace up` runs on {self.data}; stop it, or give another --data.") from error
        except OSError as error:
            why = error.strerror or error
            raise StackError(f"The data folder {self.data} cannot be used ({why}); give another --data.") from error

    async def _await_predecessor(self) -> None:
        """A stack whose supervisor was killed is ending now; give it the time to."""
        noted = read_run_file(self._port_base)
        for _ in range(150):
            if noted is None or not any(map(_is_alive, noted["pids"].values())) or _is_alive(noted["supervisor"]):
                return
            await asyncio.sleep(0.1)

    def _check_ports(self) -> None:
        for name, port in self._ports.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise StackError(
                        f"Port {port}, for the {name}, is taken; stop what listens there, or give another --port-base."
                    ) from error

    def _ensure_tenants(self) -> None:
        if not self.tenants_file.exists():
            self.read_token = secrets.token_urlsafe(24)
            write_tenants(self.tenants_file, FIRST_COMPANY, secrets.token_urlsafe(24), self.read_token)
        try:
            load_tenants(self.tenants_file)
        except TenantsError as error:
            raise StackError(str(error)) from error

    async def _start_clickhouse(self) -> None:
        port = self._ports["clickhouse"]
        command = [sys.executable, "-m", "headrace.embedded.clickhouse", "--path", str(self.data / "clickhouse")]
        ready = _answers(f"{self.endpoints.clickhouse_url}/ping")
        await self._run(Program("clickhouse", [*command, "--port", str(port)], {}, self._log_file("clickhouse")), ready)
        settings = ClickHouseSettings(clickhouse_url=self.endpoints.clickhouse_url)
        client = ClickHouse(settings)
        target = Target(settings.clickhouse_database, retention_months=settings.retention_months)
        applied = await asyncio.to_thread(apply_migrations, client, target)
        await asyncio.to_thread(set_retention, client, target, load_tenants(self.tenants_file).retention_months)
        client.close()
        log.debug("migrated", applied=applied)

    async def _start_workers(self) -> None:
        """One after the other: of two that join the embedded broker's group at once, one may wait for ever."""
        for name in self._worker_names:
            await self._start_worker(name)

    async def _start_collector(self) -> None:
        environment = {
            **self._environment(),
            "HEADRACE_COLLECTOR_PORT": str(self._ports["collector"]),
            "HEADRACE_JOURNAL_DIR": str(self.data / "journal"),
        }
        program = Program("collector", _headrace("collector"), environment, self._log_file("collector"))
        await self._run(program, _answers(f"{self.endpoints.collector_url}/readyz"))

    async def _start_worker(self, name: str) -> None:
        port = self._ports[name]
        fixed = name if self._log.forgets else ""  # of two workers without fixed names, one takes over from the other
        environment = {**self._environment(), "HEADRACE_WORKER_PORT": str(port), "HEADRACE_WORKER_NAME": fixed}
        program = Program(name, _headrace("worker"), environment, self._log_file(name))
        await self._run(program, _answers(f"http://127.0.0.1:{port}/readyz"))

    def _environment(self) -> dict[str, str]:
        detours = DetourSettings()
        return {
            **self._log.environment,
            **({"HEADRACE_BROKER": detours.up_broker} if detours.up_broker else {}),
            "HEADRACE_CLICKHOUSE_URL": detours.up_clickhouse_url or self.endpoints.clickhouse_url,
            "HEADRACE_TENANTS_FILE": str(self.tenants_file),
            "HEADRACE_LOG_FORMAT": "json",
        }

    def _log_file(self, name: str) -> Path:
        return self.data / "logs" / f"{name}.log"

    async def _run(self, program: Program, is_ready: Callable[[], bool]) -> None:
        for kills in itertools.count(1):
            child = self._children[program.name] = Child(program)
            await child.start()
            self._note()
            try:
                await child.until_ready(is_ready, READY_SECONDS)
                return
            except ChildKilled:
                if kills > _KILLED_STARTS or child in self._replaced or self._stopping.is_set():
                    raise
                log.warning("child_killed", child=program.name)

    async def _watch(self, name: str) -> None:
        """Start the program again whenever it ends, more slowly each time it ends again soon."""
        attempt = 0
        while not self._stopping.is_set():
            child = self._children[name]
            started = asyncio.get_running_loop().time()
            code = await child.wait()
            if self._stopping.is_set():
                return
            if child in self._replaced:
                await self._is_replaced(name, child)
                self._replaced.discard(child)
                continue
            attempt = 0 if asyncio.get_running_loop().time() - started > 60 else attempt + 1
            log.warning("child_ended", child=name, status=code, words=child.last_words())
            if name in self._worker_names:
                await self._log.remove_member(self._group, name)
            await asyncio.sleep(_RESTART_SECONDS[min(attempt, len(_RESTART_SECONDS)) - 1] if attempt else 0)
            try:
                await self._restart(name, child)
            except Exception as error:  # whatever keeps it from starting, it is tried again
                log.error("child_not_started", child=name, error=str(error) or repr(error))

    async def _restart(self, name: str, ended: Child) -> None:
        if self._stopping.is_set():
            return
        if name == "broker":
            await self._renew_log()
        elif name == "clickhouse":
            await self._start_clickhouse()
        elif name == "collector":
            await self._start_collector()
        else:
            await self._restart_worker(name, ended)
        self._note()

    async def _is_replaced(self, name: str, ended: Child) -> bool:
        """Whether another is in its place, which may die in its turn; waits while somebody may be about to put one."""
        while self._children[name] is ended and self._on_log.locked():  # noqa: ASYNC110 - either may end it
            await asyncio.sleep(0.1)
        return self._children[name] is not ended

    async def _restart_worker(self, name: str, ended: Child) -> None:
        # Where the log was renewed meanwhile, another has taken its place. A second one would be watched by nobody.
        if await self._is_replaced(name, ended):
            return
        async with self._on_log:
            if self._children[name] is ended and not self._stopping.is_set():
                await self._start_worker(name)

    async def _renew_log(self) -> None:
        """A broker that died took its log with it: workers of the old log must not meet the new one."""
        await self._kill_workers()  # the start of one that is starting fails, and lets go of the lock
        async with self._on_log:
            await self._kill_workers()
            await self._drop_requests()
            await self._log.open(self._run)
            await self._start_workers()

    async def _kill_workers(self) -> None:
        """Without a broker they would not end gently."""
        workers = [self._children[name] for name in self._worker_names if name in self._children]
        self._replaced.update(workers)
        await asyncio.gather(*(worker.stop(0.0) for worker in workers))

    async def _drop_requests(self) -> None:
        """An insert of theirs that is still on its way would come after the new log's workers took its block for lost.

        Waits for ClickHouse; one that has died has no connections.
        """
        async with httpx.AsyncClient(timeout=_DROP_SECONDS) as client:
            while not self._stopping.is_set():
                try:
                    (await client.post(self.endpoints.clickhouse_url + DROP_REQUESTS)).raise_for_status()
                    return
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    log.warning("clickhouse_awaited", error=repr(error))
                    await asyncio.sleep(_RESTART_SECONDS[0])

    async def _free_stored(self) -> None:
        while not self._stopping.is_set():
            await self._log.drop_stored(self._group)
            await asyncio.sleep(1)

    def _note(self) -> None:
        content: RunFile = {
            "supervisor": os.getpid(),
            "data": str(self.data.resolve()),
            "tenants_file": str(self.tenants_file.resolve()),
            "broker": self._log.address,
            "log_forgets": self._log.forgets,
            "workers": len(self._worker_names),
            "started": self._started,
            "pids": self.pids,
        }
        write_run_file(self._port_base, content)


def _headrace(command: str) -> list[str]:
    return [sys.executable, "-m", "headrace", command]


def _answers(url: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            return httpx.get(url, timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    return is_ready


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
