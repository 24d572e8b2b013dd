"""The bad events that lately became dead letters: they tell a second copy from a first without asking the store.

Times are ms since the epoch. An event is (companyId, eventId).
"""

from typing import Final

from schemas.blocks import END_OF_TIME

#: Events held, some 300 bytes each.
_LIMIT: Final = 20_000


class RecentLetters:
    """Every event with a letter that was received at or after `since`, and some received before.

    As in `RecentIds`, what is dropped has to be looked up in the store, so `evict` may only be called when the store
    has every letter that was added.
    """

    __slots__ = ("_received", "since")

    def __init__(self, since: int = END_OF_TIME) -> None:
        self.since = since
        self._received: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        """The number of events held."""
        return len(self._received)

    def __contains__(self, event: tuple[str, str]) -> bool:
        return event in self._received

    def covers(self, oldest: int) -> bool:
        """Whether an earlier copy of an event that is no older than `oldest` must be held, if it has a letter."""
        return oldest >= self.since

    def add(self, event: tuple[str, str], received_at: int) -> None:
        """Hold an event."""
        self._received[event] = received_at

    def evict(self, before: int) -> None:
        """Drop what was received before `before`, and while too many are held; `since` rises past what is dropped."""
        excess, gone = len(self._received) - _LIMIT, list[tuple[str, str]]()
        for event, received_at in self._received.items():
            if received_at >= before and len(gone) >= excess:
                break
            gone.append(event)
            self.since = max(self.since, received_at + 1)
        for event in gone:
            del self._received[event]
