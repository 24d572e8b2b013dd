"""Named points of a block at which a test lets the worker die, as by kill -9.

The folder HEADRACE_FAULTS_DIR holds a file for each fault to come: its name is the point, its content how many passings
to wait for ("3"; empty: the next). The process that passes for the last time removes the file and kills itself, so a
worker that is started again does not die of the same fault. Where no folder is set, nothing here is in the path.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import faust

from schemas.records import DeadLetter
from schemas.settings import ClickHouseSettings
from streams.ledger_transport import LedgerConsumer
from streams.letters import LetterLog
from warehouse.client import ClickHouse
from warehouse.native import Column

#: What a block does, in order. "sending letters" waits for the log's acknowledgement, "commit" is the group's offsets.
STEPS: Final = ("claim", "sending_letters", "events", "overrides", "dead_letters", "ledger", "commit")
#: Every point there is.
POINTS: Final = tuple(f"{side}_{step}" for step in STEPS for side in ("before", "after"))
_STEP_OF_TABLE: Final = {
    "block_claims": "claim",
    "events": "events",
    "session_overrides": "overrides",
    "dead_letters": "dead_letters",
    "blocks": "ledger",
}

Reach = Callable[[str], None]


def kill_self() -> None:
    """Die without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def reach_in(folder: Path, die: Callable[[], None] = kill_self) -> Reach:
    """A function to call with the name of each point that is passed."""

    def reach(point: str) -> None:
        path = folder / point
        try:
            left = int(path.read_text() or 1)
            if left > 1:
                path.write_text(str(left - 1))
                return
            path.unlink()  # of workers that pass at the same time, one succeeds
        except (FileNotFoundError, ValueError):
            return
        die()

    return reach


class FragileClickHouse(ClickHouse):
    """A connection that passes a point before and after each insert."""

    def __init__(self, settings: ClickHouseSettings, reach: Reach) -> None:
        super().__init__(settings)
        self._reach = reach

    def insert(self, table: str, names: Sequence[str], columns: Sequence[Column], token: str) -> None:
        """As in ClickHouse."""
        self._reach(f"before_{_STEP_OF_TABLE[table]}")
        super().insert(table, names, columns, token)
        self._reach(f"after_{_STEP_OF_TABLE[table]}")


class FragileLetters:
    """A LetterLog that passes a point before and after each flush."""

    def __init__(self, letters: LetterLog, reach: Reach) -> None:
        self._letters, self._reach = letters, reach

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """As in LetterLog."""
        self._reach("before_sending_letters")
        await self._letters.send(letters)
        self._reach("after_sending_letters")

    async def close(self) -> None:
        """As in LetterLog."""
        await self._letters.close()


class FragileConsumer(LedgerConsumer):
    """A consumer that passes a point before and after each commit of offsets."""

    reach: Reach

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        self.reach("before_commit")
        committed: bool = await super()._commit(offsets)
        self.reach("after_commit")
        return committed


def make_commits_fragile(app: faust.App, reach: Reach) -> None:
    """To be called before the app has started."""
    app.transport.Consumer = type("Fragile", (FragileConsumer, app.transport.Consumer), {"reach": staticmethod(reach)})
