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

_ENOUGH: Final = 1 << 20
_RETRY_SECONDS: Final = 0.2
_AGAIN: Final = (b"429", b"500", b"502", b"503")


class Plan(msgspec.Struct):
    """What to send. `events` or `seconds` bounds it; `rate` is in events/s, 0 for as fast as answered."""

    port: int
    write_key: str
    per_request: int = 20
    connections: int = 64
    packed: bool = False
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
        self._packed = self._pack() if plan.packed else None
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

    def _pack(self) -> Iterator[Made]:
        """Compressed before the clock runs: gzip would cost the generator more than the collector."""
        now = time.time_ns() // 1_000_000
        made = (self._bodies.make(now) for _ in range(-(-self.plan.events // self.plan.per_request)))
        return iter([each._replace(body=gzip.compress(each.body, 6)) for each in made])

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
        plan = self.plan
        reader, writer = await asyncio.open_connection("127.0.0.1", plan.port, limit=_ENOUGH)
        head = _head(plan)
        while True:
            due = await self._turn()
            made = self._next()
            if made is None:
                break
            request = head % len(made.body) + made.body
            while True:
                writer.write(request)
                status, answer = await _answer(reader)
                if status == b"200":
                    break
                if status not in _AGAIN:
                    raise RuntimeError(f"The collector answered {status.decode()}: {answer[:500].decode()}")
                self._retries[status.decode()] += 1
                await asyncio.sleep(_RETRY_SECONDS)
            self._settle(made, answer, time.perf_counter() - due, len(request))
        writer.close()

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


def _head(plan: Plan) -> bytes:
    key = b64encode(f"{plan.write_key}:".encode()).decode()
    encoding = "content-encoding: gzip\r\n" if plan.packed else ""
    return (
        f"POST /v1/batch HTTP/1.1\r\nhost: 127.0.0.1:{plan.port}\r\nauthorization: Basic {key}\r\n{encoding}"
        "content-type: application/json\r\nuser-agent: headrace-bench\r\ncontent-length: %d\r\n\r\n"
    ).encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Status and body of one HTTP/1.1 answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0])
    return head[9:12], await reader.readexactly(length)


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
