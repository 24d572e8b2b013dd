"""What a chaos run does things to: a stack behind proxies, its producers, and the folder of its faults."""

import contextlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.producers import Producers
from tests.chaos.proxy import Link
from tests.stack import RunningStack

#: The shortest that Apache Kafka takes by default.
SESSION_SECONDS = 6


@dataclass(frozen=True, slots=True)
class Ground:
    """A running stack, with a proxy between any two of its parts."""

    stack: RunningStack
    to_broker: Link
    to_clickhouse: Link
    to_collector: Link
    faults: Path
    producers: Producers

    @property
    def workers(self) -> list[str]:
        """The names of the workers that run now."""
        return sorted(name for name in self.stack.pids if name.startswith("worker"))

    def signal(self, name: str, number: signal.Signals) -> bool:
        """Send a signal to a program; False where it does not run now."""
        with contextlib.suppress(KeyError, ProcessLookupError):
            self.stack.send_signal(name, number)
            return True
        return False

    def command(self, sql: str) -> str:
        """ClickHouse's answer; raises httpx.HTTPError where it does not do it."""
        host, port = self.stack.clickhouse_at
        return httpx.post(f"http://{host}:{port}", content=sql.encode(), timeout=30).raise_for_status().text

    def rows(self, sql: str) -> list[list[Any]]:
        """As RunningStack.query."""
        return self.stack.query(sql)

    def recovery(self, began: float, seconds: float) -> float:
        """Wait until what was accepted last is stored or dead; the seconds since `began`. Fails after `seconds`."""
        events = set(self.producers.latest)
        latest = ", ".join(f"'{event_id}'" for event_id in events)
        sql = (
            f"SELECT uniqExact(eventId) FROM (SELECT eventId FROM headrace.event_ids WHERE eventId IN ({latest}) "
            f"UNION ALL SELECT eventId FROM headrace.dead_letters WHERE eventId IN ({latest}))"
        )
        while time.monotonic() - began < seconds:
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                if not events or int(self.rows(sql)[0][0]) >= len(events):
                    return time.monotonic() - began
            time.sleep(0.2)
        raise AssertionError(f"What was accepted last was not stored within {seconds:.0f} s of the fault's end.")


@contextmanager
def prepared(stack: RunningStack, seed: int, rate: float, most: int) -> Iterator[Ground]:
    """Start the stack behind its proxies, and stop all of it with the block; the producers are to be started."""
    faults = stack.folder / "faults"
    faults.mkdir()
    with contextlib.ExitStack() as closing:
        links = [
            Link(stack.brokers_at, kafka=True),
            Link([stack.clickhouse_at]),
            Link([stack.collector_at]),
        ]
        for link in links:
            closing.callback(link.close)
        stack.detour(links[0].ports, links[1].ports[0])
        stack.environment["HEADRACE_PARTITIONS"] = "4"
        stack.environment["HEADRACE_FAULTS_DIR"] = str(faults)
        stack.environment["HEADRACE_GROUP_SESSION_SECONDS"] = str(SESSION_SECONDS)
        closing.callback(stack.stop, signal.SIGTERM)
        stack.start()
        producers = Producers(seed, rate, most, links[2].ports[0], stack.write_key)
        yield Ground(stack, links[0], links[1], links[2], faults, producers)
