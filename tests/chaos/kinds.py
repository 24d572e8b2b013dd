"""Every kind of fault: it begins when its block is entered and has ended when the block is left."""

import contextlib
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeVar

import httpx

from headrace.faults import POINTS
from tests.chaos.ground import SESSION_SECONDS, Ground
from tests.chaos.proxy import Link, Mode

Fault = Callable[[Ground, random.Random], AbstractContextManager[None]]
_T = TypeVar("_T")
_STRANDED_SECONDS: Final = 90.0
_SOURCE: Final = "FROM headrace.events"
_VIEWS: Final = (
    "SELECT name, as_select FROM system.tables WHERE database = 'headrace' AND engine = 'MaterializedView' "
    f"AND as_select LIKE '%{_SOURCE}%' ORDER BY name"
)


def _kill(*names: str) -> Fault:
    """kill -9 of programs; whoever watches them starts them again."""

    @contextmanager
    def fault(ground: Ground, rng: random.Random) -> Iterator[None]:
        for name in names:
            with contextlib.suppress(KeyError, ProcessLookupError):  # it died just now of another fault
                ground.stack.kill(rng.choice(ground.workers or ["worker"]) if name == "worker" else name)
        yield

    return fault


@contextmanager
def _kill_all(ground: Ground, rng: random.Random) -> Iterator[None]:  # noqa: ARG001
    """kill -9 of every program at once, that which watches them included; then the stack is started again."""
    ground.stack.crash()
    yield
    ground.stack.start()


def _pause(name: str) -> Fault:
    """SIGSTOP past the session timeout, SIGCONT: a zombie."""

    @contextmanager
    def fault(ground: Ground, rng: random.Random) -> Iterator[None]:
        program = rng.choice(ground.workers or ["worker"]) if name == "worker" else name
        paused = ground.signal(program, signal.SIGSTOP)
        try:
            yield
            time.sleep(SESSION_SECONDS + 2 if name == "worker" else 1)
        finally:
            if paused:
                ground.signal(program, signal.SIGCONT)

    return fault


def _break(link: Callable[[Ground], Link], mode: Mode) -> Fault:
    @contextmanager
    def fault(ground: Ground, rng: random.Random) -> Iterator[None]:  # noqa: ARG001
        link(ground).set(mode)
        try:
            yield
        finally:
            link(ground).set("pass")

    return fault


def _cut(link: Callable[[Ground], Link]) -> Fault:
    @contextmanager
    def fault(ground: Ground, rng: random.Random) -> Iterator[None]:
        for _ in range(rng.randint(1, 5)):
            link(ground).cut()
            time.sleep(rng.random() / 2)
        yield

    return fault


def _strand(*also: str) -> Fault:
    """Requests to ClickHouse stay on their way until their worker has died and its successor has done their work."""

    @contextmanager
    def fault(ground: Ground, rng: random.Random) -> Iterator[None]:  # noqa: ARG001
        ground.to_clickhouse.set("strand")
        try:
            time.sleep(2)  # for every partition to send one
            for name in (*ground.workers, *also):
                with contextlib.suppress(KeyError, ProcessLookupError):
                    ground.stack.kill(name)
            yield
            ground.recovery(time.monotonic(), _STRANDED_SECONDS)
        finally:
            ground.to_clickhouse.set("pass")

    return fault


def _die_at(point: str) -> Fault:
    """The worker kills itself at a named point of its block."""

    @contextmanager
    def fault(ground: Ground, rng: random.Random) -> Iterator[None]:
        (ground.faults / point).write_text(str(rng.randint(1, 4)))
        yield

    return fault


@contextmanager
def _throwing_view(ground: Ground, rng: random.Random) -> Iterator[None]:
    """One materialized view refuses every row."""
    name, select = rng.choice(_once_back(lambda: ground.rows(_VIEWS)))
    refused = f"{_SOURCE} WHERE throwIf(eventId != '', 'refused') = 0"
    source, more = (f"{_SOURCE} WHERE", " AND") if f"{_SOURCE} WHERE" in select else (_SOURCE, "")
    throwing = select.replace(source, refused + more)
    _alter(ground, f"ALTER TABLE headrace.{name} MODIFY QUERY {throwing}")
    try:
        yield
    finally:
        _alter(ground, f"ALTER TABLE headrace.{name} MODIFY QUERY {select}")


def _alter(ground: Ground, sql: str) -> None:
    try:
        _once_back(lambda: ground.command(sql))
    except httpx.HTTPStatusError as error:
        raise AssertionError(f"{error.response.text}\n{sql}") from error


def _once_back(ask: Callable[[], _T]) -> _T:
    """ClickHouse's answer: another fault may have killed it just now."""
    for _ in range(300):
        try:
            return ask()
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("ClickHouse did not come back.")


@contextmanager
def _full_disk(ground: Ground, rng: random.Random) -> Iterator[None]:
    """The collector's files cannot grow: what `write` says on a full disk, without a disk to fill."""
    pid = ground.stack.pids.get("collector", 0)
    size = rng.choice((0, 4_096, 300_000))
    with contextlib.suppress(ProcessLookupError):
        if pid:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            if pid:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def _rescale(ground: Ground, rng: random.Random) -> Iterator[None]:
    """Go on with another number of workers."""
    ground.stack.rescale(rng.choice([number for number in (1, 2, 3) if number != ground.stack.workers]))
    yield


def _broker(ground: Ground) -> Link:
    return ground.to_broker


def _clickhouse(ground: Ground) -> Link:
    return ground.to_clickhouse


def _collector(ground: Ground) -> Link:
    return ground.to_collector


#: By name, in the order of the table that a run prints.
KINDS: Final[dict[str, Fault]] = {
    "kill worker": _kill("worker"),
    "kill collector": _kill("collector"),
    "kill clickhouse": _kill("clickhouse"),
    "kill broker": _kill("broker"),
    "kill broker and worker": _kill("broker", "worker"),
    "kill clickhouse and collector": _kill("clickhouse", "collector"),
    "kill everything": _kill_all,
    "rescale workers": _rescale,
    "pause worker": _pause("worker"),
    "pause clickhouse": _pause("clickhouse"),
    "pause collector": _pause("collector"),
    "pause broker": _pause("broker"),
    "cut broker": _cut(_broker),
    "delay broker": _break(_broker, "delay"),
    "hold broker": _break(_broker, "hold"),
    "swallow broker": _break(_broker, "swallow"),
    "refuse broker": _break(_broker, "refuse"),
    "lose broker's answers": _break(_broker, "lose answers"),
    "cut clickhouse": _cut(_clickhouse),
    "delay clickhouse": _break(_clickhouse, "delay"),
    "hold clickhouse": _break(_clickhouse, "hold"),
    "swallow clickhouse": _break(_clickhouse, "swallow"),
    "refuse clickhouse": _break(_clickhouse, "refuse"),
    "clickhouse answers 503": _break(_clickhouse, "answer 503"),
    "lose clickhouse's answers": _break(_clickhouse, "lose answers"),
    "strand inserts": _strand(),
    "strand inserts, kill broker": _strand("broker"),
    "cut collector": _cut(_collector),
    "lose collector's answers": _break(_collector, "lose answers"),
    "a view throws": _throwing_view,
    "disk full": _full_disk,
    **{f"die {point.replace('_', ' ')}": _die_at(point) for point in POINTS},
}
#: What waits for the stack by itself: not to be mixed with another fault.
ALONE: Final = frozenset({"kill everything", "rescale workers", "strand inserts", "strand inserts, kill broker"})
