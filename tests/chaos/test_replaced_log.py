"""No worker of a log that is gone is left when another log takes its place."""

from contextlib import suppress
from pathlib import Path

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
