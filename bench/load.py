"""The load generator, a process of its own: `python -m bench.load PLAN`, the plan as JSON.

Closed loop: each connection sends its next request when the last is answered. Every event is accounted for by the
answer that it got. It prints a Count as JSON once a second and at the end, `done` true in the last.

A line on stdin, a number, says how many accepted events are accounted for: with `window` in the plan, no more than
so many are under way beyond it, so that the rate is the one that the whole path sustains.
"""

import asyncio
import gzip
import sys
import time
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import uvloop

from bench.bodies import Bodies, Made

_CLOSED: Final = "The collector closed a connection."
_RETRY_SECONDS: Final = 0.2
_TRIALS: Final = 500
#: How much longer than the trials say the packing may take.
_SLACK: Final = 1.1
#: No body may be of a time that is still to come, as those of a wrong clock are.
_MARGIN_SECONDS: Final = 1.0
_AGAIN: Final = (b"429", b"500", b"502", b"503")


class Plan(msgspec.Struct):
    """What to send. `events` or `seconds` bounds it; `rate` is in events/s, 0 for as fast as answered.

    `packed`: gzip. Such bodies are made before, of the times at which they are sent where the path takes `due_rate`.
    """

    port: int
    write_key: str
    per_request: int = 20
    connections: int = 64
    packed: bool = False
    due_rate: float = 0.0
    bad: bool = False
    visitors: int = 50_000
    seed: int = 1
    events: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    window: int = 0


class Count(msgspec.Struct):
    """What has been answered. `stored`, `duplicate`, `dead`: what has to become of what was accepted."""

    seconds: float = 0.0
    requests: int = 0
    events: int = 0
    accepted: int = 0
    rejected: int = 0
    stored: int = 0
    duplicate: int = 0
    dead: int = 0
    bytes: int = 0
    unexpected: int = 0
    retries: dict[str, int] = msgspec.field(default_factory=dict)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_seconds: float = 0.0
    done: bool = False


class _Client(asyncio.Protocol):
    """One connection. Streams would take a fifth more of the cores that are measured for each request."""

    def __init__(self) -> None:
        self._data = b""
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    def ask(self, request: bytes) -> asyncio.Future[tuple[bytes, bytes]]:
        """Send a request; status and body of its answer, which has to have come before the next is sent.

        Raises ConnectionError, or has the answer raise it, where the connection is closed.
        """
        if self._transport.is_closing():
            raise ConnectionError(_CLOSED)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if end and len(body) == int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0]):
            self._data = b""
            if self._answer:
                self._answer.set_result((head[9:12], body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionError(_CLOSED))


class Load:
    """Sends what the plan says and counts the answers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.count = Count()
        self._retries: Counter[str] = Counter()
        self._latencies = array("f")
        self._seen = 0
        self._began = self._cpu = 0.0
        self._may_send = asyncio.Event()
        self._bodies = Bodies(plan.per_request, plan.visitors, plan.seed, plan.bad)
        self._packed = _pack(plan, self._bodies) if plan.packed else None
        self._sent = self._turns = 0

    def see(self, accounted: int) -> None:
        """Note that so many accepted events are stored, duplicate or dead."""
        self._seen = max(self._seen, accounted)
        self._may_send.set()

    async def run(self) -> Count:
        """Until all is sent and answered."""
        self._began, self._cpu = time.perf_counter(), time.process_time()
        reporting = asyncio.create_task(self._report())
        await asyncio.gather(*(self._connection() for _ in range(self.plan.connections)))
        reporting.cancel()
        return self._summed(done=True)

    def _next(self) -> Made | None:
        plan = self.plan
        if plan.events and self._sent >= plan.events:
            return None
        if plan.seconds and time.perf_counter() - self._began >= plan.seconds:
            return None
        made = self._bodies.make(time.time_ns() // 1_000_000) if self._packed is None else next(self._packed, None)
        self._sent += made.events if made else 0
        return made

    async def _connection(self) -> None:
        plan, loop = self.plan, asyncio.get_running_loop()
        transport, client = await loop.create_connection(_Client, "127.0.0.1", plan.port)
        head = _head(plan)
        while True:
            due = await self._turn()
            made = self._next()
            if made is None:
                break
            request = head % len(made.body) + made.body
            while True:
                status, answer = await client.ask(request)
                if status == b"200":
                    break
                if status not in _AGAIN:
                    raise RuntimeError(f"The collector answered {status.decode()}: {answer[:500].decode()}")
                self._retries[status.decode()] += 1
                await asyncio.sleep(_RETRY_SECONDS)
            self._settle(made, answer, time.perf_counter() - due, len(request))
        transport.close()

    async def _turn(self) -> float:
        """Wait until the next request may be sent; when it was due, so that a late one counts as late."""
        plan = self.plan
        while plan.window and self._sent - self.count.rejected - self._seen >= plan.window:
            self._may_send.clear()
            await self._may_send.wait()
        now = time.perf_counter()
        if not plan.rate:
            return now
        due = self._began + self._turns * plan.per_request / plan.rate
        self._turns += 1
        await asyncio.sleep(max(0.0, due - now))
        return due

    def _settle(self, made: Made, answer: bytes, seconds: float, size: int) -> None:
        count = self.count
        accepted, rejected = _verdict(answer)
        count.requests += 1
        count.events += made.events
        count.bytes += size
        count.accepted += accepted
        count.rejected += rejected
        count.stored += made.stored
        count.duplicate += made.duplicate
        count.dead += made.dead
        count.unexpected += abs(rejected - made.rejected)
        self._latencies.append(seconds * 1000)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(1)
            print(msgspec.json.encode(self._summed(done=False)).decode(), flush=True)

    def _summed(self, *, done: bool) -> Count:
        count = self.count
        count.seconds = time.perf_counter() - self._began
        count.cpu_seconds = time.process_time() - self._cpu
        count.retries = dict(self._retries)
        count.done = done
        if done and self._latencies:
            ordered = sorted(self._latencies)
            count.p50_ms, count.p99_ms = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        return count


def _pack(plan: Plan, bodies: Bodies) -> Iterator[Made]:
    """Bodies compressed before the clock runs: gzip would take 5 µs an event of the cores that are measured.

    They are of the time at which they are due, as those of clients are; it has come for the first when this returns.
    """
    count = -(-plan.events // plan.per_request)
    began = time.time()
    for _ in range(_TRIALS):
        gzip.compress(bodies.make(int(began * 1000)).body, 6)
    first = began + (time.time() - began) / _TRIALS * count * _SLACK
    step = plan.per_request / plan.due_rate
    made = (bodies.make(int((first + place * step - _MARGIN_SECONDS) * 1000)) for place in range(count))
    packed = [each._replace(body=gzip.compress(each.body, 6)) for each in made]
    time.sleep(max(0.0, first - time.time()))
    return iter(packed)


def _head(plan: Plan) -> bytes:
    key = b64encode(f"{plan.write_key}:".encode()).decode()
    encoding = "content-encoding: gzip\r\n" if plan.packed else ""
    return (
        f"POST /v1/batch HTTP/1.1\r\nhost: 127.0.0.1:{plan.port}\r\nauthorization: Basic {key}\r\n{encoding}"
        "content-type: application/json\r\nuser-agent: headrace-bench\r\ncontent-length: %d\r\n\r\n"
    ).encode()


def _verdict(answer: bytes) -> tuple[int, int]:
    """`{"accepted":A,"rejected":R,…`, read without parsing the verdict of every event."""
    accepted, _, rest = answer.partition(b'"accepted":')[2].partition(b",")
    return int(accepted), int(rest.partition(b'"rejected":')[2].partition(b",")[0].rstrip(b"}"))


async def _listen(load: Load) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        load.see(int(line))


async def _main(plan: Plan) -> None:
    load = Load(plan)
    print('{"ready":true}', flush=True)
    listening = asyncio.create_task(_listen(load))
    count = await load.run()
    print(msgspec.json.encode(count).decode(), flush=True)
    listening.cancel()


if __name__ == "__main__":
    uvloop.run(_main(msgspec.json.decode(sys.argv[1], type=Plan)))
