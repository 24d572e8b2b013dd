"""Storms: what one client, one tenant or one visitor does out of all proportion is bounded, and others do not notice.

Memory is the resident set of the collector's process, before against the most it has been since.
"""

import asyncio
import gzip
import json
import re
import resource
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from collector.limits import BURST_SECONDS, MAX_BODY, MAX_CONTEXT_TEXT, MAX_HEAD, MAX_PROPERTIES
from collector.sink import MemorySink
from tests.collecting import BOLT, Clock, client_of, collector, event
from tests.stack import RunningStack, eventually, new_stack

#: The bounds that docs/reliability.md states, in bytes.
OF_A_CONNECTION = 24 << 10
OF_A_BODY = 24 << 20  # inflated, parsed and refused
SLACK = 32 << 20  # the interpreter's own, whatever the number of connections

PROGRAM = """
import sys, uvloop
from collector.app import Collector
from collector.serve import serve
from collector.settings import CollectorSettings
from collector.sink import MemorySink
from tests.collecting import FixedTenants

class Forgetting(MemorySink):
    async def send(self, records):
        pass

async def main():
    return await serve(Collector(FixedTenants(), Forgetting()), CollectorSettings(collector_port=0))

sys.exit(uvloop.run(main()))
"""


@dataclass
class Served:
    """A collector in a process of its own that forgets what it accepts."""

    process: Process
    port: int

    async def post(self, body: Any = None, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(auth=("wk-acme", ""), timeout=60) as client:
            return await client.post(self._url("/v1/batch"), json=body, **options)

    async def metric(self, name: str) -> float:
        async with httpx.AsyncClient(timeout=60) as client:
            text = (await client.get(self._url("/metrics"))).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def memory(self, name: str) -> int:
        """VmRSS: now; VmHWM: the most since the start."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"{name}:\s+(\d+) kB", text)[0]) << 10

    def connect(self, sent: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(sent)
        return connection


@asynccontextmanager
async def served(monkeypatch: pytest.MonkeyPatch, **settings: int) -> AsyncIterator[Served]:
    for name, value in settings.items():
        monkeypatch.setenv(f"HEADRACE_COLLECTOR_{name.upper()}", str(value))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=PIPE)
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            if found := re.search(r"127\.0\.0\.1:(\d+)", line.decode()):
                found_one = Served(process, int(found[1]))
                assert (await found_one.post(event())).status_code == 200
                yield found_one
                return
        raise AssertionError("The collector did not start.")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


HEAD = b"POST /v1/batch?k=wk-acme HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
HALF_A_HEAD = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nX-Slow: "


def tell(what: str, there: Served, before: int) -> int:
    """The growth since; shown by `pytest -s`, from which docs/reliability.md has its figures."""
    grown = there.memory("VmHWM") - before
    print(f"{what}: {grown >> 20} MiB")
    return grown


def has_ended(connection: socket.socket) -> bool:
    """Wait for the server to close it."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


async def test_ten_thousand_slow_connections_keep_nobody_out_and_each_costs_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 10_500:
        pytest.skip(f"a process may open {hard} files here, and the test needs 10,500")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        async with served(monkeypatch, connections=4_000, request_seconds=600) as there:
            before = there.memory("VmRSS")
            with ExitStack() as opened:
                for number in range(10_000):
                    sent = HEAD % 1_000 + b"{" if number % 2 else HALF_A_HEAD
                    opened.enter_context(there.connect(sent))
                    if number % 1_000 == 0:
                        assert (await there.post(event())).json()["accepted"] == 1
                answers = [(await there.post(event())).status_code for _ in range(20)]
                assert answers == [200] * 20
                assert await there.metric("headrace_collector_connections_closed_total") >= 6_000
                assert tell("slow connections", there, before) < 4_000 * OF_A_CONNECTION + SLACK
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_request_that_does_not_arrive_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(monkeypatch, request_seconds=1) as there:
        for sent in (b"", HALF_A_HEAD, HEAD % 1_000 + b"{"):
            with there.connect(sent) as connection:
                assert has_ended(connection)
        assert await there.metric("headrace_collector_connections_closed_total") == 3
        assert (await there.post(event())).status_code == 200


async def test_a_head_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(monkeypatch) as there:
        with there.connect(HALF_A_HEAD + b"x" * (MAX_HEAD + 1)) as connection:
            assert connection.recv(1_000).startswith(b"HTTP/1.1 400 ")


async def test_bodies_that_do_not_end_hold_no_more_than_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 16 << 20
    async with served(monkeypatch, body_bytes=most, request_seconds=600) as there:
        before = there.memory("VmRSS")
        with ExitStack() as opened:
            for _ in range(100):
                opened.enter_context(there.connect(HEAD % MAX_BODY + b" " * (MAX_BODY - 1_000)))
                assert (await there.post(event())).status_code == 200
            assert await there.metric("headrace_collector_connections_closed_total") > 80
            assert tell("bodies", there, before) < 2 * most + SLACK


async def test_a_gzip_bomb_is_refused_within_the_memory_of_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b" " * (900 << 20), 9)
    assert MAX_BODY > len(bomb) > MAX_BODY // 2
    async with served(monkeypatch) as there:
        before = there.memory("VmRSS")
        headers = {"content-encoding": "gzip"}
        bombs = (there.post(content=bomb, headers=headers) for _ in range(8))
        calm, *answers = await asyncio.gather(there.post(event()), *bombs)
        assert {answer.status_code for answer in answers} == {413}
        assert calm.json()["accepted"] == 1
        assert tell("bombs", there, before) < OF_A_BODY + SLACK


async def test_a_tenant_at_fifty_times_its_rate_is_refused_the_rest_and_no_other_tenant_is() -> None:
    sink, clock, rate = MemorySink(), Clock(), BOLT.rate_limit or 0
    app = collector(sink, clock)
    async with client_of(app, "wk-bolt") as storm, client_of(app, "wk-acme") as calm:
        taken, refused, seconds = 0, 0, 20
        for tick in range(50 * seconds):
            clock.now += 1 / 50
            answer = await storm.post("/v1/batch", json={"batch": [event(companyId=None) for _ in range(rate)]})
            taken += answer.json().get("accepted", 0)
            refused += answer.status_code == 429
            assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
            if tick % 10 == 0:
                assert (await calm.post("/v1/batch", json=event(companyId=None))).json()["accepted"] == 1
    assert rate * seconds <= taken <= rate * (seconds + BURST_SECONDS)
    assert refused == 50 * seconds - taken // rate


BAD_SEARCH = {"type": "track", "eventCategory": "search", "eventAction": "search", "properties": {"term": 1}}
GOOD = {"type": "track", "eventCategory": "ui", "eventAction": "opened"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with new_stack(tmp_path_factory.mktemp("storms")) as found:
        found.environment |= {"HEADRACE_DEAD_SHARE_EVENTS": "200", "HEADRACE_BLOCK_MAX_BYTES": "40000"}
        found.environment["HEADRACE_PARTITIONS"] = "4"
        try:
            found.start()
            yield found
        finally:
            found.stop()


def paused(stack: RunningStack) -> dict[int, bool]:
    """Of each partition of events that a worker owns."""
    text = httpx.get(f"http://127.0.0.1:{stack.port_base + 4}/metrics", timeout=30).text
    found = re.findall(r'headrace_worker_paused_partitions\{partition="(\d+)",topic="events.collected"\} (\S+)', text)
    return {int(partition): value == "1.0" for partition, value in found}


def send(stack: RunningStack, visitor: str, event: dict[str, Any], count: int, **fields: Any) -> None:
    for start in range(0, count, 500):
        batch = [{**event, "anonymousId": visitor, **fields} for _ in range(min(500, count - start))]
        assert stack.post({"batch": batch})["accepted"] == len(batch)


def figures(stack: RunningStack) -> tuple[int, int]:
    """Events stored and dead."""
    status = stack.status()
    return status["stored"], status["dead"]


def test_an_event_of_the_largest_size_arrives_whole(stack: RunningStack) -> None:
    largest: dict[str, Any] = {
        **GOOD,
        "eventLabel": "ü" * 500,
        "properties": {"text": "ü" * ((MAX_PROPERTIES - 20) // 2)},
        "context": {"url": "https://acme.example/" + "p" * (MAX_CONTEXT_TEXT - 30), "title": "é" * MAX_CONTEXT_TEXT},
    }
    before = figures(stack)
    send(stack, "large", largest, 25)
    eventually(lambda: figures(stack), lambda found: found == (before[0] + 25, before[1]))
    columns = "uniqExact(properties), any(length(properties)), any(lengthUTF8(title)), any(lengthUTF8(url)), count()"
    sql = f"SELECT {columns} FROM headrace.events WHERE anonymousId = 'large'"
    text = json.dumps(largest["properties"], ensure_ascii=False, separators=(",", ":"))
    expected = [1, len(text.encode()), MAX_CONTEXT_TEXT, len(largest["context"]["url"]), 25]
    assert [int(value) for value in stack.query(sql)[0]] == expected


def test_a_visitor_who_sends_nine_tenths_of_all_is_exact_and_so_are_the_others(stack: RunningStack) -> None:
    before = figures(stack)
    for number in range(9):
        send(stack, "hot", GOOD, 500)
        for other in range(5):
            send(stack, f"other-{number}-{other}", GOOD, 10)
    eventually(lambda: figures(stack), lambda found: found == (before[0] + 9 * 550, before[1]))


def test_bad_traffic_pauses_its_partition_holds_up_no_other_and_goes_on_once_it_is_accepted(
    stack: RunningStack,
) -> None:
    before = figures(stack)
    send(stack, "storm", BAD_SEARCH, 3_000)  # many times the three blocks that a worker holds of a partition
    eventually(lambda: paused(stack), lambda found: True in found.values())
    (place,) = (partition for partition, is_paused in paused(stack).items() if is_paused)
    assert stack.status()["pausedPartitions"] == 1
    assert figures(stack) == before
    names = [f"calm-{number}" for number in range(40)]
    places = f"kafkaMurmurHash(concat('demo:calm-', toString(number))) % {len(paused(stack))}"
    elsewhere = [int(row[0]) != place for row in stack.query(f"SELECT {places} FROM numbers(40)")]
    for name in names:
        send(stack, name, GOOD, 1)
    assert sum(elsewhere) > 0
    eventually(lambda: figures(stack), lambda found: found[0] == before[0] + sum(elsewhere))
    assert figures(stack) == (before[0] + sum(elsewhere), before[1])
    assert "acceptDeadLetters: true" in next((stack.folder / "data").rglob("worker*.log")).read_text()
    tenants = stack.folder / "data" / "tenants.yaml"
    document = yaml.safe_load(tenants.read_text())
    document["tenants"]["demo"]["acceptDeadLetters"] = True
    tenants.write_text(yaml.safe_dump(document))
    eventually(lambda: figures(stack), lambda found: found == (before[0] + 40, before[1] + 3_000))
    assert True not in paused(stack).values()
    code, report = stack.verify()
    assert code == 0, report
