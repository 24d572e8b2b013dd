"""The embedded stack runs for as long as one likes: what is stored leaves its broker and its journal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import RunningStack, eventually, running_stack

_MIB = 1 << 20


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[RunningStack]:
    with running_stack(tmp_path) as running:
        yield running


def test_broker_and_journal_let_go_of_what_is_stored(stack: RunningStack) -> None:
    sent = 0
    for _ in range(3):
        code, _, error = stack.run("demo", "--events", "6000", "--rate", "3000")
        assert code == 0, error
        sent += 6000
        eventually(lambda: stack.status()["inFlight"], lambda count: count == 0)
        assert stack.status()["accepted"] >= 0.9 * sent
        eventually(lambda: held(stack.folder / "data" / "journal"), lambda size: size < _MIB)
        eventually(lambda: held(stack.folder / "data" / "broker"), lambda size: size < _MIB)


def held(folder: Path) -> int:
    """Bytes on disk below a folder whose files come and go."""
    return sum(path.stat().st_size for path in list(folder.rglob("*")) if path.is_file())
