"""No worker of a log that is gone is left when another log takes its place."""

import socket
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.stack import RunningStack, eventually, running_stack


def workers_of(stack: RunningStack) -> list[int]:
    """Every worker process there is, watched or not."""
    with suppress(psutil.NoSuchProcess):
        (up,) = {psutil.Process(pid).ppid() for pid in stack.pids.values()}
        return [child.pid for child in psutil.Process(up).children() if child.cmdline()[-1:] == ["worker"]]
    return []


@pytest.mark.timeout(400)
def test_broker_and_worker_killed_together_leave_one_worker_of_each_name(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        for _ in range(3):
            before = stack.pids["worker"]
            for name in ("worker", "broker"):
                stack.kill(name)
            eventually(lambda: stack.pids.get("worker", before), lambda pid: pid != before)  # noqa: B023
            eventually(stack.status, lambda status: bool(status["ready"]))
            eventually(lambda: workers_of(stack), lambda pids: pids == [stack.pids["worker"]])
        assert "already in use" not in (tmp_path / "data/logs/worker.log").read_text()


@pytest.mark.timeout(400)
def test_what_was_on_its_way_to_clickhouse_when_the_log_was_lost_is_not_stored(tmp_path: Path) -> None:
    head = b"POST /?query=INSERT+INTO+late+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
    with running_stack(tmp_path) as stack, socket.create_connection(stack.clickhouse_at) as late:
        host, port = stack.clickhouse_at
        made = httpx.post(f"http://{host}:{port}", content="CREATE TABLE late (a UInt8) ENGINE MergeTree ORDER BY a")
        made.raise_for_status()
        late.sendall(head + b"1\n")
        before = stack.pids["worker"]
        stack.kill("broker")
        eventually(lambda: stack.pids.get("worker", before), lambda pid: pid != before)
        eventually(stack.status, lambda status: bool(status["ready"]))
        with suppress(ConnectionError):
            late.sendall(b"2\n")
            assert late.recv(100) == b""
        assert stack.query("SELECT count() FROM default.late") == [[0]]


@pytest.mark.timeout(400)
def test_a_worker_that_dies_while_the_others_of_a_new_log_are_started_does_not_hold_them_up(tmp_path: Path) -> None:
    with running_stack(tmp_path, workers=2) as stack:
        second = stack.pids["worker-2"]
        stack.kill("broker")
        eventually(lambda: stack.pids.get("worker-2", second), lambda pid: pid != second)
        assert "worker" in stack.members().values()
        stack.kill("worker")
        eventually(stack.status, lambda status: bool(status["ready"]))
        said = (tmp_path / "up.log").read_text()
        assert "child_ended" in said
        assert "child_not_started" not in said
