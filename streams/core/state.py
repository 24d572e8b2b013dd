"""What a worker remembers of one partition: what the warehouse has stored, and what was settled and will be."""

from dataclasses import dataclass, field

from schemas.blocks import Partition, RecentState
from streams.core.recent_ids import RecentIds
from streams.core.recent_letters import RecentLetters
from streams.core.sessions import Session, Sessions


@dataclass(slots=True)
class PartitionState:
    """`position` is the first offset that is not stored; `journals` the highest sequence settled of each journal.

    `found` are stored ids that were looked up since the last eviction; `adopted` are events that an earlier log's
    unfinished blocks have stored, and whose records are still to come again.
    """

    partition: Partition
    position: int
    journals: dict[str, int]
    ids: RecentIds
    sessions: Sessions
    letters: RecentLetters = field(default_factory=RecentLetters)
    found: set[tuple[str, str]] = field(default_factory=set)
    adopted: set[tuple[str, str]] = field(default_factory=set)

    def load(self, recent: RecentState) -> None:
        """Take over what was read back."""
        self.ids.since = max(self.ids.since, recent.ids_since)
        self.ids.load(recent.ids)
        self.letters.since = recent.letters_since
        self.sessions.load_packed(recent.packed)
        for span in recent.sessions:
            self.sessions.load(span.visitor, Session(span.session_id, span.start, span.end, span.overridden))

    def evict(self, ids_before: int, sessions_before: int) -> None:
        """Forget what is old; allowed only when everything that was settled is stored."""
        self.ids.evict(ids_before)
        self.letters.evict(ids_before)
        self.sessions.evict(sessions_before)
        self.found.clear()
