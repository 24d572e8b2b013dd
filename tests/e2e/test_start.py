"""What `headrace status --wait` waits for, and what deaths cost while the stack starts and when it runs."""

import signal
from pathlib import Path

import httpx
import pytest

from headrace.endpoints import Endpoints
from headrace.published import worker_urls
from tests.stack import eventually, new_stack

pytestmark = pytest.mark.timeout(240)


def test_ready_is_when_every_worker_is_and_one_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    with new_stack(tmp_path, workers=3) as stack:
        try:
            stack.begin()
            eventually(lambda: stack.pids, lambda pids: "worker-2" in pids)
            stack.send_signal("worker-2", signal.SIGKILL)
            assert not stack.status()["ready"]
            stack.await_ready()
            workers = worker_urls(Endpoints.found(stack.port_base), stack.port_base)
            assert [httpx.get(f"{url}/readyz").status_code for url in workers] == [200, 200, 200]
            stack.send_signal("worker-3", signal.SIGKILL)
            eventually(stack.status, lambda status: not status["ready"])
            eventually(stack.status, lambda status: status["ready"])
        finally:
            assert stack.stop(signal.SIGTERM) == 0


def test_workers_that_are_killed_together_do_not_wait_for_each_others_lost_members(tmp_path: Path) -> None:
    with new_stack(tmp_path, workers=2) as stack:
        try:
            stack.start()
            lost = stack.members()
            assert sorted(lost.values()) == ["worker", "worker-2"]
            for name in lost.values():
                stack.kill(name)
            eventually(lambda: stack.members().keys() - lost.keys(), bool)
            assert not stack.members().keys() & lost.keys()
            stack.await_ready()
        finally:
            assert stack.stop(signal.SIGTERM) == 0
